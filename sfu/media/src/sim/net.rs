//! A datagram network that delays, drops, reorders and repeats by a seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How one direction of one endpoint's access link behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Time that every datagram takes at least.
    pub delay: Duration,
    /// Up to this much more, drawn for each datagram, without changing the order.
    pub jitter: Duration,
    /// Share of datagrams that vanish, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that are held back by `reorder_by`, so that later ones overtake them.
    pub reorder: f64,
    /// How long they are held back.
    pub reorder_by: Duration,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Bits per second; a datagram waits until those before it are through. None for no limit.
    pub rate: Option<u64>,
    /// Longest wait for the rate; a datagram that would wait longer is dropped.
    pub queue: Duration,
}

impl Link {
    /// 20 ms one way and nothing else.
    pub fn clean() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(15),
            duplicate: 0.0,
            rate: None,
            queue: Duration::from_millis(200),
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
    /// When the last bit of what was sent so far is through.
    free_at: Instant,
    /// Latest arrival of a datagram that kept its place.
    last: Instant,
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
    rng: SmallRng,
    start: Instant,
    links: BTreeMap<(SocketAddr, SocketAddr), Direction>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    order: u64,
    stats: NetStats,
}

impl Network {
    /// A network whose chance is fixed by `seed`.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            start: now,
            links: BTreeMap::new(),
            in_flight: BinaryHeap::new(),
            order: 0,
            stats: NetStats::default(),
        }
    }

    /// Sets how datagrams from `from` to `to` fare from now on. Without it they take [`Link::clean`].
    pub fn set_link(&mut self, from: SocketAddr, to: SocketAddr, link: Link) {
        self.direction(from, to).link = link;
    }

    /// What happened so far.
    pub fn stats(&self) -> NetStats {
        self.stats
    }

    fn direction(&mut self, from: SocketAddr, to: SocketAddr) -> &mut Direction {
        let start = self.start;
        self.links.entry((from, to)).or_insert(Direction { link: Link::clean(), free_at: start, last: start })
    }

    /// Sends a datagram.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) {
        self.stats.sent += 1;
        // Always the same number of draws per datagram, so that one link's settings do not change another's chance.
        let [loss, reorder, duplicate, jitter]: [f64; 4] = self.rng.random();
        let direction = self.direction(from, to);
        let link = direction.link;
        let through = match link.rate {
            None => now,
            Some(rate) => {
                let start = direction.free_at.max(now);
                if start.duration_since(now) > link.queue {
                    self.stats.lost += 1;
                    return;
                }
                let bits = bytes.len() as f64 * 8.0;
                direction.free_at = start + Duration::from_secs_f64(bits / rate.max(1) as f64);
                direction.free_at
            }
        };
        let mut at = (through + link.delay + link.jitter.mul_f64(jitter)).max(direction.last);
        if loss < link.loss {
            self.stats.lost += 1;
            return;
        }
        if reorder < link.reorder {
            at += link.reorder_by;
            self.stats.reordered += 1;
        } else {
            direction.last = at;
        }
        let twice = duplicate < link.duplicate;
        self.fly(at, from, to, bytes.to_vec());
        if twice {
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
        // 4 bytes take 10 ms at 3,200 bit/s, but come every millisecond.
        let (arrivals, stats) = run(1, Link { rate: Some(3_200), ..Link::clean() }, 100);
        assert!(arrivals.windows(2).all(|w| w[1].0 - w[0].0 == Duration::from_millis(10)));
        assert!(stats.lost > 50, "{stats:?}");
    }
}
