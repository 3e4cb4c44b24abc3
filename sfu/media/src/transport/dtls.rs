//! The DTLS server: handshake, certificate check, keys for SRTP, and records for SCTP.
//!
//! The fingerprint is checked when the client's certificate arrives; with a wrong one nothing more is sent and no key is
//! ever exported ([RFC 5763 section 5](https://www.rfc-editor.org/rfc/rfc5763#section-5)).

use std::fmt;
use std::time::{Duration, Instant};

use dimpl::{Dtls, KeyingMaterial, Output, SrtpProfile};
use subtle::ConstantTimeEq;

use super::certificate::{DtlsCertificate, fingerprint_of};
use crate::command::{CloseReason, Fingerprint};
use crate::drop_reason::DropReason;

/// Largest datagram that is looked at. WebRTC clients keep to 1500 bytes.
const MAX_DATAGRAM: usize = 2048;
/// Room for the largest certificate: the engine copies one out whole, and it holds 30 datagrams at most.
const HANDSHAKE_BUFFER: usize = 64 * 1024;
/// Room for output of an established connection; it grows for a longer record.
const CONNECTED_BUFFER: usize = 2048;
/// A deadline further away than this is the engine's way to say that there is none.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// Times that an engine is replaced which failed before the server's first flight.
const MAX_RESTARTS: u8 = 4;

mod content {
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const APPLICATION_DATA: u8 = 23;
}

/// What comes out of the connection.
pub(super) enum DtlsOutput<'a> {
    /// To be sent.
    Packet(&'a [u8]),
    /// A decrypted record: an SCTP packet.
    Data(&'a [u8]),
    /// The handshake is over and the certificate was the right one.
    Connected,
    /// Comes right after `Connected`, where the client offered SRTP.
    Keys(KeyingMaterial, SrtpProfile),
    /// The connection is over.
    Closed(CloseReason),
}

/// One DTLS connection. Made when the fingerprint is known and the first datagram is there.
pub(super) struct DtlsServer {
    engine: Dtls,
    expected: Fingerprint,
    /// The client's certificate had the expected fingerprint.
    verified: bool,
    connected: bool,
    /// Something was sent: the client is in the middle of a handshake with this very engine.
    answered: bool,
    restarts: u8,
    failed: Option<CloseReason>,
    buffer: Vec<u8>,
    deadline: Option<Instant>,
}

impl DtlsServer {
    pub(super) fn new(certificate: &DtlsCertificate, expected: Fingerprint, now: Instant) -> Self {
        Self {
            engine: new_engine(certificate, now),
            expected,
            verified: false,
            connected: false,
            answered: false,
            restarts: 0,
            failed: None,
            buffer: vec![0; HANDSHAKE_BUFFER],
            deadline: None,
        }
    }

    /// What [`DtlsServer`] verifies, or has verified, the certificate against.
    pub(super) fn expected(&self) -> Fingerprint {
        self.expected
    }

    /// Takes one datagram. Poll afterwards.
    ///
    /// # Errors
    /// [`DropReason::DtlsMalformed`] when the datagram is not DTLS or ended the handshake.
    pub(super) fn handle(
        &mut self,
        certificate: &DtlsCertificate,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.failed.is_some() || !is_plausible(datagram, self.connected) {
            return Err(DropReason::DtlsMalformed);
        }
        let result = self.engine.handle_timeout(now).and_then(|()| self.engine.handle_packet(datagram));
        result.map_err(|error| {
            self.fail(&error, Some(certificate), now);
            DropReason::DtlsMalformed
        })
    }

    /// Timers. Poll afterwards.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.failed.is_none()
            && let Err(error) = self.engine.handle_timeout(now)
        {
            self.fail(&error, None, now);
        }
    }

    /// When [`DtlsServer::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Sends one SCTP packet. Poll afterwards, before the next.
    pub(super) fn send(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        if !self.connected || self.failed.is_some() {
            return Err(DropReason::SrtpNotReady);
        }
        self.engine.send_application_data(packet).map(drop).map_err(|_| DropReason::QueueFull)
    }

    /// Sends `close_notify` if there is a connection. Poll afterwards.
    pub(super) fn close(&mut self) {
        // Without a connection there is nobody to tell.
        let _ = self.engine.close();
    }

    /// The engine is of no more use. One that fell before it answered anything is replaced: the client begins anew with
    /// its next ClientHello, so that a stray datagram costs it a retransmission and not the connection.
    fn fail(&mut self, error: &dimpl::Error, certificate: Option<&DtlsCertificate>, now: Instant) {
        tracing::trace!(%error, connected = self.connected, "DTLS failed");
        match certificate {
            Some(certificate) if !self.answered && self.restarts < MAX_RESTARTS => {
                self.restarts += 1;
                self.engine = new_engine(certificate, now);
            }
            _ => {
                self.failed = Some(match error {
                    dimpl::Error::Timeout(_) => CloseReason::NeverConnected,
                    // An alert that the client could authenticate: it is gone.
                    _ if self.connected => CloseReason::RemoteClosed,
                    _ => CloseReason::HandshakeFailed,
                });
            }
        }
    }

    /// Next output; `None` when there is none until the next input.
    pub(super) fn poll(&mut self, now: Instant) -> Option<DtlsOutput<'_>> {
        if let Some(reason) = self.failed {
            self.deadline = None;
            return Some(DtlsOutput::Closed(reason));
        }
        loop {
            // Lengths instead of slices, so that the loop can go on.
            match self.step(now) {
                Step::Grow(needed) => self.buffer.resize(needed, 0),
                Step::Nothing => return None,
                Step::Again => {}
                Step::Packet(len) => return Some(DtlsOutput::Packet(self.buffer.get(..len)?)),
                Step::Data(len) => return Some(DtlsOutput::Data(self.buffer.get(..len)?)),
                Step::Connected => return Some(DtlsOutput::Connected),
                Step::Keys(keys, profile) => return Some(DtlsOutput::Keys(keys, profile)),
                Step::Closed(reason) => {
                    self.failed = Some(reason);
                    self.deadline = None;
                    return Some(DtlsOutput::Closed(reason));
                }
            }
        }
    }

    fn step(&mut self, now: Instant) -> Step {
        match self.engine.poll_output(&mut self.buffer) {
            Output::Packet(packet) => {
                self.answered = true;
                Step::Packet(packet.len())
            }
            Output::BufferTooSmall { needed } => Step::Grow(needed),
            Output::Timeout(at) => {
                self.deadline = Some(at).filter(|at| at.saturating_duration_since(now) < IDLE);
                Step::Nothing
            }
            Output::PeerCert(der) => {
                if fingerprint_of(der).0.ct_eq(&self.expected.0).into() {
                    self.verified = true;
                    Step::Again
                } else {
                    Step::Closed(CloseReason::FingerprintMismatch)
                }
            }
            // The engine verified the signature over the handshake with the certificate; without one it fails earlier.
            Output::Connected if self.verified => {
                self.connected = true;
                Step::Connected
            }
            Output::KeyingMaterial(keys, profile) if self.connected => Step::Keys(keys, profile),
            Output::Connected | Output::KeyingMaterial(..) => Step::Closed(CloseReason::FingerprintMismatch),
            Output::ApplicationData(data) if self.connected => Step::Data(data.len()),
            Output::ApplicationData(_) => Step::Again,
            Output::CloseNotify => Step::Closed(CloseReason::RemoteClosed),
            // The enum may grow; what is not asked for is not needed.
            _ => Step::Again,
        }
    }

    /// Gives the handshake's memory back; call when [`DtlsOutput::Keys`] has been taken or there was none.
    pub(super) fn shrink(&mut self) {
        if self.connected && self.buffer.len() > CONNECTED_BUFFER {
            self.buffer.truncate(CONNECTED_BUFFER);
            self.buffer.shrink_to_fit();
        }
    }
}

