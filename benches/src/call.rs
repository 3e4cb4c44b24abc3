//! A running call around the relay's own shard: one publisher of video and audio, and many subscribers.
//!
//! The clients are those of the simulation, with their own DTLS and SRTP; they connect over memory. The publisher's media
//! goes through a real socket into [`sfu_udp::UdpSocket`], as in the relay, and what the shard sends goes through it to a
//! real socket of each subscriber. After the connection is up these sockets have a full receive buffer, so that a packet
//! ends where the kernel would queue it and no reader disturbs the measurement.
//!
//! Time is virtual: a frame every [`FRAME_EVERY`], so that estimators, pacers, reports and consent see a call that runs at
//! its natural pace while the processor runs at its own. What subscribers send back is honest feedback about every packet,
//! every [`FEEDBACK_EVERY`]; the CPU that it costs is counted apart.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sfu_media::command::{
    Codec, CodecParams, Extension, ExtensionMap, IceCredentials, MediaKind, ReceiveSection, SendSection,
    ShardCommand, SsrcPair, SubscriptionTarget, TrackPolicy,
};
use sfu_media::ids::{Mid, PeerId, Pt, ShardId, Ssrc, SubId, TrackId};
use sfu_media::relay::link::Links;
use sfu_media::rtcp::{TwccArrival, write_twcc};
use sfu_media::shard::{Shard, ShardConfig};
use sfu_media::sim::bot::Bot;
use sfu_media::stats::ShardStats;
use sfu_media::transport::DtlsCertificate;
use sfu_media::tx::TxQueue;
use sfu_udp::{RecvBatch, UdpSocket, UdpSocketConfig, Waker};

use crate::packets::{OPUS, Stream, VP8, VP8_RTX, ext};
use crate::timing::CpuClock;

/// Time between frames: three cameras at 30 a second, or a lively screen.
pub const FRAME_EVERY: Duration = Duration::from_millis(10);
/// Time between two feedbacks of a subscriber.
pub const FEEDBACK_EVERY: Duration = Duration::from_millis(50);
/// One way delay of the feedback's arrival times.
const DELAY: Duration = Duration::from_millis(5);
/// Bytes of a fan-out that are sent before it goes on, as in the relay.
const SEND_AT: usize = 64 * 1024;
/// Smallest buffer that the kernel gives: no datagram fits.
const FULL: usize = 1;

const VIDEO_SSRC: u32 = 0x1111_0001;
const AUDIO_SSRC: u32 = 0x1111_0002;
const VIDEO: TrackId = TrackId(1);
const AUDIO: TrackId = TrackId(2);
const POLICY: TrackPolicy = TrackPolicy { require_encryption: true, muted: false };

/// Where the publisher lives, and where others do.
const HOME: ShardId = ShardId(0);
const GUEST: ShardId = ShardId(1);
/// The other shard is never so late.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// One subscriber.
struct Receiver {
    bot: Bot,
    sink: StdSocket,
    /// Transport-wide numbers sent to it: those told of, and all.
    told: u64,
    sent: u64,
    /// When each of those not told of was sent.
    waiting: Vec<Instant>,
}

/// Which part of a room a call has.
#[derive(Debug)]
pub enum Side {
    /// All of it.
    Alone,
    /// The publisher and some of the subscribers; the rest lives on a shard that this wakes.
    Home(Links, Waker),
    /// Subscribers of a publisher on another shard, which this is woken for.
    Guest(Links, Waker),
}

/// See the module's documentation.
pub struct Call {
    side: Side,
    shard: Shard,
    tx: TxQueue,
    relay: Rc<RefCell<UdpSocket>>,
    /// Runs of media that went out while a fan-out went on.
    relieved: Rc<RefCell<Vec<(SocketAddr, usize)>>>,
    batch: RecvBatch,
    start: Instant,
    now: Instant,
    publisher: Bot,
    feeder: StdSocket,
    numbers: u16,
    video: Stream,
    audio: Stream,
    frames: u64,
    receivers: Vec<Receiver>,
    by_addr: HashMap<SocketAddr, usize>,
    next_feedback: Instant,
    /// CPU of forwarding with all that the shard does by the clock, and of taking in what subscribers send.
    forwarding: CpuClock,
    counted: bool,
    feedback: CpuClock,
}

/// What a number of frames cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Packets forwarded.
    pub packets: u64,
    /// CPU time of it.
    pub cpu: Duration,
    /// CPU time of taking in feedback meanwhile.
    pub feedback: Duration,
}

