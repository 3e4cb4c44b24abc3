//! A shard, a network and clients, run together under a virtual clock. Plays the part of room logic as well: it makes up
//! ids, SSRCs and sections and gives the commands that a room would give.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bot::{Bot, Coding, Encoding, LayerConfig, PLAYOUT_DELAY_ID, SinkConfig, SourceConfig, TWCC_ID};
use super::clock;
use super::net::{Link, Network};
use crate::command::{
    Codec, CodecParams, DataChannelSpec, DataLabel, Extension, ExtensionMap, IceCredentials, MediaKind,
    ReceiveSection, SendSection, ShardCommand, ShardEvent, SsrcPair, SubscriptionTarget, TrackPolicy,
};
use crate::ids::{Mid, PeerId, Pt, Rid, ShardId, Ssrc, SubId, TrackId};
use crate::relay::Spread;
use crate::relay::link::{self, Links};
use crate::shard::{Shard, ShardConfig};
use crate::stats::ShardStats;
use crate::transport::{DtlsCertificate, TransportTimeouts};
use crate::tx::TxQueue;

/// Where the relay listens.
pub const RELAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 7000);

const VP8: Pt = Pt(96);
const VP8_RTX: Pt = Pt(97);
const OPUS: Pt = Pt(111);
/// Payload types are another's choice at the subscriber, so that the rewriting shows.
const VP8_DOWN: Pt = Pt(102);
const VP8_DOWN_RTX: Pt = Pt(103);
const OPUS_DOWN: Pt = Pt(109);

/// How a client publishes a track. See [`World::publish`].
#[derive(Debug, Clone, Copy)]
pub struct Publish {
    /// Form of the frames.
    pub coding: Coding,
    /// Bytes of a delta frame of each layer on the average, lowest first. More than one is simulcast by rid.
    pub layers: &'static [usize],
    /// How the frames of VP8 differ.
    pub encoding: Encoding,
    /// Time between frames.
    pub interval: Duration,
    /// First sequence number.
    pub first_seq: u16,
    /// Whether frames carry the trailer.
    pub encrypted: bool,
    /// Whether the room demands it.
    pub require_encryption: bool,
    /// Whether the description announces SSRCs. Simulcast never does, as with Chromium.
    pub announced: bool,
    /// Whether the relay and the publisher negotiate RTX.
    pub rtx: bool,
    /// Audio level, in -dBov.
    pub audio_level: Option<u8>,
}

impl Publish {
    /// VP8 at 30 frames a second, some 640 kbit/s.
    pub fn video() -> Self {
        Self {
            coding: Coding::Vp8,
            layers: &[2700],
            encoding: Encoding::PLAIN,
            interval: Duration::from_millis(33),
            first_seq: 100,
            encrypted: true,
            require_encryption: true,
            announced: false,
            rtx: true,
            audio_level: None,
        }
    }

    /// VP8 in three layers.
    pub fn simulcast() -> Self {
        Self { layers: &[400, 1500, 4000], ..Self::video() }
    }

    /// Opus in packets of 20 ms.
    pub fn audio() -> Self {
        Self {
            coding: Coding::Opus,
            layers: &[120],
            interval: Duration::from_millis(20),
            rtx: false,
            audio_level: Some(25),
            ..Self::video()
        }
    }
}

/// A published track, as the world knows it.
#[derive(Debug, Clone)]
pub struct Track {
    /// Its id.
    pub id: TrackId,
    /// Which bot sends it.
    pub bot: usize,
    /// The bot's name for it.
    pub source: u32,
    /// Its media section.
    pub mid: Mid,
    /// How it is published.
    pub publish: Publish,
    /// What the relay knows of its section.
    pub section: ReceiveSection,
}

/// A subscription, as the world knows it.
#[derive(Debug, Clone, Copy)]
pub struct Sub {
    /// Its id.
    pub id: SubId,
    /// Which bot receives it.
    pub bot: usize,
    /// SSRC at the receiver.
    pub ssrc: u32,
}

/// What [`World::around`] is called with for a batch between shards.
pub const RELAYED: &[u8] = b"relayed";

/// See [`World::around`].
pub type Around = fn(&[u8], &mut dyn FnMut());

