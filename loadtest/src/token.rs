//! Access tokens for the bots, signed with the operator's own API key as a backend would.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;

use crate::client::CLOCK_SPARE;

/// What lets participants in.
#[derive(Clone)]
pub enum Entry {
    /// A key signs a token for each join.
    Key(ApiKey),
    /// Tokens by identity.
    Tokens(HashMap<String, String>),
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Entry::Key(key) => key.fmt(f),
            Entry::Tokens(tokens) => write!(f, "{} tokens", tokens.len()),
        }
    }
}

impl Entry {
    /// A token for a participant, if there is one; good for `life` where it is signed now.
    pub(crate) fn token(&self, room: &str, identity: &str, life: Duration) -> Option<String> {
        match self {
            Entry::Key(key) => Some(key.token(room, identity, life)),
            Entry::Tokens(tokens) => tokens.get(identity).cloned(),
        }
    }
}

/// An API key and its secret.
#[derive(Clone)]
pub struct ApiKey {
    /// Name of the key.
    pub name: String,
    /// Its secret.
    pub secret: String,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ApiKey {
    /// A participant's token for a room (JWT with HS256, [RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)).
    pub fn token(&self, room: &str, identity: &str, life: Duration) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let claims = json!({
            "iss": self.name,
            "sub": identity,
            "name": identity,
            // The machines' clocks may differ a little.
            "nbf": now.saturating_sub(CLOCK_SPARE.as_secs()),
            "exp": now + life.as_secs(),
            "video": {
                "roomJoin": true, "room": room,
                "canPublish": true, "canSubscribe": true, "canPublishData": true,
            },
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}
