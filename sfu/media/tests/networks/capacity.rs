//! How the relay fills links, follows their rate and shares them.

use std::time::{Duration, Instant};

use sfu_media::sim::net::{Link, Trace};
use sfu_media::sim::world::Publish;

use crate::figures::{Figures, ms};
use crate::scene::{Scene, camera, chromium_camera, link, small_camera};

const RTT: Duration = Duration::from_millis(50);
/// Deep enough that a sender who overshoots is told by delay, not by loss.
const QUEUE: Duration = Duration::from_millis(1000);
const STEP: Duration = Duration::from_millis(100);

/// Six cameras and a voice: more than the links can carry, in layers fine enough to fill 85 % of any rate.
pub fn gallery() -> Vec<Publish> {
    let mut tracks = vec![small_camera(); 6];
    tracks.push(Publish::audio());
    tracks
}

fn narrow(rate: u64, queue: Duration) -> Link {
    Link { rate: Some(rate), queue, ..link(RTT) }
}

/// Seconds until a half second ends in which so many bits a second came.
fn reached(trace: &Trace, from: Instant, to: Instant, bps: f64) -> f64 {
    let series = trace.delivered(from, to, STEP);
    let enough = |five: &[u64]| five.iter().sum::<u64>() as f64 * 8.0 / 0.5 >= bps;
    series.windows(5).position(enough).map_or(999.0, |at| (at + 5) as f64 * STEP.as_secs_f64())
}

/// Seconds from an instant until three seconds begin in which no more is sent than the link carries and its queue is short.
/// How much of a queue an estimator makes that then tries for more is another figure.
fn settled(trace: &Trace, from: Instant, rate: f64) -> f64 {
    let calm = |at: Instant| {
        let mut steps = (0..30).map(|step| at + STEP * step);
        trace.offered_bps(at, at + STEP * 30) <= rate
            && steps.all(|at| trace.waited(0.5, at, at + STEP) <= Duration::from_millis(150))
    };
    (0..220)
        .map(|step| STEP * step)
        .find(|after| calm(from + *after))
        .map_or(999.0, |after| after.as_secs_f64())
}

/// Makes a receiver's link of 3 Mbit/s one of 500 kbit/s after 25 s, for 25 s. Returns now and when its rate changes.
fn narrows(scene: &mut Scene, receiver: usize) -> (Instant, Instant, Instant) {
    let (down, up) = (Duration::from_secs(25), Duration::from_secs(50));
    scene.then_rate(receiver, down, Some(500_000));
    scene.then_rate(receiver, up, Some(3_000_000));
    let start = scene.world.now();
    (start, start + down, start + up)
}

/// How long packets wait in such a call from its start to its end.
fn queueing(
    figures: &mut Figures,
    trace: &Trace,
    (start, down, up, end): (Instant, Instant, Instant, Instant),
) {
    let narrow = trace.waited(0.95, down + Duration::from_secs(2), up);
    figures.at_most("ms of queueing, p95 of the call", ms(trace.waited(0.95, start, end)), 150.0);
    figures.at_most("ms of queueing at 500k, p95 from 2 s", ms(narrow), 150.0);
}

/// 3 Mbit/s, then 500 kbit/s, then 3 Mbit/s.
pub fn step() -> Figures {
    let mut figures = Figures::of("capacity 3M-500k-3M");
    let mut scene = Scene::new(11, RTT, &gallery());
    let r = scene.join(link(RTT), narrow(3_000_000, QUEUE));
    let (start, down, up) = narrows(&mut scene, r);
    let end = scene.run_secs(80);
    let trace = scene.trace(r);

    let secs = Duration::from_secs;
    figures.at_least("share of 3M before, from 15 s", trace.bps(start + secs(15), down) / 3e6, 0.85);
    figures.at_most("s until it settles under 500k", settled(trace, down, 500_000.0), 2.0);
    figures.at_least("share of 500k, from 10 s", trace.bps(down + secs(10), up) / 500e3, 0.85);
    figures.at_most("s until back at 80 % of 3M", reached(trace, up, end, 0.8 * 3e6), 10.0);
    figures.at_least("share of 3M after, from 15 s", trace.bps(up + secs(15), end) / 3e6, 0.85);
    queueing(&mut figures, trace, (start, down, up, end));
    figures.tell("ms of queueing, longest", ms(trace.waited(1.0, start, end)));
    figures.tell("datagrams dropped by the full queue", trace.overflows.len() as f64);
    figures
}

