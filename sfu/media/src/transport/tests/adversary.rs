//! Bytes that no client sends, before, during and after the handshake.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sctp_proto::PayloadProtocolIdentifier as Ppid;

use super::pair::{Pair, Way};
use crate::command::{CloseReason, DataLabel};
use crate::drop_reason::DropReason;
use crate::rtp::RtpHeader;
use crate::transport::TransportEvent;
use crate::tx::TxQueue;

/// A DTLS 1.2 record.
fn record(kind: u8, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd];
    record.extend(epoch.to_be_bytes());
    record.extend(&sequence.to_be_bytes()[2..]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Hands bytes to every entry point, whatever they look like.
fn throw(pair: &mut Pair, bytes: &[u8]) {
    let mut tx = TxQueue::new();
    let _ = pair.relay.handle_stun(pair.from, bytes, &mut tx, pair.now);
    let _ = pair.relay.handle_dtls(pair.from, &mut bytes.to_vec(), &mut tx, pair.now);
    let _ = pair.relay.open_rtcp(&mut bytes.to_vec());
    if let Ok(header) = RtpHeader::parse(bytes) {
        assert!(pair.relay.open_rtp(&mut bytes.to_vec(), &header).is_err());
    }
    // What the relay answers is for a client that sent it; there is none.
    while let Some(event) = pair.relay.poll_event() {
        pair.events.push(event);
    }
}

/// The pair still connects, or still is connected, and does all that a pair does.
fn assert_works(pair: &mut Pair) {
    pair.connect();
    pair.exchange_media(1);
    if pair.client.association.is_none() {
        pair.associate();
        pair.open_channel(0, "_reliable", false);
    }
    pair.client_sends(0, Ppid::Binary, b"up");
    assert_eq!(pair.take_data(), [(DataLabel::Reliable, b"up"[..].into())]);
    pair.relay_sends(DataLabel::Reliable, b"down").unwrap();
    assert_eq!(pair.client.messages.pop(), Some((0, Ppid::Binary, b"down".to_vec())));
    assert_eq!(pair.events, [TransportEvent::Connected]);
}

fn open_pair() -> Pair {
    let mut pair = Pair::with_channels(Vec::new());
    pair.open_channel(0, "_reliable", false);
    pair
}

#[test]
fn plaintext_application_data_never_reaches_sctp() {
    let mut pair = open_pair();
    // A well-formed INIT of another association, in clear.
    let mut packet = vec![0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend([1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    for sequence in 0..100 {
        pair.send_to_relay(&record(23, 0, 1000 + sequence, &packet));
    }
    assert_eq!(pair.drops, [DropReason::DtlsMalformed; 100]);
    assert_works(&mut pair);
}

#[test]
fn plaintext_handshake_records_do_not_pile_up_in_a_connection() {
    let mut pair = open_pair();
    for sequence in 0..200 {
        pair.send_to_relay(&record(20, 0, 1000 + sequence, &[1]));
        pair.send_to_relay(&record(21, 0, 2000 + sequence, &[2, 40]));
        // A HelloRequest and a ClientHello that begin a renegotiation.
        pair.send_to_relay(&record(22, 0, 3000 + sequence, &[0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]));
        pair.send_to_relay(&record(
            22,
            0,
            4000 + sequence,
            &[1, 0, 0, 0, 0, sequence as u8, 0, 0, 0, 0, 0, 0],
        ));
    }
    assert_works(&mut pair);
}

#[test]
fn a_broken_client_hello_costs_a_retransmission_not_the_connection() {
    let mut pair = Pair::new();
    pair.check(true);
    // A fatal alert in clear makes the engine give up.
    pair.send_to_relay(&record(21, 0, 1, &[2, 40]));
    assert_eq!(pair.drops, [DropReason::DtlsMalformed]);
    assert!(!pair.relay.is_closed());
    assert_works(&mut pair);
}

#[test]
fn a_client_that_keeps_failing_is_closed() {
    let mut pair = Pair::new();
    pair.check(true);
    for sequence in 0..10 {
        pair.send_to_relay(&record(21, 0, sequence, &[2, 40]));
    }
    assert_eq!(pair.events, [TransportEvent::Closed(CloseReason::HandshakeFailed)]);
    assert!(pair.relay.is_closed());
}

#[test]
fn a_fatal_alert_in_the_middle_of_the_handshake_closes() {
    let mut pair = Pair::new();
    pair.check(true);
    pair.network = Box::new(|way, datagrams| if way == Way::ToClient { Vec::new() } else { datagrams });
    pair.run();
    pair.send_to_relay(&record(21, 0, 99, &[2, 40]));
    assert_eq!(pair.events, [TransportEvent::Closed(CloseReason::HandshakeFailed)]);
}

#[test]
fn a_certificate_larger_than_any_buffer_is_no_panic() {
    let mut pair = Pair::new();
    pair.check(true);
    pair.network = Box::new(|way, datagrams| if way == Way::ToClient { Vec::new() } else { datagrams });
    pair.run();
    // Certificate, message 1: a list of one entry as long as fits in the most fragments that are held.
    let len = 29 * 1900u32;
    let mut message = Vec::new();
    message.extend(&(len - 3).to_be_bytes()[1..]);
    message.extend(&(len - 6).to_be_bytes()[1..]);
    message.resize(len as usize, 0x30);
    for (fragment, bytes) in message.chunks(1900).enumerate() {
        let mut body = vec![11];
        body.extend(&len.to_be_bytes()[1..]);
        body.extend([0, 1]);
        body.extend(&(fragment as u32 * 1900).to_be_bytes()[1..]);
        body.extend(&(bytes.len() as u32).to_be_bytes()[1..]);
        body.extend(bytes);
        pair.send_to_relay(&record(22, 0, 100 + fragment as u64, &body));
    }
    assert_eq!(pair.events, [TransportEvent::Closed(CloseReason::FingerprintMismatch)]);
}

#[test]
fn what_is_not_sctp_inside_dtls_is_counted() {
    let mut pair = open_pair();
    for junk in [&[0u8; 1][..], &[0; 12], &[0xff; 100], &[0x13; 1000]] {
        pair.client.dtls.send_application_data(junk).unwrap();
        pair.run();
    }
    assert_eq!(pair.drops, [DropReason::SctpMalformed; 4]);
    assert_works(&mut pair);
}

#[test]
fn a_replayed_datagram_does_nothing() {
    let mut pair = open_pair();
    let datagrams = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let sink = datagrams.clone();
    pair.network = Box::new(move |way, datagrams| {
        if way == Way::ToRelay {
            sink.borrow_mut().extend(datagrams.clone());
        }
        datagrams
    });
    pair.client_sends(0, Ppid::Binary, b"once");
    assert_eq!(pair.take_data().len(), 1);
    for datagram in datagrams.take() {
        pair.send_to_relay(&datagram);
    }
    assert_eq!(pair.take_data(), []);
    assert_works(&mut pair);
}

#[test]
fn dtls_from_an_address_that_passed_no_check_is_dropped() {
    let mut pair = Pair::new();
    pair.run();
    assert_eq!(pair.drops, [DropReason::UnknownSource]);
    assert_eq!(pair.sent_to, []);
}

/// Arbitrary bytes, and bytes that look like the protocols' own.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let body = || vec(any::<u8>(), 0..80);
    let handshake =
        (0u8..25, 0u32..100, 0u16..8, 0u32..50, body()).prop_map(|(kind, len, seq, offset, body)| {
            let mut message = vec![kind];
            message.extend(&len.to_be_bytes()[1..]);
            message.extend(seq.to_be_bytes());
            message.extend(&offset.to_be_bytes()[1..]);
            message.extend(&(body.len() as u32).to_be_bytes()[1..]);
            message.extend(body);
            message
        });
    prop_oneof![
        vec(any::<u8>(), 0..200),
        (19u8..26, 0u16..3, 0u64..50, body())
            .prop_map(|(kind, epoch, seq, body)| record(kind, epoch, seq, &body)),
        vec((Just(22u8), 0u16..2, 0u64..50, handshake), 1..4).prop_map(|records| {
            records.iter().flat_map(|(kind, epoch, seq, body)| record(*kind, *epoch, *seq, body)).collect()
        }),
        (128u8..192, vec(any::<u8>(), 11..100)).prop_map(|(first, rest)| [vec![first], rest].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn arbitrary_bytes_never_panic_before_the_handshake(datagrams in vec(datagram(), 1..20)) {
        let mut pair = Pair::new();
        pair.check(true);
        for datagram in datagrams {
            throw(&mut pair, &datagram);
        }
        pair.advance(Duration::from_secs(1));
    }

    #[test]
    fn arbitrary_bytes_never_panic_in_the_middle_of_the_handshake(
        datagrams in vec(datagram(), 1..20),
        flights in 1usize..4,
    ) {
        let mut pair = Pair::new();
        pair.check(true);
        let mut left = flights;
        pair.network = Box::new(move |_, datagrams| {
            left = left.saturating_sub(1);
            if left == 0 { Vec::new() } else { datagrams }
        });
        pair.run();
        for datagram in datagrams {
            throw(&mut pair, &datagram);
        }
        pair.relay.handle_timeout(pair.now + Duration::from_secs(1), &mut TxQueue::new());
    }

    #[test]
    fn an_established_connection_survives_arbitrary_bytes(datagrams in vec(datagram(), 1..60)) {
        let mut pair = open_pair();
        for datagram in datagrams {
            throw(&mut pair, &datagram);
        }
        assert_works(&mut pair);
    }

    /// Inside DTLS, hence from the client itself: it may ruin its association, nothing else.
    #[test]
    fn arbitrary_sctp_never_panics(
        packets in vec((any::<bool>(), vec((0u8..16, any::<u8>(), vec(any::<u8>(), 0..40)), 1..4)), 1..12),
    ) {
        let mut pair = open_pair();
        for (zero_tag, chunks) in packets {
            let mut packet = vec![0x13, 0x88, 0x13, 0x88];
            packet.extend(if zero_tag { [0; 4] } else { pair.client.tag });
            packet.extend([0; 4]);
            for (kind, flags, body) in chunks {
                packet.extend([kind, flags]);
                packet.extend((body.len() as u16 + 4).to_be_bytes());
                packet.extend(&body);
                packet.resize(packet.len().next_multiple_of(4), 0);
            }
            let sum = crc32c(&packet);
            packet[8..12].copy_from_slice(&sum.to_le_bytes());
            pair.client.dtls.send_application_data(&packet).unwrap();
            pair.client.association = None;
            pair.run();
        }
        for _ in 0..5 {
            pair.now += Duration::from_millis(500);
            pair.relay.handle_timeout(pair.now, &mut TxQueue::new());
        }
        prop_assert!(pair.relay.is_connected());
        pair.exchange_media(9);
    }
}

/// CRC-32C (RFC 9260 appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    })
}
