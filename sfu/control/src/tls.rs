//! Who may speak on the control link: QUIC with TLS 1.3, both ends with a certificate of the operator's own authority.
//!
//! A certificate carries its role as extended key usage: `signaling` needs `clientAuth`, `sfu` needs `serverAuth`, so
//! that one cannot stand in for the other.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use ring::{hkdf, hmac};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// The link's protocol in ALPN.
pub const ALPN: &[u8] = b"curtain-control/1";

/// Name in the certificates that [`DevPki`] makes for `sfu`.
pub const DEV_SERVER_NAME: &str = "sfu.curtain.internal";

/// Streams that one `signaling` may hold open at a time: participants, calls, and the event feed.
pub const MAX_STREAMS: u32 = 50_000;

/// The link counts as lost when nothing was heard for this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(8);

const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Why an end of the link could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM text holds no usable certificate.
    #[error("no certificate in the PEM text")]
    NoCertificate,
    /// The PEM text holds no usable private key.
    #[error("no private key in the PEM text: {0}")]
    Key(rustls::pki_types::pem::Error),
    /// The certificate's or authority's PEM text is damaged.
    #[error("damaged PEM text: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// The authority's certificates cannot be used.
    #[error("the certificate authority cannot be used: {0}")]
    Authority(String),
    /// Certificate and key do not go together, or the key is of an unknown kind.
    #[error("certificate and key cannot be used: {0}")]
    Identity(#[from] rustls::Error),
    /// Certificates could not be made.
    #[error("certificates could not be made: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A certificate chain and its private key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads the chain (end entity first) and the key.
    ///
    /// # Errors
    /// Damaged or empty PEM text.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
        Ok(Self { chain: certificates(chain)?, key })
    }

    /// The chain, end entity first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Chain and key, for a configuration of rustls.
    pub fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain, self.key)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// The configuration of `sfu`, which accepts only clients that `authority` (PEM) certified.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(identity: Identity, authority: &[u8]) -> Result<quinn::ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), provider.clone())
        .build()
        .map_err(|error| TlsError::Authority(error.to_string()))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain, identity.key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicServerConfig::try_from(tls).expect("ring has the TLS 1.3 suite that QUIC starts with");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let mut transport = transport();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// What a relay must remember of itself across restarts, made from its private key (RFC 9000, 10.3.2): it can tell the
/// peers of its predecessor at once that their connections are gone, which they would else learn after
/// [`IDLE_TIMEOUT`] only.
///
/// # Panics
/// Never: HKDF gives outputs of these lengths.
pub fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let secret =
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"curtain control link").extract(identity.key.secret_der());
    let expand = |label: &[u8], output: &mut [u8]| {
        secret
            .expand(&[label], OutputLength(output.len()))
            .and_then(|keys| keys.fill(output))
            .expect("HKDF-SHA256 gives up to 8160 bytes");
    };
    let (mut reset, mut ids) = ([0; 32], [0; 8]);
    expand(b"stateless reset", &mut reset);
    expand(b"connection ids", &mut ids);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    let ids = u64::from_le_bytes(ids);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

struct OutputLength(usize);

impl hkdf::KeyType for OutputLength {
    fn len(&self) -> usize {
        self.0
    }
}

/// The configuration of `signaling`, which trusts only relays that `authority` (PEM) certified.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(identity: Identity, authority: &[u8]) -> Result<quinn::ClientConfig, TlsError> {
    let mut tls =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots(authority)?)
            .with_client_auth_cert(identity.chain, identity.key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // A session that is resumed from a ticket would not present the client's certificate again.
    tls.resumption = rustls::client::Resumption::disabled();
    let tls = QuicClientConfig::try_from(tls).expect("ring has the TLS 1.3 suite that QUIC starts with");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("8 s fits QUIC's timeout");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        // One client that reads slowly holds back its own stream only, at this price in memory.
        .stream_receive_window(VarInt::from_u32(512 * 1024))
        .send_window(64 * 1024 * 1024)
        .datagram_receive_buffer_size(None);
    transport
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(TlsError::Pem)?;
    if chain.is_empty() { Err(TlsError::NoCertificate) } else { Ok(chain) }
}

fn roots(authority: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate).map_err(|error| TlsError::Authority(error.to_string()))?;
    }
    Ok(roots)
}

/// A certificate and its key, as PEM text.
#[derive(Clone)]
pub struct PemPair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl PemPair {
    /// The pair as an [`Identity`].
    ///
    /// # Errors
    /// Damaged PEM text.
    pub fn identity(&self) -> Result<Identity, TlsError> {
        Identity::from_pem(self.certificate.as_bytes(), self.key.as_bytes())
    }
}

impl std::fmt::Debug for PemPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PemPair(..)")
    }
}

/// An authority with one certificate for each end, for development and tests. The authority's key is thrown away.
#[derive(Debug, Clone)]
pub struct DevPki {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// For `sfu`; its name is [`DEV_SERVER_NAME`].
    pub sfu: PemPair,
    /// For `signaling`.
    pub signaling: PemPair,
}

impl DevPki {
    /// Makes certificates that are valid from five minutes before `now` until `life` after it.
    ///
    /// # Errors
    /// [`TlsError::Generate`], if the system has no randomness to give.
    pub fn generate(now: SystemTime, life: Duration) -> Result<Self, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Curtain development authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, life);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let issue = |name: &str, usage| -> Result<PemPair, TlsError> {
            let mut params = CertificateParams::new([name.to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            set_validity(&mut params, now, life);
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &authority)?;
            Ok(PemPair { certificate: certificate.pem(), key: key.serialize_pem() })
        };
        Ok(Self {
            sfu: issue(DEV_SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth)?,
            signaling: issue("signaling.curtain.internal", ExtendedKeyUsagePurpose::ClientAuth)?,
            authority: authority.pem(),
        })
    }
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    params.not_before = (now - Duration::from_secs(300)).into();
    params.not_after = (now + life).into();
}
