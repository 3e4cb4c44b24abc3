//! Data channels.

use std::time::Duration;

use sctp_proto::{PayloadProtocolIdentifier as Ppid, ReliabilityType};

use super::pair::{Pair, Way};
use crate::command::{DataChannelSpec, DataLabel};
use crate::drop_reason::DropReason;
use crate::transport::sctp::MAX_MESSAGE;

fn specs() -> Vec<DataChannelSpec> {
    vec![
        DataChannelSpec { label: DataLabel::Reliable, ordered: true, max_retransmits: None },
        DataChannelSpec { label: DataLabel::Lossy, ordered: false, max_retransmits: Some(0) },
    ]
}

/// Bytes of which no two neighbours repeat.
fn message(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn the_client_opens_channels_and_both_sides_use_them() {
    let mut pair = Pair::with_channels(Vec::new());
    for (stream, label, lossy) in
        [(0, DataLabel::Reliable, false), (2, DataLabel::Lossy, true), (4, DataLabel::DataTrack, true)]
    {
        pair.open_channel(stream, label.as_str(), lossy);
        let up = message(60 * 1024);
        pair.client_sends(stream, Ppid::Binary, &up);
        assert_eq!(pair.take_data(), [(label, up.into())]);
        let down = message(61_000);
        assert_eq!(pair.relay_sends(label, &down), Ok(()));
        assert_eq!(std::mem::take(&mut pair.client.messages), [(stream, Ppid::Binary, down)]);
    }
    assert_eq!(pair.drops, []);
}

#[test]
fn the_relay_opens_channels_and_both_sides_use_them() {
    let mut pair = Pair::with_channels(specs());
    pair.run_until(|pair| pair.client.opened.len() == 2);
    let [reliable, lossy] = &pair.client.opened[..] else { unreachable!("two") };
    assert_eq!((reliable.0, reliable.1.as_str()), (1, "_reliable"));
    assert_eq!((reliable.2.unordered, reliable.2.kind), (false, ReliabilityType::Reliable));
    assert_eq!((lossy.0, lossy.1.as_str()), (3, "_lossy"));
    assert_eq!((lossy.2.unordered, lossy.2.kind, lossy.2.value), (true, ReliabilityType::Rexmit, 0));
    for (stream, label) in [(1, DataLabel::Reliable), (3, DataLabel::Lossy)] {
        let down = message(60 * 1024);
        assert_eq!(pair.relay_sends(label, &down), Ok(()));
        assert_eq!(std::mem::take(&mut pair.client.messages), [(stream, Ppid::Binary, down)]);
        let up = message(1000);
        pair.client_sends(stream, Ppid::Binary, &up);
        assert_eq!(pair.take_data(), [(label, up.into())]);
    }
    assert_eq!(pair.drops, []);
}

#[test]
fn empty_and_text_messages_pass() {
    let mut pair = Pair::with_channels(Vec::new());
    pair.open_channel(0, "_reliable", false);
    pair.client_sends(0, Ppid::BinaryEmpty, &[0]);
    pair.client_sends(0, Ppid::StringEmpty, &[0]);
    pair.client_sends(0, Ppid::String, b"text");
    let payloads: Vec<_> = pair.take_data().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, [&b""[..], b"", b"text"]);
    pair.relay_sends(DataLabel::Reliable, b"").unwrap();
    assert_eq!(pair.client.messages, [(0, Ppid::BinaryEmpty, vec![0])]);
}

#[test]
fn reliable_messages_wait_for_their_channel_and_keep_their_order() {
    let mut pair = Pair::new();
    assert_eq!(pair.relay_sends(DataLabel::Reliable, b"one"), Ok(()), "before ICE");
    pair.connect();
    assert_eq!(pair.relay_sends(DataLabel::Reliable, b"two"), Ok(()), "before SCTP");
    assert_eq!(pair.relay_sends(DataLabel::Lossy, b"late"), Err(DropReason::DataRefused));
    pair.associate();
    assert_eq!(pair.relay_sends(DataLabel::Reliable, b"three"), Ok(()), "before the channel");
    pair.open_channel(0, "_reliable", false);
    pair.relay_sends(DataLabel::Reliable, b"four").unwrap();
    let payloads: Vec<_> = pair.client.messages.iter().map(|(_, _, payload)| &payload[..]).collect();
    assert_eq!(payloads, [&b"one"[..], b"two", b"three", b"four"]);
}

#[test]
fn what_waits_is_bounded() {
    let mut pair = Pair::new();
    let large = message(MAX_MESSAGE);
    for _ in 0..16 {
        assert_eq!(pair.relay_sends(DataLabel::Reliable, &large), Ok(()));
    }
    assert_eq!(pair.relay_sends(DataLabel::Reliable, b"x"), Err(DropReason::QueueFull));
    assert_eq!(pair.relay_sends(DataLabel::Reliable, &message(MAX_MESSAGE + 1)), Err(DropReason::TooLarge));
    pair.connect();
    pair.associate();
    pair.open_channel(0, "_reliable", false);
    pair.run_until(|pair| pair.client.messages.len() == 16);
    assert!(pair.client.messages.iter().all(|(_, _, payload)| *payload == large));
    assert_eq!(pair.relay_sends(DataLabel::Reliable, b"x"), Ok(()));
}

