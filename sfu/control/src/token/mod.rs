//! LiveKit access tokens: JSON Web Tokens ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) with a `video` grant.
//!
//! A token is signed either by HS256 with the secret of an API key that its `iss` names, or by EdDSA (Ed25519), ES256
//! or RS256 with a key of a JSON Web Key Set that its `kid` names. The key, never the token, decides the algorithm
//! ([RFC 8725 section 3.1](https://www.rfc-editor.org/rfc/rfc8725#section-3.1)): there is no `none`, and a public key
//! is never taken for an HMAC secret.

mod claims;
mod jwks;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;
use tokio::sync::Notify;

pub use claims::{Claims, GrantError, MAX_NAME_SIZE, VideoGrants};
pub use jwks::{Jwks, JwksError, MAX_JWKS_SIZE};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_SIZE: usize = 8 * 1024;

/// How far the clocks of token maker and verifier may be apart, in seconds; applied to `exp` and `nbf`.
pub const LEEWAY: u64 = 10;

/// Shortest API secret, in bytes ([RFC 7518 section 3.2](https://www.rfc-editor.org/rfc/rfc7518#section-3.2)).
pub const MIN_SECRET_SIZE: usize = 32;

/// Refreshed tokens live at least this long, in seconds.
pub const REFRESH_LIFE: u64 = 10 * 60;

/// No refreshed token outlives the first token's use by more than this, in seconds.
pub const MAX_REFRESHED_SESSION: u64 = 12 * 60 * 60;

/// The secret of an API key; its `Debug` form shows nothing.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for signing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why an API key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key has no name.
    #[error("an API key's name is empty")]
    EmptyName,
    /// The secret is shorter than [`MIN_SECRET_SIZE`].
    #[error("the secret of API key {0:?} is shorter than {MIN_SECRET_SIZE} bytes")]
    ShortSecret(String),
}

/// Why a token was refused. The texts never carry a part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN_SIZE`].
    #[error("token is longer than {MAX_TOKEN_SIZE} bytes")]
    TooLarge,
    /// Not three base64url parts of which the first two are JSON objects of the expected shape.
    #[error("token is malformed: {0}")]
    Malformed(&'static str),
    /// The header's `alg` is not one that is accepted, or not the one of the key.
    #[error("token's signing algorithm is not accepted")]
    Algorithm,
    /// No API key of the name in `iss`, no public key of the id in `kid`.
    #[error("token is signed by an unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("token signature is invalid")]
    Signature,
    /// `exp` is missing.
    #[error("token has no expiry")]
    NoExpiry,
    /// `exp` has passed.
    #[error("token is expired")]
    Expired,
    /// `nbf` has not come.
    #[error("token is not valid yet")]
    NotYetValid,
    /// `iss` or `aud` is not what the key set's configuration demands.
    #[error("token is meant for another issuer or audience")]
    WrongParty,
}

/// Verifies tokens. Shared by reference; the key set may be replaced at run time.
pub struct Verifier {
    keys: HashMap<String, ApiKey>,
    jwks: RwLock<Option<Arc<Jwks>>>,
    /// Told when a token names a public key that is not in the set.
    unknown_kid: Notify,
}

