//! Connecting, moving, restarting, ending.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::pair::{CLIENT, Pair, Way, address, client_description, credentials};
use crate::command::{CloseReason, Fingerprint, RemoteTransport};
use crate::drop_reason::DropReason;
use crate::ids::{Remote, TcpId};
use crate::transport::{Profile, SrtpProfile, TransportEvent, srtp_contexts};
use crate::tx::TxQueue;

#[test]
fn a_client_connects_and_media_flows_both_ways() {
    let mut pair = Pair::new();
    assert!(!pair.relay.accepts(address(CLIENT)) && pair.relay.remote().is_none());
    assert!(pair.check(true));
    assert!(pair.relay.accepts(address(CLIENT)));
    assert!(pair.relay.seal_and_addr().is_none(), "no keys yet");
    pair.connect();
    assert_eq!(pair.events, [TransportEvent::Connected]);
    assert_eq!(pair.drops, []);
    assert_eq!(pair.start, pair.now, "no retransmission was needed");
    assert_eq!(pair.client.profile, Some(SrtpProfile::AEAD_AES_256_GCM));
    pair.exchange_media(100);
    pair.exchange_media(101);
}

/// The engine's own client always offers all profiles, so this looks at what the relay's ServerHello picks from a
/// ClientHello that was changed under way.
#[test]
fn gcm_is_preferred_whatever_the_clients_order() {
    const UNKNOWN: u8 = 0x05;
    for (offered, picked) in [
        // Chromium, Firefox, and what old endpoints offer.
        ([0x01, 0x08, 0x07], Some(0x08)),
        ([0x07, 0x08, 0x01], Some(0x08)),
        ([0x01, 0x07, UNKNOWN], Some(0x07)),
        ([UNKNOWN, UNKNOWN, 0x01], Some(0x01)),
        ([UNKNOWN, UNKNOWN, UNKNOWN], None),
    ] {
        let mut pair = Pair::new();
        pair.check(true);
        let server_hello = Rc::new(RefCell::new(Vec::new()));
        let sink = server_hello.clone();
        pair.network = Box::new(move |way, mut datagrams| match way {
            Way::ToRelay => {
                let hello = &mut datagrams[0];
                let extension = [0, 14, 0, 9, 0, 6, 0, 8, 0, 7, 0, 1, 0];
                let at = hello.windows(13).position(|window| window == extension).unwrap();
                for (place, profile) in offered.iter().enumerate() {
                    hello[at + 7 + 2 * place] = *profile;
                }
                datagrams
            }
            Way::ToClient => {
                sink.borrow_mut().extend(datagrams.concat());
                Vec::new()
            }
        });
        pair.run();
        let answer = server_hello.borrow();
        let extension = answer.windows(6).position(|window| window == [0, 14, 0, 5, 0, 2]);
        assert_eq!(extension.map(|at| answer[at + 7]), picked, "{offered:?}");
    }
}

#[test]
fn every_profile_has_its_keys() {
    for (profile, ours) in [
        (SrtpProfile::AEAD_AES_256_GCM, Profile::AeadAes256Gcm),
        (SrtpProfile::AEAD_AES_128_GCM, Profile::AeadAes128Gcm),
        (SrtpProfile::AES128_CM_SHA1_80, Profile::AesCm128HmacSha1_80),
    ] {
        let exported: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
        let (mut open, mut seal) = srtp_contexts(&exported, profile).unwrap();
        let (key, salt) = (ours.key_len(), ours.salt_len());
        let (keys, salts) = exported.split_at(2 * key);
        let mut client_seal = crate::srtp::SrtpSeal::new(ours, &keys[..key], &salts[..salt]).unwrap();
        let mut client_open = crate::srtp::SrtpOpen::new(ours, &keys[key..], &salts[salt..]).unwrap();
        let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
        let mut packet = [0; 64];
        let len = client_seal.seal_rtcp(&report, &mut packet).unwrap();
        assert_eq!(open.open_rtcp(&mut packet[..len]), Ok(8));
        let len = seal.seal_rtcp(&report, &mut packet).unwrap();
        assert_eq!(client_open.open_rtcp(&mut packet[..len]), Ok(8));
        assert!(srtp_contexts(&exported[1..], profile).is_none());
    }
}

