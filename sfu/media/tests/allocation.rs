//! The packet path allocates nothing once it is warm.
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;

use common::{assert_full_call, full_call, secs};
use sfu_media::sim::world::World;

thread_local! {
    static PACKETS: Cell<u64> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each RTP packet.
fn count(datagram: &[u8], handle: &mut dyn FnMut()) {
    let is_rtp = matches!(datagram, [128..=191, kind, ..] if !(64..=95).contains(&(kind & 0x7f)));
    let info = allocation_counter::measure(&mut *handle);
    if is_rtp {
        PACKETS.set(PACKETS.get() + 1);
        ALLOCATIONS.set(ALLOCATIONS.get() + info.count_total);
    }
}

/// Packets that must be forwarded without any.
const FORWARDED: u64 = 100_000;

#[test]
fn forwarding_allocates_nothing() {
    let mut world = World::new(1);
    let tracks = full_call(&mut world, 6);
    // Every place in the stores is taken once: a thousand packets of video.
    world.run(secs(20));
    let before = world.stats().rtp_out;
    world.around = Some(count);
    while world.stats().rtp_out - before < FORWARDED {
        world.run(secs(1));
    }
    world.around = None;
    assert_full_call(&world, &tracks, 0.98, 4);
    // Transport-wide numbers are reported on, so what is sent is paced by an estimate.
    assert_eq!(world.stats().estimated_peers, 6);
    let (packets, allocations) = (PACKETS.get(), ALLOCATIONS.get());
    assert!(packets * 5 >= FORWARDED, "{packets} packets, each for five subscribers");
    assert_eq!(allocations, 0, "in {packets} packets");
}