/// The same with one camera as Chromium's behind a token bucket. Its layers do not fit the narrow link well, and each change
/// of layers costs key frames of all of them.
pub fn step_camera() -> Figures {
    let mut figures = Figures::of("one camera, 3M-500k-3M, a token bucket");
    let mut scene = Scene::new(15, RTT, &[chromium_camera(), Publish::audio()]);
    let r = scene.join(link(RTT), Link { bucket: 6000, ..narrow(3_000_000, QUEUE) });
    let (start, down, up) = narrows(&mut scene, r);
    scene.run(down - start);
    let camera = (scene.tracks[0].bot, scene.tracks[0].source);
    let keys = |scene: &Scene| scene.world.bots[camera.0].source(camera.1).key_frames_asked;
    let asked = [0, 5, 20].map(|secs| {
        scene.run_secs(secs);
        keys(&scene)
    });
    let end = scene.run_secs(30);
    let trace = scene.trace(r);
    let secs = Duration::from_secs;
    figures.tell("kbit/s at 500k, from 10 s", trace.bps(down + secs(10), up) / 1e3);
    queueing(&mut figures, trace, (start, down, up, end));
    figures.tell("key frames asked in the first 5 s", f64::from(asked[1] - asked[0]));
    figures.at_most("key frames asked in the next 20 s", f64::from(asked[2] - asked[1]), 4.0);
    figures.at_most("s until the best layer is back", reached(trace, up, end, 0.8 * 2.7e6), 10.0);
    figures.tell(
        "freezes at 500k, from 2 s",
        scene.play(r, 0, Duration::ZERO, down + secs(2), up).freezes as f64,
    );
    figures
}

/// One camera as Chromium's and a voice, behind a token bucket that narrows to what the voice and the smallest picture would
/// fill: it pauses, and what passes at once is no reason to try it again and again.
pub fn pause_camera() -> Figures {
    let mut figures = Figures::of("one camera, 3M-100k-3M, a token bucket");
    let mut scene = Scene::new(17, RTT, &[chromium_camera(), Publish::audio()]);
    let r = scene.join(link(RTT), Link { bucket: 6000, ..narrow(3_000_000, QUEUE) });
    let [down, up] = [20, 70].map(Duration::from_secs);
    scene.then_rate(r, down, Some(100_000));
    scene.then_rate(r, up, Some(3_000_000));
    let start = scene.world.now();
    scene.run(down + Duration::from_secs(10));
    let camera = (scene.tracks[0].bot, scene.tracks[0].source);
    let keys = scene.world.bots[camera.0].source(camera.1).key_frames_asked;
    scene.run_secs(40);
    let keys = scene.world.bots[camera.0].source(camera.1).key_frames_asked - keys;
    let end = scene.run_secs(20);
    let trace = scene.trace(r);
    let from = start + down + Duration::from_secs(10);
    figures.at_most("ms of queueing at 100k, p95 from 10 s", ms(trace.waited(0.95, from, start + up)), 150.0);
    figures.tell("ms of queueing, longest from 10 s", ms(trace.waited(1.0, from, start + up)));
    figures.at_most("key frames asked in 40 s", f64::from(keys), 6.0);
    figures.at_most("s until the best layer is back", reached(trace, start + up, end, 0.8 * 2.7e6), 10.0);
    figures
}

/// Steady links of several rates.
pub fn steady(rate: u64) -> Figures {
    let mut figures = Figures::of(format!("steady {} kbit/s", rate / 1000));
    let mut scene = Scene::new(12, RTT, &gallery());
    let r = scene.join(link(RTT), narrow(rate, QUEUE));
    let from = scene.run_secs(20);
    let media = scene.media_bytes(r);
    let to = scene.run_secs(30);
    let media = (scene.media_bytes(r) - media) as f64 * 8.0 / 30.0;
    let trace = scene.trace(r);
    figures.at_least("share of the link in use", trace.bps(from, to) / rate as f64, 0.85);
    figures.tell("of it media, no padding or repair", media / rate as f64);
    figures.at_most("ms of queueing, p95", ms(trace.waited(0.95, from, to)), 150.0);
    figures.tell(
        "datagrams dropped by the full queue",
        trace.overflows.iter().filter(|at| **at > from).count() as f64,
    );
    figures
}

