//! Data channels: SCTP over DTLS ([RFC 8831](https://www.rfc-editor.org/rfc/rfc8831)), established in-band by DCEP.
//!
//! The client opens the association, the relay accepts one. Every channel of a label that the LiveKit protocol knows is
//! served; others are opened as the client wishes and what comes on them is refused.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, Chunks, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};

use super::dcep::{Dcep, Reliability};
use crate::command::{DataChannelSpec, DataLabel};
use crate::drop_reason::DropReason;

/// Largest message either way. The relay's descriptions announce 64 KiB; a LiveKit packet of that size grows by its
/// envelope when the relay forwards it, and some SDKs count without theirs.
pub(super) const MAX_MESSAGE: usize = 256 * 1024;
/// Bytes that may wait for one peer, sent but unacknowledged ones included.
const MAX_BUFFERED: usize = 4 * 1024 * 1024;
/// Bytes that may wait on a channel that does not retransmit: what waits longer comes too late to be of use.
const MAX_BUFFERED_LOSSY: usize = MAX_MESSAGE;
/// Streams that a client may have at a time, channels of unknown labels included.
const MAX_STREAMS: usize = 128;
/// DATA payload of one packet, so that with SCTP (28), a SACK beside it, DTLS (37), UDP and IP it stays below 1280 bytes.
const MAX_PAYLOAD: u32 = 1100;
/// Times as in libwebrtc's dcSCTP. The defaults of RFC 9260 suit links where the loss of a path is the question.
const RTO_INITIAL_MS: u64 = 500;
const RTO_MIN_MS: u64 = 400;
const RTO_MAX_MS: u64 = 10_000;
/// SCTP has no addresses of its own inside DTLS; the engine wants one.
const NO_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

/// A message from the client.
pub(super) type Received = (DataLabel, Bytes);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChannelState {
    /// The relay sent OPEN and waits for ACK.
    Opening,
    Open,
}

#[derive(Debug)]
struct Channel {
    stream: u16,
    /// `None` where the label means nothing to the relay.
    label: Option<DataLabel>,
    /// Opened by the relay.
    ours: bool,
    reliability: Reliability,
    state: ChannelState,
}

impl Channel {
    fn is_lossy(&self) -> bool {
        self.reliability.kind != ReliabilityType::Reliable
    }

    /// Before ACK everything goes ordered and reliable (RFC 8832 section 6): no way to send what is neither.
    fn may_send(&self) -> bool {
        self.state == ChannelState::Open || !(self.is_lossy() || self.reliability.unordered)
    }
}

/// One association at most, its channels, and messages that wait for a channel.
pub(super) struct Sctp {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    established: bool,
    specs: Vec<DataChannelSpec>,
    channels: Vec<Channel>,
    /// Messages for the reliable channel, which is not there yet.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
}

