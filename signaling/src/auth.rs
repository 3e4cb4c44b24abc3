//! From an HTTP request to verified claims.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sfu_control::token::{Claims, TokenError, Verifier};

/// Why a request has no claims. The texts are LiveKit's, which SDKs show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// No token at all.
    #[error("permissions denied")]
    Missing,
    /// An `Authorization` header of another kind.
    #[error("invalid authorization header. Must start with Bearer ")]
    Scheme,
    /// A token that is not valid.
    #[error("invalid authorization token: {0}")]
    Token(#[from] TokenError),
}

/// Verified claims, and the token that they came from for the relay to verify again.
pub(crate) struct Verified {
    pub(crate) token: String,
    pub(crate) claims: Claims,
}

/// Takes the token from the `Authorization` header, else from `parameter`, and verifies it.
pub(crate) fn verify(
    verifier: &Verifier,
    headers: &HeaderMap,
    parameter: Option<String>,
) -> Result<Verified, AuthError> {
    let token = match headers.get(AUTHORIZATION) {
        Some(value) => {
            let value = value.to_str().map_err(|_| AuthError::Scheme)?;
            value.strip_prefix("Bearer ").ok_or(AuthError::Scheme)?.to_owned()
        }
        None => parameter.filter(|token| !token.is_empty()).ok_or(AuthError::Missing)?,
    };
    let claims = verifier.verify(&token, unix_now().as_secs())?;
    Ok(Verified { token, claims })
}

/// Time since the Unix epoch.
pub(crate) fn unix_now() -> Duration {
    // A clock before 1970 makes every token invalid, which is the safe side.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