#[test]
fn a_client_that_does_not_acknowledge_fills_its_queue_only() {
    let mut pair = Pair::with_channels(Vec::new());
    pair.open_channel(0, "_reliable", false);
    pair.open_channel(2, "_lossy", true);
    pair.network = Box::new(|_, _| Vec::new());
    let large = message(60_000);
    let sent = |pair: &mut Pair, label| {
        (0..1000).find_map(|n| pair.relay_sends(label, &large).err().map(|reason| (n, reason))).unwrap()
    };
    let lossy = sent(&mut pair, DataLabel::Lossy);
    assert_eq!(lossy, (4, DropReason::QueueFull), "256 KiB");
    let reliable = sent(&mut pair, DataLabel::Reliable);
    assert_eq!(reliable, (65, DropReason::QueueFull), "4 MiB, the lossy ones included");
}

#[test]
fn unknown_labels_are_opened_and_what_comes_on_them_is_refused() {
    let mut pair = Pair::with_channels(Vec::new());
    pair.open_channel(0, "chat", false);
    pair.client_sends(0, Ppid::Binary, b"hello");
    assert_eq!(pair.drops, [DropReason::DataRefused]);
    assert_eq!(pair.take_data(), []);
    // So is data on a stream that was never opened, and on one with a payload protocol unknown here.
    pair.client.association.as_mut().unwrap().open_stream(6, Ppid::Binary).unwrap();
    pair.client_sends(6, Ppid::Binary, b"hello");
    pair.open_channel(8, "_reliable", false);
    pair.client_sends(8, Ppid::Unknown, b"hello");
    assert_eq!(pair.drops, [DropReason::DataRefused; 3]);
    assert_eq!(pair.take_data(), []);
    pair.client_sends(8, Ppid::Binary, b"hello");
    assert_eq!(pair.take_data().len(), 1);
}

#[test]
fn malformed_dcep_is_counted_and_harms_nothing() {
    let mut pair = Pair::with_channels(Vec::new());
    pair.open_channel(0, "_reliable", false);
    for junk in [&b"\x03"[..], b"\x09abc", b"\x03\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff", b"\x02"] {
        pair.drops.clear();
        pair.client_sends(0, Ppid::Dcep, junk);
        assert_eq!(pair.drops, [DropReason::SctpMalformed], "{junk:?}");
    }
    pair.client_sends(0, Ppid::Binary, b"hello");
    assert_eq!(pair.take_data().len(), 1);
}

#[test]
fn a_closed_channel_is_gone_and_its_stream_can_be_opened_again() {
    let mut pair = Pair::with_channels(Vec::new());
    pair.open_channel(2, "_lossy", true);
    assert_eq!(pair.relay_sends(DataLabel::Lossy, b"x"), Ok(()));
    pair.client.association.as_mut().unwrap().stream(2).unwrap().close().unwrap();
    pair.advance(Duration::from_secs(3));
    assert_eq!(pair.relay_sends(DataLabel::Lossy, b"x"), Err(DropReason::DataRefused));
    pair.client.acknowledged.clear();
    pair.open_channel(2, "_lossy", true);
    assert_eq!(pair.relay_sends(DataLabel::Lossy, b"x"), Ok(()));
}

#[test]
fn a_client_with_too_many_streams_loses_its_association_but_not_its_media() {
    let mut pair = Pair::with_channels(Vec::new());
    for stream in 0..200 {
        let association = pair.client.association.as_mut().unwrap();
        let Ok(mut stream) = association.open_stream(stream, Ppid::Binary) else { break };
        if stream.write_with_ppi(b"x", Ppid::Binary).is_err() {
            break;
        }
        pair.run();
    }
    assert!(pair.drops.contains(&DropReason::PeerLimit), "{:?}", pair.drops.last());
    assert!(pair.relay.is_connected());
    pair.exchange_media(1);
}

#[test]
fn a_lossy_network_delays_reliable_messages_only() {
    let mut pair = Pair::with_channels(Vec::new());
    pair.open_channel(0, "_reliable", false);
    let mut count = 0;
    pair.network = Box::new(move |_: Way, datagrams| {
        let keep = |_: &Vec<u8>| {
            count += 1;
            count % 7 != 0
        };
        datagrams.into_iter().filter(keep).collect()
    });
    for n in 0..20u8 {
        pair.relay_sends(DataLabel::Reliable, &[n; 5000]).unwrap();
        let association = pair.client.association.as_mut().unwrap();
        association.stream(0).unwrap().write_with_ppi(&[n; 5000], Ppid::Binary).unwrap();
    }
    for _ in 0..10 {
        pair.advance(Duration::from_secs(5));
        pair.check(true);
    }
    let expected: Vec<_> = (0..20u8).map(|n| vec![n; 5000]).collect();
    let down: Vec<_> = pair.client.messages.iter().map(|(_, _, payload)| payload.clone()).collect();
    let up: Vec<_> = pair.take_data().into_iter().map(|(_, payload)| payload.to_vec()).collect();
    assert_eq!(down, expected);
    assert_eq!(up, expected);
}
