//! A client's DTLS and SRTP: `dimpl` as the DTLS client, `webrtc-srtp` for the packets. Neither is the relay's own code
//! for the same job, so that each checks the other.

use std::sync::Arc;
use std::time::Instant;

use dimpl::{Config, Dtls, DtlsCertificate, Output, SrtpProfile};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use crate::command::Fingerprint;

/// DTLS and the SRTP contexts that come of it.
pub(super) struct Secure {
    dtls: Dtls,
    timeout: Option<Instant>,
    contexts: Option<Contexts>,
    /// Digest of the certificate that the server showed.
    pub(super) server: Option<Fingerprint>,
    pub(super) closed: bool,
    buf: Vec<u8>,
}

struct Contexts {
    seal: Context,
    open: Context,
}

/// What came out of a turn of the DTLS engine.
#[derive(Debug)]
pub(super) enum SecureOutput {
    Datagram(Vec<u8>),
    Data(Vec<u8>),
}

impl Secure {
    /// A client with a new certificate, and that certificate's digest.
    pub(super) fn new(now: Instant) -> (Self, Fingerprint) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key generation works");
        let certificate =
            CertificateParams::default().self_signed(&key).expect("signing works").der().to_vec();
        let fingerprint = digest(&certificate);
        let config = Config::builder().build().expect("the default configuration is valid");
        let certificate = DtlsCertificate { certificate, private_key: key.serialize_der() };
        let mut dtls = Dtls::new_12(Arc::new(config), certificate, now);
        dtls.set_active(true);
        let secure =
            Self { dtls, timeout: None, contexts: None, server: None, closed: false, buf: vec![0; 4096] };
        (secure, fingerprint)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.contexts.is_some()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timeout.filter(|_| !self.closed)
    }

    pub(super) fn handle(&mut self, datagram: &[u8], out: &mut Vec<SecureOutput>, now: Instant) {
        self.turn(out, now, |dtls| dtls.handle_timeout(now).and_then(|()| dtls.handle_packet(datagram)));
    }

    pub(super) fn handle_timeout(&mut self, out: &mut Vec<SecureOutput>, now: Instant) {
        self.turn(out, now, |dtls| dtls.handle_timeout(now));
    }

    pub(super) fn send(&mut self, data: &[u8], out: &mut Vec<SecureOutput>, now: Instant) {
        self.turn(out, now, |dtls| dtls.send_application_data(data).map(drop));
    }

    pub(super) fn close(&mut self, out: &mut Vec<SecureOutput>, now: Instant) {
        self.turn(out, now, Dtls::close);
        self.closed = true;
    }

    fn turn(
        &mut self,
        out: &mut Vec<SecureOutput>,
        now: Instant,
        input: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>,
    ) {
        if self.closed {
            return;
        }
        if input(&mut self.dtls).is_err() {
            self.closed = true;
            return;
        }
        loop {
            match self.dtls.poll_output(&mut self.buf) {
                Output::Packet(packet) => out.push(SecureOutput::Datagram(packet.to_vec())),
                Output::ApplicationData(data) => out.push(SecureOutput::Data(data.to_vec())),
                Output::BufferTooSmall { needed } => self.buf.resize(needed, 0),
                Output::PeerCert(certificate) => self.server = Some(digest(certificate)),
                Output::KeyingMaterial(material, profile) => {
                    self.contexts = Some(contexts(&material, profile));
                }
                Output::CloseNotify => self.closed = true,
                Output::Timeout(at) => {
                    // A deadline of the past would be asked for again and again.
                    self.timeout = Some(at.max(now + std::time::Duration::from_millis(1)));
                    return;
                }
                _ => {}
            }
        }
    }

    pub(super) fn seal_rtp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        Some(self.contexts.as_mut()?.seal.encrypt_rtp(packet).ok()?.to_vec())
    }

    pub(super) fn seal_rtcp(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        Some(self.contexts.as_mut()?.seal.encrypt_rtcp(compound).ok()?.to_vec())
    }

    pub(super) fn open_rtp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        Some(self.contexts.as_mut()?.open.decrypt_rtp(packet).ok()?.to_vec())
    }

    pub(super) fn open_rtcp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        Some(self.contexts.as_mut()?.open.decrypt_rtcp(packet).ok()?.to_vec())
    }
}

/// Splits the exported keys as RFC 5764 section 4.2 lays them out: the client's key, the server's, the salts.
fn contexts(material: &[u8], profile: SrtpProfile) -> Contexts {
    let profile = match profile {
        SrtpProfile::AEAD_AES_256_GCM => ProtectionProfile::AeadAes256Gcm,
        SrtpProfile::AEAD_AES_128_GCM => ProtectionProfile::AeadAes128Gcm,
        _ => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let (keys, salts) = material.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());
    let context = |key, salt| Context::new(key, salt, profile, None, None).expect("lengths fit the profile");
    Contexts { seal: context(client_key, client_salt), open: context(server_key, server_salt) }
}

fn digest(certificate: &[u8]) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    Fingerprint(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