#[test]
fn a_wrong_fingerprint_ends_the_transport_before_any_key() {
    let wrong = RemoteTransport { fingerprint: Fingerprint([7; 32]), ..client_description() };
    let mut pair = Pair::with(Vec::new(), 1150, Some(wrong));
    pair.check(true);
    pair.run();
    assert_eq!(pair.events, [TransportEvent::Closed(CloseReason::FingerprintMismatch)]);
    assert_eq!(pair.drops[0], DropReason::DtlsFingerprint);
    assert!(pair.relay.is_closed() && !pair.relay.is_connected());
    assert!(pair.relay.seal_and_addr().is_none());
    assert!(!pair.client.dtls_connected, "the relay's Finished was never sent");
    let mut rtcp = [0; 40];
    assert_eq!(pair.relay.open_rtcp(&mut rtcp), Err(DropReason::SrtpNotReady));
    assert_eq!(pair.relay.poll_timeout(), None);
    assert!(!pair.check(true), "nothing is answered any more");
}

#[test]
fn check_and_handshake_may_come_before_the_answer() {
    let mut pair = Pair::with(Vec::new(), 1150, None);
    assert!(pair.check(true), "the relay's password proves the client");
    pair.run();
    assert!(pair.drops.is_empty() && !pair.relay.is_connected());
    assert_eq!(pair.sent_to, [pair.from], "nothing but the answer to the check");
    pair.describe();
    // No clock moves: nothing was lost that would have to be repeated.
    pair.run();
    assert!(pair.relay.is_connected() && pair.client.dtls_connected);
    pair.exchange_media(1);
}

#[test]
fn what_waits_for_the_answer_is_bounded_and_needs_a_check() {
    let mut pair = Pair::with(Vec::new(), 1150, None);
    let hello = pair.client.poll(pair.now);
    assert!(!hello.is_empty());
    pair.send_to_relay(&hello[0]);
    assert_eq!(pair.drops, [DropReason::UnknownSource], "no check came from there");
    pair.drops.clear();
    assert!(pair.check(true));
    for _ in 0..50 {
        pair.send_to_relay(&hello[0]);
    }
    assert_eq!(pair.drops.len(), 50 - 6);
    assert!(pair.drops.iter().all(|reason| *reason == DropReason::QueueFull));
    // The time to connect starts anew with the description.
    pair.relay_waits(Duration::from_secs(20));
    pair.describe();
    pair.relay_waits(Duration::from_secs(20));
    assert!(!pair.relay.is_closed());
}

#[test]
fn a_client_hello_in_fragments_is_put_together_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut pair = Pair::with(Vec::new(), 64, Some(client_description()));
        pair.check(true);
        let mut first_flight = true;
        pair.network = Box::new(move |way, datagrams| {
            if way == Way::ToRelay && std::mem::take(&mut first_flight) {
                assert!(datagrams.len() >= 3);
                let rest = 3..datagrams.len();
                return order.into_iter().chain(rest).map(|at| datagrams[at].clone()).collect();
            }
            datagrams
        });
        pair.connect();
        assert_eq!(pair.now, pair.start, "{order:?}: no retransmission was needed");
        assert_eq!(pair.drops, []);
        pair.exchange_media(1);
    }
}

/// Browsers put a key of X25519MLKEM768 into the ClientHello, which then needs two datagrams. The engine's own client
/// cannot, so its ClientHello is lengthened; what is looked at is that the relay answers it.
#[test]
fn a_client_hello_as_long_as_a_browsers_is_answered() {
    for reverse in [false, true] {
        let mut pair = Pair::new();
        pair.check(true);
        let answered = Rc::new(RefCell::new(false));
        let sink = answered.clone();
        pair.network = Box::new(move |way, datagrams| match way {
            Way::ToRelay => {
                let mut hello = datagrams[0][25..].to_vec();
                // Version, random, no session id, no cookie; then the suites, one compression method, the extensions.
                let suites = usize::from(u16::from_be_bytes([hello[36], hello[37]]));
                let at = 38 + suites + 2;
                let extensions = u16::from_be_bytes([hello[at], hello[at + 1]]) + 1226;
                hello[at..at + 2].copy_from_slice(&extensions.to_be_bytes());
                // key_share: one entry of 1216 bytes for group 0x11ec.
                hello.extend([0, 51, 0x04, 0xc6, 0x04, 0xc4, 0x11, 0xec, 0x04, 0xc0]);
                hello.extend([0xa5; 1216]);
                let total = (hello.len() as u32).to_be_bytes();
                let fragment = |start: usize, end: usize, sequence: u8| {
                    let body = &hello[start..end];
                    let mut datagram = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, sequence];
                    datagram.extend((body.len() as u16 + 12).to_be_bytes());
                    datagram.extend([1, total[1], total[2], total[3], 0, 0]);
                    datagram.extend(&(start as u32).to_be_bytes()[1..]);
                    datagram.extend(&(body.len() as u32).to_be_bytes()[1..]);
                    datagram.extend(body);
                    datagram
                };
                let mut fragments = vec![fragment(0, 1000, 0), fragment(1000, hello.len(), 1)];
                if reverse {
                    fragments.reverse();
                }
                fragments
            }
            Way::ToClient => {
                // A handshake record with a ServerHello.
                *sink.borrow_mut() |= datagrams.iter().any(|d| d[0] == 22 && d[13] == 2);
                Vec::new()
            }
        });
        pair.run();
        assert!(*answered.borrow(), "reverse {reverse}, drops {:?}", pair.drops);
    }
}

