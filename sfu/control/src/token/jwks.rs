//! JSON Web Key Sets ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)): the public keys of an identity provider.

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature;
use serde::Deserialize;

use super::TokenError;

/// Longest key set that is parsed, in bytes.
pub const MAX_JWKS_SIZE: usize = 256 * 1024;

const MAX_KEYS: usize = 256;

/// A parsed key set, with what tokens signed by its keys must name.
#[derive(Clone, Default)]
pub struct Jwks {
    keys: HashMap<String, PublicKey>,
    issuer: Option<String>,
    audience: Option<String>,
}

/// One algorithm per kind of key: the key decides it.
#[derive(Clone)]
enum PublicKey {
    Ed25519([u8; 32]),
    /// Uncompressed point.
    P256([u8; 65]),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// Why a key set was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JwksError {
    /// Longer than [`MAX_JWKS_SIZE`], or more than 256 keys.
    #[error("the key set is too large")]
    TooLarge,
    /// Not a JSON object with an array `keys`.
    #[error("the key set is not a JSON Web Key Set")]
    Malformed,
    /// None of the keys can verify a token.
    #[error("the key set holds no Ed25519, P-256 or RSA (2048 bits or more) signature key with a kid")]
    NoUsableKey,
    /// Two usable keys share a kid.
    #[error("two keys of the key set have the same kid")]
    DuplicateKid,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl Jwks {
    /// Parses a key set. Keys that cannot verify a token here (other kinds, other uses, no `kid`) are skipped, as
    /// [RFC 7517 section 5](https://www.rfc-editor.org/rfc/rfc7517#section-5) asks.
    ///
    /// # Errors
    /// See [`JwksError`].
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > MAX_JWKS_SIZE {
            return Err(JwksError::TooLarge);
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| JwksError::Malformed)?;
        if set.keys.len() > MAX_KEYS {
            return Err(JwksError::TooLarge);
        }
        let mut keys = HashMap::new();
        for value in set.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
            let Some((kid, key)) = usable(jwk) else { continue };
            if keys.insert(kid, key).is_some() {
                return Err(JwksError::DuplicateKid);
            }
        }
        if keys.is_empty() { Err(JwksError::NoUsableKey) } else { Ok(Self { keys, ..Self::default() }) }
    }

    /// Tokens must name this issuer (`iss`).
    #[must_use]
    pub fn with_issuer(self, issuer: Option<String>) -> Self {
        Self { issuer, ..self }
    }

    /// Tokens must name this audience (`aud`).
    #[must_use]
    pub fn with_audience(self, audience: Option<String>) -> Self {
        Self { audience, ..self }
    }

    /// Number of usable keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// There is no usable key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    pub(super) fn verify(&self, alg: &str, kid: &str, signed: &[u8], tag: &[u8]) -> Result<(), TokenError> {
        let key = self.keys.get(kid).ok_or(TokenError::UnknownKey)?;
        if alg != key.algorithm() {
            return Err(TokenError::Algorithm);
        }
        let outcome = match key {
            PublicKey::Ed25519(x) => {
                signature::UnparsedPublicKey::new(&signature::ED25519, x).verify(signed, tag)
            }
            PublicKey::P256(point) => {
                signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(signed, tag)
            }
            PublicKey::Rsa { n, e } => signature::RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                signed,
                tag,
            ),
        };
        outcome.map_err(|_| TokenError::Signature)
    }

    pub(super) fn check_party(&self, payload: &[u8]) -> Result<(), TokenError> {
        #[derive(Deserialize)]
        struct Party {
            iss: Option<String>,
            aud: Option<Audience>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Audience {
            One(String),
            Many(Vec<String>),
        }
        if self.issuer.is_none() && self.audience.is_none() {
            return Ok(());
        }
        let party: Party = serde_json::from_slice(payload).map_err(|_| TokenError::Malformed("claims"))?;
        let issuer_fits = self.issuer.is_none() || self.issuer == party.iss;
        let audience_fits = match (&self.audience, party.aud) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wanted), Some(Audience::One(audience))) => *wanted == audience,
            (Some(wanted), Some(Audience::Many(audiences))) => audiences.contains(wanted),
        };
        if issuer_fits && audience_fits { Ok(()) } else { Err(TokenError::WrongParty) }
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl PublicKey {
    const fn algorithm(&self) -> &'static str {
        match self {
            PublicKey::Ed25519(_) => "EdDSA",
            PublicKey::P256(_) => "ES256",
            PublicKey::Rsa { .. } => "RS256",
        }
    }
}

fn usable(jwk: Jwk) -> Option<(String, PublicKey)> {
    if jwk.usage.is_some_and(|usage| usage != "sig") {
        return None;
    }
    let bytes = |part: Option<String>| URL_SAFE_NO_PAD.decode(part?).ok();
    let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("OKP", Some("Ed25519")) => PublicKey::Ed25519(bytes(jwk.x)?.try_into().ok()?),
        ("EC", Some("P-256")) => {
            let (x, y): ([u8; 32], [u8; 32]) =
                (bytes(jwk.x)?.try_into().ok()?, bytes(jwk.y)?.try_into().ok()?);
            let mut point = [4; 65];
            point[1..33].copy_from_slice(&x);
            point[33..].copy_from_slice(&y);
            PublicKey::P256(point)
        }
        ("RSA", _) => {
            let (n, e) = (bytes(jwk.n)?, bytes(jwk.e)?);
            // ring refuses a modulus with leading zeros, and anything below 2048 bits.
            let n: Vec<u8> = n.into_iter().skip_while(|&byte| byte == 0).collect();
            (n.len() >= 256).then_some(PublicKey::Rsa { n, e })?
        }
        _ => return None,
    };
    if jwk.alg.is_some_and(|alg| alg != key.algorithm()) {
        return None;
    }
    Some((jwk.kid?, key))
}
