//! The configuration file, and its checked form at start-up.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use sfu_control::tls::Identity;
use sfu_control::token::Secret;

pub use sfu_control::jwks_source::JwksConfig;

/// The whole configuration. [`Config::from_toml`] reads it; the development host builds it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients, backends and browsers connect.
    #[serde(default = "default_bind")]
    pub bind: SocketAddr,
    /// Certificate of the listener. Without it the listener speaks plain HTTP, which only a loopback address may.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// API keys: name and secret (32 bytes or more). The relay must hold the same.
    #[serde(default)]
    pub keys: BTreeMap<String, Secret>,
    /// Public keys of an identity provider whose tokens are accepted too.
    #[serde(default)]
    pub jwks: Option<JwksConfig>,
    /// The media relay.
    pub relay: RelayConfig,
    /// Folder with the built visit page, if this process serves it.
    #[serde(default)]
    pub page: Option<PathBuf>,
    /// Prometheus metrics.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// The audit trail, if this process keeps it.
    #[serde(default)]
    pub audit: Option<AuditConfig>,
    /// Bounds on what clients may do.
    #[serde(default)]
    pub limits: Limits,
}

/// PEM text: in a configuration file the name of a file, in memory also the text itself.
#[derive(Clone, Deserialize)]
#[serde(from = "PathBuf")]
pub enum Pem {
    /// A file.
    File(PathBuf),
    /// The text.
    Text(String),
}

/// Certificate chain and key of the listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The chain, end entity first.
    pub certificate: Pem,
    /// The private key.
    pub key: Pem,
}

/// The media relay and the mutual TLS towards it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// `host:port` of its control listener.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// Our certificate chain.
    pub certificate: Pem,
    /// Our private key.
    pub key: Pem,
    /// Certificate of the authority that certified the relay.
    pub authority: Pem,
}

/// Where metrics are read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// A listener of their own (plain HTTP). Without it `/metrics` is on the main listener if that one is on loopback,
    /// and nowhere else: metrics are not for the public.
    pub bind: Option<SocketAddr>,
}

/// The audit trail.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// The SQLite file; made if missing.
    pub file: PathBuf,
    /// Key of the pseudonyms (32 bytes or more). Who holds it can find a known person's entries; nobody can read names
    /// out of the trail.
    pub pseudonym_key: Secret,
}

/// Bounds on what clients may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// TCP connections at a time.
    pub connections: usize,
    /// Longest message of a client, in bytes.
    pub message_size: usize,
    /// Messages of one client per second, sustained; five times as many in a burst.
    pub messages_per_second: u32,
    /// Bytes of one client per second, sustained; four times as many in a burst.
    pub bytes_per_second: u32,
    /// A client from which nothing came for so many seconds is closed. LiveKit's SDKs ping every 5 s and give up
    /// after 15 s; browsers answer our pings every 10 s by themselves.
    pub idle_seconds: u64,
    /// A client that does not take a message within so many seconds is closed.
    pub write_seconds: u64,
    /// Messages that cannot be understood before a client is closed.
    pub malformed_messages: u32,
    /// Longest body of a RoomService call, in bytes.
    pub body_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            message_size: 256 * 1024,
            messages_per_second: 100,
            bytes_per_second: 1024 * 1024,
            idle_seconds: 30,
            write_seconds: 10,
            malformed_messages: 5,
            body_size: 512 * 1024,
        }
    }
}

fn default_bind() -> SocketAddr {
    ([127, 0, 0, 1], 7880).into()
}

