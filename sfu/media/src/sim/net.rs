//! A datagram network that delays, drops, reorders and repeats by a seed.

mod queue;
mod trace;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use queue::OVERHEAD;
pub use trace::{Passed, Trace};

use queue::Queue;

/// Loss in bursts: a chain of two states after Gilbert and Elliott. In the good one nothing is lost by it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// Chance of each datagram to be the first of a bad spell.
    pub enter: f64,
    /// Chance of each datagram in a bad spell to be its last.
    pub leave: f64,
    /// Share of the datagrams of a bad spell that vanish.
    pub loss: f64,
}

impl Bursts {
    /// Spells of `length` datagrams on the average, in which all vanish; `loss` of all datagrams vanish.
    pub fn of(loss: f64, length: f64) -> Self {
        let leave = 1.0 / length;
        Self { enter: loss * leave / (1.0 - loss), leave, loss: 1.0 }
    }
}

/// How one direction of one endpoint's access link behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Time that every datagram takes at least.
    pub delay: Duration,
    /// Up to this much more, drawn for each datagram, without changing the order.
    pub jitter: Duration,
    /// Share of datagrams that vanish, 0 to 1.
    pub loss: f64,
    /// Loss in bursts, besides.
    pub bursts: Option<Bursts>,
    /// Share of datagrams that are held back by `reorder_by`, so that later ones overtake them.
    pub reorder: f64,
    /// How long they are held back.
    pub reorder_by: Duration,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Bits per second, headers of IP and UDP included; a datagram waits until those before it are through. None for no
    /// limit. [`Network::share`] and [`Network::then_rate`] say more.
    pub rate: Option<u64>,
    /// Longest wait for the rate; a datagram that would wait longer is dropped.
    pub queue: Duration,
    /// Bytes that pass at once after an idle time, as where a token bucket limits the rate (`tc tbf`).
    pub bucket: usize,
}

impl Link {
    /// 20 ms one way and nothing else.
    pub fn clean() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            bursts: None,
            reorder: 0.0,
            reorder_by: Duration::from_millis(15),
            duplicate: 0.0,
            rate: None,
            queue: Duration::from_millis(200),
            bucket: 0,
        }
    }

    /// A bad one: 5 % loss, 3 % reordered, 2 % repeated, 5 ms of jitter.
    pub fn rough() -> Self {
        Self { loss: 0.05, reorder: 0.03, duplicate: 0.02, jitter: Duration::from_millis(5), ..Self::clean() }
    }

    /// Lets nothing through.
    pub fn cut() -> Self {
        Self { loss: 1.0, ..Self::clean() }
    }
}

/// A datagram that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What the network did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Datagrams sent into it.
    pub sent: u64,
    /// Datagrams that it dropped.
    pub lost: u64,
    /// Datagrams that it repeated.
    pub duplicated: u64,
    /// Datagrams that it held back.
    pub reordered: u64,
}

#[derive(Debug)]
struct Direction {
    link: Link,
    /// Index of its queue.
    queue: usize,
    /// Latest arrival of a datagram that kept its place.
    last: Instant,
    /// In a bad spell.
    bad: bool,
    /// Its own, so that the traffic of one link changes nothing for another.
    rng: SmallRng,
    /// The same for DTLS and what it carries: its timers and those of SCTP draw from the system's chance, so how many of its
    /// datagrams there are differs from run to run.
    dtls_rng: SmallRng,
    trace: Option<Trace>,
}

#[derive(Debug, PartialEq, Eq)]
struct InFlight {
    at: Instant,
    order: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The network between the relay and its clients. Each client address has a link in each direction.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    start: Instant,
    links: BTreeMap<(SocketAddr, SocketAddr), Direction>,
    queues: Vec<Queue>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    order: u64,
    stats: NetStats,
}

