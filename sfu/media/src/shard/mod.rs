//! One shard: the peers, tracks and subscriptions of one thread, and the way of every packet between them.
//!
//! A shard is driven from outside. Inputs are [`Shard::handle_command`], [`Shard::handle_datagram`] and
//! [`Shard::handle_timeout`], each with the current instant; after any of them the caller sends what is in the
//! [`TxQueue`], drains [`Shard::poll_event`] and [`Shard::poll_relay`], and asks [`Shard::poll_timeout`] when to come back.
//! Batches of other shards are an input as well: [`Shard::handle_relay`]. Instants must not run backwards. The same inputs with the same seed give the same outputs, but for what the cryptographic libraries draw.

mod allocation;
mod commands;
mod connect;
mod fan_out;
mod feedback;
mod ingress;
mod loudest;
mod pacing;
mod peer_index;
mod peers;
mod relay;
mod replay;
mod reports;
mod round_trip;
mod router;
mod sending;
mod slots;
mod speaker;
mod subscriptions;
mod timers;
mod tracks;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::bwe::allocator::Claim;
use crate::command::{ShardCommand, ShardEvent};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Remote};
use crate::outbound::NtpClock;
use crate::relay::Outgoing;
use crate::rtcp::ReportBlock;
use crate::stats::ShardStats;
use crate::transport::demux::{self, Protocol};
use crate::transport::{DtlsCertificate, TransportTimeouts};
use crate::tx::TxQueue;
use loudest::Loudest;
use peers::Peers;
use subscriptions::{SubKey, Subscriptions};
use timers::{Timer, Timers};
use tracks::{StreamKey, Tracks};

/// What a shard starts from.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Certificate of all its DTLS connections; what the descriptions announce.
    pub certificate: Arc<DtlsCertificate>,
    /// When transports give up.
    pub timeouts: TransportTimeouts,
}

impl ShardConfig {
    /// With the usual timeouts.
    pub fn new(certificate: Arc<DtlsCertificate>) -> Self {
        Self { certificate, timeouts: TransportTimeouts::default() }
    }
}

/// One shard. See the module's documentation.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    rng: SmallRng,
    /// Wall-clock time for sender reports.
    clock: NtpClock,
    peers: Peers,
    tracks: Tracks,
    subs: Subscriptions,
    loudest: Loudest,
    timers: Timers,
    /// For other shards.
    outgoing: Outgoing,
    events: VecDeque<ShardEvent>,
    /// A probe is under way until about then.
    exact_until: Option<Instant>,
    stats: ShardStats,
    /// The last report of audio levels had any.
    heard: bool,
    /// Released packets of one stream that wait for the rest of their frame until the batch ends; empty between batches.
    held: Option<StreamKey>,
    released: Vec<ExtSeq>,
    /// Buffers used again for every packet.
    rtcp: Vec<u8>,
    blocks: Vec<ReportBlock>,
    claims: Vec<Claim>,
    claimants: Vec<SubKey>,
}

impl Shard {
    /// An empty shard.
    ///
    /// `seed` decides all that is random but not secret: first sequence numbers, timestamps. `unix` is the time since
    /// 1970 at `now`.
    pub fn new(config: ShardConfig, seed: u64, now: Instant, unix: Duration) -> Self {
        let mut shard = Self {
            config,
            rng: SmallRng::seed_from_u64(seed),
            clock: NtpClock::new(now, unix),
            peers: Peers::default(),
            tracks: Tracks::default(),
            subs: Subscriptions::default(),
            loudest: Loudest::default(),
            timers: Timers::default(),
            outgoing: Outgoing::default(),
            events: VecDeque::new(),
            exact_until: None,
            stats: ShardStats::default(),
            heard: false,
            held: None,
            released: Vec::new(),
            rtcp: Vec::new(),
            blocks: Vec::new(),
            claims: Vec::new(),
            claimants: Vec::new(),
        };
        shard.arm_periodic(now);
        shard
    }

    /// Does what room logic asks. A command that names an id which is not there (any more) does nothing.
    pub fn handle_command(&mut self, command: ShardCommand, tx: &mut TxQueue, now: Instant) {
        let mark = Self::mark(tx);
        self.command(command, tx, now);
        self.count_sent(mark, tx);
    }

