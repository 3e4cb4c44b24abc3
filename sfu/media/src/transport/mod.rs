//! The relay's end of one client `RTCPeerConnection`: ICE-lite, DTLS server, SRTP keys, data channels.
//!
//! ```text
//! datagram ─ demux::classify ─┬─ STUN ── handle_stun: check credentials, validate the address, answer
//!                             ├─ DTLS ── handle_dtls: handshake, certificate check ── SCTP ── DCEP ── messages
//!                             ├─ RTP ─── open_rtp      ┐ authenticate and decrypt in place, with the keys that
//!                             └─ RTCP ── open_rtcp     ┘ the handshake exported
//! ```
//!
//! Nothing here reads a clock or a socket. After any call that takes `&mut TxQueue`, drain [`Transport::poll_event`] and
//! ask [`Transport::poll_timeout`] anew.

mod certificate;
mod dcep;
pub mod demux;
mod dtls;
mod ice_lite;
mod sctp;
pub mod stun;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dimpl::SrtpProfile;

pub use certificate::{CertificateError, DtlsCertificate};

use crate::command::{CloseReason, DataChannelSpec, DataLabel, Fingerprint, IceCredentials, RemoteTransport};
use crate::drop_reason::DropReason;
use crate::ids::Remote;
use crate::rtp::RtpHeader;
use crate::srtp::{self, Opened, Profile, SrtpOpen, SrtpSeal};
use crate::tx::TxQueue;
use dtls::{DtlsOutput, DtlsServer};
use ice_lite::IceLite;
use sctp::Sctp;

/// What a transport starts from.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Credentials that the relay's description announces.
    pub ice: IceCredentials,
    /// The certificate that the relay's description announces.
    pub certificate: Arc<DtlsCertificate>,
    /// Data channels that the relay opens as soon as SCTP is up.
    pub data_channels: Vec<DataChannelSpec>,
    /// When to give up.
    pub timeouts: TransportTimeouts,
}

/// When a transport gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportTimeouts {
    /// From the start, and again from the client's first description, to the end of the DTLS handshake.
    pub connect: Duration,
    /// From the last authenticated check of an address until it may no longer be used
    /// ([RFC 7675 section 5.1](https://www.rfc-editor.org/rfc/rfc7675#section-5.1)).
    pub consent: Duration,
}

impl Default for TransportTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), consent: Duration::from_secs(30) }
    }
}

/// DTLS datagrams that wait for the client's description: a ClientHello with a post-quantum key takes two or three, and
/// may be repeated once.
const MAX_EARLY: usize = 6;
/// The longest of them.
const MAX_EARLY_LEN: usize = 2048;

/// What a transport tells its owner.
#[derive(Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// ICE and DTLS are up, the certificate is the announced one, keys are there.
    Connected,
    /// The transport ended by itself. The last event.
    Closed(CloseReason),
    /// A data-channel message arrived.
    Data {
        /// On which channel.
        label: DataLabel,
        /// The message.
        payload: Bytes,
    },
}

impl fmt::Debug for TransportEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportEvent::Connected => f.write_str("Connected"),
            TransportEvent::Closed(reason) => f.debug_tuple("Closed").field(reason).finish(),
            TransportEvent::Data { label, payload } => {
                f.debug_struct("Data").field("label", label).field("len", &payload.len()).finish()
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Ends as never connected at the deadline.
    Connecting {
        deadline: Instant,
    },
    Connected,
    Closed,
}

/// One transport. See the module's documentation.
pub struct Transport {
    ice: IceLite,
    certificate: Arc<DtlsCertificate>,
    timeouts: TransportTimeouts,
    state: State,
    /// What the client's description says of its certificate.
    fingerprint: Option<Fingerprint>,
    /// Made for the first datagram that comes when the fingerprint is known.
    dtls: Option<DtlsServer>,
    /// DTLS datagrams that came before.
    early: Vec<(Remote, Vec<u8>)>,
    /// From the handshake on, where the client offered SRTP.
    srtp: Option<(SrtpOpen, SrtpSeal)>,
    sctp: Sctp,
    received: VecDeque<sctp::Received>,
    events: VecDeque<TransportEvent>,
}