struct ApiKey {
    secret: Secret,
    mac: hmac::Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("api_keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// The parts of the header that matter ([RFC 7515 section 4.1](https://www.rfc-editor.org/rfc/rfc7515#section-4.1)).
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood. None is.
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

impl Verifier {
    /// A verifier with these API keys (name and secret) and no key set.
    ///
    /// # Errors
    /// A key without a name, or with a secret below [`MIN_SECRET_SIZE`].
    pub fn new(keys: impl IntoIterator<Item = (String, Secret)>) -> Result<Self, KeyError> {
        let mut by_name = HashMap::new();
        for (name, secret) in keys {
            if name.is_empty() {
                return Err(KeyError::EmptyName);
            }
            if secret.expose().len() < MIN_SECRET_SIZE {
                return Err(KeyError::ShortSecret(name));
            }
            let mac = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
            by_name.insert(name, ApiKey { secret, mac });
        }
        Ok(Self { keys: by_name, jwks: RwLock::new(None), unknown_kid: Notify::new() })
    }

    /// Replaces the key set.
    pub fn set_jwks(&self, jwks: Option<Jwks>) {
        *self.jwks.write().unwrap_or_else(PoisonError::into_inner) = jwks.map(Arc::new);
    }

    /// There is at least one API key.
    pub(crate) fn has_api_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Completes when a token has named a public key that is not in the set, at any time since it last completed.
    pub(crate) async fn unknown_kid(&self) {
        self.unknown_kid.notified().await;
    }

    /// Checks signature, expiry and not-before, in this order, and returns what the token claims.
    ///
    /// `unix_now` is in seconds since the Unix epoch. Which room it lets its holder into is the caller's question:
    /// [`Claims::join_room`], [`Claims::permits_join`].
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, token: &str, unix_now: u64) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_SIZE {
            return Err(TokenError::TooLarge);
        }
        let (signed, signature) =
            token.rsplit_once('.').ok_or(TokenError::Malformed("three parts expected"))?;
        let (header, payload) =
            signed.split_once('.').ok_or(TokenError::Malformed("three parts expected"))?;
        if payload.contains('.') {
            return Err(TokenError::Malformed("three parts expected"));
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed("header"))?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed("header"))?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed("critical header"));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed("signature"))?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Malformed("payload"))?;

        let by_api_key = match header.alg.as_str() {
            "HS256" => {
                let issuer = claims::issuer(&payload).ok_or(TokenError::Malformed("issuer"))?;
                let key = self.keys.get(&issuer).ok_or(TokenError::UnknownKey)?;
                hmac::verify(&key.mac, signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
                true
            }
            "EdDSA" | "ES256" | "RS256" => {
                let jwks = self.jwks.read().unwrap_or_else(PoisonError::into_inner).clone();
                let kid = header.kid.as_deref().ok_or(TokenError::UnknownKey)?;
                let Some(jwks) = jwks.filter(|jwks| jwks.contains(kid)) else {
                    self.unknown_kid.notify_one();
                    return Err(TokenError::UnknownKey);
                };
                jwks.verify(&header.alg, kid, signed.as_bytes(), &signature)?;
                jwks.check_party(&payload)?;
                false
            }
            _ => return Err(TokenError::Algorithm),
        };

        let claims = Claims::decode(&payload, by_api_key)?;
        if claims.expires_at.saturating_add(LEEWAY) <= unix_now {
            return Err(TokenError::Expired);
        }
        if claims.not_before.is_some_and(|start| start > unix_now.saturating_add(LEEWAY)) {
            return Err(TokenError::NotYetValid);
        }
        Ok(claims)
    }

    /// Signs a token that lets the holder of a verified one come back with the same grants, or `None` if there is
    /// nothing to gain or it would extend what the maker of the first token meant:
    ///
    /// - only tokens by an API key are refreshed, with the same key;
    /// - tokens with an administrative grant (`roomAdmin`, `roomCreate`, `roomList`, `roomRecord`, `ingressAdmin`,
    ///   `agent`) keep their own end: such a grant is worth something without a session;
    /// - the new end is [`REFRESH_LIFE`] from now or the old one, whichever is later, but never more than
    ///   [`MAX_REFRESHED_SESSION`] after the first of the chain was used, which the new token records.
    pub fn refresh(&self, claims: &Claims, unix_now: u64) -> Option<String> {
        let key = self.keys.get(&claims.api_key).filter(|_| claims.by_api_key)?;
        if claims.video.is_administrative() {
            return None;
        }
        let since = claims.session_since.unwrap_or(unix_now).min(unix_now);
        let end = (unix_now + REFRESH_LIFE).min(since.saturating_add(MAX_REFRESHED_SESSION));
        if end <= claims.expires_at {
            return None;
        }
        let claims = Claims {
            expires_at: end,
            not_before: Some(unix_now),
            session_since: Some(since),
            sha256: String::new(),
            ..claims.clone()
        };
        Some(sign(&claims, &key.secret))
    }
}

/// Signs `claims` by HS256 as a token of `claims.api_key`, whose secret the caller gives.
pub fn sign(claims: &Claims, secret: &Secret) -> String {
    // The header never varies: {"alg":"HS256","typ":"JWT"}.
    const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut token = String::from(HEADER);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.encode(), &mut token);
    let tag = hmac::sign(&key, token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag.as_ref(), &mut token);
    token
}
