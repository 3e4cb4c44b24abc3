//! Loss, bursts of it, jitter, reordering.

use std::time::Duration;

use sfu_media::sim::net::{Bursts, Link};
use sfu_media::sim::world::Publish;

use crate::figures::{Bound, Figures, ms};
use crate::scene::{Scene, camera, link};

/// How the picture has to be.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    pub freezes: Bound,
    pub decoded: Bound,
}

impl Picture {
    /// Nothing is to be seen of the network.
    pub const GOOD: Self = Self { freezes: Bound::AtMost(0.0), decoded: Bound::AtLeast(0.9) };
}

/// One camera and a voice for a minute, over a link as given.
fn minute(case: String, seed: u64, rtt: Duration, down: Link, picture: Picture) -> Figures {
    let mut figures = Figures::of(case);
    let mut scene = Scene::new(seed, Duration::from_millis(50), &[camera(), Publish::audio()]);
    let r = scene.join(link(rtt), down);
    let from = scene.run_secs(10);
    let to = scene.run_secs(60);
    // So that what is under way at the end arrives.
    scene.run_secs(2);
    let playout = scene.play(r, 0, rtt, from, to);
    figures.put("freezes in 60 s", playout.freezes as f64, picture.freezes);
    figures.put("frames decoded of those sent", scene.decoded_share(&playout, from, to), picture.decoded);
    figures.tell("s frozen", playout.frozen.as_secs_f64());
    figures.tell("ms of the longest still picture", ms(playout.longest));
    figures.tell("kbit/s", scene.trace(r).bps(from, to) / 1000.0);
    figures.tell("gaps given up", f64::from(scene.sink(r, 0).abandoned));
    figures
}

/// Random loss in one direction, towards the receiver.
pub fn random(percent: u32, rtt_ms: u64) -> Figures {
    let rtt = Duration::from_millis(rtt_ms);
    let down = Link { loss: f64::from(percent) / 100.0, ..link(rtt) };
    // Repair takes a round trip and a half; above that rate of loss or time it shows.
    let picture = match (percent, rtt_ms) {
        (..=5, ..=100) | (..=1, _) => Picture::GOOD,
        _ => Picture { freezes: Bound::None, decoded: Bound::AtLeast(0.8) },
    };
    minute(format!("loss {percent} % at {rtt_ms} ms RTT"), 21, rtt, down, picture)
}

/// 5 % of all datagrams, in spells of eight.
pub fn bursts() -> Figures {
    let rtt = Duration::from_millis(100);
    let down = Link { bursts: Some(Bursts::of(0.05, 8.0)), ..link(rtt) };
    // A burst may take a repair in both its copies. Over six seeds that is 0 to 2 freezes a minute.
    let picture = Picture { freezes: Bound::AtMost(2.0), ..Picture::GOOD };
    minute("bursts of 8, 5 % in all, 100 ms RTT".into(), 22, rtt, down, picture)
}

/// Up to 60 ms more for each datagram.
pub fn jitter() -> Figures {
    let rtt = Duration::from_millis(50);
    let down = Link { jitter: Duration::from_millis(60), ..link(rtt) };
    minute("jitter of 60 ms".into(), 23, rtt, down, Picture::GOOD)
}

/// 5 % are overtaken, 2 % come twice.
pub fn reordering() -> Figures {
    let rtt = Duration::from_millis(50);
    let down = Link { reorder: 0.05, duplicate: 0.02, ..link(rtt) };
    minute("5 % reordered, 2 % twice".into(), 24, rtt, down, Picture::GOOD)
}