impl Transport {
    /// Waits for the client's description and its checks, whichever comes first.
    pub fn new(config: TransportConfig, now: Instant) -> Self {
        let TransportConfig { ice, certificate, data_channels, timeouts } = config;
        Self {
            ice: IceLite::new(ice, timeouts.consent),
            certificate,
            timeouts,
            state: State::Connecting { deadline: now + timeouts.connect },
            fingerprint: None,
            dtls: None,
            early: Vec::new(),
            srtp: None,
            sctp: Sctp::new(data_channels),
            received: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The client's description arrived, or a later one, which may belong to an ICE restart. Follow the first with
    /// [`Transport::take_up_early`].
    ///
    /// A later description with another fingerprint than that of the DTLS connection closes the transport: a new DTLS
    /// association in an old transport ([RFC 8842 section 4](https://www.rfc-editor.org/rfc/rfc8842#section-4)) is not
    /// supported.
    pub fn set_remote(&mut self, remote: RemoteTransport, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        self.ice.set_remote(&remote.ice.ufrag);
        let is_first = self.fingerprint.replace(remote.fingerprint).is_none();
        if let (true, State::Connecting { deadline }) = (is_first, &mut self.state) {
            *deadline = now + self.timeouts.connect;
        }
        if self.dtls.as_ref().is_some_and(|dtls| dtls.expected() != remote.fingerprint) {
            self.end(CloseReason::FingerprintMismatch);
        }
    }

    /// Goes on with a handshake whose first datagrams were here before the description.
    ///
    /// # Errors
    /// As [`Transport::handle_dtls`], of the last datagram.
    pub fn take_up_early(&mut self, tx: &mut TxQueue, now: Instant) -> Result<(), DropReason> {
        let mut result = Ok(());
        for (from, mut datagram) in std::mem::take(&mut self.early) {
            result = self.handle_dtls(from, &mut datagram, tx, now);
        }
        result
    }

    /// New local credentials. The selected pair stays until a check with the new ones.
    pub fn restart_ice(&mut self, ice: IceCredentials) {
        self.ice.restart(ice);
    }

    /// The fragments that checks for this transport may name: the current one, and during a restart the one before.
    pub fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        self.ice.local_ufrags()
    }

    /// Takes a STUN message and answers it if its credentials are right.
    ///
    /// # Errors
    /// Why it was dropped unanswered.
    pub fn handle_stun(
        &mut self,
        from: Remote,
        datagram: &[u8],
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.state == State::Closed {
            return Err(DropReason::UnknownSource);
        }
        if let Some(response) = self.ice.handle(from, datagram, now)? {
            tx.push(from, &response);
        }
        Ok(())
    }

    /// Whether `from` passed a check: whether other packets from it may be looked at.
    pub fn accepts(&self, from: Remote) -> bool {
        self.state != State::Closed && self.ice.accepts(from)
    }

    /// Where to send: the address nominated last, before any nomination the one checked last. When it falls silent while
    /// authenticated packets come from another validated one, that one.
    pub fn remote(&self) -> Option<Remote> {
        self.ice.selected()
    }

    /// An authenticated packet came from `from`. See [`Transport::remote`].
    pub fn heard(&mut self, from: Remote, now: Instant) {
        self.ice.heard(from, now);
    }

    /// A TCP connection is over: nothing is sent there while there is another path.
    pub fn forget(&mut self, remote: Remote) {
        self.ice.forget(remote);
    }

    /// Takes a DTLS datagram.
    ///
    /// # Errors
    /// Why all or some of it was dropped. An end of the connection is an event besides.
    pub fn handle_dtls(
        &mut self,
        from: Remote,
        datagram: &mut [u8],
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.accepts(from) {
            return Err(DropReason::UnknownSource);
        }
        let Some(fingerprint) = self.fingerprint else {
            // The check was quicker than the description, and so is the handshake. Only who passed a check gets here.
            if self.early.len() >= MAX_EARLY || datagram.len() > MAX_EARLY_LEN {
                return Err(DropReason::QueueFull);
            }
            self.early.push((from, datagram.to_vec()));
            return Ok(());
        };
        let dtls = self.dtls.get_or_insert_with(|| DtlsServer::new(&self.certificate, fingerprint, now));
        let handled = dtls.handle(&self.certificate, datagram, now);
        self.pump(tx, now).and(handled)
    }

    /// Authenticates an SRTP packet and decrypts it in place. `header` was parsed from `packet`. Whether its address is
    /// an accepted one is for the caller to look at first.
    ///
    /// # Errors
    /// [`DropReason::SrtpNotReady`] before there are keys, else those of [`SrtpOpen::open_rtp`].
    pub fn open_rtp(&mut self, packet: &mut [u8], header: &RtpHeader) -> Result<Opened, DropReason> {
        let (open, _) = self.srtp.as_mut().ok_or(DropReason::SrtpNotReady)?;
        open.open_rtp(packet, header)
    }

    /// Authenticates an SRTCP packet and decrypts it in place; returns the length of the plaintext compound.
    ///
    /// # Errors
    /// [`DropReason::SrtpNotReady`] before there are keys, else those of [`SrtpOpen::open_rtcp`].
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, DropReason> {
        let (open, _) = self.srtp.as_mut().ok_or(DropReason::SrtpNotReady)?;
        open.open_rtcp(packet)
    }

    /// What media to the client is sealed with and where it goes; `None` before there are keys and after the end.
    pub fn seal_and_addr(&mut self) -> Option<(&mut SrtpSeal, Remote)> {
        let to = self.ice.selected()?;
        let (_, seal) = self.srtp.as_mut()?;
        Some((seal, to))
    }

    /// Reads a bit of what [`Self::seal_and_addr`] needs.
    pub(crate) fn touch(&self) -> u64 {
        let seal = self.srtp.as_ref().map_or(0, |(_, seal)| seal.touch());
        seal + u64::from(self.ice.selected().is_some())
    }

    /// Sends a data-channel message.
    ///
    /// Messages for [`DataLabel::Reliable`] wait until the channel is there; others are dropped without one.
    ///
    /// # Errors
    /// [`DropReason::DataRefused`] when there is no channel with that label or the transport is closed,
    /// [`DropReason::TooLarge`] above 256 KiB, [`DropReason::QueueFull`] when too much waits already.
    pub fn send_data(
        &mut self,
        label: DataLabel,
        payload: &[u8],
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.state == State::Closed {
            return Err(DropReason::DataRefused);
        }
        self.sctp.send(label, payload)?;
        self.pump(tx, now)
    }

    /// Ends the transport with a `close_notify`. There is no event.
    pub fn close(&mut self, tx: &mut TxQueue, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        if let (Some(dtls), Some(to)) = (&mut self.dtls, self.ice.selected()) {
            dtls.close();
            while let Some(output) = dtls.poll(now) {
                match output {
                    DtlsOutput::Packet(packet) => tx.push(to, packet),
                    DtlsOutput::Closed(_) => break,
                    DtlsOutput::Data(_) | DtlsOutput::Connected | DtlsOutput::Keys(..) => {}
                }
            }
        }
        self.wipe();
    }

    /// Whether the handshake is over, with the right certificate, and the transport is not closed.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether the transport ended. It takes nothing more and sends nothing more.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// When [`Transport::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = match self.state {
            State::Connecting { deadline } => Some(deadline),
            State::Connected => None,
            State::Closed => return None,
        };
        let dtls = self.dtls.as_ref().and_then(DtlsServer::poll_timeout);
        [deadline, self.ice.next_expiry(), dtls, self.sctp.poll_timeout()].into_iter().flatten().min()
    }

    /// Timers: connecting, consent, retransmissions.
    pub fn handle_timeout(&mut self, now: Instant, tx: &mut TxQueue) {
        if self.state == State::Closed {
            return;
        }
        self.ice.expire(now);
        match self.state {
            State::Connecting { deadline } if now >= deadline => {
                return self.end(CloseReason::NeverConnected);
            }
            State::Connected if self.ice.selected().is_none() => {
                return self.end(CloseReason::ConsentExpired);
            }
            _ => {}
        }
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_timeout(now);
        }
        self.sctp.handle_timeout(&mut self.received, now);
        // Its errors are of datagrams received, and here was none.
        let _ = self.pump(tx, now);
    }

    /// Moves everything that is ready: DTLS output to the wire and to SCTP, SCTP output to DTLS, messages to events.
    fn pump(&mut self, tx: &mut TxQueue, now: Instant) -> Result<(), DropReason> {
        let mut result = self.drain_dtls(tx, now);
        while let (State::Connected, Some(packets)) = (self.state, self.sctp.poll_transmit(now)) {
            for packet in packets {
                // Refused by an engine that has failed; the next drain ends the transport.
                let sent = self.dtls.as_mut().map_or(Err(DropReason::QueueFull), |dtls| dtls.send(&packet));
                result = result.and(sent).and(self.drain_dtls(tx, now));
            }
        }
        while let Some((label, payload)) = self.received.pop_front() {
            self.events.push_back(TransportEvent::Data { label, payload });
        }
        result
    }

    fn drain_dtls(&mut self, tx: &mut TxQueue, now: Instant) -> Result<(), DropReason> {
        let mut result = Ok(());
        let was_connected = self.state == State::Connected;
        let Some(dtls) = &mut self.dtls else { return result };
        let mut closed = None;
        while let Some(output) = dtls.poll(now) {
            match output {
                DtlsOutput::Packet(packet) => {
                    // Without an address the client's or our retransmission makes up for it.
                    if let Some(to) = self.ice.selected() {
                        tx.push(to, packet);
                    }
                }
                DtlsOutput::Data(packet) => {
                    result = result.and(self.sctp.handle(packet, &mut self.received, now));
                }
                DtlsOutput::Connected => self.state = State::Connected,
                DtlsOutput::Keys(keys, profile) => match srtp_contexts(&keys, profile) {
                    Some(contexts) => self.srtp = Some(contexts),
                    None => {
                        closed = Some(CloseReason::HandshakeFailed);
                        break;
                    }
                },
                DtlsOutput::Closed(reason) => {
                    closed = Some(reason);
                    break;
                }
            }
        }
        if let Some(reason) = closed {
            self.end(reason);
            let is_mismatch = reason == CloseReason::FingerprintMismatch;
            return if is_mismatch { Err(DropReason::DtlsFingerprint) } else { result };
        }
        if !was_connected && self.state == State::Connected {
            dtls.shrink();
            // Not before the keys, which come right behind.
            self.events.push_back(TransportEvent::Connected);
        }
        result
    }

    /// Ends with an event.
    fn end(&mut self, reason: CloseReason) {
        self.wipe();
        self.events.push_back(TransportEvent::Closed(reason));
    }

    /// Forgets keys and connections.
    fn wipe(&mut self) {
        self.state = State::Closed;
        self.dtls = None;
        self.early = Vec::new();
        self.srtp = None;
        self.sctp = Sctp::new(Vec::new());
    }
}

/// `None` for a profile that was never offered, or should the library refuse a key.
fn srtp_contexts(keys: &[u8], profile: SrtpProfile) -> Option<(SrtpOpen, SrtpSeal)> {
    let profile = match profile {
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
        _ => return None,
    };
    srtp::from_dtls(profile, keys).ok()
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Connecting { .. } => "connecting",
            State::Connected => "connected",
            State::Closed => "closed",
        };
        f.debug_struct("Transport")
            .field("state", &state)
            .field("ice", &self.ice)
            .field("dtls", &self.dtls)
            .field("sctp", &self.sctp)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
