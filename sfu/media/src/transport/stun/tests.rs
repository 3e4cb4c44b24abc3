use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Password of the vectors in RFC 5769.
const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

/// [RFC 5769 section 2.1](https://www.rfc-editor.org/rfc/rfc5769#section-2.1).
const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10STUN test client\
    \x00\x24\x00\x04\x6e\x00\x01\xff\
    \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
    \x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
    \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\xe5\x7a\x3b\xcf";
/// Section 2.2.
const RESPONSE_V4: &[u8] =
    b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector\x20\
    \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
    \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
    \x80\x28\x00\x04\xc0\x7d\x4c\x96";
/// Section 2.3.
const RESPONSE_V6: &[u8] =
    b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector\x20\
    \x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
    \x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
    \x80\x28\x00\x04\xc8\xfb\x0b\x4c";

fn key() -> IntegrityKey {
    IntegrityKey::new(PASSWORD)
}

#[test]
fn rfc5769_request() {
    let message = Message::parse(REQUEST).unwrap();
    assert_eq!(message.class(), Class::Request);
    assert_eq!(message.transaction_id(), &TRANSACTION);
    assert_eq!(message.username(), Some("evtj:h6vY"));
    assert_eq!(message.ufrags(), Some(("evtj", "h6vY")));
    assert_eq!(local_ufrag(REQUEST), Ok("evtj"));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.role(), Some(Role::Controlled(0x932f_f9b1_5126_3b36)));
    assert!(!message.use_candidate());
    assert!(message.unknown_attributes().is_empty());
    assert_eq!(message.verify(&key()), Ok(()));
    assert_eq!(message.verify(&IntegrityKey::new("wrong")), Err(DropReason::StunIntegrity));
}

#[test]
fn rfc5769_responses() {
    for (response, address) in
        [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let message = Message::parse(response).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert_eq!(message.transaction_id(), &TRANSACTION);
        assert_eq!(message.xor_mapped_address(), Some(address.parse().unwrap()));
        assert_eq!(message.verify(&key()), Ok(()));
        assert_eq!(local_ufrag(response), Err(DropReason::StunMalformed));
    }
}