/// Shards with clients; one shard unless more are asked for.
pub struct World {
    /// The shards. Clients are placed on them in turn.
    pub shards: Vec<Shard>,
    /// The network.
    pub net: Network,
    /// The clients; [`World::peer`] of the same index is theirs at the relay.
    pub bots: Vec<Bot>,
    /// Events so far, with their time. Stats, quality and levels are kept apart.
    pub events: Vec<(Instant, ShardEvent)>,
    /// Events of [`ShardEvent::Quality`], [`ShardEvent::AudioLevels`] and [`ShardEvent::Stats`].
    pub reports: Vec<(Instant, ShardEvent)>,
    /// RTP packets that the shards sent, by destination and SSRC.
    pub rtp_out: BTreeMap<(SocketAddr, u32), u64>,
    /// Runs that the shard queued, and the datagrams in them.
    pub runs: (u64, u64),
    /// Called around each datagram that a shard takes, with [`RELAYED`] around each batch between shards, and with an
    /// empty one around each command and turn of its timers: with the datagram and what takes it, which it must call.
    pub around: Option<Around>,
    /// Events are dropped at once, inside `around` where that is set: who counts memory does not count what left the shard.
    pub discard_events: bool,
    /// Data messages are passed on to all other peers, as a room does.
    pub relay_data: bool,
    certificate: Arc<DtlsCertificate>,
    spread: Spread,
    links: Vec<Links>,
    /// Messages that wait to be passed on.
    data: VecDeque<ShardCommand>,
    tx: TxQueue,
    now: Instant,
    start: Instant,
    seed: u64,
    next_id: u64,
    sections: BTreeMap<usize, Vec<ReceiveSection>>,
    ice: BTreeMap<usize, IceCredentials>,
}

impl World {
    /// An empty world.
    ///
    /// # Panics
    /// When the machine cannot make a key.
    pub fn new(seed: u64) -> Self {
        Self::with_timeouts(seed, TransportTimeouts::default())
    }

    /// One of several shards, which clients are placed on in turn.
    ///
    /// # Panics
    /// When the machine cannot make a key.
    pub fn with_shards(seed: u64, shards: usize) -> Self {
        Self::build(seed, shards, TransportTimeouts::default())
    }

    /// The same with other timeouts.
    ///
    /// # Panics
    /// When the machine cannot make a key.
    pub fn with_timeouts(seed: u64, timeouts: TransportTimeouts) -> Self {
        Self::build(seed, 1, timeouts)
    }

    fn build(seed: u64, shards: usize, timeouts: TransportTimeouts) -> Self {
        let now = clock::epoch();
        let certificate = Arc::new(DtlsCertificate::generate().expect("key generation works"));
        let config = ShardConfig { certificate: Arc::clone(&certificate), timeouts };
        let unix = Duration::from_secs(1_700_000_000);
        let shard = |at| Shard::new(config.clone(), seed + at as u64, now, unix);
        Self {
            shards: (0..shards).map(shard).collect(),
            spread: Spread::default(),
            links: link::connect(shards),
            data: VecDeque::new(),
            net: Network::new(seed, now),
            bots: Vec::new(),
            events: Vec::new(),
            reports: Vec::new(),
            rtp_out: BTreeMap::new(),
            runs: (0, 0),
            around: None,
            discard_events: false,
            relay_data: false,
            certificate,
            tx: TxQueue::new(),
            now,
            start: now,
            seed,
            next_id: 1000,
            sections: BTreeMap::new(),
            ice: BTreeMap::new(),
        }
    }

    /// The present.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The first shard's counters.
    pub fn stats(&self) -> &ShardStats {
        self.shards[0].stats()
    }

    /// The shard that a bot lives on.
    pub fn home(&self, bot: usize) -> usize {
        bot % self.shards.len()
    }

