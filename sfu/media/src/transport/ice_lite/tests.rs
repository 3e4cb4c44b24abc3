use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::ids::TcpId;
use crate::sim::clock::epoch;

const CONSENT: Duration = Duration::from_secs(30);

fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials { ufrag: ufrag.into(), pwd: format!("password-of-{ufrag}-0123456789") }
}

fn address(port: u16) -> Remote {
    SocketAddr::from(([192, 0, 2, 1], port)).into()
}

/// A check for `local` (and its password) by `remote`.
fn check(local: &str, remote: &str, nominate: bool) -> Vec<u8> {
    let mut check = MessageWriter::new(Class::Request, &[7; 12])
        .username(&format!("{local}:{remote}"))
        .role(Role::Controlling(1))
        .priority(1);
    if nominate {
        check = check.use_candidate();
    }
    check.finish(&IntegrityKey::new(&credentials(local).pwd)).to_vec()
}

/// An agent `relay` that expects `client`, and a clock.
fn agent() -> (IceLite, Instant) {
    let mut ice = IceLite::new(credentials("relay"), CONSENT);
    ice.set_remote("client");
    (ice, epoch())
}

#[test]
fn a_check_is_answered_with_the_address_it_came_from() {
    let (mut ice, now) = agent();
    let response = ice.handle(address(1), &check("relay", "client", false), now).unwrap().unwrap();
    let response = Message::parse(&response).unwrap();
    assert_eq!(response.class(), Class::Success);
    assert_eq!(response.transaction_id(), &[7; 12]);
    assert_eq!(response.xor_mapped_address(), Some(address(1).addr));
    assert_eq!(response.verify(&IntegrityKey::new(&credentials("relay").pwd)), Ok(()));
    assert!(ice.accepts(address(1)));
    assert!(!ice.accepts(address(2)));
}

#[test]
fn nothing_without_valid_credentials_is_answered() {
    let (mut ice, now) = agent();
    let key = IntegrityKey::new(&credentials("relay").pwd);
    let unsigned =
        MessageWriter::new(Class::Request, &[7; 12]).username("relay:client").finish_without_integrity();
    let wrong_key = MessageWriter::new(Class::Request, &[7; 12])
        .username("relay:client")
        .finish(&IntegrityKey::new("another password"));
    let nameless = MessageWriter::new(Class::Request, &[7; 12]).finish(&key);
    let response = MessageWriter::new(Class::Success, &[7; 12]).username("relay:client").finish(&key);
    for (datagram, reason) in [
        (unsigned.to_vec(), DropReason::StunIntegrity),
        (wrong_key.to_vec(), DropReason::StunIntegrity),
        (nameless.to_vec(), DropReason::StunUnknownUser),
        (check("other", "client", true), DropReason::StunUnknownUser),
        (check("relay", "stranger", true), DropReason::StunUnknownUser),
        (response.to_vec(), DropReason::StunMalformed),
    ] {
        assert_eq!(ice.handle(address(1), &datagram, now).unwrap_err(), reason);
    }
    assert!(!ice.accepts(address(1)));
    assert_eq!(ice.selected(), None);
}

#[test]
fn checks_before_the_remote_description_are_answered_where_their_password_is_right() {
    let mut ice = IceLite::new(credentials("relay"), CONSENT);
    let now = epoch();
    let forged = MessageWriter::new(Class::Request, &[7; 12])
        .username("relay:forger")
        .finish(&IntegrityKey::new("another password"));
    assert_eq!(ice.handle(address(9), &forged, now).unwrap_err(), DropReason::StunIntegrity);
    assert!(!ice.accepts(address(9)));
    let early = check("relay", "client", true);
    assert!(ice.handle(address(1), &early, now).unwrap().is_some());
    assert_eq!(ice.selected(), Some(address(1)));
    // All name the same client.
    let other = check("relay", "other", true);
    assert_eq!(ice.handle(address(2), &other, now).unwrap_err(), DropReason::StunUnknownUser);
    ice.set_remote("client");
    assert_eq!(ice.selected(), Some(address(1)), "nothing starts over");
    assert_eq!(ice.handle(address(2), &other, now).unwrap_err(), DropReason::StunUnknownUser);
    assert!(ice.handle(address(1), &early, now).unwrap().is_some());
}

#[test]
fn early_checks_count_for_nothing_when_the_description_names_another_client() {
    let mut ice = IceLite::new(credentials("relay"), CONSENT);
    let now = epoch();
    ice.handle(address(1), &check("relay", "other", true), now).unwrap();
    let long = "x".repeat(MAX_UFRAG + 1);
    let mut unnamed = IceLite::new(credentials("relay"), CONSENT);
    let result = unnamed.handle(address(1), &check("relay", &long, true), now);
    assert!(result.is_err() && !unnamed.accepts(address(1)));
    ice.set_remote("client");
    assert!(!ice.accepts(address(1)));
    assert_eq!(ice.selected(), None);
    assert!(ice.handle(address(1), &check("relay", "client", false), now).unwrap().is_some());
    // A description without a usable fragment lets nobody in, either.
    unnamed.set_remote(&long);
    let result = unnamed.handle(address(1), &check("relay", "client", true), now);
    assert_eq!(result.unwrap_err(), DropReason::StunUnknownUser);
}