/// Two receivers behind one bottleneck, the second 15 s later.
pub fn two_share(rate: u64) -> Figures {
    let mut figures = Figures::of(format!("two share {} kbit/s", rate / 1000));
    let mut scene = Scene::new(13, RTT, &gallery());
    let a = scene.connect(link(RTT), link(RTT));
    let b = scene.connect(link(RTT), link(RTT));
    scene.share(&[a, b], rate, QUEUE);
    scene.subscribe_all(a);
    scene.run_secs(15);
    scene.subscribe_all(b);
    let from = scene.run_secs(25);
    let to = scene.run_secs(40);
    let bps = [a, b].map(|r| scene.trace(r).bps(from, to));
    let both = bps[0] + bps[1];
    figures.at_most("share of the one who gets more", bps[0].max(bps[1]) / both, 0.6);
    figures.tell("share of the one who came first", bps[0] / both);
    figures.at_least("share of the link in use by both", both / rate as f64, 0.85);
    let waited = [a, b].map(|r| ms(scene.trace(r).waited(0.95, from, to)));
    figures.at_most("ms of queueing, p95 of the worse", waited[0].max(waited[1]), 150.0);
    figures
}

/// Two receivers of one camera as Chromium's, the second 10 s later. There is no layer that half of the link would carry.
pub fn two_share_camera() -> Figures {
    let mut figures = Figures::of("one camera, two share 2000 kbit/s");
    let mut scene = Scene::new(16, RTT, &[chromium_camera(), Publish::audio()]);
    let receivers = [0, 1].map(|_| scene.connect(link(RTT), link(RTT)));
    scene.share(&receivers, 2_000_000, QUEUE);
    scene.subscribe_all(receivers[0]);
    scene.run_secs(10);
    scene.subscribe_all(receivers[1]);
    let from = scene.run_secs(20);
    let camera = (scene.tracks[0].bot, scene.tracks[0].source);
    let keys = scene.world.bots[camera.0].source(camera.1).key_frames_asked;
    let to = scene.run_secs(30);
    let bps = receivers.map(|r| scene.trace(r).bps(from, to));
    figures.at_most("share of the one who gets more", bps[0].max(bps[1]) / (bps[0] + bps[1]), 0.6);
    figures.tell("kbit/s of both on the link", (bps[0] + bps[1]) / 1e3);
    let waited = receivers.map(|r| ms(scene.trace(r).waited(0.95, from, to)));
    figures.at_most("ms of queueing, p95 of the worse", waited[0].max(waited[1]), 150.0);
    let keys = scene.world.bots[camera.0].source(camera.1).key_frames_asked - keys;
    figures.tell("key frames asked in 30 s", f64::from(keys));
    let freezes: usize = receivers.iter().map(|r| scene.play(*r, 0, Duration::ZERO, from, to).freezes).sum();
    figures.tell("freezes of both in 30 s", freezes as f64);
    figures
}

/// A link with a queue of three seconds.
pub fn bufferbloat() -> Figures {
    let mut figures = Figures::of("bufferbloat 1M, queue of 3 s");
    let mut scene = Scene::new(14, RTT, &[camera(), Publish::audio()]);
    let r = scene.join(link(RTT), narrow(1_000_000, Duration::from_secs(3)));
    let start = scene.world.now();
    let from = scene.run_secs(10);
    let to = scene.run_secs(40);
    let trace = scene.trace(r);
    figures.at_most("ms of queueing, p95", ms(trace.waited(0.95, from, to)), 150.0);
    figures.tell("ms of queueing, longest of the call", ms(trace.waited(1.0, start, to)));
    figures.at_most("freezes", scene.play(r, 0, Duration::ZERO, from, to).freezes as f64, 0.0);
    figures
}
