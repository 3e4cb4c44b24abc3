//! A client's data channels: SCTP as the side that connects, DCEP both ways.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, StreamEvent,
};

const ANY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

/// One association and its channels by stream.
pub(super) struct Data {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    connected: bool,
    /// Channels that this client opens once connected: stream, label, reliable.
    to_open: Vec<(u16, &'static str, bool)>,
    channels: BTreeMap<u16, String>,
    /// Messages that arrived, with their channel's label.
    pub(super) received: Vec<(String, Bytes)>,
}

impl Data {
    /// Connects; then opens `_reliable` and `_lossy` if `opens`, as LiveKit's publisher connection does.
    pub(super) fn new(opens: bool) -> Self {
        let mut config = EndpointConfig::default();
        config.max_payload_size(1100);
        let mut endpoint = Endpoint::new(Arc::new(config), None);
        let (handle, association) =
            endpoint.connect(ClientConfig::default(), ANY).expect("a new endpoint has room");
        let to_open = if opens { vec![(0, "_reliable", true), (2, "_lossy", false)] } else { Vec::new() };
        Self {
            endpoint,
            handle,
            association,
            connected: false,
            to_open,
            channels: BTreeMap::new(),
            received: Vec::new(),
        }
    }

    /// Whether a channel with this label is open.
    pub(super) fn is_open(&self, label: &str) -> bool {
        self.channels.values().any(|have| have == label)
    }

    /// Sends a message. False without such a channel.
    pub(super) fn send(&mut self, label: &str, payload: &[u8]) -> bool {
        let Some((&id, _)) = self.channels.iter().find(|(_, have)| *have == label) else { return false };
        self.association.stream(id).is_ok_and(|mut s| s.write_with_ppi(payload, Ppid::Binary).is_ok())
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.association.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
        self.process();
    }

    pub(super) fn handle(&mut self, packet: &[u8], now: Instant) {
        let packet = Bytes::copy_from_slice(packet);
        if let Some((_, DatagramEvent::AssociationEvent(event))) =
            self.endpoint.handle(now, ANY, None, None, packet)
        {
            self.association.handle_event(event);
        }
        self.process();
    }

    /// Packets to send over DTLS.
    pub(super) fn transmits(&mut self, now: Instant) -> Vec<Bytes> {
        let mut packets = Vec::new();
        while let Some(transmit) = self.association.poll_transmit(now) {
            if let Payload::RawEncode(raw) = transmit.payload {
                packets.extend(raw);
            }
        }
        packets
    }

    fn process(&mut self) {
        while let Some(event) = self.association.poll_endpoint_event() {
            self.endpoint.handle_event(self.handle, event);
        }
        while let Some(event) = self.association.poll() {
            match event {
                Event::Connected => {
                    self.connected = true;
                    self.open_channels();
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read(id),
                _ => {}
            }
        }
    }

    fn open_channels(&mut self) {
        for (id, label, reliable) in std::mem::take(&mut self.to_open) {
            let kind = if reliable { 0x00 } else { 0x81 };
            let mut open = vec![3, kind, 1, 0, 0, 0, 0, 0, 0, label.len() as u8, 0, 0];
            open.extend(label.as_bytes());
            let Ok(mut stream) = self.association.open_stream(id, Ppid::Binary) else { continue };
            if stream.write_with_ppi(&open, Ppid::Dcep).is_ok() {
                if !reliable {
                    let _ = stream.set_reliability_params(true, ReliabilityType::Rexmit, 0);
                }
                self.channels.insert(id, label.to_owned());
            }
        }
    }

    fn read(&mut self, id: u16) {
        while let Ok(mut stream) = self.association.stream(id)
            && let Ok(Some(chunks)) = stream.read_sctp()
        {
            let mut payload = vec![0; chunks.len()];
            let _ = chunks.read(&mut payload);
            match (chunks.ppi, payload.first()) {
                (Ppid::Dcep, Some(3)) => {
                    let len = usize::from(u16::from_be_bytes([payload[8], payload[9]]));
                    let label = String::from_utf8_lossy(&payload[12..12 + len]).into_owned();
                    let _ = stream.write_with_ppi(&[2], Ppid::Dcep);
                    self.channels.insert(id, label);
                }
                (Ppid::Dcep, _) => {}
                _ => {
                    let label = self.channels.get(&id).cloned().unwrap_or_default();
                    self.received.push((label, payload.into()));
                }
            }
        }
    }
}
