//! Data-channel messages come out as events and go in as commands.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sfu_media::command::{DataLabel, ShardEvent};
use sfu_media::drop_reason::DropReason;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::World;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn messages_are_relayed_both_ways_on_both_kinds_of_connection() {
    let mut world = World::new(1);
    world.relay_data = true;
    world.connect(3);
    world.run(secs(2));
    assert!(world.bots.iter().all(|bot| bot.has_channel("_reliable") && bot.has_channel("_lossy")));
    let now = world.now();
    assert!(world.bots[0].send_data("_reliable", b"to all", now));
    assert!(world.bots[1].send_data("_lossy", b"maybe", now));
    world.run(secs(1));
    let received = |bot: usize| -> Vec<(String, Vec<u8>)> {
        world.bots[bot].received_data().iter().map(|(l, p)| (l.clone(), p.to_vec())).collect()
    };
    let all = ("_reliable".to_owned(), b"to all".to_vec());
    let maybe = ("_lossy".to_owned(), b"maybe".to_vec());
    assert_eq!(received(0), std::slice::from_ref(&maybe));
    assert_eq!(received(1), std::slice::from_ref(&all));
    let mut both = received(2);
    both.sort();
    assert_eq!(both, [maybe, all]);
    let event = |label| world.events_like(|e| matches!(e, ShardEvent::Data { label: l, .. } if *l == label));
    assert_eq!((event(DataLabel::Reliable), event(DataLabel::Lossy)), (1, 1));
    assert_eq!((world.stats().data_in, world.stats().data_out), (2, 4));
}

#[test]
fn reliable_messages_survive_a_rough_network_in_order() {
    let mut world = World::new(2);
    world.relay_data = true;
    world.connect(2);
    world.run(secs(2));
    for bot in 0..2 {
        world.set_links(bot, Link::rough(), Link::rough());
    }
    let want: Vec<Vec<u8>> = (0..60u8).map(|i| vec![i; 50 * usize::from(i) + 1]).collect();
    for message in &want {
        let now = world.now();
        assert!(world.bots[0].send_data("_reliable", message, now));
        world.run(Duration::from_millis(20));
    }
    world.run(secs(20));
    let got: Vec<Vec<u8>> = world.bots[1].received_data().iter().map(|(_, p)| p.to_vec()).collect();
    assert_eq!(got, want);
}

#[test]
fn a_message_that_cannot_be_sent_is_counted() {
    let mut world = World::new(3);
    world.connect(1);
    let peer = world.peer(0);
    // The bot opens `_reliable` and `_lossy` only.
    world.command(sfu_media::command::ShardCommand::SendData {
        peer,
        label: DataLabel::DataTrack,
        payload: bytes::Bytes::from_static(b"nowhere"),
    });
    assert_eq!(world.stats().data_out, 0);
    assert_eq!(world.stats().dropped(DropReason::DataRefused), 1);
}
