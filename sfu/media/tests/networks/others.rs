//! What one receiver's link means for others, and how soon a receiver sees something.

use std::time::{Duration, Instant};

use sfu_media::sim::net::Link;
use sfu_media::sim::world::Publish;

use crate::figures::{Figures, ms};
use crate::scene::{Scene, camera, chromium_camera, link};

const RTT: Duration = Duration::from_millis(50);

/// Bitrate, delays and frames of two receivers on good links, with or without a third one on a bad link.
fn two_good(third: Option<Link>) -> Vec<[f64; 4]> {
    let good = Link { rate: Some(5_000_000), ..link(RTT) };
    let mut scene = Scene::new(31, RTT, &[camera(), Publish::audio()]);
    let pair = [scene.join(link(RTT), good), scene.join(link(RTT), good)];
    if let Some(bad) = third {
        scene.join(link(RTT), bad);
    } else {
        scene.run(Duration::from_millis(200));
    }
    let from = scene.run_secs(10);
    let to = scene.run_secs(40);
    scene.run_secs(1);
    pair.map(|r| {
        let trace = scene.trace(r);
        [
            trace.bps(from, to),
            ms(trace.delay(0.5, from, to)),
            ms(trace.delay(0.95, from, to)),
            scene.play(r, 0, Duration::ZERO, from, to).decoded as f64,
        ]
    })
    .to_vec()
}

/// A receiver with 300 kbit/s and 10 % loss, beside two on good links.
pub fn isolation() -> Figures {
    let mut figures = Figures::of("one bad link beside two good");
    let bad = Link { rate: Some(300_000), loss: 0.1, queue: Duration::from_millis(500), ..link(RTT) };
    let (without, with) = (two_good(None), two_good(Some(bad)));
    let names = ["bitrate", "delay, median", "delay, p95", "frames decoded"];
    for (i, name) in names.into_iter().enumerate() {
        let worst = without
            .iter()
            .zip(&with)
            .map(|(without, with)| (with[i] / without[i] - 1.0).abs())
            .fold(0.0, f64::max);
        figures.at_most(format!("change of the others' {name}"), worst, 0.02);
    }
    figures.tell("kbit/s of the others", with[0][0] / 1000.0);
    figures
}

/// The same with one camera as Chromium's: whatever key frame the bad one needs is sent to all, and costs the small layers frames.
pub fn isolation_camera() -> Figures {
    let mut figures = Figures::of("one camera, one bad link beside a good one");
    let good = Link { rate: Some(8_000_000), bucket: 6000, ..link(RTT) };
    let bad = Link { rate: Some(300_000), loss: 0.1, queue: Duration::from_millis(500), ..good };
    let mut scene = Scene::new(33, RTT, &[chromium_camera(), Publish::audio()]);
    let [one, other] = [good, good].map(|down| scene.join(link(RTT), down));
    let camera = (scene.tracks[0].bot, scene.tracks[0].source);
    let keys = |scene: &Scene| f64::from(scene.world.bots[camera.0].source(camera.1).key_frames_asked);
    let calm = scene.run_secs(15)..scene.run_secs(30);
    scene.world.set_links(scene.receivers[other].bot, link(RTT), bad);
    let start = scene.run_secs(5);
    let before = keys(&scene);
    let beside = start..scene.run_secs(30);
    let asked = keys(&scene) - before;
    scene.run_secs(1);
    let trace = scene.trace(one);
    let change = |what: &dyn Fn(Instant, Instant) -> f64| {
        (what(beside.start, beside.end) / what(calm.start, calm.end) - 1.0).abs()
    };
    figures.at_most("change of the other's bitrate", change(&|from, to| trace.bps(from, to)), 0.02);
    let delay = |from, to| ms(trace.delay(0.5, from, to));
    figures.at_most("change of the other's delay, median", change(&delay), 0.02);
    figures.tell("change of the other's delay, p95", change(&|from, to| ms(trace.delay(0.95, from, to))));
    figures.at_most("key frames asked in 30 s", asked, 3.0);
    let freezes = |r| scene.play(r, 0, RTT, beside.start, beside.end).freezes as f64;
    figures.at_most("freezes of the other", freezes(one), 0.0);
    figures.tell("freezes of the one on the bad link", freezes(other));
    let bad = scene.play(other, 0, RTT, beside.start, beside.end);
    figures.tell("frames that the one on the bad link decoded", bad.decoded as f64);
    let waited = scene.trace(other).waited(0.95, beside.start, beside.end);
    figures.tell("ms of queueing on the bad link, p95", ms(waited));
    figures
}

/// Receivers subscribe to a running camera.
pub fn late_joiner() -> Figures {
    let mut figures = Figures::of("late joiner at 50 ms RTT");
    let mut scene = Scene::new(32, RTT, &[camera()]);
    scene.run_secs(3);
    let mut times = Vec::new();
    for i in 0..20u64 {
        let r = scene.connect(link(RTT), link(RTT));
        // At any time relative to frames and to the requests of others.
        scene.run(Duration::from_millis(137 * (i % 7)));
        let asked = scene.world.now();
        scene.subscribe_all(r);
        scene.run_secs(2);
        let first = scene.sink(r, 0).frames.iter().find(|frame| frame.key && frame.decodable);
        times.push(first.map_or(f64::INFINITY, |frame| ms(frame.at - asked)).min(99_999.0));
    }
    times.sort_by(f64::total_cmp);
    figures.at_most("ms from subscribing to a key frame, worst of 20", times[19], 300.0);
    figures.tell("ms from subscribing to a key frame, median", times[10]);

    // Ten at once, right after another one's request: their requests are one.
    let joiners: Vec<_> = (0..10).map(|_| scene.connect(link(RTT), link(RTT))).collect();
    let asked = scene.world.now();
    for r in &joiners {
        scene.subscribe_all(*r);
    }
    scene.run_secs(2);
    let worst = joiners
        .iter()
        .map(|r| {
            let first = scene.sink(*r, 0).frames.iter().find(|frame| frame.key && frame.decodable);
            first.map_or(99_999.0, |frame| ms(frame.at - asked))
        })
        .fold(0.0, f64::max);
    figures.at_most("ms from subscribing to a key frame, ten at once", worst, 300.0);
    figures
}