    /// Takes one datagram. It is decrypted in place.
    pub fn handle_datagram(
        &mut self,
        from: impl Into<Remote>,
        datagram: &mut [u8],
        tx: &mut TxQueue,
        now: Instant,
    ) {
        self.handle_datagrams(std::iter::once((from, datagram)), tx, now);
    }

    /// Takes the datagrams that were received at once. The packets of one frame among them go out together.
    pub fn handle_datagrams<'d>(
        &mut self,
        datagrams: impl Iterator<Item = (impl Into<Remote>, &'d mut [u8])>,
        tx: &mut TxQueue,
        now: Instant,
    ) {
        let mark = Self::mark(tx);
        for (from, datagram) in datagrams {
            self.stats.datagrams_in += 1;
            self.stats.bytes_in += datagram.len() as u64;
            if let Err(reason) = self.route_datagram(from.into(), datagram, tx, now) {
                self.stats.drop(reason);
            }
        }
        self.forward_held(tx, now);
        self.count_sent(mark, tx);
    }

    /// Whether datagrams from there are looked at: a check from there was valid, and its consent has not expired.
    pub fn accepts(&self, from: impl Into<Remote>) -> bool {
        self.peers.at(from.into()).is_some()
    }

    /// A TCP connection is over. Its peer has until its consent expires to come back on another path.
    pub fn handle_closed(&mut self, remote: Remote) {
        if let Some(peer) = self.peers.at(remote).and_then(|key| self.peers.get_mut(key)) {
            peer.transport.forget(remote);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, tx: &mut TxQueue, now: Instant) {
        let mark = Self::mark(tx);
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Peer(key) | Timer::Repair(key) => self.peer_timeout(key, tx, now),
                Timer::Pace(key) => self.pace(key, tx, now),
                Timer::Relayed(key) => self.relayed_timeout(key, tx, now),
                Timer::Levels => self.report_levels(now),
                Timer::Quality => self.report_quality(now),
                Timer::Stats => self.report_stats(now),
            }
        }
        self.count_sent(mark, tx);
    }

    /// When [`Shard::handle_timeout`] is due; it may be called earlier.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The part of [`Shard::poll_timeout`] that somebody waits for: packets that are paced, retransmissions to be asked for.
    /// The rest can be some tens of milliseconds late, until there is another reason to wake.
    pub fn poll_prompt_timeout(&self) -> Option<Instant> {
        self.timers.next_prompt()
    }

    /// Whether [`Shard::handle_timeout`] should be called on time. Else a few milliseconds do no harm: timers of many peers
    /// can share a wake-up. What a probe finds out depends on the distance of its packets.
    pub fn is_exact(&self, now: Instant) -> bool {
        self.exact_until.is_some_and(|until| now < until)
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<ShardEvent> {
        self.events.pop_front()
    }

    /// Counters since the start.
    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }
}

impl Shard {
    fn route_datagram(
        &mut self,
        from: Remote,
        datagram: &mut [u8],
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let protocol = demux::classify(datagram).ok_or(DropReason::UnknownProtocol)?;
        if protocol != Protocol::Rtp {
            // What it asks for may be about what is held.
            self.forward_held(tx, now);
        }
        match protocol {
            Protocol::Stun => self.stun(from, datagram, tx, now),
            Protocol::Dtls => self.dtls(from, datagram, tx, now),
            Protocol::Rtp => self.rtp(from, datagram, tx, now),
            Protocol::Rtcp => self.rtcp(from, datagram, tx, now),
        }
    }

    fn mark(tx: &TxQueue) -> SentMark {
        let (datagrams, bytes) = tx.queued();
        SentMark { datagrams, bytes }
    }

    /// Counts what was queued since the mark.
    fn count_sent(&mut self, mark: SentMark, tx: &TxQueue) {
        let (datagrams, bytes) = tx.queued();
        self.stats.datagrams_out += (datagrams - mark.datagrams) as u64;
        self.stats.bytes_out += (bytes - mark.bytes) as u64;
    }
}

/// Where the send queue ended before an input.
#[derive(Debug, Clone, Copy)]
struct SentMark {
    datagrams: usize,
    bytes: usize,
}
