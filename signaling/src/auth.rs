//! From an HTTP request to verified claims, and the key set that stays fresh.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sfu_control::token::{Claims, Jwks, MAX_JWKS_SIZE, TokenError, Verifier};

use crate::config::JwksConfig;
use crate::{https, metrics};

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Reads a key set from where the configuration says.
pub(crate) struct JwksSource {
    config: JwksConfig,
    url: Option<https::Url>,
}

impl JwksSource {
    /// # Errors
    /// The URL is unusable, or there are no trusted certificates on this machine.
    pub(crate) fn new(config: JwksConfig) -> anyhow::Result<Self> {
        let url = config.url.as_deref().map(https::Url::new).transpose().context("[jwks] url")?;
        Ok(Self { config, url })
    }

    /// Reads the set once.
    pub(crate) async fn load(&self) -> anyhow::Result<Jwks> {
        let json = match (&self.config.file, &self.url) {
            (Some(file), _) => {
                let size = tokio::fs::metadata(file).await.map(|meta| meta.len());
                let size = size.with_context(|| format!("cannot read {}", file.display()))?;
                ensure!(size <= MAX_JWKS_SIZE as u64, "{} is too large", file.display());
                tokio::fs::read(file).await.with_context(|| format!("cannot read {}", file.display()))?.into()
            }
            (None, Some(url)) => {
                let answer = tokio::time::timeout(FETCH_TIMEOUT, url.get(MAX_JWKS_SIZE)).await;
                answer.context("the identity provider does not answer")??
            }
            (None, None) => anyhow::bail!("no source of keys"),
        };
        let jwks = Jwks::parse(&json)?;
        Ok(jwks.with_issuer(self.config.issuer.clone()).with_audience(self.config.audience.clone()))
    }

    /// Keeps the verifier's key set fresh. A set that cannot be read leaves the last good one in force.
    pub(crate) async fn keep_fresh(self, verifier: Arc<Verifier>) {
        let regular = Duration::from_secs(self.config.refresh_seconds);
        let mut wait = regular;
        loop {
            tokio::time::sleep(wait).await;
            match self.load().await {
                Ok(jwks) => {
                    verifier.set_jwks(Some(jwks));
                    wait = regular;
                }
                Err(error) => {
                    ::metrics::counter!(metrics::JWKS_FAILURES).increment(1);
                    tracing::warn!(error = %format!("{error:#}"), "the key set cannot be read; the last one stays");
                    wait = regular.min(Duration::from_secs(30));
                }
            }
        }
    }
}