#[test]
fn an_indication_is_ignored() {
    let (mut ice, now) = agent();
    let indication = MessageWriter::new(Class::Indication, &[7; 12]).finish_without_integrity();
    assert!(ice.handle(address(1), &indication, now).unwrap().is_none());
    assert!(!ice.accepts(address(1)));
}

#[test]
fn error_responses_are_authenticated_and_no_longer_than_requests() {
    let (mut ice, now) = agent();
    let key = IntegrityKey::new(&credentials("relay").pwd);
    let request = || MessageWriter::new(Class::Request, &[7; 12]).username("relay:client");
    let unknown: Vec<u16> = (0x7000..0x7010).collect();
    let many_unknown = unknown.iter().fold(request(), |request, &kind| request.attribute(kind, &[]));
    for (datagram, code) in [
        (request().role(Role::Controlling(1)).priority(1).attribute(0x7001, &[1]).finish(&key), 420),
        (many_unknown.finish(&key), 420),
        (request().priority(1).role(Role::Controlled(9)).finish(&key), 487),
    ] {
        let response = ice.handle(address(1), &datagram, now).unwrap().unwrap();
        assert!(response.len() <= datagram.len(), "{} answers {}", response.len(), datagram.len());
        let response = Message::parse(&response).unwrap();
        assert_eq!((response.class(), response.error_code()), (Class::Error, Some(code)));
        assert_eq!(response.verify(&key), Ok(()));
    }
    assert!(!ice.accepts(address(1)), "a refused check validates nothing");
}

#[test]
fn the_latest_nomination_is_selected_and_before_any_the_latest_check() {
    let (mut ice, now) = agent();
    let at = |s| now + Duration::from_secs(s);
    for (second, port, nominate, selected) in [
        (0, 1, false, 1),
        (1, 2, false, 2),
        (2, 1, false, 1),
        (3, 2, true, 2),
        // Plain checks of another pair do not displace a nomination.
        (4, 1, false, 2),
        (5, 3, true, 3),
        (6, 2, false, 3),
        (7, 2, true, 2),
    ] {
        ice.handle(address(port), &check("relay", "client", nominate), at(second)).unwrap();
        assert_eq!(ice.selected(), Some(address(selected)), "second {second}");
    }
}

#[test]
fn media_follows_a_client_whose_nat_forgot_it() {
    let (mut ice, now) = agent();
    let at = |ms| now + Duration::from_millis(ms);
    ice.handle(address(1), &check("relay", "client", true), now).unwrap();
    ice.heard(address(1), at(900));
    ice.handle(address(2), &check("relay", "client", false), at(1000)).unwrap();
    assert_eq!(ice.selected(), Some(address(1)), "a check alone may be of a spare pair");
    ice.heard(address(2), at(1800));
    assert_eq!(ice.selected(), Some(address(1)), "both are in use");
    ice.heard(address(3), at(2000));
    ice.heard(address(2), at(2000));
    assert_eq!(ice.selected(), Some(address(2)), "the old one is silent for more than a second");
    ice.handle(address(2), &check("relay", "client", false), at(2100)).unwrap();
    ice.handle(address(1), &check("relay", "client", false), at(2200)).unwrap();
    assert_eq!(ice.selected(), Some(address(2)), "and stays behind");
    ice.handle(address(1), &check("relay", "client", true), at(2300)).unwrap();
    assert_eq!(ice.selected(), Some(address(1)), "a nomination wins");
}

#[test]
fn a_nomination_moves_between_udp_and_tcp_and_a_closed_connection_is_the_last_resort() {
    let (mut ice, now) = agent();
    let udp = address(1);
    let tcp = |id| Remote::tcp(udp.addr, TcpId(id));
    ice.handle(tcp(1), &check("relay", "client", true), now).unwrap();
    assert_eq!((ice.selected(), ice.accepts(udp)), (Some(tcp(1)), false), "equal addresses are two paths");
    ice.handle(udp, &check("relay", "client", true), now).unwrap();
    assert_eq!(ice.selected(), Some(udp));
    ice.handle(tcp(1), &check("relay", "client", true), now + Duration::from_secs(1)).unwrap();
    assert_eq!(ice.selected(), Some(tcp(1)));
    ice.forget(tcp(1));
    assert_eq!(ice.selected(), Some(udp));
    ice.forget(udp);
    let again = now + Duration::from_secs(2);
    ice.handle(tcp(2), &check("relay", "client", false), again).unwrap();
    assert_eq!(ice.selected(), Some(tcp(2)), "the same port, another connection");
    ice.forget(tcp(2));
    assert!(ice.selected().is_some(), "the client has the time of its consent to come back");
    ice.expire(again + CONSENT);
    assert_eq!(ice.selected(), None);
}

