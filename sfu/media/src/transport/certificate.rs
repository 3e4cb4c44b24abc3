//! The certificate that the relay shows in DTLS handshakes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SerialNumber};
use thiserror::Error;

use crate::command::Fingerprint;

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// Key or certificate could not be made.
    #[error("cannot generate the DTLS certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The DTLS engine refuses its configuration.
    #[error("cannot configure DTLS: {0}")]
    Configure(#[from] dimpl::Error),
}

/// A self-signed ECDSA P-256 certificate with its key and the DTLS settings that go with it. Made once per process and
/// shared by all transports; clients know it by its [`Fingerprint`] only.
pub struct DtlsCertificate {
    pub(super) config: Arc<dimpl::Config>,
    pub(super) pair: dimpl::DtlsCertificate,
    fingerprint: Fingerprint,
}

impl DtlsCertificate {
    /// Makes a key and a certificate.
    ///
    /// The serial number is 16 random bytes, because Firefox refuses two certificates with one issuer and serial number.
    /// The validity is fixed, for there is no clock here and WebRTC clients do not look at it: the fingerprint is what
    /// binds the certificate ([RFC 8827 section 6.5](https://www.rfc-editor.org/rfc/rfc8827#section-6.5)).
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate() -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::new())?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "Curtain");
        params.distinguished_name = name;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2049, 12, 31);
        let mut serial: [u8; 16] = rand::random();
        // DER integers are signed and short: keep it positive and 16 bytes long.
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.self_signed(&key)?.der().to_vec();
        Ok(Self {
            config: Arc::new(dtls_config()?),
            fingerprint: fingerprint_of(&certificate),
            pair: dimpl::DtlsCertificate { certificate, private_key: key.serialize_der() },
        })
    }

    /// What `a=fingerprint:sha-256` announces.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for DtlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsCertificate").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// SHA-256 of a certificate in DER.
pub(super) fn fingerprint_of(certificate: &[u8]) -> Fingerprint {
    let digest = digest::digest(&digest::SHA256, certificate);
    Fingerprint(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

fn dtls_config() -> Result<dimpl::Config, dimpl::Error> {
    dimpl::Config::builder()
        // DTLS 1.2 with its own choice of SRTP profile: on 1.3 dimpl 0.9 takes the client's first, which in Chromium is
        // AES-CM with HMAC-SHA1, several times slower per packet than GCM.
        .dtls13_cipher_suites(&[])
        // The cookie would cost a round trip to prove that the client's address is real; ICE has proved that.
        .use_server_cookie(false)
        .require_client_certificate(true)
        // The path is known to work; RFC 6347 section 4.2.4.1 allows less than its 1 s.
        .flight_start_rto(Duration::from_millis(200))
        .flight_retries(7)
        .build()
}
