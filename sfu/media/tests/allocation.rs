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

#[test]
fn forwarding_allocates_nothing() {
    let mut world = World::new(1);
    let tracks = full_call(&mut world, 4);
    // Each place in the stores is taken once: a thousand packets of video.
    // Every place in the stores is taken once: a thousand packets of video.
    world.run(secs(20));
    world.around = Some(count);
    world.run(secs(3));
    world.around = None;
    assert_full_call(&world, &tracks, 0.98, 4);
    let (packets, allocations) = (PACKETS.get(), ALLOCATIONS.get());
    assert!(packets > 1500, "{packets}");
    assert_eq!(allocations, 0, "in {packets} packets");
}
