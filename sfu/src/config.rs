//! The relay's configuration: one TOML file, every field with a default but the keys and certificates.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::node::Budget;
use crate::room::{E2eePolicy, RoomConfig, TurnConfig};

use sfu_control::token::Secret;

pub use sfu_control::jwks_source::JwksConfig;

/// What `sfu --config FILE` reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SfuConfig {
    /// Where media flows.
    pub media: MediaConfig,
    /// Where `signaling` connects.
    pub control: ControlConfig,
    /// Where room visibility and metrics are served.
    pub http: HttpConfig,
    /// Who may sign tokens.
    pub auth: AuthConfig,
    /// How rooms behave.
    pub room: RoomSettings,
    /// TURN servers that clients are told of.
    pub turn: Option<TurnSettings>,
}

impl SfuConfig {
    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// What is wrong and in which line. The text never quotes values: the file holds secrets, and errors reach logs.
    pub fn from_toml(text: &str) -> anyhow::Result<Self> {
        Ok(sfu_control::config_text::from_toml(text)?)
    }
}

/// Sockets and threads of the media path.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MediaConfig {
    /// Local address of the UDP sockets.
    pub bind: IpAddr,
    /// UDP port of the first shard; each further shard has the next one. 0 lets the kernel choose.
    pub udp_port: u16,
    /// Offer TCP as well, for clients whose network lets no UDP through.
    pub tcp: bool,
    /// TCP port, one for all shards. 0 means the number of `udp_port`.
    pub tcp_port: u16,
    /// TCP connections at a time.
    pub tcp_connections: usize,
    /// TCP connections at a time from one IPv4 address or one /64 of IPv6.
    pub tcp_connections_per_address: usize,
    /// Number of shards, one pinned thread each. 0 means one for each core that the process may use.
    pub shards: usize,
    /// Addresses that clients reach the relay at, put into ICE candidates. Empty means `bind`, which then must not be
    /// a wildcard.
    pub advertise: Vec<IpAddr>,
    /// Use UDP segmentation and receive offload where the kernel has it.
    pub offload: bool,
    /// Pin each shard's thread to a core.
    pub pin: bool,
    /// Share of its core, in per cent, beyond which a shard leaves further participants of its rooms to others.
    pub shard_busy_percent: u8,
    /// Participants of one room on one shard; further ones go to others. 0 is no limit.
    pub room_participants_per_shard: usize,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            bind: Ipv4Addr::LOCALHOST.into(),
            udp_port: 7882,
            tcp: true,
            tcp_port: 0,
            tcp_connections: 1024,
            tcp_connections_per_address: 128,
            shards: 0,
            advertise: Vec::new(),
            offload: true,
            pin: true,
            shard_busy_percent: 70,
            room_participants_per_shard: 0,
        }
    }
}

impl MediaConfig {
    /// The addresses for ICE candidates.
    ///
    /// # Errors
    /// When there is none that a client could reach.
    pub fn candidates(&self) -> anyhow::Result<Vec<IpAddr>> {
        if self.advertise.iter().any(IpAddr::is_unspecified) {
            anyhow::bail!("media.advertise names a wildcard address, which no client can reach");
        }
        if !self.advertise.is_empty() {
            return Ok(self.advertise.clone());
        }
        if self.bind.is_unspecified() {
            anyhow::bail!(
                "media.bind is a wildcard: name the addresses that clients reach the relay at in media.advertise"
            );
        }
        Ok(vec![self.bind])
    }

    /// How much one shard takes.
    ///
    /// # Errors
    /// When that is nothing, or more than there is.
    pub(crate) fn budget(&self) -> anyhow::Result<Budget> {
        anyhow::ensure!(
            (1..=100).contains(&self.shard_busy_percent),
            "media.shard_busy_percent is not from 1 to 100"
        );
        let participants = match self.room_participants_per_shard {
            0 => usize::MAX,
            n => n,
        };
        Ok(Budget { busy: f64::from(self.shard_busy_percent) / 100.0, participants })
    }

    /// Number of shards after resolving 0.
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}