/// The writer makes the RFC's own bytes. SOFTWARE, which the relay does not send, is put in as any attribute; the RFC's
/// padding is spaces, ours zeros, so the name is lengthened to what the wire then holds.
#[test]
fn rfc5769_responses_are_written_as_the_rfc_has_them() {
    for (response, address) in
        [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let address: SocketAddr = address.parse().unwrap();
        let ours = MessageWriter::new(Class::Success, &TRANSACTION)
            .attribute(0x8022, b"test vector ")
            .xor_mapped_address(address)
            .finish(&key());
        let address_at = 36;
        let address_end = response.len() - 32;
        assert_eq!(ours[..22], response[..22]);
        assert_eq!(ours[address_at..address_end], response[address_at..address_end]);
        assert_eq!(ours.len(), response.len());
        let message = Message::parse(&ours).unwrap();
        assert_eq!(message.verify(&key()), Ok(()));
        assert_eq!(message.xor_mapped_address(), Some(address));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for original in [REQUEST, RESPONSE_V4, RESPONSE_V6] {
        // FINGERPRINT covers everything but its own type: flipped, it is another attribute, and the message has none.
        let fingerprint_type = original.len() - 8..original.len() - 6;
        for bit in (0..original.len() * 8).filter(|bit| !fingerprint_type.contains(&(bit / 8))) {
            let mut message = original.to_vec();
            message[bit / 8] ^= 1 << (bit % 8);
            assert!(Message::parse(&message).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn integrity_is_noticed_where_there_is_no_fingerprint() {
    let bare = &REQUEST[..REQUEST.len() - 8];
    let mut original = bare.to_vec();
    original[2..4].copy_from_slice(&0x50u16.to_be_bytes());
    assert_eq!(Message::parse(&original).unwrap().verify(&key()), Ok(()));
    // Everything but the length, which MESSAGE-INTEGRITY takes as it ought to be.
    for byte in (0..2).chain(4..original.len()) {
        let mut message = original.clone();
        message[byte] ^= 0x10;
        let outcome = Message::parse(&message).and_then(|message| message.verify(&key()));
        assert!(outcome.is_err(), "byte {byte}");
    }
}

#[test]
fn truncated_or_extended_messages_are_malformed() {
    for len in 0..REQUEST.len() {
        assert_eq!(Message::parse(&REQUEST[..len]).unwrap_err(), DropReason::StunMalformed, "{len}");
    }
    let mut longer = REQUEST.to_vec();
    longer.extend([0; 4]);
    assert!(Message::parse(&longer).is_err());
}

#[test]
fn what_lies_behind_message_integrity_is_ignored() {
    // USE-CANDIDATE, slipped in behind.
    let mut message =
        MessageWriter::new(Class::Request, &TRANSACTION).username("a:b").finish(&key()).to_vec();
    message.truncate(message.len() - 8);
    message.extend([0x00, 0x25, 0, 0]);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    let message = Message::parse(&message).unwrap();
    assert_eq!(message.verify(&key()), Ok(()));
    assert!(!message.use_candidate());
}

#[test]
fn unknown_required_attributes_are_listed_and_optional_ones_are_not() {
    let message = MessageWriter::new(Class::Request, &TRANSACTION)
        .attribute(0x7001, b"x")
        .attribute(0xc057, &[0; 4])
        .attribute(0x0003, &[])
        .finish(&key());
    assert_eq!(Message::parse(&message).unwrap().unknown_attributes(), [0x7001, 0x0003]);
}

#[test]
fn ipv4_mapped_addresses_are_reported_as_ipv4() {
    let message = MessageWriter::new(Class::Success, &TRANSACTION)
        .xor_mapped_address("[::ffff:192.0.2.7]:9".parse().unwrap())
        .finish(&key());
    let message = Message::parse(&message).unwrap();
    assert_eq!(message.xor_mapped_address(), Some("192.0.2.7:9".parse().unwrap()));
}

#[test]
fn only_binding_requests_have_a_local_ufrag() {
    for (class, username, want) in [
        (Class::Request, "abcd:efgh", Ok("abcd")),
        (Class::Request, ":", Ok("")),
        (Class::Request, "abcd", Err(DropReason::StunMalformed)),
        (Class::Indication, "abcd:efgh", Err(DropReason::StunMalformed)),
        (Class::Error, "abcd:efgh", Err(DropReason::StunMalformed)),
    ] {
        let message = MessageWriter::new(class, &TRANSACTION).username(username).finish(&key());
        assert_eq!(local_ufrag(&message), want, "{class:?} {username}");
    }
    let nameless = MessageWriter::new(Class::Request, &TRANSACTION).finish(&key());
    assert_eq!(local_ufrag(&nameless), Err(DropReason::StunMalformed));
    // Method Allocate of TURN.
    let mut allocate = MessageWriter::new(Class::Request, &TRANSACTION).finish_without_integrity();
    allocate[1] = 3;
    assert!(Message::parse(&allocate).is_err());
}

#[test]
fn a_message_that_would_grow_too_long_stays_within_its_bound() {
    let long = "x".repeat(MAX_USERNAME);
    let message = MessageWriter::new(Class::Request, &TRANSACTION)
        .username(&long)
        .attribute(0x8022, &[7; 500])
        .finish(&key());
    assert!(message.len() <= MAX_LEN);
    let message = Message::parse(&message).unwrap();
    assert_eq!(message.username(), Some(long.as_str()));
    assert_eq!(message.verify(&key()), Ok(()));
}

/// A well-formed header around arbitrary attributes, so that the parser gets past its first checks.
fn with_header(attributes: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 1];
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(MAGIC_COOKIE);
    message.extend(TRANSACTION);
    message.extend(attributes);
    message
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..256)) {
        let _ = local_ufrag(&bytes);
        if let Ok(message) = Message::parse(&with_header(&bytes)) {
            let _ = message.verify(&key());
        }
    }

    #[test]
    fn arbitrary_attributes_never_panic(
        attributes in vec((prop_oneof![0u16..0x30, 0x8020u16..0x8030, any::<u16>()], vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let mut bytes = Vec::new();
        for (kind, value) in attributes {
            bytes.extend(kind.to_be_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(&value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        if let Ok(message) = Message::parse(&with_header(&bytes)) {
            let _ = message.verify(&key());
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        transaction in any::<[u8; 12]>(),
        ip in prop_oneof![any::<u32>().prop_map(|v| IpAddr::V4(v.into())), any::<u128>().prop_map(|v| IpAddr::V6(v.into()))],
        port in any::<u16>(),
        username in "[!-~]{1,64}:[!-~]{1,64}",
        priority in any::<u32>(),
        tie_breaker in any::<u64>(),
        password in "[a-zA-Z0-9+/]{22,64}",
    ) {
        let key = IntegrityKey::new(&password);
        let written = MessageWriter::new(Class::Request, &transaction)
            .username(&username)
            .priority(priority)
            .use_candidate()
            .role(Role::Controlling(tie_breaker))
            .xor_mapped_address(SocketAddr::new(ip, port))
            .finish(&key);
        let message = Message::parse(&written).unwrap();
        prop_assert_eq!(message.transaction_id(), &transaction);
        prop_assert_eq!(message.username(), Some(username.as_str()));
        prop_assert_eq!(message.priority(), Some(priority));
        prop_assert!(message.use_candidate());
        prop_assert_eq!(message.role(), Some(Role::Controlling(tie_breaker)));
        prop_assert_eq!(message.xor_mapped_address(), Some(SocketAddr::new(ip.to_canonical(), port)));
        prop_assert_eq!(message.verify(&key), Ok(()));
        prop_assert_eq!(message.verify(&IntegrityKey::new("other")), Err(DropReason::StunIntegrity));
    }
}