#[test]
fn a_lost_last_flight_is_repeated() {
    let mut pair = Pair::new();
    pair.check(true);
    // The relay's second DTLS flight, ChangeCipherSpec and Finished, is lost once.
    let mut flights = 0;
    pair.network = Box::new(move |way, datagrams| {
        if way == Way::ToClient && !datagrams.is_empty() {
            let is_last = datagrams[0].first() == Some(&20);
            flights += u32::from(is_last);
            if is_last && flights == 1 {
                return Vec::new();
            }
        }
        datagrams
    });
    pair.run();
    assert!(pair.relay.is_connected() && !pair.client.dtls_connected);
    pair.connect();
    pair.exchange_media(1);
}

#[test]
fn without_checks_it_never_connects() {
    let mut pair = Pair::new();
    pair.relay.poll_timeout().unwrap();
    pair.network = Box::new(|_, _| Vec::new());
    pair.advance(Duration::from_millis(29_999));
    assert!(!pair.relay.is_closed());
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.events, [TransportEvent::Closed(CloseReason::NeverConnected)]);
}

#[test]
fn with_checks_but_no_handshake_it_never_connects() {
    let mut pair = Pair::new();
    pair.network = Box::new(|way, datagrams| if way == Way::ToRelay { Vec::new() } else { datagrams });
    for _ in 0..15 {
        pair.check(true);
        pair.advance(Duration::from_secs(2));
    }
    assert_eq!(pair.events, [TransportEvent::Closed(CloseReason::NeverConnected)]);
}

#[test]
fn a_client_that_stops_in_the_middle_of_the_handshake_never_connects() {
    let mut pair = Pair::new();
    pair.check(true);
    let mut flights = 0;
    pair.network = Box::new(move |way, datagrams| {
        flights += u32::from(way == Way::ToRelay);
        if flights > 1 { Vec::new() } else { datagrams }
    });
    for _ in 0..16 {
        pair.check(true);
        // The client's own timers would make it give up; only the relay's are looked at.
        for _ in 0..20 {
            pair.relay_waits(Duration::from_millis(100));
        }
    }
    assert_eq!(pair.events, [TransportEvent::Closed(CloseReason::NeverConnected)]);
}

#[test]
fn consent_expires_thirty_seconds_after_the_last_check() {
    let mut pair = Pair::connected();
    for _ in 0..20 {
        pair.advance(Duration::from_secs(5));
        assert!(pair.check(false));
    }
    pair.advance(Duration::from_millis(29_999));
    pair.exchange_media(1);
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.events[1..], [TransportEvent::Closed(CloseReason::ConsentExpired)]);
    assert!(pair.relay.seal_and_addr().is_none(), "nothing goes to an address without consent");
    assert!(!pair.relay.accepts(address(CLIENT)));
}

#[test]
fn the_client_moves_to_another_address() {
    let mut pair = Pair::with_channels(Vec::new());
    pair.open_channel(0, "_reliable", false);
    pair.from = address("[2001:db8::7]:1234");
    pair.client_sends(0, sctp_proto::PayloadProtocolIdentifier::Binary, b"from nowhere");
    assert_eq!(pair.drops, [DropReason::UnknownSource]);
    assert!(pair.check(true));
    pair.sent_to.clear();
    pair.advance(Duration::from_secs(5));
    assert_eq!(&pair.take_data()[0].1[..], b"from nowhere", "SCTP sent it again");
    pair.exchange_media(1);
    assert!(pair.sent_to.iter().all(|&to| to == pair.from), "DTLS follows");
    assert!(pair.relay.accepts(address(CLIENT)), "the old address keeps its consent until it expires");
}

#[test]
fn the_client_moves_to_tcp_and_back() {
    let mut pair = Pair::connected();
    let udp = pair.from;
    for (seq, from) in
        [Remote::tcp(udp.addr, TcpId(1)), udp, Remote::tcp(udp.addr, TcpId(2))].into_iter().enumerate()
    {
        pair.from = from;
        pair.advance(Duration::from_millis(10));
        assert!(pair.check(true));
        assert_eq!(pair.relay.remote(), Some(from));
        pair.sent_to.clear();
        pair.exchange_media(seq as u16 + 1);
        assert!(pair.sent_to.iter().all(|to| *to == from));
    }
    pair.relay.forget(pair.from);
    assert_eq!(pair.relay.remote(), Some(udp), "the connection is over");
    assert_eq!(pair.events, [TransportEvent::Connected]);
}