    /// Id of a bot's transport.
    pub fn peer(&self, bot: usize) -> PeerId {
        PeerId(bot as u64 + 1)
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Adds a client that begins to connect, over these links to and from the relay.
    pub fn add_bot(&mut self, up: Link, down: Link) -> usize {
        let bot = self.bots.len();
        let addr = SocketAddr::from(([203, 0, 113, 1], 10_000 + bot as u16));
        let relay = relay_addr(self.home(bot));
        self.net.set_link(addr, relay, up);
        self.net.set_link(relay, addr, down);
        let seed = self.seed.wrapping_mul(31).wrapping_add(bot as u64);
        // Half of them open data channels, the others take the relay's: LiveKit's two kinds of connection.
        let opens = bot.is_multiple_of(2);
        self.bots.push(Bot::new(addr, seed, opens, self.now));
        let ice = IceCredentials { ufrag: format!("relay{bot}x{seed}"), pwd: format!("{seed:024}") };
        let spec = |label, ordered, max_retransmits| DataChannelSpec { label, ordered, max_retransmits };
        let data_channels = match opens {
            true => Vec::new(),
            false => {
                vec![spec(DataLabel::Reliable, true, None), spec(DataLabel::Lossy, false, Some(0))]
            }
        };
        let peer = self.peer(bot);
        self.command(ShardCommand::OpenPeer { peer, ice: ice.clone(), data_channels });
        let remote = self.bots[bot].description();
        self.command(ShardCommand::SetRemote { peer, remote });
        self.ice.insert(bot, ice.clone());
        self.bots[bot].connect(ice, self.certificate.fingerprint(), self.now);
        bot
    }

    /// Adds several clients on clean links and lets them connect.
    ///
    /// # Panics
    /// When one of them does not connect within two seconds.
    pub fn connect(&mut self, count: usize) {
        for _ in 0..count {
            self.add_bot(Link::clean(), Link::clean());
        }
        self.run(Duration::from_secs(2));
        assert!(self.bots.iter().all(Bot::is_connected), "all connect");
    }

    /// Changes the links of a client.
    pub fn set_links(&mut self, bot: usize, up: Link, down: Link) {
        let (addr, relay) = (self.bots[bot].addr(), relay_addr(self.home(bot)));
        self.net.set_link(addr, relay, up);
        self.net.set_link(relay, addr, down);
    }

    /// Credentials of the relay's end of a bot's transport.
    pub fn relay_ice(&self, bot: usize) -> IceCredentials {
        self.ice[&bot].clone()
    }

    /// Renews the credentials of both ends of a bot's transport.
    pub fn restart_ice(&mut self, bot: usize) {
        let peer = self.peer(bot);
        let number = self.id();
        let ice = IceCredentials { ufrag: format!("again{bot}x{number}"), pwd: format!("{number:024}") };
        let remote = self.bots[bot].restart_ice();
        self.command(ShardCommand::RestartIce { peer, ice: ice.clone() });
        self.command(ShardCommand::SetRemote { peer, remote });
        self.ice.insert(bot, ice.clone());
        self.bots[bot].connect(ice, self.certificate.fingerprint(), self.now);
    }

    /// The relay's certificate.
    pub fn certificate(&self) -> &DtlsCertificate {
        &self.certificate
    }

    /// Gives the room's shards a command.
    pub fn command(&mut self, command: ShardCommand) {
        let mut commands = Vec::new();
        let count = self.shards.len();
        // A bot's transport has the number after its own.
        let place = |peer: PeerId| Some(ShardId((peer.0.wrapping_sub(1) % count as u64) as u16));
        self.spread.route(command, place, |shard, command| commands.push((shard, command)));
        for (shard, command) in commands {
            let Self { shards, tx, now, around, .. } = self;
            let shard = usize::from(shard.0);
            match around {
                // What the shard keeps of the command is its own then.
                Some(around) => {
                    around(&[], &mut || shards[shard].handle_command(command.clone(), tx, *now));
                }
                None => shards[shard].handle_command(command, tx, *now),
            }
            self.deliver(shard);
        }
        self.exchange();
    }

    /// Gives the first shard a datagram as if it came from `from`, now.
    pub fn inject(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.inject_into(0, from, datagram);
    }

    fn inject_into(&mut self, shard: usize, from: SocketAddr, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        let protected = if self.around.is_some() { datagram.clone() } else { Vec::new() };
        let Self { shards, tx, now, around, .. } = self;
        let mut handle = || shards[shard].handle_datagram(from, &mut datagram, tx, *now);
        match around {
            Some(around) => around(&protected, &mut handle),
            None => handle(),
        }
        self.deliver(shard);
        self.exchange();
    }

    /// Lets the shards hand each other what they have, until they have nothing.
    fn exchange(&mut self) {
        let mut moved = true;
        while moved && self.shards.len() > 1 {
            moved = false;
            for at in 0..self.shards.len() {
                let Self { shards, links, tx, now, around, .. } = self;
                let mut turn = || {
                    while let Some(batch) = links[at].returned() {
                        shards[at].give_back(batch);
                    }
                    while let Some((to, batch)) = shards[at].poll_relay(|to| links[at].has_room(to)) {
                        links[at].send(to, batch);
                        moved = true;
                    }
                    while let Some((from, mut batch)) = links[at].receive() {
                        shards[at].handle_relay(from, &mut batch, tx, *now);
                        links[at].give_back(from, batch);
                    }
                };
                match around {
                    Some(around) => around(RELAYED, &mut turn),
                    None => turn(),
                }
                self.deliver(at);
            }
        }
    }

    /// Negotiates a section for a new track of a bot, publishes it and lets the bot send.
    pub fn publish(&mut self, bot: usize, publish: Publish) -> Track {
        let track = self.announce(bot, publish);
        self.start_track(&track);
        track
    }

    /// The command part of [`World::publish`] alone: the relay knows the track, the bot does not send.
    pub fn announce(&mut self, bot: usize, publish: Publish) -> Track {
        let source = self.id() as u32;
        let mid = Mid::new(&format!("m{source}")).expect("a short mid");
        let section = receive_section(mid, source, &publish);
        self.sections.entry(bot).or_default().push(section.clone());
        let track = Track { id: TrackId(self.id()), bot, source, mid, publish, section };
        self.negotiate(bot);
        self.command(ShardCommand::Publish {
            peer: self.peer(bot),
            mid,
            track: track.id,
            policy: TrackPolicy { require_encryption: publish.require_encryption, muted: false },
        });
        track
    }

    /// Lets the bot send an announced track.
    pub fn start_track(&mut self, track: &Track) {
        let now = self.now;
        self.bots[track.bot].publish(source_config(track), now);
    }

    /// Gives the relay a bot's sections again.
    pub fn negotiate(&mut self, bot: usize) {
        let sections = self.sections.get(&bot).cloned().unwrap_or_default();
        self.command(ShardCommand::SetReceive { peer: self.peer(bot), sections });
    }

    /// Takes a track's section out of its bot's description.
    pub fn remove_section(&mut self, track: &Track) {
        if let Some(sections) = self.sections.get_mut(&track.bot) {
            sections.retain(|section| section.mid != track.mid);
        }
        self.negotiate(track.bot);
    }

    /// Sends a track to a bot, which expects it.
    pub fn subscribe(&mut self, track: &Track, bot: usize) -> Sub {
        self.subscribe_with(track, bot, SubscriptionTarget::default())
    }

    /// The same with a target.
    pub fn subscribe_with(&mut self, track: &Track, bot: usize, target: SubscriptionTarget) -> Sub {
        let id = SubId(self.id());
        let ssrc = 0x5000_0000 + self.id() as u32;
        let (kind, codecs, rtx_ssrc) = match track.publish.coding {
            Coding::Opus => (MediaKind::Audio, vec![opus(OPUS_DOWN)], None),
            Coding::Vp8 => {
                let rtx = 0x5800_0000 + self.id() as u32;
                (MediaKind::Video, vec![vp8(VP8_DOWN, Some(VP8_DOWN_RTX))], Some(rtx))
            }
        };
        let section = SendSection {
            mid: Mid::new(&format!("s{}", id.0)).expect("a short mid"),
            kind,
            ssrc: Ssrc(ssrc),
            rtx_ssrc: rtx_ssrc.map(Ssrc),
            codecs,
            extensions: extensions(),
            cname: Arc::from(format!("publisher{}", track.bot)),
        };
        self.bots[bot].receive(SinkConfig {
            ssrc,
            rtx_ssrc,
            rtx_pt: rtx_ssrc.map(|_| VP8_DOWN_RTX.0),
            coding: track.publish.coding,
        });
        let peer = self.peer(bot);
        self.command(ShardCommand::Subscribe { sub: id, track: track.id, peer, section, target });
        Sub { id, bot, ssrc }
    }

    /// RTP packets that the shard sent on a subscription's SSRCs, retransmissions included.
    pub fn sent_on(&self, sub: &Sub) -> u64 {
        let to = self.bots[sub.bot].addr();
        let config = self.bots[sub.bot].sink(sub.ssrc).config();
        [Some(config.ssrc), config.rtx_ssrc]
            .into_iter()
            .flatten()
            .map(|ssrc| self.rtp_out.get(&(to, ssrc)).copied().unwrap_or(0))
            .sum()
    }

    /// Events of one kind.
    pub fn events_like(&self, wanted: impl Fn(&ShardEvent) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| wanted(event)).count()
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// When the shard or a bot asks for the same instant without end.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns_at_now = 0;
        loop {
            self.collect();
            let shards = self.shards.iter().filter_map(Shard::poll_timeout).min();
            let due = [self.net.next_arrival(), shards]
                .into_iter()
                .chain(self.bots.iter().map(Bot::poll_timeout))
                .flatten()
                .min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            turns_at_now = if at > self.now { 0 } else { turns_at_now + 1 };
            assert!(turns_at_now < 10_000, "time stands still");
            self.now = self.now.max(at);
            let now = self.now;
            let mut batches: Vec<_> = self.shards.iter().map(|_| Vec::new()).collect();
            while let Some(arrival) = self.net.arrive(now) {
                let shard = (0..self.shards.len()).find(|shard| arrival.to == relay_addr(*shard));
                if let Some(shard) = shard {
                    match self.around {
                        Some(_) => self.inject_into(shard, arrival.from, &arrival.bytes),
                        None => batches[shard].push(arrival),
                    }
                } else if let Some(bot) = self.bots.iter_mut().find(|bot| bot.addr() == arrival.to) {
                    bot.handle(&arrival.bytes, now);
                }
            }
            for (shard, mut batch) in batches.into_iter().enumerate() {
                if !batch.is_empty() {
                    let datagrams = batch.iter_mut().map(|arrival| (arrival.from, &mut arrival.bytes[..]));
                    self.shards[shard].handle_datagrams(datagrams, &mut self.tx, now);
                    self.deliver(shard);
                }
                if self.shards[shard].poll_timeout().is_some_and(|at| at <= now) {
                    let Self { shards, tx, around, .. } = self;
                    let mut handle = || shards[shard].handle_timeout(tx, now);
                    match around {
                        Some(around) => around(&[], &mut handle),
                        None => handle(),
                    }
                    self.deliver(shard);
                }
            }
            self.exchange();
            self.pass_data();
            for bot in &mut self.bots {
                if bot.poll_timeout().is_some_and(|at| at <= now) {
                    bot.handle_timeout(now);
                }
            }
        }
        self.now = end;
    }

