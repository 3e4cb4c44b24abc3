use super::*;
use livekit_protocol::TrackSource;
use livekit_protocol::participant_info::Kind;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn verifier() -> Verifier {
    Verifier::new([("devkey".to_owned(), Secret::new(SECRET))]).unwrap()
}

fn claims() -> Claims {
    Claims {
        identity: "jane".to_owned(),
        name: "Jane".to_owned(),
        video: VideoGrants { room_join: true, room: "visit".to_owned(), ..Default::default() },
        api_key: "devkey".to_owned(),
        by_api_key: true,
        expires_at: NOW + 600,
        not_before: Some(NOW),
        ..Default::default()
    }
}

fn encode(value: &serde_json::Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token of any header and payload, signed by `tag`.
fn forge(header: serde_json::Value, payload: serde_json::Value, tag: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(&header), encode(&payload));
    let tag = URL_SAFE_NO_PAD.encode(tag(signed.as_bytes()));
    format!("{signed}.{tag}")
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |signed| hmac::sign(&key, signed).as_ref().to_vec()
}

fn payload() -> serde_json::Value {
    json!({"iss": "devkey", "sub": "jane", "exp": NOW + 600, "video": {"roomJoin": true, "room": "visit"}})
}

#[test]
fn what_is_signed_comes_back() {
    let mut claims = claims();
    claims.video.can_publish = Some(false);
    claims.video.can_publish_sources = vec![TrackSource::ScreenShare, TrackSource::Camera];
    claims.video.hidden = true;
    claims.kind = Kind::Agent;
    claims.attributes.insert("role".to_owned(), "clinician".to_owned());
    claims.metadata = "{\"x\":1}".to_owned();
    let token = sign(&claims, &Secret::new(SECRET));
    assert_eq!(verifier().verify(&token, NOW), Ok(claims));
}

/// Made by LiveKit's Python SDK's rules; the signature was made by an independent implementation (Python's hmac).
#[test]
fn a_token_as_livekits_sdks_write_it() {
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYW1lIjoiSmFuZSIsInZpZGVvIjp7InJvb21Kb2luIjp0cnVlLCJyb29tIjoidmlzaXQiLCJjYW5QdWJsaXNoIjp0cnVlLCJjYW5TdWJzY3JpYmUiOnRydWUsImNhblB1Ymxpc2hEYXRhIjp0cnVlLCJjYW5QdWJsaXNoU291cmNlcyI6WyJjYW1lcmEiLCJtaWNyb3Bob25lIl19LCJzdWIiOiJqYW5lIiwiaXNzIjoiZGV2a2V5IiwibmJmIjoxNzk5OTk5OTAwLCJleHAiOjE4MDAwMDM2MDB9.fJocXnPxw_gf1JhHDqjsssC6BMa9PISY_Q7_O5YsjnM";
    let claims = verifier().verify(token, NOW).unwrap();
    assert_eq!((claims.identity.as_str(), claims.name.as_str()), ("jane", "Jane"));
    assert!(claims.permits_join("visit") && !claims.permits_join("other"));
    assert!(claims.video.may_publish_source(TrackSource::Camera));
    assert!(!claims.video.may_publish_source(TrackSource::ScreenShare));
    assert_eq!((claims.expires_at, claims.not_before), (1_800_003_600, Some(1_799_999_900)));
}

#[test]
fn time_bounds_hold_but_for_the_leeway() {
    let token = sign(&claims(), &Secret::new(SECRET));
    let at = |now| verifier().verify(&token, now).map(|_| ());
    assert_eq!(at(NOW - LEEWAY), Ok(()));
    assert_eq!(at(NOW - LEEWAY - 1), Err(TokenError::NotYetValid));
    assert_eq!(at(NOW + 600 + LEEWAY - 1), Ok(()));
    assert_eq!(at(NOW + 600 + LEEWAY), Err(TokenError::Expired));
    assert_eq!(at(u64::MAX), Err(TokenError::Expired));

    let with = |exp: serde_json::Value| {
        let mut payload = payload();
        payload["exp"] = exp;
        let token = forge(json!({"alg": "HS256"}), payload, hs256(SECRET.as_bytes()));
        verifier().verify(&token, NOW).map(|claims| claims.expires_at)
    };
    assert_eq!(with(json!(1_800_000_000.75)), Ok(NOW));
    assert_eq!(with(json!(null)), Err(TokenError::NoExpiry));
    assert_eq!(with(json!(-5)), Err(TokenError::Malformed("claims")));
    assert_eq!(with(json!(1e300)), Err(TokenError::Malformed("claims")));
    assert_eq!(with(json!("soon")), Err(TokenError::Malformed("claims")));
    assert_eq!(with(json!(u64::MAX)), Ok(u64::MAX));
}