enum Step {
    Grow(usize),
    Nothing,
    Again,
    Packet(usize),
    Data(usize),
    Connected,
    Keys(KeyingMaterial, SrtpProfile),
    Closed(CloseReason),
}

impl fmt::Debug for DtlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsServer")
            .field("verified", &self.verified)
            .field("connected", &self.connected)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// DTLS 1.2 only: dimpl 0.9 takes the client's first SRTP profile on 1.3, which in Chromium is AES-CM with HMAC-SHA1,
/// several times slower per packet than GCM. On 1.2 it prefers AES-256-GCM, then AES-128-GCM.
fn new_engine(certificate: &DtlsCertificate, now: Instant) -> Dtls {
    Dtls::new_12(certificate.config.clone(), certificate.pair.clone(), now)
}

/// Whether a datagram is a sequence of whole DTLS records that can occur at this point.
///
/// The engine does not tell plaintext application data from protected one once it is connected, and holds on to plaintext
/// that it does not expect; neither may reach it.
fn is_plausible(datagram: &[u8], connected: bool) -> bool {
    if datagram.is_empty() || datagram.len() > MAX_DATAGRAM {
        return false;
    }
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some(header) = rest.first_chunk::<13>() else { return false };
        let kind = header[0];
        let epoch = u16::from_be_bytes([header[3], header[4]]);
        let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let Some(next) = rest.get(13 + len..) else { return false };
        let is_known = (content::CHANGE_CIPHER_SPEC..=content::APPLICATION_DATA).contains(&kind)
            && header[1] == 0xfe
            && epoch <= 1;
        // Before the handshake is over the client's protected records are its Finished and alerts, and data that
        // overtook our Finished is repeated by SCTP.
        let is_misplaced = kind == content::APPLICATION_DATA && (epoch == 0 || !connected);
        if !is_known || is_misplaced {
            return false;
        }
        rest = next;
    }
    true
}
