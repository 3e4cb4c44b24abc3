//! Credentials for TURN servers, made from a secret that the relay shares with them: no account is kept anywhere.
//!
//! The form is that of "A REST API For Access To TURN Services"
//! ([draft-uberti-behave-turn-rest-00](https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00)), which
//! coturn calls `use-auth-secret`: the user name is the time of expiry, the password its HMAC-SHA1. The user name says
//! nothing of who uses it: TURN sends it in clear, and servers log it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use livekit_protocol as proto;
use rand::rngs::StdRng;
use ring::hmac;
use sfu_control::token::{REFRESH_LIFE, Secret};

use super::transports::token;

/// TURN servers that clients are told of.
#[derive(Debug, Clone)]
pub struct TurnConfig {
    /// `turn:` and `turns:` URLs ([RFC 7065](https://www.rfc-editor.org/rfc/rfc7065)), all of servers with this secret.
    pub urls: Vec<String>,
    /// Shared with these servers (`static-auth-secret`).
    pub secret: Secret,
    /// Longest life of credentials.
    pub life: Duration,
}

/// What a client of a participant is told. Its credentials live no longer than the token that it joined with, but as
/// long as a refreshed one at least, for clients that join at the end of a token.
pub(super) fn ice_servers(
    config: Option<&TurnConfig>,
    token_expires_at: u64,
    unix: Duration,
    rng: &mut StdRng,
) -> Vec<proto::IceServer> {
    let Some(config) = config else { return Vec::new() };
    let now = unix.as_secs();
    let expiry = token_expires_at.max(now + REFRESH_LIFE).min(now + config.life.as_secs());
    // The random part tells connections apart where the server limits allocations of one user.
    let username = format!("{expiry}:{}", token(rng, 12));
    let credential = password(&config.secret, &username);
    vec![proto::IceServer { urls: config.urls.clone(), username, credential }]
}

fn password(secret: &Secret, username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn config() -> TurnConfig {
        TurnConfig {
            urls: vec!["turns:turn.example.org:443?transport=tcp".into()],
            secret: Secret::new("a-secret-of-the-turn-server"),
            life: Duration::from_secs(7200),
        }
    }

    /// `printf %s USERNAME | openssl dgst -sha1 -hmac SECRET -binary | base64`
    #[test]
    fn the_password_is_what_coturn_computes() {
        assert_eq!(password(&config().secret, "1800007200:abcdefghijkl"), "YHfOmNeTtuG7nderMT1oHF/rYSs=");
    }

    #[test]
    fn credentials_expire_with_the_token_within_bounds_and_name_nobody() {
        let mut rng = StdRng::seed_from_u64(1);
        let now = NOW.as_secs();
        for (token_expires_at, life) in
            [(now + 3600, 3600), (now + 86_400, 7200), (now + 5, REFRESH_LIFE), (u64::MAX, 7200)]
        {
            let servers = ice_servers(Some(&config()), token_expires_at, NOW, &mut rng);
            assert_eq!(servers.len(), 1);
            assert_eq!(servers[0].urls, config().urls);
            let (expiry, id) = servers[0].username.split_once(':').unwrap();
            assert_eq!(expiry.parse::<u64>().unwrap(), now + life);
            assert_eq!(id.len(), 12);
            assert_eq!(servers[0].credential, password(&config().secret, &servers[0].username));
        }
        let two: Vec<_> = (0..2).flat_map(|_| ice_servers(Some(&config()), now, NOW, &mut rng)).collect();
        assert_ne!(two[0].username, two[1].username);
        assert!(ice_servers(None, now, NOW, &mut rng).is_empty());
    }
}