impl Cost {
    /// CPU nanoseconds per packet.
    pub fn ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.packets.max(1) as f64
    }

    /// The same of feedback.
    pub fn feedback_ns(&self) -> f64 {
        self.feedback.as_nanos() as f64 / self.packets.max(1) as f64
    }
}

impl Call {
    /// Connects everyone and subscribes them to both tracks.
    ///
    /// # Errors
    /// When sockets cannot be had (a subscriber takes one file descriptor), or a client does not connect.
    pub fn new(receivers: usize) -> Result<Self> {
        Self::of(Side::Alone, receivers, Instant::now())
    }

    /// The same of one side of a room, whose time begins at `now`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(side: Side, receivers: usize, now: Instant) -> Result<Self> {
        let certificate = Arc::new(DtlsCertificate::generate()?);
        let fingerprint = certificate.fingerprint();
        let mut config = UdpSocketConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.buffer_bytes = 4 << 20;
        let relay = UdpSocket::bind(config)?;
        let feeder = StdSocket::bind("127.0.0.1:0")?;
        feeder.connect(relay.local_addr()?)?;
        let relay = Rc::new(RefCell::new(relay));
        let relieved = Rc::<RefCell<Vec<_>>>::default();
        let (socket, runs) = (Rc::clone(&relay), Rc::clone(&relieved));
        let outlet = move |tx: &TxQueue| {
            socket.borrow_mut().send(tx);
            runs.borrow_mut().extend(tx.runs().iter().map(|run| (run.dst, run.datagrams())));
        };
        let mut call = Self {
            side,
            shard: Shard::new(ShardConfig::new(certificate), 1, now, Duration::from_secs(1_700_000_000)),
            tx: TxQueue::with_outlet(SEND_AT, outlet),
            relay,
            relieved,
            batch: RecvBatch::new(),
            start: now,
            now,
            publisher: Bot::new(feeder.local_addr()?, 1, true, now),
            feeder,
            numbers: 1,
            video: Stream::new(VIDEO_SSRC, false),
            audio: Stream::new(AUDIO_SSRC, true),
            frames: 0,
            receivers: Vec::new(),
            by_addr: HashMap::new(),
            next_feedback: now,
            forwarding: CpuClock::new(),
            counted: false,
            feedback: CpuClock::new(),
        };
        for index in 0..receivers {
            let sink = StdSocket::bind("127.0.0.1:0")?;
            sink.set_nonblocking(true)?;
            let bot = Bot::new(sink.local_addr()?, index as u64 + 2, true, now);
            call.by_addr.insert(sink.local_addr()?, index);
            call.receivers.push(Receiver { bot, sink, told: 0, sent: 0, waiting: Vec::new() });
        }
        for index in 0..=receivers {
            let ice = IceCredentials { ufrag: format!("relay{index}"), pwd: format!("{index:024}") };
            let peer = PeerId(index as u64);
            call.command(ShardCommand::OpenPeer { peer, ice: ice.clone(), data_channels: Vec::new() });
            let bot = call.bot(index);
            let remote = bot.description();
            bot.connect(ice, fingerprint, now);
            call.command(ShardCommand::SetRemote { peer, remote });
        }
        for _ in 0..200 {
            call.pass(Duration::from_millis(10));
        }
        let connected = (0..=receivers).filter(|index| call.bot(*index).is_connected()).count();
        ensure!(connected == receivers + 1, "{connected} of {} clients connected", receivers + 1);
        match &call.side {
            Side::Guest(..) => call.publish_relayed(),
            Side::Alone | Side::Home(..) => call.publish(),
        }
        call.subscribe();
        Ok(call)
    }

    /// Fills the subscribers' receive buffers for good, after the way through them was checked.
    ///
    /// # Errors
    /// When a subscriber did not get a whole frame that it can decrypt.
    pub fn check_and_close(&mut self) -> Result<()> {
        for receiver in &mut self.receivers {
            while receiver.sink.recv(&mut [0; 2048]).is_ok() {}
        }
        let before: Vec<_> = self.receivers.iter().map(|r| r.bot.stats()).collect();
        self.turn(4, 1100, true)?;
        for (receiver, before) in self.receivers.iter_mut().zip(before) {
            let mut bytes = [0; 2048];
            while let Ok(len) = receiver.sink.recv(&mut bytes) {
                receiver.bot.handle(&bytes[..len], self.now);
            }
            let after = receiver.bot.stats();
            let (bad, good) = (after.bad - before.bad, after.unexpected - before.unexpected);
            ensure!(bad == 0 && good >= 4, "a subscriber got {good} packets, {bad} broken ones");
            receiver.bot.set_feedback(false);
            // What it noted of the packets above is told of here, not by itself.
            receiver.bot.take_datagrams();
            socket2::SockRef::from(&receiver.sink).set_recv_buffer_size(FULL)?;
        }
        Ok(())
    }

    /// Addresses of the subscribers' sockets.
    pub fn sinks(&self) -> Vec<SocketAddr> {
        self.receivers.iter().map(|r| r.bot.addr()).collect()
    }

    /// The shard's counters.
    pub fn stats(&self) -> &ShardStats {
        self.shard.stats()
    }

    /// Lets frames of a shape pass until the estimators have settled.
    ///
    /// # Errors
    /// When the kernel or the shard does not do its part.
    pub fn warm_up(&mut self, frames: usize, frame: usize, payload: usize, audio: bool) -> Result<()> {
        for at in 0..frames {
            self.turn_of(frame, payload, at % 50 == 0, audio)?;
        }
        self.take_cost();
        Ok(())
    }

    /// One frame of video, and what is due until the next. Returns the packets forwarded.
    ///
    /// # Errors
    /// As [`Self::warm_up`].
    pub fn turn(&mut self, frame: usize, payload: usize, key: bool) -> Result<u64> {
        self.turn_of(frame, payload, key, false)
    }

    /// The same of video or audio.
    ///
    /// # Errors
    /// As [`Self::warm_up`].
    pub fn turn_of(&mut self, frame: usize, payload: usize, key: bool, audio: bool) -> Result<u64> {
        let before = self.shard.stats().rtp_out;
        if matches!(self.side, Side::Guest(..)) {
            self.take_relayed(frame)?;
            return Ok(self.shard.stats().rtp_out - before);
        }
        self.frames += 1;
        let stream = if audio { &mut self.audio } else { &mut self.video };
        for packet in stream.frame(frame, payload, key, &mut self.numbers) {
            self.publisher.send_rtp(&packet);
        }
        for datagram in self.publisher.take_datagrams() {
            self.feeder.send(&datagram)?;
        }
        let mut left = frame;
        while left > 0 {
            let start = sfu_udp::thread_cpu_time();
            let taken = if self.counted { self.counted_batch() } else { self.take_batch() };
            self.forwarding.stop(start);
            let taken = taken?;
            ensure!(taken > 0, "the publisher's packets did not arrive");
            left = left.saturating_sub(taken);
            self.sent();
        }
        self.pass_frame();
        Ok(self.shard.stats().rtp_out - before)
    }

    /// Waits for the other shard to hand over the packets of a frame, and forwards them.
    fn take_relayed(&mut self, frame: usize) -> Result<()> {
        let before = self.shard.stats().relayed_in;
        while self.shard.stats().relayed_in - before < frame as u64 {
            let Self { side, relay, shard, tx, now, forwarding, .. } = self;
            let Side::Guest(links, waker) = side else { return Ok(()) };
            let start = sfu_udp::thread_cpu_time();
            let ready = relay.borrow().wait(waker, Some(LONGEST_WAIT), false)?;
            std::hint::black_box(Instant::now());
            while let Some((from, mut batch)) = links.receive() {
                shard.handle_relay(from, &mut batch, tx, *now);
                links.give_back(from, batch);
            }
            relay.borrow_mut().send(tx);
            forwarding.stop(start);
            ensure!(ready.woken, "the other shard handed nothing over");
            self.sent();
        }
        self.pass_frame();
        Ok(())
    }

    /// What is due until the next frame.
    fn pass_frame(&mut self) {
        let end = self.now + FRAME_EVERY;
        self.timers(end);
        self.give_feedback();
    }

    /// Lets a function that the counter of instructions knows by name do what follows.
    pub fn set_counted(&mut self) {
        self.counted = true;
    }

    /// What instructions are counted of: the name is what the counter looks for.
    #[inline(never)]
    fn counted_batch(&mut self) -> Result<usize> {
        std::hint::black_box(self).take_batch()
    }

    /// Receives what is there, forwards and sends it: the turn of the relay's thread. Returns the datagrams received.
    fn take_batch(&mut self) -> Result<usize> {
        let Self { side, relay, batch, shard, tx, now, .. } = self;
        relay.borrow().recv_batch(batch)?;
        std::hint::black_box(Instant::now());
        let before = shard.stats().datagrams_in;
        shard.handle_datagrams(batch.datagrams(), tx, *now);
        if let Side::Home(links, waker) = side {
            while let Some((to, batch)) = shard.poll_relay(|to| links.has_room(to)) {
                links.send(to, batch);
                waker.wake();
            }
            while let Some(batch) = links.returned() {
                shard.give_back(batch);
            }
            // What the other one asks for.
            while let Some((from, mut batch)) = links.receive() {
                shard.handle_relay(from, &mut batch, tx, *now);
                links.give_back(from, batch);
            }
        }
        relay.borrow_mut().send(tx);
        Ok((shard.stats().datagrams_in - before) as usize)
    }

    /// What was spent since the last call, without the number of packets.
    pub fn take_cost(&mut self) -> Cost {
        Cost { packets: 0, cpu: self.forwarding.take(), feedback: self.feedback.take() }
    }

    /// Lets the clock run to `end` with all that the shard does by it.
    fn timers(&mut self, end: Instant) {
        self.ask_home();
        while let Some(at) = self.shard.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let Self { relay, shard, tx, now, forwarding, .. } = self;
            forwarding.measure(|| {
                shard.handle_timeout(tx, *now);
                if !tx.is_empty() {
                    relay.borrow_mut().send(tx);
                }
                while let Some(event) = shard.poll_event() {
                    std::hint::black_box(event);
                }
            });
            self.sent();
        }
        self.now = end;
    }

    /// Hands the home of the tracks what is asked of it.
    fn ask_home(&mut self) {
        let Self { side, shard, .. } = self;
        let Side::Guest(links, _) = side else { return };
        while let Some((to, batch)) = shard.poll_relay(|to| links.has_room(to)) {
            links.send(to, batch);
        }
        while let Some(batch) = links.returned() {
            shard.give_back(batch);
        }
    }

    /// What the clients send by themselves, and feedback where it is due.
    fn give_feedback(&mut self) {
        self.clients();
        if self.next_feedback > self.now {
            return;
        }
        self.next_feedback = self.now + FEEDBACK_EVERY;
        let start = self.start;
        let mut compound = Vec::new();
        for index in 0..self.receivers.len() {
            let receiver = &mut self.receivers[index];
            if receiver.waiting.is_empty() {
                continue;
            }
            let first = receiver.told + 1;
            let arrival = |(at, sent): (usize, Instant)| {
                let ticks = (sent + DELAY).saturating_duration_since(start).as_micros() / 250;
                TwccArrival { seq: (first + at as u64) as u16, ticks: ticks as u64 }
            };
            let arrivals: Vec<_> = receiver.waiting.drain(..).enumerate().map(arrival).collect();
            receiver.told = receiver.sent;
            let mut at = 0;
            while at < arrivals.len() {
                compound.clear();
                let base = arrivals[at].seq;
                at += write_twcc(&mut compound, Ssrc(7), Ssrc(1), base, 0, &arrivals[at..]).max(1);
                receiver.bot.send_rtcp(&compound);
            }
            for mut datagram in receiver.bot.take_datagrams() {
                let from = self.receivers[index].bot.addr();
                let Self { shard, tx, now, feedback, .. } = &mut *self;
                feedback.measure(|| shard.handle_datagram(from, &mut datagram, tx, *now));
            }
            self.send_and_note();
        }
    }

    /// Sends what is queued outside of all measuring.
    fn send_and_note(&mut self) {
        if !self.tx.is_empty() {
            self.relay.borrow_mut().send(&self.tx);
        }
        self.sent();
    }

    /// Notes what was sent, and gives the clients what is no media.
    fn sent(&mut self) {
        for (to, datagrams) in self.relieved.borrow_mut().drain(..) {
            if let Some(index) = self.by_addr.get(&to) {
                self.receivers[*index].sent += datagrams as u64;
                self.receivers[*index].waiting.extend(std::iter::repeat_n(self.now, datagrams));
            }
        }
        for (to, datagram) in self.tx.datagrams() {
            let media = matches!(datagram, [128..=191, kind, ..] if !(64..=95).contains(&(kind & 0x7f)));
            match self.by_addr.get(&to.addr) {
                Some(index) if media => {
                    self.receivers[*index].sent += 1;
                    self.receivers[*index].waiting.push(self.now);
                }
                Some(index) => self.receivers[*index].bot.handle(datagram, self.now),
                None => self.publisher.handle(datagram, self.now),
            }
        }
        self.tx.clear();
    }

    fn clients(&mut self) {
        for index in 0..=self.receivers.len() {
            let now = self.now;
            let bot = self.bot(index);
            if bot.poll_timeout().is_some_and(|at| at <= now) {
                bot.handle_timeout(now);
            }
            let (from, datagrams) = (bot.addr(), bot.take_datagrams());
            for mut datagram in datagrams {
                self.shard.handle_datagram(from, &mut datagram, &mut self.tx, now);
                self.sent();
            }
        }
    }

    /// Time without media.
    fn pass(&mut self, time: Duration) {
        self.clients();
        let end = self.now + time;
        self.timers(end);
    }

    /// Client 0 publishes.
    fn bot(&mut self, index: usize) -> &mut Bot {
        match index.checked_sub(1) {
            Some(index) => &mut self.receivers[index].bot,
            None => &mut self.publisher,
        }
    }

    fn command(&mut self, command: ShardCommand) {
        self.shard.handle_command(command, &mut self.tx, self.now);
        self.send_and_note();
    }

    fn publish(&mut self) {
        let section = |kind, ssrc, mid| ReceiveSection {
            mid,
            kind,
            codecs: codecs(kind),
            extensions: extensions(),
            ssrcs: vec![SsrcPair {
                primary: Ssrc(ssrc),
                rtx: (kind == MediaKind::Video).then_some(Ssrc(ssrc + 8)),
            }],
            rids: Vec::new(),
        };
        let sections = vec![
            section(MediaKind::Video, VIDEO_SSRC, mid("video")),
            section(MediaKind::Audio, AUDIO_SSRC, mid("audio")),
        ];
        let peer = PeerId(0);
        self.command(ShardCommand::SetReceive { peer, sections });
        for (track, mid) in [(VIDEO, mid("video")), (AUDIO, mid("audio"))] {
            self.command(ShardCommand::Publish { peer, mid, track, policy: POLICY });
            if matches!(self.side, Side::Home(..)) {
                self.command(ShardCommand::StartRelay { track, to: GUEST });
            }
        }
    }

    fn publish_relayed(&mut self) {
        for (track, kind) in [(VIDEO, MediaKind::Video), (AUDIO, MediaKind::Audio)] {
            self.command(ShardCommand::PublishRelayed { track, from: HOME, kind, policy: POLICY });
        }
    }

    fn subscribe(&mut self) {
        for index in 1..=self.receivers.len() {
            for (at, (track, kind)) in
                [(VIDEO, MediaKind::Video), (AUDIO, MediaKind::Audio)].into_iter().enumerate()
            {
                let id = (index * 2 + at) as u64;
                let ssrc = 0x5000_0000 + id as u32 * 2;
                let section = SendSection {
                    mid: mid(&id.to_string()),
                    kind,
                    ssrc: Ssrc(ssrc),
                    rtx_ssrc: (kind == MediaKind::Video).then_some(Ssrc(ssrc + 1)),
                    codecs: codecs(kind),
                    extensions: extensions(),
                    cname: Arc::from("publisher"),
                };
                let peer = PeerId(index as u64);
                let target = SubscriptionTarget::default();
                self.command(ShardCommand::Subscribe { sub: SubId(id), track, peer, section, target });
            }
        }
    }
}

fn mid(name: &str) -> Mid {
    Mid::new(name).unwrap_or_else(|| unreachable!("a mid of few letters"))
}

fn codecs(kind: MediaKind) -> Vec<CodecParams> {
    let (pt, codec, clock_rate, rtx) = match kind {
        MediaKind::Video => (VP8, Codec::Vp8, 90_000, Some(Pt(VP8_RTX))),
        MediaKind::Audio => (OPUS, Codec::Opus, 48_000, None),
    };
    vec![CodecParams { pt: Pt(pt), codec, clock_rate, rtx, variant: 0 }]
}

fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::default();
    map.allow_mixed = true;
    map.set(Extension::AudioLevel, ext::AUDIO_LEVEL);
    map.set(Extension::TransportCc, ext::TRANSPORT_CC);
    map.set(Extension::Mid, ext::MID);
    map
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("receivers", &self.receivers.len()).finish_non_exhaustive()
    }
}
