//! Joining, waiting, strangers and disconnects: what is reported is what was brought about, within the error stated beside
//! each. To that comes what the machine adds, which the tests measure beside the tester (`Machine`).
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadtest::client::{Visit, join};
use loadtest::report::Report;
use loadtest::run::{Share, Target};
use loadtest::scenario::{Resolution, Role, Scenario, Span};
use support::{Harm, Host, Machine, Proxy, Wire, measure, measure_at, near, scenario, waits_ms};

/// One run at a time: each wants its share of the machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn speakers(count: u32) -> Role {
    Role { muted: 0.0, ..Role::speaking(count, None, true) }
}

/// Signalling through a wire.
fn through(host: &Host, wire: &Wire) -> Target {
    Target { url: format!("ws://{}", wire.address), ..host.target() }
}

fn upstream(host: &Host) -> std::net::SocketAddr {
    host.url.strip_prefix("ws://").unwrap().parse().unwrap()
}

#[test]
fn each_phase_of_a_join_takes_what_its_own_network_takes() {
    let _alone = alone();
    let host = Host::start(true);
    let scenario = Scenario { ramp: Span::ms(1_500), ..scenario(4, speakers(2), 1) };
    // What each thread waits for a core each time that it is its turn; the most of all runs.
    let waits = Cell::new(0.0f64);
    let run = |wire: u64, udp: u64| {
        let wire = Wire::start(upstream(&host), Duration::from_millis(wire));
        let delay = Duration::from_millis(udp);
        let _proxy = Proxy::start(host.named, host.media, Harm { delay, ..Harm::default() });
        let machine = Machine::watch();
        let report = measure_at(&through(&host, &wire), &scenario, Share::whole(), |_| {});
        assert_eq!((report.joins.joined, report.joins.failed), (8, 0), "{:?}", report.joins.reasons);
        let away = machine.away();
        // Of half of the joins.
        waits.set(waits.get().max(waits_ms(&[&away; 30], 0.5) / 30.0));
        let joins = report.joins;
        [joins.connect_ms.p50, joins.admit_ms.p50, joins.transport_ms.p50, joins.total_ms.p50]
    };
    let (bare, wire, udp) = (run(0, 0), run(40, 0), run(0, 40));
    // A message's way goes over tester, wire, signalling and relay; a datagram's over tester, proxy and relay. There and back in
    // each phase, for the media path two of the former and three of the latter.
    let (one, all) = (8.0 * waits.get(), 30.0 * waits.get());
    let more = |with: [f64; 4], phase: usize| with[phase] - bare[phase];
    // The WebSocket's handshake is one round trip of 80 ms; the join response comes right behind its answer.
    near("connect over a slow wire (ms)", more(wire, 0), 80.0, 10.0 + one);
    near("admit over a slow wire (ms)", more(wire, 1), 0.0, 10.0 + one);
    // The track is announced, then the offer is answered: two round trips.
    near("media path over a slow wire (ms)", more(wire, 2), 160.0, 20.0 + all);
    near("connect with slow media (ms)", more(udp, 0), 0.0, 10.0 + one);
    near("admit with slow media (ms)", more(udp, 1), 0.0, 10.0 + one);
    // Three round trips: ICE's check, and two of DTLS.
    near("media path with slow media (ms)", more(udp, 2), 240.0, 25.0 + all);
    for with in [wire, udp] {
        near("join in all (ms)", with[3], with[0] + with[1] + with[2], 15.0 + all);
    }
}