impl Network {
    /// A network whose chance is fixed by `seed`.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            seed,
            start: now,
            links: BTreeMap::new(),
            queues: Vec::new(),
            in_flight: BinaryHeap::new(),
            order: 0,
            stats: NetStats::default(),
        }
    }

    /// Sets how datagrams from `from` to `to` fare from now on. Without it they take [`Link::clean`]. With a shared queue,
    /// the others that share it get this link's rate and limit too.
    pub fn set_link(&mut self, from: SocketAddr, to: SocketAddr, link: Link) {
        let queue = self.direction(from, to).queue;
        self.queues[queue].set(link.rate, link.queue);
        self.queues[queue].set_bucket(link.bucket);
        self.direction(from, to).link = link;
    }

    /// Makes several directions share one queue: a bottleneck with this rate and longest wait. Theirs hold no more.
    pub fn share(&mut self, directions: &[(SocketAddr, SocketAddr)], rate: u64, limit: Duration) {
        let queue = self.queues.len();
        self.queues.push(Queue::new(Some(rate), limit, self.start));
        for (from, to) in directions {
            self.direction(*from, *to).queue = queue;
        }
    }

    /// Changes the rate of a direction's queue at an instant to come, after all such instants given before. What waits then
    /// leaves at the new rate.
    pub fn then_rate(&mut self, from: SocketAddr, to: SocketAddr, at: Instant, rate: Option<u64>) {
        let queue = self.direction(from, to).queue;
        self.queues[queue].then(at, rate);
    }

    /// Records from now on what passes from `from` to `to`.
    pub fn watch(&mut self, from: SocketAddr, to: SocketAddr) {
        self.direction(from, to).trace = Some(Trace::default());
    }

    /// The record of a watched direction.
    ///
    /// # Panics
    /// When it is not watched.
    pub fn trace(&self, from: SocketAddr, to: SocketAddr) -> &Trace {
        self.links[&(from, to)].trace.as_ref().expect("a watched direction")
    }

    /// What happened so far.
    pub fn stats(&self) -> NetStats {
        self.stats
    }

    fn direction(&mut self, from: SocketAddr, to: SocketAddr) -> &mut Direction {
        let Self { seed, start, links, queues, .. } = self;
        links.entry((from, to)).or_insert_with(|| {
            let link = Link::clean();
            queues.push(Queue::new(link.rate, link.queue, *start));
            Direction {
                link,
                queue: queues.len() - 1,
                last: *start,
                bad: false,
                rng: SmallRng::seed_from_u64(seed_of(*seed, &from, &to)),
                dtls_rng: SmallRng::seed_from_u64(!seed_of(*seed, &from, &to)),
                trace: None,
            }
        })
    }

    /// Sends a datagram.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) {
        self.stats.sent += 1;
        let queue = self.direction(from, to).queue;
        let passage = self.queues[queue].pass(weight(bytes), now);
        let direction = self.direction(from, to);
        let link = direction.link;
        // Always the same number of draws, so that settings of a link do not shift what else happens on it.
        let dtls = is_dtls(bytes);
        let rng = if dtls { &mut direction.dtls_rng } else { &mut direction.rng };
        let [loss, reorder, duplicate, jitter, state, burst]: [f64; 6] = rng.random();
        let Some(passage) = passage else {
            if let Some(trace) = &mut direction.trace {
                trace.overflows.push(now);
            }
            self.stats.lost += 1;
            return;
        };
        let lost_in_burst = match link.bursts {
            Some(bursts) if !dtls => {
                direction.bad = if direction.bad { state >= bursts.leave } else { state < bursts.enter };
                direction.bad && burst < bursts.loss
            }
            _ => false,
        };
        let mut at = (passage.through + link.delay + link.jitter.mul_f64(jitter)).max(direction.last);
        let lost = loss < link.loss || lost_in_burst;
        let held_back = !lost && reorder < link.reorder;
        if held_back {
            at += link.reorder_by;
        } else if !lost {
            direction.last = at;
        }
        if let Some(trace) = &mut direction.trace {
            trace.push(now, passage.waited, (!lost).then_some(at), bytes.len());
        }
        if lost {
            self.stats.lost += 1;
            return;
        }
        self.stats.reordered += u64::from(held_back);
        self.fly(at, from, to, bytes.to_vec());
        if duplicate < link.duplicate {
            self.stats.duplicated += 1;
            self.fly(at + Duration::from_millis(1), from, to, bytes.to_vec());
        }
    }

    fn fly(&mut self, at: Instant, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.order += 1;
        self.in_flight.push(Reverse(InFlight { at, order: self.order, from, to, bytes }));
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.in_flight.peek().map(|Reverse(flying)| flying.at)
    }

    /// Takes out the next datagram that arrives at `now` or before.
    pub fn arrive(&mut self, now: Instant) -> Option<Arrival> {
        if self.next_arrival()? > now {
            return None;
        }
        let Reverse(InFlight { at, from, to, bytes, .. }) = self.in_flight.pop()?;
        Some(Arrival { at, from, to, bytes })
    }
}

/// Whether it is a record of DTLS ([RFC 7983 section 7](https://www.rfc-editor.org/rfc/rfc7983#section-7)).
fn is_dtls(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(20..=63))
}