/// The control link's server side: QUIC with mutual TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlConfig {
    /// UDP address that `signaling` connects to.
    pub listen: SocketAddr,
    /// PEM file: the authority that signs the certificates of `signaling`.
    pub ca: PathBuf,
    /// PEM file: the relay's certificate chain.
    pub cert: PathBuf,
    /// PEM file: the relay's private key.
    pub key: PathBuf,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7879)),
            ca: "control-ca.pem".into(),
            cert: "sfu.pem".into(),
            key: "sfu.key".into(),
        }
    }
}

/// Room visibility, health and metrics.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// TCP address. Plain HTTP: keep it on loopback or a private network behind a proxy.
    pub listen: SocketAddr,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7881)) }
    }
}

/// Keys that access tokens are verified with.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// API key to secret, for HS256 tokens.
    pub keys: HashMap<String, String>,
    /// Public keys of an identity provider, for EdDSA, ES256 and RS256 tokens.
    pub jwks: Option<JwksConfig>,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig").field("keys", &self.keys.len()).field("jwks", &self.jwks).finish()
    }
}

/// TURN servers of the operator, coturn with `use-auth-secret` for example.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnSettings {
    /// `turn:` and `turns:` URLs.
    pub urls: Vec<String>,
    /// What the relay shares with these servers (`static-auth-secret`).
    pub secret: Secret,
    /// Longest life of credentials in seconds.
    #[serde(default = "default_turn_ttl")]
    pub ttl_s: u64,
}

fn default_turn_ttl() -> u64 {
    2 * 3600
}

impl TurnSettings {
    /// Shortest secret, in bytes.
    const MIN_SECRET: usize = 16;

    /// Checks the settings.
    ///
    /// # Errors
    /// Which one no client could use.
    pub fn into_config(self) -> anyhow::Result<TurnConfig> {
        anyhow::ensure!(!self.urls.is_empty(), "turn.urls is empty");
        for url in &self.urls {
            let is_turn = url.strip_prefix("turn:").or_else(|| url.strip_prefix("turns:"));
            anyhow::ensure!(
                is_turn.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')),
                "turn.urls: {url:?} is not of the form turn:HOST[:PORT] or turns:HOST[:PORT]"
            );
        }
        anyhow::ensure!(
            self.secret.expose().len() >= Self::MIN_SECRET,
            "turn.secret is shorter than {} bytes",
            Self::MIN_SECRET
        );
        anyhow::ensure!(self.ttl_s >= 60, "turn.ttl_s is less than 60 seconds");
        let life = Duration::from_secs(self.ttl_s.min(LONGEST_TIMEOUT_S));
        Ok(TurnConfig { urls: self.urls, secret: self.secret, life })
    }
}

/// How rooms behave.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomSettings {
    /// `required`: media and messages that are not end-to-end encrypted are refused. `optional`: participants decide.
    pub e2ee: E2ee,
    /// Participants at a time; 0 is no limit.
    pub max_participants: u32,
    /// Once a room has more microphones than this, only the loudest so many are forwarded, and no silence; 0 is no limit.
    pub max_forwarded_speakers: u16,
    /// Seconds that a room lasts that nobody has joined yet.
    pub empty_timeout_s: u64,
    /// Seconds that a room lasts after the last participant left.
    pub departure_timeout_s: u64,
    /// Shown to clients.
    pub region: String,
}

/// Whether rooms demand end-to-end encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum E2ee {
    /// They do.
    #[default]
    Required,
    /// Each participant decides.
    Optional,
}

impl Default for RoomSettings {
    fn default() -> Self {
        let room = RoomConfig::default();
        Self {
            e2ee: E2ee::Required,
            max_participants: room.max_participants,
            max_forwarded_speakers: room.max_forwarded_speakers,
            empty_timeout_s: room.empty_timeout.as_secs(),
            departure_timeout_s: room.departure_timeout.as_secs(),
            region: room.region,
        }
    }
}

/// Longer timeouts mean this one, a year: deadlines must stay within what the clock can say.
const LONGEST_TIMEOUT_S: u64 = 365 * 24 * 3600;

