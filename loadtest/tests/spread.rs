//! A live room that spans two shards, in a process of its own: relays in one process count into the same metrics.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use loadtest::scenario::{Resolution, Role, Scenario, Span};
use support::{Host, measure, near, scenario};

/// A counter of the relay by shard and direction.
fn count(host: &Host, name: &str, shard: usize, direction: &str) -> u64 {
    let address = host.metrics.trim_start_matches("http://").split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let wanted = [format!("shard=\"{shard}\""), format!("direction=\"{direction}\"")];
    let line = text.lines().find(|line| line.starts_with(name) && wanted.iter().all(|w| line.contains(w)));
    let line = line.unwrap_or_else(|| panic!("no {name} {wanted:?}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn four_people_on_two_shards_see_and_hear_each_other() {
    let host = Host::start_with(false, |media| {
        media.shards = 2;
        media.room_participants_per_shard = 2;
    });
    let seconds = 6.0;
    // The relay gives out more step by step as it learns what a new path carries; that is over by then.
    let settle = Span::ms(4_000);
    let role = Role { muted: 0.0, ..Role::speaking(4, Some(Resolution::P180), true) };
    let scenario = Scenario { settle, ..scenario(1, role, 6) };
    let report = measure(&host, &scenario, |_| {});
    let r = &report;
    assert_eq!((r.joins.joined, r.joins.failed), (4, 0), "{:?}", r.joins.reasons);
    assert!(r.disconnects.is_empty(), "{:?}", r.disconnects);
    // Each of four gets three pictures and three voices; all frames are opened with the room's key and none is missing.
    assert_eq!((r.video.streams, r.audio.streams, r.all.missing), (12, 12, 0));
    assert_eq!((r.all.lost, r.all.failed, r.all.clear), (0, 0, 0));
    near("time watched", r.video.watched_s, 12.0 * seconds, 0.5);
    println!(
        "delay of pictures p50 {:.1} ms, p99 {:.1} ms; of sound p50 {:.1} ms, p99 {:.1} ms",
        r.video.delay_ms.p50, r.video.delay_ms.p99, r.audio.delay_ms.p50, r.audio.delay_ms.p99
    );
    for shard in 0..2 {
        let [media, taken, given] = [
            count(&host, "curtain_rtp_packets_total", shard, "in"),
            count(&host, "curtain_relayed_packets_total", shard, "in"),
            count(&host, "curtain_relayed_packets_total", shard, "out"),
        ];
        println!("shard {shard}: {media} packets of its publishers, {given} handed over, {taken} taken over");
        // Two publish on each, and the two of the other shard get it all, but for what came before they had subscribed. What they
        // sent while it was measured is half of what all sent then.
        let sent = r.sent_packets_per_s * r.window_s / 2.0;
        let enough = (0.8 * sent).max(1.0);
        assert!(media as f64 >= enough && taken as f64 >= enough, "shard {shard}: {sent} sent");
        near("handed over", given as f64 / media as f64, 1.0, 0.2);
    }
}
