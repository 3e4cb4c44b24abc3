//! A relay's transport, an independent client made of the engines' client sides, and a clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dimpl::{Dtls, Output, SrtpProfile};
use sctp_proto::{
    Association, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, StreamEvent, TransportConfig as SctpConfig,
};

use super::super::certificate::fingerprint_of;
use super::super::dcep::{Dcep, Reliability};
use super::super::stun::{Class, IntegrityKey, Message, MessageWriter, Role};
use super::super::*;

pub(super) const CLIENT: &str = "203.0.113.5:40000";

pub(super) fn address(text: &str) -> Remote {
    text.parse::<SocketAddr>().unwrap().into()
}

pub(super) fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials { ufrag: ufrag.into(), pwd: format!("password-of-{ufrag}-0123456789") }
}

/// Certificates take time to make; the tests share one of each side.
pub(super) fn relay_certificate() -> Arc<DtlsCertificate> {
    static SHARED: std::sync::OnceLock<Arc<DtlsCertificate>> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| Arc::new(DtlsCertificate::generate().unwrap())).clone()
}

fn client_certificate() -> Arc<DtlsCertificate> {
    static SHARED: std::sync::OnceLock<Arc<DtlsCertificate>> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| Arc::new(DtlsCertificate::generate().unwrap())).clone()
}

/// What the client's description says.
pub(super) fn client_description() -> RemoteTransport {
    RemoteTransport { ice: credentials("client"), fingerprint: client_certificate().fingerprint() }
}

pub(super) struct Client {
    pub(super) dtls: Dtls,
    pub(super) dtls_connected: bool,
    pub(super) dtls_closed: bool,
    dtls_deadline: Option<Instant>,
    pub(super) srtp: Option<(SrtpOpen, SrtpSeal)>,
    pub(super) profile: Option<SrtpProfile>,
    endpoint: Endpoint,
    handle: Option<sctp_proto::AssociationHandle>,
    pub(super) association: Option<Association>,
    pub(super) sctp_connected: bool,
    /// Verification tag of the packets that it sends.
    pub(super) tag: [u8; 4],
    /// (stream, payload protocol, message)
    pub(super) messages: Vec<(u16, Ppid, Vec<u8>)>,
    /// Labels of channels that the relay opened, with their streams.
    pub(super) opened: Vec<(u16, String, Reliability)>,
    pub(super) acknowledged: Vec<u16>,
    pub(super) stun: Vec<Vec<u8>>,
    out: VecDeque<Vec<u8>>,
}