    /// Puts what the bots want to send on the network.
    fn collect(&mut self) {
        let shards = self.shards.len();
        for (at, bot) in self.bots.iter_mut().enumerate() {
            let home = at % shards;
            for datagram in bot.take_datagrams() {
                self.net.send(bot.addr(), relay_addr(home), &datagram, self.now);
            }
        }
    }

    /// Passes on what was said in data channels.
    fn pass_data(&mut self) {
        while let Some(command) = self.data.pop_front() {
            self.command(command);
        }
    }

    /// Puts what a shard wants to send on the network, and takes its events.
    fn deliver(&mut self, shard: usize) {
        let relay = relay_addr(shard);
        self.runs.0 += self.tx.runs().len() as u64;
        for (to, datagram) in self.tx.datagrams() {
            self.runs.1 += 1;
            if let (Some(128..=191), Some(kind)) = (datagram.first(), datagram.get(1))
                && !(64..=95).contains(&(kind & 0x7f))
            {
                let ssrc = u32::from_be_bytes([datagram[8], datagram[9], datagram[10], datagram[11]]);
                *self.rtp_out.entry((to.addr, ssrc)).or_default() += 1;
            }
            self.net.send(relay, to.addr, datagram, self.now);
        }
        self.tx.clear();
        if let (true, Some(around)) = (self.discard_events, self.around) {
            let from = &mut self.shards[shard];
            around(&[], &mut || while from.poll_event().is_some() {});
        }
        while let Some(event) = self.shards[shard].poll_event() {
            match event {
                ShardEvent::Quality(_) | ShardEvent::AudioLevels(_) | ShardEvent::Stats(_) => {
                    self.reports.push((self.now, event));
                }
                _ => {
                    self.events.push((self.now, event.clone()));
                    if let ShardEvent::Data { peer, label, payload } = event
                        && self.relay_data
                    {
                        let others: Vec<_> = (0..self.bots.len()).map(|bot| self.peer(bot)).collect();
                        for peer in others.into_iter().filter(|other| *other != peer) {
                            let payload = payload.clone();
                            self.data.push_back(ShardCommand::SendData { peer, label, payload });
                        }
                    }
                }
            }
        }
    }
}