impl From<RoomSettings> for RoomConfig {
    fn from(settings: RoomSettings) -> Self {
        RoomConfig {
            e2ee: match settings.e2ee {
                E2ee::Required => E2eePolicy::Required,
                E2ee::Optional => E2eePolicy::Optional,
            },
            max_participants: settings.max_participants,
            max_forwarded_speakers: settings.max_forwarded_speakers,
            empty_timeout: Duration::from_secs(settings.empty_timeout_s.min(LONGEST_TIMEOUT_S)),
            departure_timeout: Duration::from_secs(settings.departure_timeout_s.min(LONGEST_TIMEOUT_S)),
            region: settings.region,
            ..RoomConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_valid_and_says_the_defaults() {
        let example = SfuConfig::from_toml(include_str!("../../deploy/examples/sfu.toml")).unwrap();
        let default = SfuConfig::default();
        assert_eq!(format!("{:?}", example.media), format!("{:?}", default.media));
        assert_eq!(format!("{:?}", example.room), format!("{:?}", default.room));
        assert_eq!(format!("{:?}", example.http), format!("{:?}", default.http));
        assert_eq!(format!("{:?}", example.control), format!("{:?}", default.control));
        assert_eq!(example.auth.keys.len(), 1);
        assert!(!format!("{example:?}").contains("replace-this"), "secrets are not shown");
    }

    #[test]
    fn default_ports_leave_room_for_a_port_per_shard() {
        // Shards count up from the media port. The services' own ports are below it.
        let SfuConfig { media, control, http, .. } = SfuConfig::default();
        assert!(control.listen.port() < media.udp_port && http.listen.port() < media.udp_port);
    }

    #[test]
    fn turn_settings_are_checked_and_their_secret_is_not_shown() {
        let turn = |text: &str| {
            let config = SfuConfig::from_toml(&format!("[turn]\n{text}")).unwrap();
            assert!(!format!("{config:?}").contains("hush"), "secrets are not shown");
            config.turn.unwrap().into_config()
        };
        let good = r#"urls = ["turns:turn.example.org:443?transport=tcp"]
secret = "hush-hush-hush-hush""#;
        assert_eq!(turn(good).unwrap().life, Duration::from_secs(7200));
        for (from, to, named) in [
            ("turns:", "https:", "turn.urls"),
            ("turns:", "turns://", "turn.urls"),
            ("hush-hush-hush-hush", "hush", "turn.secret"),
            ("secret", "ttl_s = 5\nsecret", "turn.ttl_s"),
        ] {
            let error = format!("{:#}", turn(&good.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(named) && !error.contains("hush"), "{error}");
        }
        assert!(SfuConfig::from_toml("[turn]\nurls = []").is_err(), "a secret is needed");
    }

    #[test]
    fn unknown_settings_are_named() {
        let error = SfuConfig::from_toml("[media]\nudp_prot = 1").unwrap_err().to_string();
        assert!(error.contains("udp_prot") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn errors_quote_no_secret() {
        for text in [
            "[auth.keys]\nkey = \"hush-hush",
            "[auth.keys]\nkey = hush-hush",
            "[auth]\nkeys = \"hush-hush\"",
            "[auth.keys]\nkey = [\"hush-hush\"]",
        ] {
            let error = SfuConfig::from_toml(text).unwrap_err();
            assert!(!format!("{error:?} {error:#}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn a_shard_takes_something_and_no_more_than_its_core() {
        let media = |percent, participants| MediaConfig {
            shard_busy_percent: percent,
            room_participants_per_shard: participants,
            ..MediaConfig::default()
        };
        let budget = media(50, 0).budget().unwrap();
        assert_eq!((budget.busy, budget.participants), (0.5, usize::MAX));
        assert_eq!(media(100, 3).budget().unwrap().participants, 3);
        for percent in [0, 101] {
            assert!(media(percent, 0).budget().unwrap_err().to_string().contains("shard_busy_percent"));
        }
    }

    #[test]
    fn candidates_must_be_addresses_that_clients_can_reach() {
        let media = |bind: &str, advertise: &[&str]| MediaConfig {
            bind: bind.parse().unwrap(),
            advertise: advertise.iter().map(|a| a.parse().unwrap()).collect(),
            ..MediaConfig::default()
        };
        assert_eq!(media("127.0.0.1", &[]).candidates().unwrap().len(), 1);
        assert_eq!(media("0.0.0.0", &["192.0.2.1", "2001:db8::1"]).candidates().unwrap().len(), 2);
        assert!(media("0.0.0.0", &[]).candidates().unwrap_err().to_string().contains("media.advertise"));
        assert!(media("127.0.0.1", &["0.0.0.0"]).candidates().is_err());
    }
}