impl Client {
    /// `mtu` of its DTLS: small ones make a ClientHello that spans datagrams, as browsers' do.
    fn new(mtu: usize, now: Instant) -> Self {
        // As patient as a browser. Four retries, duplicates counted, are used up within the relay's own patience.
        let config = dimpl::Config::builder().mtu(mtu).max_queue_tx(40).flight_retries(12).build().unwrap();
        let mut dtls = Dtls::new_12(Arc::new(config), client_certificate().pair.clone(), now);
        dtls.set_active(true);
        dtls.handle_timeout(now).unwrap();
        Self {
            dtls,
            dtls_connected: false,
            dtls_closed: false,
            dtls_deadline: None,
            srtp: None,
            profile: None,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None),
            handle: None,
            association: None,
            sctp_connected: false,
            tag: [0; 4],
            messages: Vec::new(),
            opened: Vec::new(),
            acknowledged: Vec::new(),
            stun: Vec::new(),
            out: VecDeque::new(),
        }
    }

    fn handle(&mut self, datagram: &[u8], now: Instant) {
        match demux::classify(datagram) {
            Some(demux::Protocol::Stun) => self.stun.push(datagram.to_vec()),
            Some(demux::Protocol::Dtls) => {
                self.dtls.handle_timeout(now).unwrap();
                self.dtls.handle_packet(datagram).unwrap();
                self.poll_dtls(now);
            }
            // Media is for the test to open.
            _ => {}
        }
    }

    /// Runs its engines and returns what it sends.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        loop {
            self.poll_dtls(now);
            if !self.poll_sctp(now) {
                return self.out.drain(..).collect();
            }
        }
    }

    fn poll_dtls(&mut self, now: Instant) {
        let mut buffer = vec![0; 70_000];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => self.out.push_back(packet.to_vec()),
                Output::Timeout(at) => {
                    self.dtls_deadline =
                        Some(at).filter(|at| at.duration_since(now) < Duration::from_secs(3600));
                    break;
                }
                Output::Connected => self.dtls_connected = true,
                Output::PeerCert(der) => {
                    assert_eq!(fingerprint_of(der), relay_certificate().fingerprint());
                }
                Output::KeyingMaterial(keys, profile) => {
                    self.profile = Some(profile);
                    self.srtp = Some(client_contexts(&keys, profile));
                }
                Output::ApplicationData(data) => {
                    let data = Bytes::copy_from_slice(data);
                    if let Some((_, DatagramEvent::AssociationEvent(event))) =
                        self.endpoint.handle(now, address(CLIENT).addr, None, None, data)
                    {
                        // A test may have taken it away.
                        if let Some(association) = &mut self.association {
                            association.handle_event(event);
                        }
                    }
                }
                Output::CloseNotify => self.dtls_closed = true,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether it gave DTLS something to send.
    fn poll_sctp(&mut self, now: Instant) -> bool {
        let Some(association) = &mut self.association else { return false };
        while let Some(event) = association.poll() {
            match event {
                Event::Connected => self.sctp_connected = true,
                Event::Stream(StreamEvent::Readable { id }) => {
                    let mut replies = Vec::new();
                    let mut stream = association.stream(id).unwrap();
                    while let Ok(Some(chunks)) = stream.read_sctp() {
                        let mut message = vec![0; chunks.len()];
                        chunks.read(&mut message).unwrap();
                        if chunks.ppi != Ppid::Dcep {
                            self.messages.push((id, chunks.ppi, message));
                            continue;
                        }
                        match Dcep::parse(&message).unwrap() {
                            Dcep::Ack => self.acknowledged.push(id),
                            Dcep::Open { label, reliability } => {
                                self.opened.push((id, label.to_owned(), reliability));
                                replies.push(Dcep::Ack.write());
                            }
                        }
                    }
                    for reply in replies {
                        stream.write_with_ppi(&reply, Ppid::Dcep).unwrap();
                    }
                }
                _ => {}
            }
        }
        let Some(transmit) = association.poll_transmit(now) else { return false };
        let Payload::RawEncode(packets) = transmit.payload else { panic!("outgoing") };
        for packet in packets {
            self.tag.copy_from_slice(&packet[4..8]);
            self.dtls.send_application_data(&packet).unwrap();
            self.poll_dtls(now);
        }
        true
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let sctp = self.association.as_ref().and_then(Association::poll_timeout);
        [self.dtls_deadline, sctp].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.dtls.handle_timeout(now).unwrap();
        if let Some(association) = &mut self.association {
            association.handle_timeout(now);
        }
    }
}

/// The other end's view of RFC 5764 section 4.2.
pub(super) fn client_contexts(keys: &[u8], profile: SrtpProfile) -> (SrtpOpen, SrtpSeal) {
    let profile = match profile {
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        _ => Profile::AesCm128HmacSha1_80,
    };
    let (key, salt) = (profile.key_len(), profile.salt_len());
    assert_eq!(keys.len(), 2 * (key + salt));
    let open = SrtpOpen::new(profile, &keys[key..2 * key], &keys[2 * key + salt..]);
    let seal = SrtpSeal::new(profile, &keys[..key], &keys[2 * key..2 * key + salt]);
    (open.unwrap(), seal.unwrap())
}

/// Which way datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToRelay,
    ToClient,
}

/// What the network does to the datagrams of one step.
pub(super) type Network = Box<dyn FnMut(Way, Vec<Vec<u8>>) -> Vec<Vec<u8>>>;