/// Where a shard listens: the first at [`RELAY`], each further one at the next port.
fn relay_addr(shard: usize) -> SocketAddr {
    SocketAddr::new(RELAY.ip(), RELAY.port() + shard as u16)
}

fn opus(pt: Pt) -> CodecParams {
    CodecParams { pt, codec: Codec::Opus, clock_rate: 48_000, rtx: None, variant: 0 }
}

fn vp8(pt: Pt, rtx: Option<Pt>) -> CodecParams {
    CodecParams { pt, codec: Codec::Vp8, clock_rate: 90_000, rtx, variant: 0 }
}

fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::default();
    map.allow_mixed = true;
    map.set(Extension::AudioLevel, 1);
    map.set(Extension::Mid, 4);
    map.set(Extension::TransportCc, TWCC_ID);
    map.set(Extension::PlayoutDelay, PLAYOUT_DELAY_ID);
    map.set(Extension::Rid, 10);
    map.set(Extension::RepairedRid, 11);
    map
}

/// SSRC of a layer and of its RTX.
fn ssrcs(source: u32, layer: usize, rtx: bool) -> (u32, Option<u32>) {
    let ssrc = 0x1000_0000 + source * 16 + layer as u32 * 2;
    (ssrc, rtx.then_some(ssrc + 1))
}

