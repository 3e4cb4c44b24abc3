//! Publishers with cameras, and receivers behind links.

use std::time::{Duration, Instant};

use sfu_media::command::SubscriptionTarget;
use sfu_media::sim::bot::playout::{Playout, play};
use sfu_media::sim::bot::{Encoding, Sink};
use sfu_media::sim::net::{Link, Trace};
use sfu_media::sim::world::{Publish, RELAY, Sub, Track, World};

/// Time between frames: 30 a second.
const FRAME: Duration = Duration::from_micros(33_333);

/// Payload of a layer in frames of so many bytes: bits per second at 30 frames.
const fn frame_len(bps: usize) -> usize {
    bps / 8 / 30
}

/// One camera in three simulcast layers of 150, 500 and 1,700 kbit/s, three temporal layers each.
pub fn camera() -> Publish {
    Publish {
        layers: const { &[frame_len(150_000), frame_len(500_000), frame_len(1_700_000)] },
        encoding: Encoding::CAMERA,
        interval: FRAME,
        ..Publish::simulcast()
    }
}

/// A camera of a gallery: 60, 150 and 500 kbit/s.
pub fn small_camera() -> Publish {
    Publish { layers: const { &[frame_len(60_000), frame_len(150_000), frame_len(500_000)] }, ..camera() }
}

/// A camera as Chromium sends it in the harness with real browsers: 120, 380 and 2,600 kbit/s at 15 frames a second.
pub fn chromium_camera() -> Publish {
    Publish {
        layers: const { &[2 * frame_len(120_000), 2 * frame_len(380_000), 2 * frame_len(2_600_000)] },
        encoding: Encoding { key_ratio: 3.5, libvpx: true, ..Encoding::CAMERA },
        interval: Duration::from_micros(66_666),
        ..camera()
    }
}

/// Tracks that a receiver subscribes to.
pub struct Scene {
    pub world: World,
    pub tracks: Vec<Track>,
    pub receivers: Vec<Receiver>,
}

/// A client that receives all tracks.
pub struct Receiver {
    pub bot: usize,
    pub subs: Vec<Sub>,
}

/// A link of this round-trip time, half of it each way.
pub fn link(rtt: Duration) -> Link {
    Link { delay: rtt / 2, ..Link::clean() }
}

impl Scene {
    /// A publisher on a clean link of this round-trip time sends these tracks; nobody receives them yet.
    pub fn new(seed: u64, publisher_rtt: Duration, publish: &[Publish]) -> Self {
        let mut world = World::new(seed);
        let bot = world.add_bot(link(publisher_rtt), link(publisher_rtt));
        world.run(Duration::from_secs(1));
        assert!(world.bots[bot].is_connected(), "the publisher connects");
        let tracks: Vec<_> = publish.iter().map(|publish| world.announce(bot, *publish)).collect();
        for track in &tracks {
            world.start_track(track);
        }
        Self { world, tracks, receivers: Vec::new() }
    }

    /// Another client, behind these links; it subscribes as soon as it is connected.
    pub fn join(&mut self, up: Link, down: Link) -> usize {
        let receiver = self.connect(up, down);
        self.subscribe_all(receiver);
        receiver
    }

    /// Another client that only connects.
    ///
    /// Nothing is lost while it does: DTLS draws its pauses before it sends again from the system's chance, and runs have to repeat.
    pub fn connect(&mut self, up: Link, down: Link) -> usize {
        let lossless = |link: Link| Link { loss: 0.0, bursts: None, ..link };
        let bot = self.world.add_bot(lossless(up), lossless(down));
        let addr = self.world.bots[bot].addr();
        self.world.net.watch(RELAY, addr);
        self.world.bots[bot].set_rtt(up.delay + down.delay);
        for _ in 0..100 {
            self.world.run(Duration::from_millis(100));
            if self.world.bots[bot].is_connected() {
                self.world.set_links(bot, up, down);
                self.receivers.push(Receiver { bot, subs: Vec::new() });
                return self.receivers.len() - 1;
            }
        }
        panic!("a receiver does not connect within ten seconds");
    }

    /// Subscribes a receiver to all tracks.
    pub fn subscribe_all(&mut self, receiver: usize) {
        for track in &self.tracks {
            let bot = self.receivers[receiver].bot;
            let sub = self.world.subscribe_with(track, bot, SubscriptionTarget::default());
            self.receivers[receiver].subs.push(sub);
        }
    }

    /// Changes the rate of what a receiver gets, so long from now.
    pub fn then_rate(&mut self, receiver: usize, after: Duration, rate: Option<u64>) {
        let addr = self.world.bots[self.receivers[receiver].bot].addr();
        let at = self.world.now() + after;
        self.world.net.then_rate(RELAY, addr, at, rate);
    }

    /// Makes receivers share one bottleneck.
    pub fn share(&mut self, receivers: &[usize], rate: u64, limit: Duration) {
        let ends: Vec<_> = receivers
            .iter()
            .map(|receiver| (RELAY, self.world.bots[self.receivers[*receiver].bot].addr()))
            .collect();
        self.world.net.share(&ends, rate, limit);
    }

    pub fn run(&mut self, time: Duration) -> Instant {
        self.world.run(time);
        self.world.now()
    }

    pub fn run_secs(&mut self, secs: u64) -> Instant {
        self.run(Duration::from_secs(secs))
    }

    /// What came down to a receiver.
    pub fn trace(&self, receiver: usize) -> &Trace {
        self.world.net.trace(RELAY, self.world.bots[self.receivers[receiver].bot].addr())
    }

    pub fn sink(&self, receiver: usize, track: usize) -> &Sink {
        let receiver = &self.receivers[receiver];
        self.world.bots[receiver.bot].sink(receiver.subs[track].ssrc)
    }

    /// Bytes of media packets so far, retransmissions and padding not counted, with all headers.
    pub fn media_bytes(&self, receiver: usize) -> u64 {
        self.world.bots[self.receivers[receiver].bot].sinks().map(|sink| sink.wire_bytes).sum()
    }

    /// What a browser would have shown of a track.
    pub fn play(&self, receiver: usize, track: usize, rtt: Duration, from: Instant, to: Instant) -> Playout {
        play(&self.sink(receiver, track).frames, 90_000, rtt, from, to)
    }

    /// Frames decoded from `from` to `to` of those that the camera made.
    pub fn decoded_share(&self, playout: &Playout, from: Instant, to: Instant) -> f64 {
        playout.decoded as f64 / ((to - from).as_secs_f64() / FRAME.as_secs_f64())
    }
}
