//! What the development host makes once and keeps: the API key, the control link's certificates, a sample E2EE key.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sfu_control::tls::{DevPki, PemPair};

/// Name of the development API key.
const API_KEY: &str = "devkey";
/// Certificates are made anew when less than this is left of them.
const RENEW: Duration = Duration::from_secs(7 * 24 * 3600);
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The development host's secrets.
pub(crate) struct DevState {
    /// Secret of the API key.
    pub(crate) api_secret: String,
    /// Certificates of the control link.
    pub(crate) pki: DevPki,
    /// Passphrase of the ready links; only ever in their fragment.
    pub(crate) e2ee_key: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    api_secret: String,
    e2ee_key: String,
    pki_unix_expiry: u64,
    authority: String,
    sfu: (String, String),
    signaling: (String, String),
}

impl DevState {
    /// Reads `dev.json` of the folder, or makes it.
    pub(crate) fn load_or_make(folder: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join("dev.json");
        let now = SystemTime::now();
        let unix = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if let Ok(text) = fs::read_to_string(&path) {
            let stored: Stored = serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged: remove it", path.display()))?;
            if stored.pki_unix_expiry > (unix + RENEW).as_secs() {
                return Ok(Self::from(stored));
            }
        }
        let pki = DevPki::generate(now, LIFE).context("making development certificates")?;
        let pair = |pair: &PemPair| (pair.certificate.clone(), pair.key.clone());
        let stored = Stored {
            api_secret: random_text(),
            e2ee_key: random_text(),
            pki_unix_expiry: (unix + LIFE).as_secs(),
            authority: pki.authority.clone(),
            sfu: pair(&pki.sfu),
            signaling: pair(&pki.signaling),
        };
        let _ = fs::remove_file(&path);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(serde_json::to_string_pretty(&stored)?.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::from(stored))
    }

    /// API keys with their secrets.
    pub(crate) fn keys(&self) -> HashMap<String, String> {
        HashMap::from([(API_KEY.to_owned(), self.api_secret.clone())])
    }

    /// Name of the API key.
    pub(crate) fn api_key(&self) -> &'static str {
        API_KEY
    }
}

impl From<Stored> for DevState {
    fn from(stored: Stored) -> Self {
        let pair = |(certificate, key)| PemPair { certificate, key };
        Self {
            api_secret: stored.api_secret,
            e2ee_key: stored.e2ee_key,
            pki: DevPki {
                authority: stored.authority,
                sfu: pair(stored.sfu),
                signaling: pair(stored.signaling),
            },
        }
    }
}

/// 256 random bits that fit a URL as they are, and a command line, where what begins with a hyphen is an option.
fn random_text() -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..43).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}