#[test]
fn an_ice_restart_keeps_everything_running() {
    let mut pair = Pair::connected();
    pair.relay.restart_ice(credentials("relay2"));
    let remote = RemoteTransport { ice: credentials("client2"), ..client_description() };
    pair.relay.set_remote(remote, pair.now);
    assert_eq!(pair.relay.local_ufrags().collect::<Vec<_>>(), ["relay2", "relay"]);
    assert!(pair.check(false), "old credentials");
    pair.exchange_media(1);
    pair.ufrags = ("relay2", "client2");
    pair.from = address("203.0.113.5:50000");
    assert!(pair.check(true));
    assert_eq!(pair.relay.remote(), Some(pair.from));
    pair.exchange_media(2);
    pair.ufrags = ("relay", "client");
    assert!(!pair.check(true), "old credentials are gone");
    assert_eq!(pair.events, [TransportEvent::Connected]);
}

#[test]
fn another_certificate_in_a_later_description_ends_the_transport() {
    let mut pair = Pair::connected();
    pair.relay.set_remote(client_description(), pair.now);
    assert!(pair.relay.is_connected(), "the same again changes nothing");
    let other = RemoteTransport { fingerprint: Fingerprint([1; 32]), ..client_description() };
    pair.relay.set_remote(other, pair.now);
    assert_eq!(pair.relay.poll_event(), Some(TransportEvent::Closed(CloseReason::FingerprintMismatch)));
}

#[test]
fn close_notify_reaches_the_client() {
    let mut pair = Pair::connected();
    let mut tx = TxQueue::new();
    pair.relay.close(&mut tx, pair.now);
    assert!(pair.relay.is_closed());
    assert_eq!(pair.relay.poll_event(), None);
    let alert = tx.datagrams().next().unwrap().1.to_vec();
    pair.client.dtls.handle_packet(&alert).unwrap();
    pair.run();
    assert!(pair.client.dtls_closed);
    pair.relay.close(&mut tx, pair.now);
    assert_eq!(tx.datagrams().count(), 1, "once is enough");
}

#[test]
fn close_notify_of_the_client_ends_the_transport() {
    let mut pair = Pair::connected();
    pair.client.dtls.close().unwrap();
    pair.sent_to.clear();
    pair.run();
    assert_eq!(pair.events[1..], [TransportEvent::Closed(CloseReason::RemoteClosed)]);
    assert_eq!(pair.sent_to.len(), 1, "answered by our own");
    assert!(pair.relay.is_closed());
}

#[test]
fn closing_before_the_handshake_sends_nothing() {
    let mut pair = Pair::new();
    pair.check(true);
    let mut tx = TxQueue::new();
    pair.relay.close(&mut tx, pair.now);
    assert!(pair.relay.is_closed() && tx.is_empty());
}

#[test]
fn debug_output_shows_no_secret_and_no_address() {
    let mut pair = Pair::with_channels(Vec::new());
    pair.relay_sends(crate::command::DataLabel::Reliable, b"confidential").unwrap();
    let event = TransportEvent::Data {
        label: crate::command::DataLabel::Reliable,
        payload: bytes::Bytes::from_static(b"confidential"),
    };
    let text = format!("{:?} {event:?}", pair.relay);
    for secret in ["203.0.113", "40000", "password", "relay", "\"client", "confidential", "99, 111"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Loss, duplication and reordering both ways, a ClientHello in pieces: the handshake ends, media flows.
    #[test]
    fn a_bad_network_only_delays_the_handshake(seed in any::<u64>(), mtu in prop_oneof![Just(1150usize), 64..400usize]) {
        let mut pair = Pair::with(Vec::new(), mtu, Some(client_description()));
        pair.check(true);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut budget = 4;
        pair.network = Box::new(move |_, datagrams| {
            let mut out = Vec::new();
            for datagram in datagrams {
                match rng.random_range(0..10) {
                    // An engine sends each flight five times and then gives up: what must always succeed is any
                    // handshake that loses fewer datagrams than that.
                    0 | 1 if budget > 0 => budget -= 1,
                    2 => out.extend([datagram.clone(), datagram]),
                    _ => out.push(datagram),
                }
            }
            if rng.random_bool(0.3) {
                out.shuffle(&mut rng);
            }
            out
        });
        pair.connect();
        pair.exchange_media(1);
        prop_assert_eq!(&pair.events, &[TransportEvent::Connected]);
    }
}