pub(super) struct Pair {
    pub(super) relay: Transport,
    pub(super) client: Client,
    pub(super) now: Instant,
    pub(super) start: Instant,
    /// Where the client's datagrams come from.
    pub(super) from: Remote,
    pub(super) network: Network,
    pub(super) events: Vec<TransportEvent>,
    pub(super) drops: Vec<DropReason>,
    /// Where the relay sent the datagrams of the last step.
    pub(super) sent_to: Vec<Remote>,
    /// (relay's, client's) fragments in the checks.
    pub(super) ufrags: (&'static str, &'static str),
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(Vec::new(), 1150, Some(client_description()))
    }

    pub(super) fn with(
        data_channels: Vec<DataChannelSpec>,
        mtu: usize,
        description: Option<RemoteTransport>,
    ) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "the epoch of the virtual clock; SCTP's client reads it too"
        )]
        let now = Instant::now();
        let config = TransportConfig {
            ice: credentials("relay"),
            certificate: relay_certificate(),
            data_channels,
            timeouts: TransportTimeouts::default(),
        };
        let mut relay = Transport::new(config, now);
        if let Some(description) = description {
            relay.set_remote(description, now);
        }
        Self {
            relay,
            client: Client::new(mtu, now),
            now,
            start: now,
            from: address(CLIENT),
            network: Box::new(|_, datagrams| datagrams),
            events: Vec::new(),
            drops: Vec::new(),
            sent_to: Vec::new(),
            ufrags: ("relay", "client"),
        }
    }

    /// A pair that is connected.
    pub(super) fn connected() -> Self {
        let mut pair = Self::new();
        pair.connect();
        pair
    }

    pub(super) fn connect(&mut self) {
        self.check(true);
        self.run_until(|pair| pair.relay.is_connected() && pair.client.dtls_connected);
    }

    /// A pair with an association, and the channels that the relay was told to open.
    pub(super) fn with_channels(specs: Vec<DataChannelSpec>) -> Self {
        let mut pair = Self::with(specs, 1150, Some(client_description()));
        pair.connect();
        pair.associate();
        pair
    }

    /// Only the relay's clock moves.
    pub(super) fn relay_waits(&mut self, by: Duration) {
        self.now += by;
        self.relay.handle_timeout(self.now, &mut TxQueue::new());
        self.events.extend(std::iter::from_fn(|| self.relay.poll_event()));
    }

    /// The client's description arrives.
    pub(super) fn describe(&mut self) {
        let mut tx = TxQueue::new();
        self.relay.set_remote(client_description(), self.now);
        let result = self.relay.take_up_early(&mut tx, self.now);
        self.drops.extend(result.err());
        self.deliver_to_client(&tx);
    }

    /// The client starts SCTP.
    pub(super) fn associate(&mut self) {
        let mut config = ClientConfig::default();
        config.transport = Arc::new(
            SctpConfig::default()
                .with_max_receive_message_size(sctp::MAX_MESSAGE as u32)
                .with_max_send_message_size(sctp::MAX_MESSAGE as u32 + 1000),
        );
        let (handle, association) = self.client.endpoint.connect(config, address(CLIENT).addr).unwrap();
        self.client.handle = Some(handle);
        self.client.association = Some(association);
        self.run_until(|pair| pair.client.sctp_connected);
    }

    /// The client opens a channel and has it acknowledged.
    pub(super) fn open_channel(&mut self, stream: u16, label: &str, lossy: bool) {
        let (kind, value) = if lossy { (ReliabilityType::Rexmit, 0) } else { (ReliabilityType::Reliable, 0) };
        let open = Dcep::Open { reliability: Reliability { unordered: lossy, kind, value }, label }.write();
        let association = self.client.association.as_mut().unwrap();
        let mut opened = association.open_stream(stream, Ppid::Binary).unwrap();
        opened.write_with_ppi(&open, Ppid::Dcep).unwrap();
        opened.set_reliability_params(lossy, kind, value).unwrap();
        self.run_until(|pair| pair.client.acknowledged.contains(&stream));
    }

    /// The client sends a message.
    pub(super) fn client_sends(&mut self, stream: u16, ppid: Ppid, message: &[u8]) {
        let association = self.client.association.as_mut().unwrap();
        association.stream(stream).unwrap().write_with_ppi(message, ppid).unwrap();
        self.run();
    }

    pub(super) fn relay_sends(&mut self, label: DataLabel, message: &[u8]) -> Result<(), DropReason> {
        let mut tx = TxQueue::new();
        let result = self.relay.send_data(label, message, &mut tx, self.now);
        self.deliver_to_client(&tx);
        self.run();
        result
    }

    /// Messages that the relay reported, taken.
    pub(super) fn take_data(&mut self) -> Vec<(DataLabel, Bytes)> {
        let (data, rest) = std::mem::take(&mut self.events)
            .into_iter()
            .partition::<Vec<_>, _>(|event| matches!(event, TransportEvent::Data { .. }));
        self.events = rest;
        let message = |event| match event {
            TransportEvent::Data { label, payload } => (label, payload),
            _ => unreachable!("partitioned"),
        };
        data.into_iter().map(message).collect()
    }

    /// A connectivity check from the client's present address; whether it was answered with success.
    pub(super) fn check(&mut self, nominate: bool) -> bool {
        let (relay, client) = self.ufrags;
        let key = IntegrityKey::new(&credentials(relay).pwd);
        let mut check = MessageWriter::new(Class::Request, &[3; 12])
            .username(&format!("{relay}:{client}"))
            .role(Role::Controlling(1))
            .priority(1);
        if nominate {
            check = check.use_candidate();
        }
        self.client.stun.clear();
        self.send_to_relay(&check.finish(&key));
        self.client.stun.iter().any(|response| {
            let response = Message::parse(response).unwrap();
            response.class() == Class::Success
                && response.verify(&key).is_ok()
                && response.xor_mapped_address() == Some(self.from.addr)
        })
    }

    /// Hands one datagram to the relay and what it answers to the client.
    pub(super) fn send_to_relay(&mut self, datagram: &[u8]) {
        let mut tx = TxQueue::new();
        let mut datagram = datagram.to_vec();
        let result = match demux::classify(&datagram) {
            Some(demux::Protocol::Stun) => self.relay.handle_stun(self.from, &datagram, &mut tx, self.now),
            Some(demux::Protocol::Dtls) => {
                self.relay.handle_dtls(self.from, &mut datagram, &mut tx, self.now)
            }
            _ => Err(DropReason::UnknownProtocol),
        };
        self.drops.extend(result.err());
        self.deliver_to_client(&tx);
    }

    fn deliver_to_client(&mut self, tx: &TxQueue) {
        self.sent_to.extend(tx.datagrams().map(|(to, _)| to));
        let datagrams = tx.datagrams().map(|(_, datagram)| datagram.to_vec()).collect();
        for datagram in (self.network)(Way::ToClient, datagrams) {
            self.client.handle(&datagram, self.now);
        }
        self.events.extend(std::iter::from_fn(|| self.relay.poll_event()));
    }

    /// Exchanges datagrams until nobody has any more to send now.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            let datagrams = self.client.poll(self.now);
            if datagrams.is_empty() {
                return;
            }
            for datagram in (self.network)(Way::ToRelay, datagrams) {
                self.send_to_relay(&datagram);
            }
        }
        panic!("they never fall silent");
    }

    /// Lets time pass, with every timer on the way.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            self.run();
            let next = [self.relay.poll_timeout(), self.client.poll_timeout()].into_iter().flatten().min();
            match next {
                Some(next) if next <= end => self.fire(next),
                _ => break,
            }
        }
        self.now = end;
        self.fire(end);
    }

    fn fire(&mut self, at: Instant) {
        self.now = self.now.max(at);
        let mut tx = TxQueue::new();
        self.relay.handle_timeout(self.now, &mut tx);
        self.deliver_to_client(&tx);
        self.client.handle_timeout(self.now);
        self.run();
    }

    /// Runs, timers included, until the condition holds; panics after 60 s of virtual time.
    #[track_caller]
    pub(super) fn run_until(&mut self, condition: impl Fn(&Pair) -> bool) {
        self.run();
        let give_up = self.now + Duration::from_secs(60);
        while !condition(self) {
            let next = [self.relay.poll_timeout(), self.client.poll_timeout()].into_iter().flatten().min();
            let next = next.expect("somebody waits for something");
            assert!(next < give_up, "not in 60 s; drops {:?}, events {:?}", self.drops, self.events);
            self.fire(next);
        }
    }

    /// A packet of each direction is sealed, sent and opened.
    pub(super) fn exchange_media(&mut self, seq: u16) {
        let mut packet = vec![0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&seq.to_be_bytes());
        packet.resize(200, 0);
        let index = crate::ids::ExtSeq(u64::from(seq));
        let ssrc = crate::ids::Ssrc(7);

        let (open, seal) = self.client.srtp.as_mut().unwrap();
        let mut up = packet.clone();
        let len = seal.seal_rtp(&mut up, 12, ssrc, index, [b"", b"to the relay", b""]).unwrap();
        let header = RtpHeader::parse(&up[..len]).unwrap();
        let opened = self.relay.open_rtp(&mut up[..len], &header).unwrap();
        assert_eq!(opened.index, index);
        assert_eq!(&up[opened.payload], b"to the relay");

        let (relay_seal, to) = self.relay.seal_and_addr().unwrap();
        assert_eq!(to, self.from);
        let mut down = packet;
        let len = relay_seal.seal_rtp(&mut down, 12, ssrc, index, [b"to the ", b"client", b""]).unwrap();
        let header = RtpHeader::parse(&down[..len]).unwrap();
        let opened = open.open_rtp(&mut down[..len], &header).unwrap();
        assert_eq!(&down[opened.payload], b"to the client");

        let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
        let mut rtcp = vec![0; 100];
        let len = seal.seal_rtcp(&report, &mut rtcp).unwrap();
        assert_eq!(self.relay.open_rtcp(&mut rtcp[..len]), Ok(8));
        assert_eq!(rtcp[..8], report);
    }
}