#[test]
fn forged_tokens_are_refused() {
    let verify = |token: &str| verifier().verify(token, NOW).map(|_| ());
    let ok = forge(json!({"alg": "HS256"}), payload(), hs256(SECRET.as_bytes()));
    assert_eq!(verify(&ok), Ok(()));
    assert_eq!(
        verify(&forge(json!({"alg": "HS256"}), payload(), hs256(b"another"))),
        Err(TokenError::Signature)
    );
    for alg in ["none", "None", "NONE", "", "HS512", "hs256", "PS256"] {
        let unsigned = forge(json!({ "alg": alg }), payload(), |_| Vec::new());
        assert_eq!(verify(&unsigned), Err(TokenError::Algorithm), "{alg}");
        let signed = forge(json!({ "alg": alg }), payload(), hs256(SECRET.as_bytes()));
        assert_eq!(verify(&signed), Err(TokenError::Algorithm), "{alg}");
    }
    let mut stranger = payload();
    stranger["iss"] = json!("otherkey");
    assert_eq!(
        verify(&forge(json!({"alg": "HS256"}), stranger, hs256(SECRET.as_bytes()))),
        Err(TokenError::UnknownKey)
    );
    let critical = forge(json!({"alg": "HS256", "crit": ["b64"]}), payload(), hs256(SECRET.as_bytes()));
    assert_eq!(verify(&critical), Err(TokenError::Malformed("critical header")));
    // Twice the same claim: which one counts would depend on the reader.
    let signed = format!("{}.{}", encode(&json!({"alg": "HS256"})), {
        URL_SAFE_NO_PAD.encode(r#"{"iss":"devkey","exp":1800000600,"sub":"a","sub":"b"}"#)
    });
    let doubled = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hs256(SECRET.as_bytes())(signed.as_bytes())));
    assert_eq!(verify(&doubled), Err(TokenError::Malformed("claims")));
    // An empty tag, a cut one, one part more.
    let (signed, tag) = ok.rsplit_once('.').unwrap();
    assert_eq!(verify(&format!("{signed}.")), Err(TokenError::Signature));
    assert_eq!(verify(&format!("{signed}.{}", &tag[..20])), Err(TokenError::Signature));
    assert!(matches!(verify(&format!("{ok}.x")), Err(TokenError::Malformed(_))));
    assert!(matches!(verify(""), Err(TokenError::Malformed(_))));
}

#[test]
fn oversized_tokens_are_refused_before_they_are_read() {
    let mut claims = claims();
    claims.metadata = "m".repeat(MAX_TOKEN_SIZE);
    let token = sign(&claims, &Secret::new(SECRET));
    assert_eq!(verifier().verify(&token, NOW), Err(TokenError::TooLarge));
}

#[test]
fn grants_mean_what_livekit_says() {
    let grants = VideoGrants::default();
    assert!(grants.may_publish() && grants.may_subscribe() && grants.may_publish_data());
    assert!(!grants.may_update_own_metadata());
    let muted = VideoGrants { can_publish: Some(false), ..Default::default() };
    assert!(!muted.may_publish_data() && !muted.may_publish_source(TrackSource::Camera));

    // A source from a later protocol must not empty the list, which would permit all.
    let later: VideoGrants = serde_json::from_value(json!({"canPublishSources": ["hologram"]})).unwrap();
    assert!(
        !later.may_publish_source(TrackSource::Camera) && !later.may_publish_source(TrackSource::Unknown)
    );
    let nulls: VideoGrants =
        serde_json::from_value(json!({"roomJoin": null, "room": null, "canPublishSources": null, "new": 1}))
            .unwrap();
    assert_eq!(nulls, VideoGrants::default());

    let claims = |video| Claims { video, ..claims() };
    assert_eq!(claims(VideoGrants::default()).join_room(), Err(GrantError::Denied));
    let no_room = VideoGrants { room_join: true, ..Default::default() };
    assert_eq!(claims(no_room.clone()).join_room(), Err(GrantError::NoRoom));
    let long = VideoGrants { room: "r".repeat(257), ..no_room.clone() };
    assert_eq!(claims(long).join_room(), Err(GrantError::LongRoom));
    let nobody = Claims { identity: String::new(), ..claims(no_room) };
    assert_eq!(nobody.join_room(), Err(GrantError::NoIdentity));
    let admin = claims(VideoGrants { room_admin: true, room: "visit".to_owned(), ..Default::default() });
    assert!(admin.permits_admin("visit") && !admin.permits_admin("") && !admin.permits_join("visit"));
}