#[test]
fn the_ninth_address_displaces_the_stalest_but_never_the_selected() {
    let (mut ice, now) = agent();
    ice.handle(address(1), &check("relay", "client", true), now).unwrap();
    for port in 2..=9 {
        let later = now + Duration::from_millis(u64::from(port));
        ice.handle(address(port), &check("relay", "client", false), later).unwrap();
    }
    let accepted: Vec<_> = (1..=9).filter(|&port| ice.accepts(address(port))).collect();
    assert_eq!(accepted, [1, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(ice.selected(), Some(address(1)));
}

#[test]
fn consent_expires_per_address() {
    let (mut ice, now) = agent();
    ice.handle(address(1), &check("relay", "client", true), now).unwrap();
    let later = now + Duration::from_secs(10);
    ice.handle(address(2), &check("relay", "client", false), later).unwrap();
    assert_eq!(ice.next_expiry(), Some(now + CONSENT));
    ice.expire(now + CONSENT - Duration::from_millis(1));
    assert_eq!(ice.selected(), Some(address(1)));
    ice.expire(now + CONSENT);
    assert!(!ice.accepts(address(1)));
    assert_eq!(ice.selected(), Some(address(2)), "the other address takes over");
    ice.expire(later + CONSENT);
    assert_eq!((ice.selected(), ice.next_expiry()), (None, None));
}

/// Whichever side offers the restart, and in whichever order the room passes the two descriptions on.
#[test]
fn a_restart_keeps_the_old_pair_until_a_check_with_the_new_credentials() {
    for set_remote_first in [false, true] {
        let (mut ice, now) = agent();
        ice.handle(address(1), &check("relay", "client", true), now).unwrap();
        if set_remote_first {
            ice.set_remote("client2");
            ice.restart(credentials("relay2"));
        } else {
            ice.restart(credentials("relay2"));
            assert!(
                ice.handle(address(2), &check("relay2", "client2", true), now).is_err(),
                "the answer is still on its way"
            );
            ice.set_remote("client2");
        }
        assert_eq!(ice.local_ufrags().collect::<Vec<_>>(), ["relay2", "relay"]);
        // Consent checks with the old credentials go on.
        let second = now + Duration::from_secs(1);
        assert!(ice.handle(address(1), &check("relay", "client", true), second).unwrap().is_some());
        assert_eq!(ice.selected(), Some(address(1)));

        let third = now + Duration::from_secs(2);
        ice.handle(address(2), &check("relay2", "client2", false), third).unwrap();
        assert_eq!(ice.selected(), Some(address(2)), "a new pair is better than any old one");
        assert!(ice.accepts(address(1)), "packets under way from the old address are still taken");
        assert_eq!(ice.local_ufrags().collect::<Vec<_>>(), ["relay2"]);
        let stale = ice.handle(address(1), &check("relay", "client", true), third);
        assert_eq!(stale.unwrap_err(), DropReason::StunUnknownUser);
    }
}

#[test]
fn two_restarts_in_a_row_keep_the_pair_that_works() {
    let (mut ice, now) = agent();
    ice.handle(address(1), &check("relay", "client", true), now).unwrap();
    ice.restart(credentials("relay2"));
    ice.set_remote("client2");
    ice.restart(credentials("relay3"));
    ice.set_remote("client3");
    assert!(ice.handle(address(1), &check("relay", "client", true), now).is_ok());
    assert!(ice.handle(address(1), &check("relay2", "client2", true), now).is_err());
    assert!(ice.handle(address(1), &check("relay3", "client3", true), now).is_ok());
    assert_eq!(ice.local_ufrags().collect::<Vec<_>>(), ["relay3"]);
}

#[test]
fn debug_output_shows_no_secret_and_no_address() {
    let (mut ice, now) = agent();
    ice.handle(address(1), &check("relay", "client", true), now).unwrap();
    let text = format!("{ice:?} {:?}", IntegrityKey::new("secret"));
    for secret in ["192.0.2", "password", "secret", "relay", "client"] {
        assert!(!text.contains(secret), "{text}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_nor_validate(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (mut ice, now) = agent();
        let _ = ice.handle(address(1), &bytes, now);
        prop_assert!(!ice.accepts(address(1)));
    }

    /// Whatever checks come, in whatever order with expiry: the selected address is an accepted one.
    #[test]
    fn the_selected_address_is_always_valid(
        steps in proptest::collection::vec((0u16..12, any::<bool>(), 0u64..20, 0u8..8), 1..80),
    ) {
        let (mut ice, mut now) = agent();
        let mut generation = 0;
        let name = |base: &str, generation: u32| match generation { 0 => base.to_owned(), n => format!("{base}{n}") };
        for (port, nominate, seconds, action) in steps {
            now += Duration::from_secs(seconds);
            ice.expire(now);
            if action == 0 {
                generation += 1;
                ice.restart(credentials(&name("relay", generation)));
                ice.set_remote(&name("client", generation));
            } else {
                let age = u32::from(action == 1).min(generation);
                let (local, remote) = (name("relay", generation - age), name("client", generation - age));
                let _ = ice.handle(address(port), &check(&local, &remote, nominate), now);
            }
            match ice.selected() {
                Some(selected) => prop_assert!(ice.accepts(selected)),
                None => prop_assert!((0..12).all(|port| !ice.accepts(address(port)))),
            }
        }
    }
}
