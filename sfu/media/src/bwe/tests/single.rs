//! What needs no closed loop: clients without transport-wide feedback, arbitrary input, time per packet.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::bwe::{Estimator, EstimatorConfig};
use crate::ids::Ssrc;
use crate::rtcp::{Rtcp, TwccArrival, parse, write_twcc};
use crate::sim::clock::epoch;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn feed(estimator: &mut Estimator, bytes: &[u8], now: Instant) {
    for packet in parse(bytes) {
        if let Ok(Rtcp::TransportCc(feedback)) = packet {
            estimator.on_feedback(&feedback, now);
        }
    }
}

#[test]
fn reports_control_a_client_without_transport_wide_feedback() {
    let config = EstimatorConfig::default();
    let mut estimator = Estimator::new(config, epoch());
    let mut now = epoch();
    let mut number = 1;
    let mut second = |estimator: &mut Estimator, lost: u8| {
        // Sends what it may.
        for _ in 0..100 {
            now += ms(10);
            let size = estimator.target_bps() as usize / 8 / 100;
            estimator.on_sent(number, [size].into_iter(), None, now);
            number += 1;
        }
        estimator.on_report(lost, Some(ms(80)), now);
        estimator.target_bps()
    };
    for _ in 0..10 {
        second(&mut estimator, 0);
    }
    let grown = estimator.target_bps();
    assert!((1_000_000..1_100_000).contains(&grown), "{grown}");
    assert_eq!(second(&mut estimator, 13), grown, "five percent change nothing");
    let fallen = second(&mut estimator, 128);
    assert!((fallen as f64 / grown as f64 - 0.75).abs() < 0.01, "{fallen}");
    assert_eq!(estimator.loss(), 0.5);
    assert_eq!(estimator.rtt(), Some(ms(80)));
    assert_eq!(estimator.poll_timeout(), None);
    estimator.on_remb(200_000, epoch() + ms(20_000));
    assert_eq!(estimator.target_bps(), 200_000);
    estimator.on_remb(1, epoch() + ms(20_000));
    assert_eq!(estimator.target_bps(), config.min_bps);
    estimator.on_remb(u64::MAX, epoch() + ms(20_000));
    assert_eq!(estimator.target_bps(), fallen);
}

#[test]
fn silence_halves_the_estimate_until_the_floor() {
    let config = EstimatorConfig::default();
    let mut estimator = Estimator::new(config, epoch());
    let mut now = epoch();
    let mut bytes = Vec::new();
    for number in 1..=20u16 {
        now += ms(10);
        estimator.on_sent(u64::from(number), [1000].into_iter(), None, now);
        let arrival = TwccArrival { seq: number, ticks: u64::from(number) * 40 };
        bytes.clear();
        write_twcc(&mut bytes, Ssrc(1), Ssrc(2), number, number as u8, &[arrival]);
        feed(&mut estimator, &bytes, now + ms(5));
    }
    assert!(estimator.target_bps() >= config.start_bps);
    for number in 21..3000u64 {
        now += ms(10);
        estimator.on_sent(number, [1000].into_iter(), None, now);
        if estimator.poll_timeout().is_some_and(|at| at <= now) {
            estimator.handle_timeout(now);
        }
        if number == 120 {
            assert!(estimator.target_bps() < config.start_bps / 2, "{}", estimator.target_bps());
        }
    }
    assert_eq!(estimator.target_bps(), config.min_bps);
}

#[derive(Debug, Clone)]
enum Step {
    Sent { skip: u64, size: usize, probe: bool },
    Feedback { base: u16, arrivals: Vec<(u16, u64)> },
    Bytes(Vec<u8>),
    Remb(u64),
    Report(u8, Option<u64>),
    Demand(u64, u64),
    Timeout,
}

