//! What shard threads hand each other: batches over rings ([`sfu_media::relay::link`]), and a wake-up for whoever gets one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sfu_media::relay::link::{self, Links};
use sfu_media::shard::Shard;
use sfu_media::tx::TxQueue;
use sfu_udp::Waker;

/// One thread's place at the crossbar.
#[derive(Debug)]
pub struct Crossbar {
    links: Links,
    me: usize,
    bells: Arc<[Bell]>,
}

/// Wakes one thread.
#[derive(Debug)]
struct Bell {
    waker: Waker,
    /// It was woken for a batch and has not looked yet: what else is sent until then needs no further wake-up.
    rung: AtomicBool,
}

impl Crossbar {
    /// Places for so many threads.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    pub fn build(shards: usize) -> io::Result<Vec<Self>> {
        let bell = |_| Ok(Bell { waker: Waker::new()?, rung: AtomicBool::new(false) });
        let bells: Arc<[Bell]> = (0..shards).map(bell).collect::<io::Result<_>>()?;
        let places = link::connect(shards).into_iter().enumerate();
        Ok(places.map(|(me, links)| Self { links, me, bells: Arc::clone(&bells) }).collect())
    }

    /// What this thread is woken by, for a batch or anything else.
    pub fn waker(&self) -> &Waker {
        &self.bells[self.me].waker
    }

    /// Hands over what a shard has for others. A shard that does not keep up gets it later.
    pub fn send(&mut self, shard: &mut Shard) {
        let Self { links, bells, .. } = self;
        let mut sent = false;
        while let Some((to, batch)) = shard.poll_relay(|to| links.has_room(to)) {
            links.send(to, batch);
            sent = true;
            if let Some(bell) = bells.get(usize::from(to.0))
                && !bell.rung.swap(true, Ordering::AcqRel)
            {
                bell.waker.wake();
            }
        }
        if sent {
            while let Some(batch) = links.returned() {
                shard.give_back(batch);
            }
        }
    }

    /// Gives a shard what others handed over. Whether there was anything.
    pub fn receive(&mut self, shard: &mut Shard, tx: &mut TxQueue, now: Instant) -> bool {
        let rung = &self.bells[self.me].rung;
        // What comes from here on rings again.
        if !rung.load(Ordering::Relaxed) || !rung.swap(false, Ordering::AcqRel) {
            return false;
        }
        while let Some((from, mut batch)) = self.links.receive() {
            shard.handle_relay(from, &mut batch, tx, now);
            self.links.give_back(from, batch);
        }
        true
    }
}