#[test]
fn a_refreshed_token_grants_nothing_new_and_has_an_end() {
    let verifier = verifier();
    let first = Claims { expires_at: NOW + 60, ..claims() };
    let token = verifier.refresh(&first, NOW).unwrap();
    let second = verifier.verify(&token, NOW).unwrap();
    assert_eq!(second.expires_at, NOW + REFRESH_LIFE);
    assert_eq!(second.session_since, Some(NOW));
    assert_eq!((&second.video, &second.identity, &second.name), (&first.video, &first.identity, &first.name));

    // The chain ends.
    let late = NOW + MAX_REFRESHED_SESSION - 60;
    let last = verifier.verify(&verifier.refresh(&second, late).unwrap(), late).unwrap();
    assert_eq!(last.expires_at, NOW + MAX_REFRESHED_SESSION);
    assert_eq!(verifier.refresh(&last, late + 30), None);

    // Nothing to gain, other keys, administrative grants.
    assert_eq!(verifier.refresh(&Claims { expires_at: NOW + 3600, ..claims() }, NOW), None);
    assert_eq!(verifier.refresh(&Claims { by_api_key: false, ..first.clone() }, NOW), None);
    let mut admin = first;
    admin.video.room_admin = true;
    assert_eq!(verifier.refresh(&admin, NOW), None);
}

#[test]
fn secrets_do_not_show() {
    assert_eq!(format!("{:?}", Secret::new(SECRET)), "Secret(..)");
    assert!(!format!("{:?}", claims()).contains("jane"));
    assert!(!format!("{:?}", verifier()).contains("0123"));
    assert_eq!(
        Verifier::new([("k".to_owned(), Secret::new("short"))]).unwrap_err(),
        KeyError::ShortSecret("k".to_owned())
    );
}

/// A key pair of each kind, with its JWK.
struct Keys {
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

impl Keys {
    fn new() -> Self {
        let rng = SystemRandom::new();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&rng).unwrap();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        Self {
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &rng).unwrap(),
            rsa: RsaKeyPair::from_pkcs8(include_bytes!("test-rsa.pk8")).unwrap(),
        }
    }

    fn jwks(&self) -> serde_json::Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = self.p256.public_key().as_ref();
        let rsa = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": b64(self.ed25519.public_key().as_ref())},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": b64(&point[1..33]), "y": b64(&point[33..])},
            {"kty": "RSA", "kid": "rsa", "n": b64(&rsa.n), "e": b64(&rsa.e)},
            {"kty": "RSA", "kid": "enc", "use": "enc", "n": b64(&rsa.n), "e": b64(&rsa.e)},
            {"kty": "oct", "kid": "oct", "k": b64(SECRET.as_bytes())},
            {"kty": "later", "kid": 7},
        ]})
    }

    fn sign(&self, alg: &str, signed: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match alg {
            "EdDSA" => self.ed25519.sign(signed).as_ref().to_vec(),
            "ES256" => self.p256.sign(&rng, signed).unwrap().as_ref().to_vec(),
            _ => {
                let mut tag = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&ring::signature::RSA_PKCS1_SHA256, &rng, signed, &mut tag).unwrap();
                tag
            }
        }
    }

    fn token(&self, alg: &str, kid: &str, signer: &str) -> String {
        forge(json!({"alg": alg, "kid": kid}), payload(), |signed| self.sign(signer, signed))
    }
}

#[test]
fn key_sets_verify_each_algorithm_with_its_own_key_only() {
    let keys = Keys::new();
    let verifier = verifier();
    let verify = |token: &str| verifier.verify(token, NOW).map(|claims| claims.by_api_key);
    assert_eq!(verify(&keys.token("EdDSA", "ed", "EdDSA")), Err(TokenError::UnknownKey), "no set yet");

    let set = Jwks::parse(keys.jwks().to_string().as_bytes()).unwrap();
    assert_eq!(set.len(), 3);
    verifier.set_jwks(Some(set.clone()));
    for (alg, kid) in [("EdDSA", "ed"), ("ES256", "ec"), ("RS256", "rsa")] {
        assert_eq!(verify(&keys.token(alg, kid, alg)), Ok(false), "{alg}");
        assert_eq!(verify(&keys.token(alg, "unknown", alg)), Err(TokenError::UnknownKey), "{alg}");
        assert_eq!(
            verify(&forge(json!({ "alg": alg }), payload(), |s| keys.sign(alg, s))),
            Err(TokenError::UnknownKey)
        );
        for (other, key) in [("EdDSA", "ed"), ("ES256", "ec"), ("RS256", "rsa")] {
            if other != alg {
                assert_eq!(
                    verify(&keys.token(alg, key, alg)),
                    Err(TokenError::Algorithm),
                    "{alg} by {other}"
                );
                assert_eq!(
                    verify(&keys.token(alg, kid, other)),
                    Err(TokenError::Signature),
                    "{alg} by {other}"
                );
            }
        }
    }
    for kid in ["enc", "oct"] {
        assert_eq!(verify(&keys.token("RS256", kid, "RS256")), Err(TokenError::UnknownKey));
    }
    // The classic confusion: an HMAC keyed with a public key that everybody knows.
    let public = keys.ed25519.public_key().as_ref().to_vec();
    let confused = forge(json!({"alg": "HS256", "kid": "ed"}), payload(), hs256(&public));
    assert_eq!(verify(&confused), Err(TokenError::Signature));

    // Tokens of a key set are never refreshed, even if their issuer has an API key's name.
    let claims = verifier.verify(&keys.token("EdDSA", "ed", "EdDSA"), NOW).unwrap();
    assert_eq!(verifier.refresh(&Claims { expires_at: NOW, ..claims }, NOW), None);

    verifier.set_jwks(Some(set.clone().with_issuer(Some("idp".to_owned()))));
    assert_eq!(verify(&keys.token("EdDSA", "ed", "EdDSA")), Err(TokenError::WrongParty));
    verifier.set_jwks(Some(set.clone().with_audience(Some("curtain".to_owned()))));
    assert_eq!(verify(&keys.token("EdDSA", "ed", "EdDSA")), Err(TokenError::WrongParty));
    for audience in [json!("curtain"), json!(["other", "curtain"])] {
        let mut payload = payload();
        payload["aud"] = audience;
        let token = forge(json!({"alg": "EdDSA", "kid": "ed"}), payload, |s| keys.sign("EdDSA", s));
        assert_eq!(verify(&token), Ok(false));
    }

    verifier.set_jwks(None);
    assert_eq!(verify(&keys.token("EdDSA", "ed", "EdDSA")), Err(TokenError::UnknownKey));
}

