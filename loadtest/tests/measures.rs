//! Each measurement against a network with known loss, delay, jitter and freezes:
//! what is reported is what was put in, within the error stated beside each. To that comes what the machine adds, which the tests
//! measure beside the tester (`Machine`, `Way`): next to nothing where nothing else runs.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadtest::agent::{AgentSecret, run_together, serve};
use loadtest::measure::Kind;
use loadtest::report::{Objectives, Report};
use loadtest::scenario::{Resolution, Role};
use support::{Harm, Holds, Host, Machine, Proxy, Way, measure, near, scenario};

/// One run at a time: each wants its share of the machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn delay_and_loss_are_what_the_network_does() {
    let _alone = alone();
    let host = Host::start(true);
    let delay = Duration::from_millis(30);
    let proxy = Proxy::start(host.named, host.media, Harm { delay, drop_sound_nth: 20, ..Harm::default() });
    let role = Role { muted: 0.0, ..Role::speaking(3, Some(Resolution::P180), true) };
    let machine = Machine::watch();
    let report = measure(&host, &scenario(2, role, 7), |_| {});
    let way = Way::of(&machine, &proxy, report.window_s);
    let (sound, dropped) = proxy.sound();
    assert!(dropped > 30, "{dropped} of {sound}");
    // Once on the way to the relay and once from it. The proxy wakes every half millisecond.
    let error = 5.0 + way.all_but(0.5);
    near("delay of pictures at p50 (ms)", report.video.delay_ms.p50, 60.0, error);
    near("delay of sound at p50 (ms)", report.audio.delay_ms.p50, 60.0, error);
    // Nobody asks for sound again: what is dropped is lost.
    let percent = 100.0 * dropped as f64 / sound as f64;
    near("loss of sound (%)", report.audio.loss_percent, percent, 1.0);
    let share = 100.0 * report.audio.bitrate_bps / report.audio.expected_bps;
    near("bitrate of sound against expected (%)", share, 100.0 - percent, 1.0);
    let share = 100.0 * report.video.bitrate_bps / report.video.expected_bps;
    near("bitrate of pictures against expected (%)", share, 100.0, 0.5);
    assert_eq!(report.video.lost, 0, "nothing was done to pictures");
    let broken: Vec<_> = report.objectives.iter().filter(|o| !o.holds).map(|o| o.name.as_str()).collect();
    assert!(broken.contains(&"delay p99, pictures") && broken.contains(&"loss after recovery"), "{broken:?}");
}

#[test]
fn freezes_are_as_many_and_as_long_as_the_network_stood_still() {
    let _alone = alone();
    let host = Host::start(true);
    let proxy = Proxy::start(host.named, host.media, Harm::default());
    let lengths = [Duration::from_millis(600), Duration::from_millis(320)];
    let holds = Holds { every: Duration::from_millis(3000), lengths };
    let mut begun = false;
    let machine = Machine::watch();
    let role = Role::speaking(2, Some(Resolution::P180), false);
    let report = measure(&host, &scenario(2, role, 8), |p| {
        if p.measuring && !begun {
            begun = true;
            proxy.begin_holds(holds);
        }
    });
    assert!(begun);
    let way = Way::of(&machine, &proxy, report.window_s);
    // Holds begin 3 s and 6 s after the first second of eight.
    // A third may come after the window.
    let held: Vec<f64> = proxy.held().iter().take(2).map(|held| held.as_secs_f64() * 1e3).collect();
    assert_eq!(held.len(), 2);
    let (sum, longest) = (held.iter().sum::<f64>(), held.iter().copied().fold(0.0, f64::max));
    // A frame every 50 ms: a gap is longer than what makes it by 25 ms on average and 50 ms at most, and by what the machine adds.
    let late = report.tester.loop_delay_ms.max + way.most();
    let error = 35.0 + late;
    // Beyond that the machine itself may make gaps of over 200 ms, and any number of them.
    let alone = late < 100.0;
    let streams: Vec<_> = report.streams.iter().filter(|s| s.kind == Kind::Video).collect();
    assert_eq!(streams.len(), 4);
    for stream in &streams {
        let counted = (stream.freezes, stream.long_freezes);
        assert!(counted == (2, 1) || (!alone && counted >= (2, 1)), "{counted:?}, {late} ms late");
        if !alone {
            assert!(stream.longest_freeze.as_secs_f64() * 1e3 >= longest - 25.0, "{stream:?}");
            continue;
        }
        near("time frozen (ms)", stream.frozen.as_secs_f64() * 1e3, sum + 50.0, 2.0 * error);
        near("of that over 500 ms (ms)", stream.long_frozen.as_secs_f64() * 1e3, longest + 25.0, error);
    }
    if alone {
        near("longest (ms)", report.video.longest_freeze_ms, longest + 25.0, error);
        near("share of the time (%)", report.video.freeze_percent, (sum + 50.0) / 80.0, 2.0 * error / 80.0);
    }
    near("most delay (ms)", report.video.delay_ms.max, longest, error);
    assert_eq!(report.video.lost, 0, "held back is not lost");
}