fn step() -> impl Strategy<Value = Step> {
    let gaps = prop::collection::vec((1..50u16, any::<u64>()), 0..40);
    prop_oneof![
        8 => (prop_oneof![Just(1), 0..3u64, any::<u64>()], prop_oneof![0..1500usize, any::<usize>()], any::<bool>())
            .prop_map(|(skip, size, probe)| Step::Sent { skip, size, probe }),
        4 => (any::<u16>(), gaps.clone()).prop_map(|(base, arrivals)| Step::Feedback { base, arrivals }),
        4 => (0..30u16, gaps).prop_map(|(base, arrivals)| Step::Feedback { base, arrivals }),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|mut bytes| {
            bytes.splice(0..0, [0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes[3] = (bytes.len() / 4 - 1) as u8;
            Step::Bytes(bytes)
        }),
        1 => any::<u64>().prop_map(Step::Remb),
        1 => (any::<u8>(), any::<Option<u64>>()).prop_map(|(lost, rtt)| Step::Report(lost, rtt)),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(allocated, wanted)| Step::Demand(allocated, wanted)),
        2 => Just(Step::Timeout),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes whenever: no panic, and what is allowed stays in its bounds.
    #[test]
    fn anything_at_any_time(
        steps in prop::collection::vec((step(), prop_oneof![0..5_000u64, 0..2_000_000u64, 0..100_000_000_000u64]), 0..120)
    ) {
        let config = EstimatorConfig { start_bps: 400_000, min_bps: 20_000, max_bps: 9_000_000 };
        let mut estimator = Estimator::new(config, epoch());
        let mut now = epoch();
        let mut number = 1u64;
        let mut probe = None;
        for (step, wait) in steps {
            now += Duration::from_micros(wait);
            match step {
                Step::Sent { skip, size, probe: of_probe } => {
                    number = number.wrapping_add(skip);
                    estimator.on_sent(number, [size].into_iter(), probe.filter(|_| of_probe), now);
                }
                Step::Feedback { base, arrivals } => {
                    let mut seq = base;
                    let arrivals: Vec<_> = arrivals
                        .into_iter()
                        .map(|(gap, ticks)| {
                            seq = seq.wrapping_add(gap);
                            TwccArrival { seq, ticks }
                        })
                        .collect();
                    let mut bytes = Vec::new();
                    write_twcc(&mut bytes, Ssrc(1), Ssrc(2), base, 0, &arrivals);
                    feed(&mut estimator, &bytes, now);
                }
                Step::Bytes(bytes) => feed(&mut estimator, &bytes, now),
                Step::Remb(bps) => estimator.on_remb(bps, now),
                Step::Report(lost, rtt) => estimator.on_report(lost, rtt.map(Duration::from_micros), now),
                Step::Demand(allocated, wanted) => estimator.set_demand(allocated, wanted, now),
                Step::Timeout => {
                    estimator.handle_timeout(now);
                    probe = estimator.poll_probe(now).map(|probe| probe.id).or(probe);
                    // It does not want to be called again at once.
                    prop_assert!(estimator.poll_timeout().is_none_or(|at| at > now));
                }
            }
            prop_assert!((20_000..=9_000_000).contains(&estimator.target_bps()));
            prop_assert!(estimator.pacing_bps() >= estimator.target_bps());
            prop_assert!((0.0..=1.0).contains(&estimator.loss()));
        }
    }
}

/// Sends and acknowledges packets in fifties. 300 a second of 1200 bytes.
fn fifties(estimator: &mut Estimator, rounds: u64, mut timed: impl FnMut(&mut dyn FnMut())) {
    let mut now = epoch();
    let mut number = 1u64;
    let mut feedback = Vec::new();
    for _ in 0..rounds {
        let first = number;
        let mut arrivals = Vec::new();
        for _ in 0..50 {
            now += Duration::from_micros(3333);
            arrivals.push(TwccArrival { seq: number as u16, ticks: number * 3333 / 250 });
            estimator.on_sent(number, [1200].into_iter(), None, now);
            number += 1;
        }
        feedback.clear();
        write_twcc(&mut feedback, Ssrc(1), Ssrc(2), first as u16, first as u8, &arrivals);
        timed(&mut || feed(estimator, &feedback, now));
    }
}

#[test]
fn allocates_nothing_once_warm() {
    let mut estimator = Estimator::new(EstimatorConfig::default(), epoch());
    let mut rounds = 0;
    fifties(&mut estimator, 400, |work| {
        rounds += 1;
        let info = allocation_counter::measure(work);
        assert!(rounds < 100 || info.count_total == 0, "round {rounds}: {info:?}");
    });
    let mut number = 1_000_000u64;
    let mut now = epoch() + Duration::from_secs(1000);
    for round in 0..3 {
        let info = allocation_counter::measure(|| {
            for _ in 0..5000 {
                now += ms(3);
                estimator.on_sent(number, [1200].into_iter(), None, now);
                number += 1;
            }
        });
        assert!(round == 0 || info.count_total == 0, "{info:?}");
    }
}

/// Prints what a packet sent and a feedback of fifty cost: `cargo test --release -p sfu-media bwe::tests::single::cost --
/// --ignored --nocapture`.
#[test]
#[ignore = "measures time"]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn cost() {
    let mut estimator = Estimator::new(EstimatorConfig::default(), epoch());
    let (rounds, mut in_feedback) = (20_000u64, Duration::ZERO);
    let start = Instant::now();
    fifties(&mut estimator, rounds, |work| {
        let start = Instant::now();
        work();
        in_feedback += start.elapsed();
    });
    let sending = start.elapsed() - in_feedback;
    println!(
        "on_sent (with writing the feedback) {} ns, on_feedback of 50 packets (with parsing) {} ns",
        sending.as_nanos() as u64 / rounds / 50,
        in_feedback.as_nanos() as u64 / rounds
    );
    assert!(estimator.target_bps() > 0);
}