#[test]
fn unusable_key_sets_are_refused() {
    let keys = Keys::new();
    let parse = |value: serde_json::Value| Jwks::parse(value.to_string().as_bytes()).map(|_| ());
    assert_eq!(Jwks::parse(b"{").unwrap_err(), JwksError::Malformed);
    assert_eq!(parse(json!({"keys": []})), Err(JwksError::NoUsableKey));
    let mut twice = keys.jwks();
    let first = twice["keys"][0].clone();
    twice["keys"].as_array_mut().unwrap().push(first);
    assert_eq!(parse(twice), Err(JwksError::DuplicateKid));
    let short =
        json!({"keys": [{"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB"}]});
    assert_eq!(parse(short), Err(JwksError::NoUsableKey));
    assert_eq!(parse(json!({"keys": vec![json!({}); 300]})), Err(JwksError::TooLarge));
    assert_eq!(Jwks::parse(&vec![b' '; MAX_JWKS_SIZE + 1]).unwrap_err(), JwksError::TooLarge);
}

proptest! {
    #[test]
    fn arbitrary_text_never_verifies(token in ".{0,200}", now in any::<u64>()) {
        prop_assert!(verifier().verify(&token, now).is_err());
    }

    #[test]
    fn arbitrary_signed_payloads_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200), json in "\\{\"iss\":\"devkey\",\"exp\":[0-9e.-]{0,9}.{0,80}\\}") {
        for payload in [payload, json.into_bytes()] {
            let signed = format!("{}.{}", encode(&json!({"alg": "HS256"})), URL_SAFE_NO_PAD.encode(payload));
            let tag = URL_SAFE_NO_PAD.encode(hs256(SECRET.as_bytes())(signed.as_bytes()));
            let _ = verifier().verify(&format!("{signed}.{tag}"), NOW);
        }
    }

    #[test]
    fn one_changed_character_breaks_a_token(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]") {
        let token = sign(&claims(), &Secret::new(SECRET));
        let at = at.index(token.len());
        prop_assume!(&token[at..=at] != "." && token[at..=at] != with);
        let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
        // The last character of a tag has four bits that say nothing; they must be zero.
        prop_assert!(verifier().verify(&changed, NOW).is_err());
    }

    #[test]
    fn signed_claims_come_back(identity in ".{0,40}", room in ".{0,40}", metadata in ".{0,40}", exp in NOW..NOW * 2, hidden in any::<bool>(), publish in any::<Option<bool>>()) {
        let mut claims = claims();
        claims.identity = identity;
        claims.metadata = metadata;
        claims.expires_at = exp;
        claims.video = VideoGrants { room, hidden, can_publish: publish, room_join: true, ..Default::default() };
        let token = sign(&claims, &Secret::new(SECRET));
        prop_assert_eq!(verifier().verify(&token, NOW), Ok(claims));
    }

    #[test]
    fn arbitrary_key_sets_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), x in "[A-Za-z0-9_-]{0,60}") {
        let _ = Jwks::parse(&bytes);
        for (kty, crv) in [("OKP", "Ed25519"), ("EC", "P-256"), ("RSA", "")] {
            let set = json!({"keys": [{"kty": kty, "crv": crv, "kid": "k", "x": x, "y": x, "n": x, "e": x}]});
            let _ = Jwks::parse(set.to_string().as_bytes());
        }
    }
}