#[test]
fn jitter_is_what_the_network_adds() {
    let _alone = alone();
    let host = Host::start(true);
    let harm = Harm { late_nth: 2, late: Duration::from_millis(12), ..Harm::default() };
    let proxy = Proxy::start(host.named, host.media, harm);
    let role = Role { muted: 0.0, ..Role::speaking(2, None, true) };
    let machine = Machine::watch();
    let report = measure(&host, &scenario(3, role, 6), |_| {});
    let way = Way::of(&machine, &proxy, report.window_s);
    assert!(report.audio.packets > 200, "{}", report.audio.packets);
    // Each packet's transit differs from the one before by 12 ms: RFC 3550's jitter tends to that.
    // What one of two waits on the machine shows once as more and once as less.
    near("jitter (ms)", report.audio.jitter_mean_ms, 12.0, 2.0 + 2.0 * way.mean());
    // The proxy wakes every half millisecond.
    let error = 4.0 + way.all_but(0.05);
    near("delay at p95 (ms)", report.audio.delay_ms.p95, 12.0, error);
    assert_eq!(report.audio.lost, 0);
}

#[test]
fn what_a_few_packets_wait_shows_at_p99_and_not_at_p95() {
    let _alone = alone();
    let host = Host::start(true);
    let harm = Harm { late_nth: 30, late: Duration::from_millis(100), ..Harm::default() };
    let proxy = Proxy::start(host.named, host.media, harm);
    let role = Role { muted: 0.0, ..Role::speaking(4, None, true) };
    let machine = Machine::watch();
    let report = measure(&host, &scenario(3, role, 6), |_| {});
    let way = Way::of(&machine, &proxy, report.window_s);
    let delay = &report.audio.delay_ms;
    assert!(delay.count > 1_000, "{delay:?}");
    // One of 30 is late by what was put in, so much fewer may be late by what the machine adds.
    let late = 1.0 / 30.0;
    near("delay at p50 (ms)", delay.p50, 0.0, 4.0 + way.all_but(0.5 - late));
    near("delay at p95 (ms)", delay.p95, 0.0, 4.0 + way.all_but(0.05 - late));
    near("delay at p99 (ms)", delay.p99, 100.0, 4.0 + way.all_but(0.01));
    near("most delay (ms)", delay.max, 100.0, 4.0 + way.most());
    // Packets are 20 ms apart, and a gap of over 200 ms is a freeze: 80 ms more are the machine's.
    assert!(report.audio.lost == 0, "late is not lost");
    assert!(report.audio.freezes == 0 || way.most() > 70.0, "late is no freeze");
}

#[test]
fn what_is_sent_again_is_not_lost_and_what_is_not_is() {
    let _alone = alone();
    let host = Host::start(true);
    for drop_repeats in [false, true] {
        let harm = Harm { drop_pictures_nth: 40, drop_repeats, ..Harm::default() };
        let proxy = Proxy::start(host.named, host.media, harm);
        let role = Role::speaking(3, Some(Resolution::P180), false);
        let report = measure(&host, &scenario(2, role, 5), |_| {});
        let (pictures, dropped) = proxy.pictures();
        assert!(dropped > 15, "{dropped} of {pictures}");
        let percent = if drop_repeats { 100.0 * dropped as f64 / pictures as f64 } else { 0.0 };
        let error = if drop_repeats { 0.7 } else { 0.0 };
        near("loss of pictures after recovery (%)", report.video.loss_percent, percent, error);
        assert_eq!(report.video.failed, 0);
    }
}

fn secret(text: &str) -> AgentSecret {
    AgentSecret::new(text).unwrap()
}

#[test]
fn two_testers_make_one_run() {
    let _alone = alone();
    let host = Host::start(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (address, agent, stop_agent) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(listener, &secret("the agents' secret"), stopped, |_| {}).await.unwrap();
            });
        });
        (address, thread, stop)
    };
    // Two of the four in the room are the agent's.
    let scenario = scenario(1, Role::speaking(4, Some(Resolution::P180), true), 3);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let agents = [address];
    let target = host.target();
    let (known, other) = (secret("the agents' secret"), secret("another agents' secret"));
    let wrong = run_together(&target, &scenario, &agents, &other, stopped.clone(), |_| {});
    let error = runtime.block_on(wrong).unwrap_err();
    assert!(format!("{error:#}").contains("another agent secret"), "{error:#}");
    let mut present = 0;
    let machine = Machine::watch();
    let outcome = runtime
        .block_on(run_together(&target, &scenario, &agents, &known, stopped, |p| {
            present = present.max(p.present);
        }))
        .unwrap();
    let report = Report::new(&scenario, outcome, &Objectives::default());
    assert_eq!((report.participants, report.joins.joined, present), (4, 4, 4), "{:?}", report.joins.reasons);
    assert_eq!((report.video.streams, report.all.missing, report.all.failed), (12, 0, 0));
    assert_eq!(report.tester.threads, 2);
    // Testers without a core make no frames.
    let error = 0.05 + machine.away().within(report.window_s).share();
    near("frames against those planned", report.video.frames as f64 / (12.0 * 20.0 * 3.0), 1.0, error);
    stop_agent.send(true).unwrap();
    agent.join().unwrap();
}
