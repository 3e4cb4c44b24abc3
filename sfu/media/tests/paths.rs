//! A client's address changes: how long until its media follows.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{assert_audio, assert_continuous, assert_full_call, full_call, millis, secs, sink};
use sfu_media::sim::bot::Coding;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::World;

const STEP: Duration = Duration::from_millis(1);

/// Time until the relay sends media to an address, at most ten seconds.
fn until_media_at(world: &mut World, addr: SocketAddr) -> Duration {
    let start = world.elapsed();
    while !world.rtp_out.keys().any(|(to, _)| *to == addr) {
        world.run(STEP);
        assert!(world.elapsed() - start < secs(10), "no media at the new address");
    }
    world.elapsed() - start
}

/// A client with two networks: the second one's links are there before the first is lost.
fn second_network(world: &mut World, bot: usize, up: Link, down: Link) -> SocketAddr {
    let addr = SocketAddr::from(([203, 0, 113, 200], 4000 + bot as u16));
    world.net.set_link(addr, sfu_media::sim::world::RELAY, up);
    world.net.set_link(sfu_media::sim::world::RELAY, addr, down);
    addr
}

#[test]
fn media_follows_a_nominated_check_within_one_way_to_the_relay() {
    for delay in [10, 50, 200] {
        let mut world = World::new(30 + delay);
        let tracks = full_call(&mut world, 2);
        world.run(secs(1));
        let link = Link { delay: millis(delay), ..Link::clean() };
        let addr = second_network(&mut world, 1, link, link);
        // The old network is gone at the same instant; the client notices and checks at once, as a browser that loses an
        // interface does.
        let now = world.now();
        world.bots[1].set_addr(addr, now);
        let moved = until_media_at(&mut world, addr);
        // A frame's interval besides the way of the check, as video is sent in frames.
        assert!(moved <= millis(delay) + millis(35), "{moved:?} at a delay of {delay} ms");
        world.run(secs(3));
        assert_full_call(&world, &tracks, 0.85, 12);
    }
}

#[test]
fn a_nat_that_forgets_the_mapping_costs_no_more_than_the_clients_check_interval() {
    let mut world = World::new(40);
    let tracks = full_call(&mut world, 2);
    world.run(secs(1));
    let addr = second_network(&mut world, 1, Link::clean(), Link::clean());
    // The client knows nothing of it: its next check is due when it is due.
    world.bots[1].rebind(addr);
    let moved = until_media_at(&mut world, addr);
    assert!(moved <= millis(2500) + millis(20) + millis(35), "{moved:?}");
    world.run(secs(4));
    // Audio of the outage is lost, and no more. Of video, what was sent into the void is repaired; then it was paused, as
    // nothing is heard of such a path, and goes on with a key frame.
    let lost = (moved + millis(100)).as_secs_f64() / (secs(5) + moved).as_secs_f64();
    for (track, subs) in &tracks {
        for sub in subs {
            if track.publish.coding == Coding::Opus {
                assert_audio(&world, track, sub, 1.0 - lost);
                continue;
            }
            assert_continuous(sink(&world, sub));
            let frames = &sink(&world, sub).frames;
            let gaps: Vec<_> = frames.windows(2).filter(|w| w[1].id.number != w[0].id.number + 1).collect();
            assert!(gaps.len() <= usize::from(sub.bot == 1), "one pause of the one who moved: {gaps:?}");
            for gap in gaps {
                assert!(gap[1].key, "{gap:?}");
                let missed = f64::from(gap[1].id.number - gap[0].id.number);
                assert!(missed <= moved.as_secs_f64() / 0.033, "no longer than the outage: {gap:?}");
            }
            let sent = world.bots[track.bot].source(track.source).frames_sent(0);
            assert!(frames.last().unwrap().id.number + 1 + 4 >= sent, "it goes on");
        }
    }
}

#[test]
fn an_ice_restart_moves_media_with_its_first_check() {
    let mut world = World::new(50);
    let tracks = full_call(&mut world, 2);
    world.run(secs(1));
    let addr = second_network(&mut world, 1, Link::clean(), Link::clean());
    let now = world.now();
    world.bots[1].set_addr(addr, now);
    world.restart_ice(1);
    let moved = until_media_at(&mut world, addr);
    assert!(moved <= millis(20) + millis(35), "{moved:?}");
    world.run(secs(3));
    assert_full_call(&world, &tracks, 0.9, 4);
}
