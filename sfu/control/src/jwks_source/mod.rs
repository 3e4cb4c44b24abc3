//! The key set that stays fresh: reads a JSON Web Key Set from a file or a URL into a [`Verifier`], and again when it is
//! time or when a token names a key that the set does not hold.

mod https;
#[cfg(test)]
mod test_signer;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until};

use crate::token::{Jwks, JwksError, MAX_JWKS_SIZE, Verifier};

pub use https::FetchError;

/// Smallest `refresh_seconds`.
pub const MIN_REFRESH: u64 = 10;

/// A set that could not be read is tried again after so long, if the regular time is not sooner.
const RETRY: Duration = Duration::from_secs(30);

/// Tokens with unknown keys cause at most one reading in so long: anybody can send them.
const EARLY_INTERVAL: Duration = Duration::from_secs(60);

/// Where a key set comes from, and what its tokens must say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwksConfig {
    /// A file.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// An `https` URL (`http` on loopback only).
    #[serde(default)]
    pub url: Option<String>,
    /// Tokens must name this issuer (`iss`).
    #[serde(default)]
    pub issuer: Option<String>,
    /// Tokens must name this audience (`aud`).
    #[serde(default)]
    pub audience: Option<String>,
    /// How often the set is read anew, in seconds.
    #[serde(default = "default_refresh")]
    pub refresh_seconds: u64,
}

const fn default_refresh() -> u64 {
    300
}

impl JwksConfig {
    /// What the types do not say.
    ///
    /// # Errors
    /// [`SourceError::Place`], [`SourceError::Refresh`].
    pub fn check(&self) -> Result<(), SourceError> {
        if self.file.is_some() == self.url.is_some() {
            return Err(SourceError::Place);
        }
        if self.refresh_seconds < MIN_REFRESH {
            return Err(SourceError::Refresh);
        }
        Ok(())
    }
}

/// Why a key set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The configuration names no place, or two.
    #[error("a key set needs either file or url")]
    Place,
    /// The configuration asks for more frequent readings than [`MIN_REFRESH`].
    #[error("refresh_seconds is below {MIN_REFRESH}")]
    Refresh,
    /// The file.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The URL.
    #[error("url: {0}")]
    Fetch(#[from] FetchError),
    /// What was read.
    #[error(transparent)]
    Invalid(#[from] JwksError),
}

/// Reads a key set from where the configuration says.
pub struct JwksSource {
    place: Place,
    issuer: Option<String>,
    audience: Option<String>,
    schedule: Schedule,
    /// What is in force, to tell a change.
    current: Option<Bytes>,
}

enum Place {
    File(PathBuf),
    Url(https::Url),
}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksSource").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

impl JwksSource {
    /// Reads nothing yet.
    ///
    /// # Errors
    /// See [`JwksConfig::check`]; an unusable URL, or no trusted certificates on this machine.
    pub fn new(config: JwksConfig) -> Result<Self, SourceError> {
        config.check()?;
        let place = match (config.file, config.url) {
            (Some(file), _) => Place::File(file),
            (None, Some(url)) => Place::Url(https::Url::new(&url)?),
            (None, None) => return Err(SourceError::Place),
        };
        Ok(Self {
            place,
            issuer: config.issuer,
            audience: config.audience,
            schedule: Schedule::new(Duration::from_secs(config.refresh_seconds), Instant::now()),
            current: None,
        })
    }

    /// Reads the set for the first time, then returns the work that keeps it fresh until it is dropped; the caller
    /// spawns it. `failed` is called for each failed attempt, to count it. A set that cannot be read, or is not valid,
    /// leaves the last good one in force.
    ///
    /// # Errors
    /// The set cannot be read and the verifier has no API keys either. With API keys that is a warning: an identity
    /// provider that is away must not keep their holders out.
    pub async fn follow(
        mut self,
        verifier: Arc<Verifier>,
        failed: impl Fn() + Send + 'static,
    ) -> Result<impl Future<Output = ()> + Send + 'static, SourceError> {
        if let Err(error) = self.update(&verifier).await {
            if !verifier.has_api_keys() {
                return Err(error);
            }
            failed();
            tracing::warn!(%error, "the key set cannot be read yet");
        }
        Ok(async move {
            loop {
                let Schedule { next, early_from, .. } = self.schedule;
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = async { sleep_until(early_from).await; verifier.unknown_kid().await } => {
                        self.schedule.early(Instant::now());
                    }
                }
                if let Err(error) = self.update(&verifier).await {
                    failed();
                    tracing::warn!(%error, "the key set cannot be read; the last one stays");
                }
            }
        })
    }

    /// Reads the set once.
    async fn update(&mut self, verifier: &Verifier) -> Result<(), SourceError> {
        let outcome = self.read().await;
        let outcome = outcome.and_then(|json| {
            if self.current.as_ref() != Some(&json) {
                let jwks = Jwks::parse(&json)?;
                tracing::info!(keys = jwks.len(), "a new key set is in force");
                let jwks = jwks.with_issuer(self.issuer.clone()).with_audience(self.audience.clone());
                verifier.set_jwks(Some(jwks));
                self.current = Some(json);
            }
            Ok(())
        });
        self.schedule.done(outcome.is_ok(), Instant::now());
        outcome
    }

    async fn read(&self) -> Result<Bytes, SourceError> {
        match &self.place {
            Place::File(path) => {
                let mut json = Vec::new();
                // One byte more than is parsed tells a file that is too large.
                let read = async {
                    let file = tokio::fs::File::open(path).await?;
                    file.take(MAX_JWKS_SIZE as u64 + 1).read_to_end(&mut json).await
                };
                read.await.map_err(|error| SourceError::File { path: path.clone(), error })?;
                Ok(json.into())
            }
            Place::Url(url) => Ok(url.get(MAX_JWKS_SIZE).await?),
        }
    }
}

/// When the set is read.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    refresh: Duration,
    /// By the clock.
    next: Instant,
    /// From when on a token with an unknown key causes a reading.
    early_from: Instant,
}

impl Schedule {
    fn new(refresh: Duration, now: Instant) -> Self {
        Self { refresh, next: now, early_from: now }
    }

    /// A token with an unknown key causes a reading now.
    fn early(&mut self, now: Instant) {
        self.early_from = now + EARLY_INTERVAL;
    }

    /// A reading ended.
    fn done(&mut self, ok: bool, now: Instant) {
        self.next = now + if ok { self.refresh } else { self.refresh.min(RETRY) };
    }
}