fn rid(layer: usize) -> Rid {
    // As Chromium names LiveKit's layers.
    Rid::new(["q", "h", "f"][layer]).expect("a short rid")
}

/// What the relay's answer for such a track says.
fn receive_section(mid: Mid, source: u32, publish: &Publish) -> ReceiveSection {
    let simulcast = publish.layers.len() > 1;
    let (kind, codecs) = match publish.coding {
        Coding::Opus => (MediaKind::Audio, vec![opus(OPUS)]),
        Coding::Vp8 => (MediaKind::Video, vec![vp8(VP8, publish.rtx.then_some(VP8_RTX))]),
    };
    let ssrcs = match publish.announced && !simulcast {
        true => {
            let (primary, rtx) = ssrcs(source, 0, publish.rtx);
            vec![SsrcPair { primary: Ssrc(primary), rtx: rtx.map(Ssrc) }]
        }
        false => Vec::new(),
    };
    let rids = if simulcast { (0..publish.layers.len()).map(rid).collect() } else { Vec::new() };
    ReceiveSection { mid, kind, codecs, extensions: extensions(), ssrcs, rids }
}

/// What the bot sends for such a track.
pub fn source_config(track: &Track) -> SourceConfig {
    let publish = &track.publish;
    let simulcast = publish.layers.len() > 1;
    let (pt, rtx_pt, clock_rate) = match publish.coding {
        Coding::Opus => (OPUS, None, 48_000),
        Coding::Vp8 => (VP8, publish.rtx.then_some(VP8_RTX.0), 90_000),
    };
    let layers = publish
        .layers
        .iter()
        .enumerate()
        .map(|(layer, frame_len)| {
            let (ssrc, rtx_ssrc) = ssrcs(track.source, layer, publish.rtx);
            LayerConfig { ssrc, rtx_ssrc, rid: simulcast.then(|| rid(layer)), frame_len: *frame_len }
        })
        .collect();
    SourceConfig {
        source: track.source,
        coding: publish.coding,
        mid: track.mid,
        pt: pt.0,
        rtx_pt,
        layers,
        encoding: publish.encoding,
        extensions: extensions(),
        interval: publish.interval,
        clock_rate,
        first_seq: publish.first_seq,
        encrypted: publish.encrypted,
        audio_level: publish.audio_level,
        // An announced SSRC needs no name.
        names_packets: if publish.announced && !simulcast { 0 } else { 60 },
    }
}