/// Bytes that a datagram takes of a link's rate.
///
/// Those of a DTLS handshake count as full ones: an ECDSA signature in DER is some bytes longer or shorter from run to run, and
/// runs have to repeat.
fn weight(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(20..=22) => 1200,
        _ => bytes.len(),
    }
}

/// The seed of one direction's chance: FNV-1a over the network's seed and both ends.
fn seed_of(seed: u64, from: &SocketAddr, to: &SocketAddr) -> u64 {
    let text = format!("{seed} {from} {to}");
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn run(seed: u64, link: Link, count: u32) -> (Vec<(Duration, u32)>, NetStats) {
        let t = clock::epoch();
        let mut net = Network::new(seed, t);
        net.set_link(addr(1), addr(2), link);
        for i in 0..count {
            net.send(addr(1), addr(2), &i.to_be_bytes(), t + Duration::from_millis(u64::from(i)));
        }
        let end = t + Duration::from_secs(3600);
        let arrivals = std::iter::from_fn(|| net.arrive(end))
            .map(|a| (a.at - t, u32::from_be_bytes(a.bytes.try_into().unwrap())))
            .collect();
        (arrivals, net.stats())
    }

    #[test]
    fn a_clean_link_delays_and_nothing_else() {
        let (arrivals, stats) = run(1, Link::clean(), 50);
        let want: Vec<_> = (0..50).map(|i| (Duration::from_millis(u64::from(i) + 20), i)).collect();
        assert_eq!(arrivals, want);
        assert_eq!(stats, NetStats { sent: 50, ..NetStats::default() });
    }

    #[test]
    fn a_rough_link_repeats_by_its_seed() {
        let (arrivals, stats) = run(7, Link::rough(), 10_000);
        assert_eq!((arrivals.clone(), stats), run(7, Link::rough(), 10_000));
        assert_ne!(arrivals, run(8, Link::rough(), 10_000).0);
        assert!((400..600).contains(&stats.lost), "{stats:?}");
        assert!((200..400).contains(&stats.reordered), "{stats:?}");
        assert!((130..270).contains(&stats.duplicated), "{stats:?}");
        assert!(arrivals.windows(2).any(|w| w[0].1 > w[1].1), "some overtake others");
    }

    #[test]
    fn a_narrow_link_spaces_datagrams_and_drops_what_waits_too_long() {
        // 4 bytes and the headers take 10 ms at 25,600 bit/s, but come every millisecond.
        let (arrivals, stats) = run(1, Link { rate: Some(25_600), ..Link::clean() }, 100);
        assert!(arrivals.windows(2).all(|w| w[1].0 - w[0].0 == Duration::from_millis(10)));
        assert!(stats.lost > 50, "{stats:?}");
    }

    #[test]
    fn bursts_lose_their_share_in_spells_of_their_length() {
        let (arrivals, stats) =
            run(3, Link { bursts: Some(Bursts::of(0.05, 8.0)), ..Link::clean() }, 100_000);
        let share = stats.lost as f64 / 100_000.0;
        assert!((0.04..0.06).contains(&share), "{share}");
        // A spell shows as a gap between two arrivals.
        let spells = arrivals.windows(2).filter(|w| w[1].1 > w[0].1 + 1).count();
        let length = stats.lost as f64 / spells as f64;
        assert!((7.0..9.0).contains(&length), "{length}");
    }

    #[test]
    fn two_directions_share_one_queue_and_others_do_not_notice() {
        let t = clock::epoch();
        let alone = |crowded: bool| {
            let mut net = Network::new(5, t);
            // 100 bytes with the headers take 10 ms.
            net.share(&[(addr(1), addr(2)), (addr(1), addr(3))], 80_000, Duration::from_secs(9));
            net.set_link(addr(1), addr(4), Link { jitter: Duration::from_millis(3), ..Link::rough() });
            for to in 2..5 {
                net.watch(addr(1), addr(to));
            }
            for i in 0..50 {
                let now = t + Duration::from_millis(20 * i);
                net.send(addr(1), addr(2), &[0; 72], now);
                if crowded {
                    net.send(addr(1), addr(3), &[0; 72], now);
                }
                net.send(addr(1), addr(4), &[0; 72], now);
            }
            net
        };
        let (crowded, calm) = (alone(true), alone(false));
        assert_eq!(crowded.trace(addr(1), addr(4)).passed, calm.trace(addr(1), addr(4)).passed);
        let end = t + Duration::from_secs(1);
        assert_eq!(crowded.trace(addr(1), addr(2)).waited(1.0, t, end), Duration::ZERO);
        assert_eq!(crowded.trace(addr(1), addr(3)).waited(0.0, t, end), Duration::from_millis(10));
    }
}