#[test]
fn the_first_picture_is_waited_for_as_long_as_the_network_holds_it_back() {
    let _alone = alone();
    let host = Host::start(true);
    // Two in a room, at the same time: each is there when the other's first frame goes out.
    let scenario = Scenario {
        ramp: Span::ms(0),
        measure_joining: true,
        ..scenario(2, Role::speaking(2, Some(Resolution::P180), false), 4)
    };
    let late = Cell::new(0.0f64);
    let run = |hold_first| {
        let proxy = Proxy::start(host.named, host.media, Harm { hold_first, ..Harm::default() });
        let machine = Machine::watch();
        let report = measure(&host, &scenario, |_| {});
        late.set(late.get().max(2.0 * (machine.away().most_ms() + proxy.away().most_ms())));
        assert_eq!((report.video.streams, report.all.missing), (4, 0));
        assert!(report.key_wait_ms.count >= 4, "{:?}", report.key_wait_ms);
        report.key_wait_ms
    };
    let (bare, held) = (run(Duration::ZERO), run(Duration::from_millis(1500)));
    // Frames are 50 ms apart.
    near("key-frame wait (ms)", held.p50 - bare.p50, 1500.0, 60.0 + late.get());
}

/// Somebody who joins the room of a run whose number is `run`.
fn visitor(host: &Host, run: u64, identity: &str, passphrase: &str) -> Visit {
    Visit {
        url: host.url.clone(),
        trust: None,
        token: host.token(&format!("loadtest-{run:x}-1"), identity),
        passphrase: Some(passphrase.to_owned()),
        video: false,
        audio: true,
        local: Ipv4Addr::LOCALHOST.into(),
    }
}

fn visit(visit: Visit, after: u64, seconds: u64) -> std::thread::JoinHandle<anyhow::Result<()>> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(after));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(join(visit, seconds, |_| Ok(())))
    })
}

#[test]
fn frames_of_a_stranger_fail_authentication_and_are_counted() {
    let _alone = alone();
    let host = Host::start(false);
    let share = Share { run: 7, ..Share::whole() };
    let stranger = visit(visitor(&host, 7, "stranger", "not the key of the run"), 300, 8);
    let machine = Machine::watch();
    let report = measure_at(&host.target(), &scenario(1, speakers(2), 3), share, |_| {});
    // What is late at either end of the window: from stranger to relay, and from there to each of the two.
    let late = 2.0 * 50.0 * 3.0 * machine.away().most_ms() / 1e3;
    stranger.join().unwrap().unwrap();
    // A tone of 50 packets a second for two listeners and three seconds.
    near("frames that failed", report.audio.failed as f64, 300.0, 12.0 + late);
    assert_eq!((report.audio.clear, report.audio.streams), (0, 4), "two of them the stranger's");
    assert!(report.audio.frames > 50, "those of the run open: {}", report.audio.frames);
    let broken: Vec<_> = report.objectives.iter().filter(|o| !o.holds).map(|o| o.name.as_str()).collect();
    assert!(broken.contains(&"frames that failed authentication"), "{broken:?}");
}

#[test]
fn disconnects_are_counted_by_their_reason() {
    let _alone = alone();
    let host = Host::start(false);
    let wire = Wire::start(upstream(&host), Duration::ZERO);
    let share = Share { run: 8, ..Share::whole() };
    // Who joins as one of them puts that one out; a second later it is back, and puts the visitor out.
    let double = visit(visitor(&host, 8, "bot-1-0", "a load test"), 3_000, 6);
    let mut cut = false;
    let report = measure_at(&through(&host, &wire), &scenario(1, speakers(3), 7), share, |p| {
        // By then everybody is back.
        if p.elapsed > Duration::from_secs(6) && !cut {
            cut = true;
            wire.cut();
        }
    });
    assert!(double.join().unwrap().is_err(), "the visitor was put out as well");
    let count = |word: &str| -> u64 {
        report.disconnects.iter().filter(|(reason, _)| reason.contains(word)).map(|(_, count)| count).sum()
    };
    assert_eq!(count("the server ended the session: DuplicateIdentity"), 1, "{:?}", report.disconnects);
    assert_eq!(count("the signalling connection was lost"), 3, "{:?}", report.disconnects);
    assert_eq!(report.disconnects.values().sum::<u64>(), 4, "{:?}", report.disconnects);
    // Three at first, and everybody who was put out again.
    assert_eq!((report.joins.joined, report.joins.failed), (7, 0), "{:?}", report.joins.reasons);
}