impl Sctp {
    /// Waits for the client's association; then opens `specs`.
    pub(super) fn new(specs: Vec<DataChannelSpec>) -> Self {
        Self {
            endpoint: new_endpoint(),
            association: None,
            established: false,
            specs,
            channels: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes one packet.
    ///
    /// # Errors
    /// [`DropReason::SctpMalformed`] for a packet that is not SCTP or breaks the association,
    /// [`DropReason::DataRefused`] when a message in it was refused, [`DropReason::PeerLimit`] when the client opened too
    /// many streams, which ends the association.
    pub(super) fn handle(
        &mut self,
        packet: &[u8],
        received: &mut VecDeque<Received>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let packet = Bytes::copy_from_slice(packet);
        let (handle, event) =
            self.endpoint.handle(now, NO_ADDRESS, None, None, packet).ok_or(DropReason::SctpMalformed)?;
        match (event, &mut self.association) {
            (DatagramEvent::NewAssociation(association), None) => {
                // One association per DTLS connection (RFC 8831 section 6.1).
                self.endpoint.reject_new_associations();
                self.association = Some((handle, association));
            }
            (DatagramEvent::AssociationEvent(event), Some((known, association))) if *known == handle => {
                association.handle_event(event);
            }
            _ => return Err(DropReason::SctpMalformed),
        }
        self.process(received)
    }

    /// Sends a message on the channel with `label`; one that the relay opened is preferred.
    ///
    /// Messages for [`DataLabel::Reliable`] wait for their channel.
    ///
    /// # Errors
    /// [`DropReason::TooLarge`] above [`MAX_MESSAGE`], [`DropReason::QueueFull`] when too much waits,
    /// [`DropReason::DataRefused`] when there is no such channel.
    pub(super) fn send(&mut self, label: DataLabel, payload: &[u8]) -> Result<(), DropReason> {
        if payload.len() > MAX_MESSAGE {
            return Err(DropReason::TooLarge);
        }
        if self.buffered() + payload.len() > MAX_BUFFERED {
            return Err(DropReason::QueueFull);
        }
        if label == DataLabel::Reliable && (!self.waiting.is_empty() || self.channel_for(label).is_none()) {
            self.waiting_bytes += payload.len();
            self.waiting.push_back(Bytes::copy_from_slice(payload));
            return Ok(());
        }
        self.write(label, payload)
    }

    fn write(&mut self, label: DataLabel, payload: &[u8]) -> Result<(), DropReason> {
        let channel = self.channel_for(label).ok_or(DropReason::DataRefused)?;
        let (stream, is_lossy) = (channel.stream, channel.is_lossy());
        let (_, association) = self.association.as_mut().ok_or(DropReason::DataRefused)?;
        let mut stream = association.stream(stream).map_err(|_| DropReason::DataRefused)?;
        if is_lossy && stream.buffered_amount().unwrap_or(0) + payload.len() > MAX_BUFFERED_LOSSY {
            return Err(DropReason::QueueFull);
        }
        let result = if payload.is_empty() {
            // SCTP has no empty messages: one byte that the payload protocol says to ignore (RFC 8831 section 6.6).
            stream.write_with_ppi(&[0], Ppid::BinaryEmpty)
        } else {
            stream.write_with_ppi(payload, Ppid::Binary)
        };
        result.map(drop).map_err(|_| DropReason::DataRefused)
    }

    fn channel_for(&self, label: DataLabel) -> Option<&Channel> {
        self.channels
            .iter()
            .filter(|channel| channel.label == Some(label) && channel.may_send())
            .max_by_key(|channel| channel.ours)
    }

    fn buffered(&mut self) -> usize {
        let Some((_, association)) = self.association.as_mut() else { return self.waiting_bytes };
        let in_streams: usize = self
            .channels
            .iter()
            .filter_map(|channel| association.stream(channel.stream).ok()?.buffered_amount().ok())
            .sum();
        self.waiting_bytes + in_streams
    }

    /// Packets for the wire, to be polled after everything else until empty.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        let (_, association) = self.association.as_mut()?;
        match association.poll_transmit(now)?.payload {
            Payload::RawEncode(packets) => Some(packets),
            // Only ever incoming.
            Payload::PartialDecode(_) => None,
        }
    }

    /// When [`Sctp::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.association.as_ref()?.1.poll_timeout()
    }

    /// Retransmissions and delayed acknowledgements.
    pub(super) fn handle_timeout(&mut self, received: &mut VecDeque<Received>, now: Instant) {
        if let Some((_, association)) = self.association.as_mut() {
            association.handle_timeout(now);
            // Errors are of messages, and time brings none.
            let _ = self.process(received);
        }
    }

