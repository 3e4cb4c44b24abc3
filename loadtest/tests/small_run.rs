//! A small run against our own relay, in a process of its own: relays in one process count into the same metrics.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use loadtest::report::Report;
use loadtest::scenario::{Resolution, Role, Scenario, Span};
use support::{Host, Machine, measure, near, scenario};

#[test]
fn a_small_run_on_a_good_network_finds_nothing_wrong() {
    let host = Host::start(false);
    let seconds = 6.0;
    // The relay gives out more step by step as it learns what a new path carries; that is over by then.
    let settle = Span::ms(4_000);
    let scenario = Scenario { settle, ..scenario(2, Role::speaking(3, Some(Resolution::P360), true), 6) };
    let mut present = 0;
    let machine = Machine::watch();
    let report = measure(&host, &scenario, |p| present = present.max(p.present));
    let r = &report;
    // A tester without a core makes no frames, and a relay without one hands none on.
    let away = machine.away().within(seconds).share();
    assert_eq!((r.joins.joined, r.joins.failed, present), (6, 0, 6), "{:?}", r.joins.reasons);
    assert!(r.joins.total_ms.p50 > 1.0 && r.joins.total_ms.max < 5_000.0, "{:?}", r.joins.total_ms);
    assert!(r.disconnects.is_empty(), "{:?}", r.disconnects);
    assert_eq!((r.video.streams, r.audio.streams, r.all.missing), (12, 12, 0));
    assert_eq!((r.all.lost, r.all.failed, r.all.clear), (0, 0, 0));
    // Everybody sees two others, and so asks for the layer of 20 frames a second and 450 kbit/s, here the highest.
    near("frames against those planned", r.video.frames as f64 / (12.0 * 20.0 * seconds), 1.0, 0.03 + away);
    near("bitrate", r.video.bitrate_bps / r.video.expected_bps, 1.0, 0.02 + away);
    near("of the layer asked for", r.video.on_layer_percent, 100.0, 1.0 + 100.0 * away);
    // The trace has slower and faster stretches: some seconds of it are not its mean.
    near("bitrate against the nominal one", r.video.bitrate_bps / 450_000.0, 1.0, 0.4 + away);
    near("time watched", r.video.watched_s, 12.0 * seconds, 0.5);
    assert!(r.key_wait_ms.count >= 12, "{:?}", r.key_wait_ms);
    // The relay counts what it sent; the tester what came. The samples are a second apart.
    let relay = r.relay.as_ref().unwrap();
    near("packets", relay.packets_out.unwrap() / r.packets_per_s, 1.0, 0.15 + away);
    assert!(relay.shard_cpu.unwrap() > 0.0);
    assert_eq!(r.seconds.len(), 6);
    let mean = r.packets_per_s;
    for second in &r.seconds {
        // All that it was away may have been in this one.
        near("packets in a second", second.packets as f64, mean, mean * (0.4 + seconds * away));
    }
    let json: Report = serde_json::from_str(&serde_json::to_string(r).unwrap()).unwrap();
    assert_eq!(json.video.delay_ms, r.video.delay_ms);
}