impl Config {
    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// What is wrong, with its line; never a value.
    pub fn from_toml(text: &str) -> anyhow::Result<Self> {
        let config: Self =
            sfu_control::config_text::from_toml(text).context("the configuration cannot be understood")?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration file. Relative paths in it start at its folder.
    ///
    /// # Errors
    /// The file cannot be read, or see [`Config::from_toml`].
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Self::from_toml(&text).with_context(|| path.display().to_string())?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// What the types do not say.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.tls.is_none() && !self.bind.ip().is_loopback() {
            bail!(
                "bind = \"{}\" is not a loopback address and needs a [tls] certificate: tokens do not travel in clear",
                self.bind
            );
        }
        ensure!(!self.keys.is_empty() || self.jwks.is_some(), "neither [keys] nor [jwks]: nobody could join");
        if let Some(jwks) = &self.jwks {
            jwks.check().context("[jwks]")?;
        }
        if let Some(audit) = &self.audit {
            ensure!(
                audit.pseudonym_key.expose().len() >= 32,
                "[audit] pseudonym_key is shorter than 32 bytes"
            );
        }
        let limits = &self.limits;
        ensure!(limits.connections > 0, "[limits] connections is 0");
        ensure!(
            (1024..=512 * 1024).contains(&limits.message_size),
            "[limits] message_size is not in 1024..=524288"
        );
        ensure!(limits.messages_per_second > 0, "[limits] messages_per_second is 0");
        ensure!(
            limits.bytes_per_second as usize >= limits.message_size,
            "[limits] bytes_per_second is below message_size"
        );
        ensure!(limits.idle_seconds > 0 && limits.write_seconds > 0, "[limits] a timeout is 0");
        Ok(())
    }

    fn resolve(&mut self, folder: &Path) {
        let pems = [&mut self.relay.certificate, &mut self.relay.key, &mut self.relay.authority]
            .into_iter()
            .chain(self.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]));
        let files = pems.filter_map(|pem| match pem {
            Pem::File(path) => Some(path),
            Pem::Text(_) => None,
        });
        let others = [
            self.page.as_mut(),
            self.audit.as_mut().map(|audit| &mut audit.file),
            self.jwks.as_mut().and_then(|jwks| jwks.file.as_mut()),
        ];
        for path in files.chain(others.into_iter().flatten()) {
            *path = folder.join(&*path);
        }
    }
}

impl Pem {
    /// The text.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Pem::File(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display())),
            Pem::Text(text) => Ok(text.clone().into_bytes()),
        }
    }

    fn name(&self) -> String {
        match self {
            Pem::File(path) => path.display().to_string(),
            Pem::Text(_) => "the PEM text".to_owned(),
        }
    }
}

/// Reads a certificate chain with its key.
pub(crate) fn identity(certificate: &Pem, key: &Pem) -> anyhow::Result<Identity> {
    Identity::from_pem(&certificate.read()?, &key.read()?)
        .with_context(|| format!("{} and its key cannot be used", certificate.name()))
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Pem::File(path)
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Text(_) => f.write_str("Text(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = r#"
        [keys]
        devkey = "0123456789abcdef0123456789abcdef"
        [relay]
        address = "127.0.0.1:7900"
        server_name = "sfu.curtain.internal"
        certificate = "signaling.pem"
        key = "signaling.key"
        authority = "/etc/curtain/authority.pem"
    "#;

    #[test]
    fn defaults_are_loopback_and_paths_start_at_the_file() {
        let mut config = Config::from_toml(RELAY).unwrap();
        assert!(config.bind.ip().is_loopback());
        config.resolve(Path::new("/etc/curtain"));
        assert!(
            matches!(&config.relay.key, Pem::File(path) if path == Path::new("/etc/curtain/signaling.key"))
        );
        assert!(
            matches!(&config.relay.authority, Pem::File(path) if path == Path::new("/etc/curtain/authority.pem"))
        );
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn the_example_is_valid_and_errors_quote_no_values() {
        let example = include_str!("../../deploy/examples/signaling.toml");
        let config = Config::from_toml(example).unwrap();
        assert_eq!(config.bind, default_bind());
        assert_eq!(config.keys.len(), 1);
        assert!(config.audit.is_some());
        let broken = example.replace("[relay]", "[relay");
        let error = format!("{:#}", Config::from_toml(&broken).unwrap_err());
        assert!(error.contains("line ") && !error.contains("replace-this"), "{error}");
    }

    #[test]
    fn contradictions_are_named() {
        let of = |head: &str, tail: &str| Config::from_toml(&format!("{head}{RELAY}{tail}")).unwrap_err();
        let text = |error: anyhow::Error| format!("{error:#}");
        assert!(text(of("bind = \"0.0.0.0:443\"", "")).contains("needs a [tls] certificate"));
        assert!(text(of("", "[limits]\nidle_seconds = 0")).contains("timeout is 0"));
        assert!(text(of("", "[jwks]\nissuer = \"x\"")).contains("either file or url"));
        assert!(text(of("", "[limits]\ntypo = 1")).contains("typo"));
        assert!(text(of("", "[audit]\nfile = \"a\"\npseudonym_key = \"short\"")).contains("32 bytes"));
    }
}