    /// Drains the association's events.
    fn process(&mut self, received: &mut VecDeque<Received>) -> Result<(), DropReason> {
        let mut result = Ok(());
        loop {
            let Some((handle, association)) = self.association.as_mut() else { return result };
            while let Some(event) = association.poll_endpoint_event() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    association.handle_event(event);
                }
            }
            let Some(event) = association.poll() else { return result };
            match event {
                Event::Connected => {
                    self.established = true;
                    self.open_channels();
                    self.flush();
                }
                Event::Stream(StreamEvent::Opened { .. }) if association.stream_ids().len() > MAX_STREAMS => {
                    let _ = association.close();
                    result = Err(DropReason::PeerLimit);
                }
                Event::Stream(StreamEvent::Readable { id }) => {
                    if let Err(reason) = self.read(id, received) {
                        result = Err(reason);
                    }
                }
                Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                    self.channels.retain(|channel| channel.stream != id);
                    // The client reset its direction: reset ours (RFC 8831 section 6.7).
                    if let Ok(mut stream) = association.stream(id) {
                        let _ = stream.close();
                    }
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => {
                    // A later INIT starts afresh.
                    self.endpoint = new_endpoint();
                    self.association = None;
                    self.established = false;
                    self.channels.clear();
                    return result.and(Err(DropReason::SctpMalformed));
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, id: u16, received: &mut VecDeque<Received>) -> Result<(), DropReason> {
        let mut result = Ok(());
        loop {
            let Some((_, association)) = self.association.as_mut() else { return result };
            let Ok(mut stream) = association.stream(id) else { return result };
            let Ok(Some(chunks)) = stream.read_sctp() else { return result };
            if let Err(reason) = self.read_message(id, &chunks, received) {
                result = Err(reason);
            }
        }
    }

    fn read_message(
        &mut self,
        id: u16,
        chunks: &Chunks,
        received: &mut VecDeque<Received>,
    ) -> Result<(), DropReason> {
        let payload = match chunks.ppi {
            Ppid::BinaryEmpty | Ppid::StringEmpty => Bytes::new(),
            Ppid::Dcep | Ppid::Binary | Ppid::String => {
                let mut payload = vec![0; chunks.len()];
                chunks.read(&mut payload).map_err(|_| DropReason::SctpMalformed)?;
                payload.into()
            }
            Ppid::Unknown => return Err(DropReason::DataRefused),
        };
        if chunks.ppi == Ppid::Dcep {
            return self.handle_dcep(id, &payload);
        }
        let channel = self.channels.iter().find(|channel| channel.stream == id);
        let label = channel.and_then(|channel| channel.label).ok_or(DropReason::DataRefused)?;
        received.push_back((label, payload));
        Ok(())
    }

    fn handle_dcep(&mut self, id: u16, message: &[u8]) -> Result<(), DropReason> {
        let known = self.channels.iter_mut().find(|channel| channel.stream == id);
        match (Dcep::parse(message).ok_or(DropReason::SctpMalformed)?, known) {
            (Dcep::Ack, Some(channel)) if channel.ours => {
                channel.state = ChannelState::Open;
                self.flush();
                Ok(())
            }
            // The DTLS client takes the even streams (RFC 8832 section 6), but where the relay opens none it does no harm
            // if it takes others.
            (Dcep::Open { reliability, label }, None) => {
                let label = DataLabel::parse(label);
                let (_, association) = self.association.as_mut().ok_or(DropReason::SctpMalformed)?;
                let mut stream = association.stream(id).map_err(|_| DropReason::SctpMalformed)?;
                // ACK is ordered and reliable; what follows is as the client wants it.
                stream
                    .write_with_ppi(&Dcep::Ack.write(), Ppid::Dcep)
                    .and_then(|_| {
                        stream.set_reliability_params(
                            reliability.unordered,
                            reliability.kind,
                            reliability.value,
                        )
                    })
                    .map_err(|_| DropReason::SctpMalformed)?;
                let state = ChannelState::Open;
                self.channels.push(Channel { stream: id, label, ours: false, reliability, state });
                self.flush();
                Ok(())
            }
            _ => Err(DropReason::SctpMalformed),
        }
    }

    /// Opens the channels that the relay was told to open, on odd streams as the DTLS server.
    fn open_channels(&mut self) {
        let Some((_, association)) = self.association.as_mut() else { return };
        let mut ids = (1..u16::MAX).step_by(2);
        for spec in &self.specs {
            let (kind, value) = match spec.max_retransmits {
                None => (ReliabilityType::Reliable, 0),
                Some(count) => (ReliabilityType::Rexmit, u32::from(count)),
            };
            let reliability = Reliability { unordered: !spec.ordered, kind, value };
            let open = Dcep::Open { reliability, label: spec.label.as_str() }.write();
            let opened = ids.find_map(|id| {
                let mut stream = association.open_stream(id, Ppid::Binary).ok()?;
                stream.write_with_ppi(&open, Ppid::Dcep).ok()?;
                stream.set_reliability_params(!spec.ordered, kind, value).ok()?;
                Some(id)
            });
            if let Some(stream) = opened {
                let state = ChannelState::Opening;
                self.channels.push(Channel {
                    stream,
                    label: Some(spec.label),
                    ours: true,
                    reliability,
                    state,
                });
            }
        }
    }

    /// Sends what waited for the reliable channel.
    fn flush(&mut self) {
        while self.established && self.channel_for(DataLabel::Reliable).is_some() {
            let Some(payload) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= payload.len();
            let _ = self.write(DataLabel::Reliable, &payload);
        }
    }
}

impl fmt::Debug for Sctp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sctp")
            .field("established", &self.established)
            .field("channels", &self.channels)
            .field("waiting_bytes", &self.waiting_bytes)
            .finish_non_exhaustive()
    }
}

fn new_endpoint() -> Endpoint {
    let transport = TransportConfig::default()
        .with_max_receive_message_size(MAX_MESSAGE as u32)
        .with_max_send_message_size(MAX_MESSAGE as u32)
        // ICE decides when a path is lost, not SCTP.
        .with_max_init_retransmits(None)
        .with_max_data_retransmits(None)
        .with_rto_initial_ms(RTO_INITIAL_MS)
        .with_rto_min_ms(RTO_MIN_MS)
        .with_rto_max_ms(RTO_MAX_MS);
    let mut server = ServerConfig::default();
    server.transport = Arc::new(transport);
    let mut config = EndpointConfig::default();
    config.max_payload_size(MAX_PAYLOAD);
    Endpoint::new(Arc::new(config), Some(Arc::new(server)))
}
