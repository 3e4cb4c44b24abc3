//! What the shard reports: to peers by RTCP, to room logic by events.
#![allow(clippy::unwrap_used)]

mod common;

use common::{full_call, millis, secs, sink};
use sfu_media::command::{AudioLevel, PeerQuality, ShardEvent};
use sfu_media::sim::bot::Coding;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::{Publish, World};
use sfu_media::stats::ShardStats;

#[test]
fn receiver_reports_tell_publishers_their_loss() {
    let mut world = World::new(1);
    let tracks = full_call(&mut world, 2);
    world.set_links(0, Link { loss: 0.1, ..Link::clean() }, Link::clean());
    world.run(secs(10));
    for (track, _) in tracks.iter().filter(|(track, _)| track.publish.coding == Coding::Vp8) {
        let report = world.bots[track.bot].source(track.source).last_report.expect("reports arrive");
        let sent = world.bots[track.bot].source(track.source).frames_sent(0) * 3;
        let share = f64::from(report.lost) / f64::from(sent);
        match track.bot {
            0 => assert!((0.07..0.13).contains(&share), "{report:?} of {sent}"),
            _ => assert_eq!((report.lost, report.fraction_lost), (0, 0)),
        }
        assert_ne!(report.last_sr, 0, "the relay saw the sender report");
    }
}

#[test]
fn sender_reports_give_receivers_clock_and_count() {
    let mut world = World::new(2);
    let tracks = full_call(&mut world, 2);
    world.run(secs(6));
    for (track, subs) in &tracks {
        let sink = sink(&world, &subs[0]);
        let (ntp, timestamp, at) = sink.last_sr.expect("sender reports arrive");
        assert!(world.now() - at < millis(1500));
        let behind = sink.packets as i64 - i64::from(sink.sr_packets);
        let second = if track.publish.coding == Coding::Vp8 { 95 } else { 55 };
        assert!((0..second * 2).contains(&behind), "{behind}");
        // The last frame that arrived with or before the report was sent about when the report says.
        let clock = if track.publish.coding == Coding::Vp8 { 90_000.0 } else { 48_000.0 };
        let frame = sink.frames.iter().rev().find(|frame| frame.at <= at).unwrap();
        let ahead = f64::from(timestamp.wrapping_sub(frame.timestamp) as i32) / clock;
        assert!(ahead.abs() < 0.1, "{ahead} s");
        // The publisher's own wall clock, which began there, not the relay's.
        assert!((3_913_056_000..3_913_056_000 + 10).contains(&(ntp >> 32)), "{}", ntp >> 32);
    }
    // Audio and video of one publisher on one clock: the same instant has the same NTP time in both.
    let [(video, video_subs), (audio, audio_subs)] = &tracks[..2] else { panic!("two tracks") };
    assert_eq!(video.bot, audio.bot);
    let of = |sub| {
        let sink = sink(&world, sub);
        let (ntp, timestamp, _) = sink.last_sr.unwrap();
        (ntp, timestamp, sink.frames.last().copied().unwrap())
    };
    let (video_ntp, video_time, video_frame) = of(&video_subs[0]);
    let (audio_ntp, audio_time, audio_frame) = of(&audio_subs[0]);
    let wall = |ntp: u64, report: u32, frame: u32, clock: f64| {
        (ntp as f64 / 4_294_967_296.0) + f64::from(frame.wrapping_sub(report) as i32) / clock
    };
    let video_wall = wall(video_ntp, video_time, video_frame.timestamp, 90_000.0);
    let audio_wall = wall(audio_ntp, audio_time, audio_frame.timestamp, 48_000.0);
    let arrival = video_frame.at.max(audio_frame.at) - video_frame.at.min(audio_frame.at);
    assert!((video_wall - audio_wall).abs() < arrival.as_secs_f64() + 0.02, "{video_wall} {audio_wall}");
}

#[test]
fn quality_shows_loss_and_round_trip_of_each_direction() {
    let mut world = World::new(3);
    full_call(&mut world, 3);
    world.set_links(0, Link { loss: 0.1, ..Link::clean() }, Link::clean());
    world.set_links(1, Link::clean(), Link { loss: 0.2, ..Link::clean() });
    world.run(secs(11));
    let mut sums = [(0u32, 0u32, 0u32, 0u32); 3];
    let mut last = [None; 3];
    let mut times = Vec::new();
    for (at, event) in &world.reports {
        let ShardEvent::Quality(all) = event else { continue };
        times.push(*at);
        for quality in all {
            let PeerQuality { peer, up_expected, up_lost, down_sent, down_lost, rtt, .. } = *quality;
            let bot = peer.0 as usize - 1;
            let sum = &mut sums[bot];
            *sum = (sum.0 + up_expected, sum.1 + up_lost, sum.2 + down_sent, sum.3 + down_lost);
            last[bot] = rtt;
        }
    }
    assert!(times.windows(2).all(|w| w[1] - w[0] == secs(2)));
    let share = |lost: u32, all: u32| f64::from(lost) / f64::from(all.max(1));
    for (bot, (up, down)) in [(0.1, 0.0), (0.0, 0.2), (0.0, 0.0)].into_iter().enumerate() {
        let (expected, lost, sent, down_lost) = sums[bot];
        assert!(expected > 1000 && sent > 2000, "{bot}: {:?}", sums[bot]);
        assert!((share(lost, expected) - up).abs() < 0.03, "{bot}: up {}", share(lost, expected));
        assert!((share(down_lost, sent) - down).abs() < 0.05, "{bot}: down {}", share(down_lost, sent));
        let rtt = last[bot].expect("measured");
        assert!((millis(39)..millis(45)).contains(&rtt), "{rtt:?}");
    }
}

#[test]
fn quality_shows_who_fell_silent() {
    let mut world = World::new(7);
    // One of them neither sends nor gets media: its connectivity checks are enough.
    world.connect(3);
    let track = world.publish(0, Publish::audio());
    world.subscribe(&track, 1);
    world.run(secs(6));
    world.bots[1].vanish();
    let gone = world.now();
    world.run(secs(12));
    let heard = |bot: usize, from, to| -> Vec<bool> {
        let all = world.reports.iter().filter(|(at, _)| (from..to).contains(at));
        let of = |(_, e): &(_, ShardEvent)| match e {
            ShardEvent::Quality(all) => Some(all.iter().find(|q| q.peer == world.peer(bot))?.heard),
            _ => None,
        };
        all.filter_map(of).collect()
    };
    let (start, end) = (gone - secs(3), world.now());
    assert!(heard(0, start, end).iter().all(|heard| *heard));
    assert!(heard(1, start, gone).iter().all(|heard| *heard));
    assert!(heard(1, gone + secs(2), end).iter().all(|heard| !heard));
    // Checks come every few seconds, reports every two.
    assert!(heard(2, start, end).chunks(2).all(|pair| pair.contains(&true)));
}

#[test]
fn feedback_is_sent_for_numbered_packets_several_times_a_second() {
    let mut world = World::new(4);
    full_call(&mut world, 2);
    world.run(secs(5));
    for bot in &world.bots {
        let stats = bot.stats();
        assert!((45..=105).contains(&stats.twcc), "{stats:?}");
        assert!(stats.twcc_numbered > 400, "what the relay sends is numbered as well: {stats:?}");
    }
}

#[test]
fn levels_of_audible_tracks_are_told_four_times_a_second() {
    let mut world = World::new(5);
    world.connect(3);
    let loud = world.publish(0, Publish { audio_level: Some(20), ..Publish::audio() });
    let faint = world.publish(1, Publish { audio_level: Some(60), ..Publish::audio() });
    world.publish(2, Publish { audio_level: Some(127), ..Publish::audio() });
    world.run(millis(500));
    world.reports.clear();
    world.run(secs(2));
    let levels = |world: &World| -> Vec<Vec<AudioLevel>> {
        let levels = |(_, e): &(_, ShardEvent)| match e {
            ShardEvent::AudioLevels(levels) => Some(levels.clone()),
            _ => None,
        };
        world.reports.iter().filter_map(levels).collect()
    };
    let told = levels(&world);
    assert_eq!(told.len(), 8);
    for levels in &told {
        let [a, b] = &levels[..] else { panic!("two are not silent: {levels:?}") };
        assert_eq!((a.track, a.level, b.track, b.level), (loud.id, 20, faint.id, 60));
        assert!(a.active_percent >= 90 && b.active_percent == 0, "{levels:?}");
    }
    // When all fall silent an empty report says so, once.
    for (bot, track) in [(0, &loud), (1, &faint)] {
        world.bots[bot].unpublish(track.source);
    }
    world.run(secs(1));
    world.reports.clear();
    world.run(secs(2));
    assert_eq!(levels(&world), Vec::<Vec<AudioLevel>>::new());
}

#[test]
fn counters_count_and_are_told_every_second() {
    let mut world = World::new(6);
    let tracks = full_call(&mut world, 3);
    world.run(secs(5));
    let told: Vec<&ShardStats> = world
        .reports
        .iter()
        .filter_map(|(_, e)| if let ShardEvent::Stats(stats) = e { Some(&**stats) } else { None })
        .collect();
    assert_eq!(told.len() as u64, world.elapsed().as_secs());
    assert!(told.windows(2).all(|w| w[1].datagrams_in >= w[0].datagrams_in && w[1].rtp_out >= w[0].rtp_out));
    let stats = world.stats();
    assert_eq!(stats.handshakes, 3);
    let sent: u64 = world.bots.iter().map(|bot| bot.stats().sent).sum();
    assert!(stats.rtp_in <= sent && stats.rtp_in + 40 > sent, "{} of {sent}", stats.rtp_in);
    let (net, on_wire): (_, u64) = (world.net.stats(), world.rtp_out.values().sum());
    assert_eq!(stats.rtp_out + stats.rtx_out + stats.padding_packets, on_wire);
    assert!(stats.datagrams_in + stats.datagrams_out <= net.sent);
    assert!(stats.datagrams_in + stats.datagrams_out + 60 > net.sent, "but for those under way");
    assert!(stats.bytes_out > 2 * stats.rtp_in * 300);
    let received: u64 = tracks.iter().flat_map(|(_, subs)| subs).map(|sub| sink(&world, sub).packets).sum();
    assert!(received <= stats.rtp_out && received + 80 > stats.rtp_out);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        full_call(&mut world, 3);
        for bot in 0..3 {
            world.set_links(bot, Link::rough(), Link::rough());
        }
        world.run(secs(3));
        let stats = world.stats();
        let frames: Vec<_> = world
            .bots
            .iter()
            .flat_map(|bot| bot.sinks())
            .map(|sink| (sink.first_seq, sink.frames.len(), sink.repaired))
            .collect();
        (frames, stats.rtp_in, stats.rtp_out, stats.rtx_out, stats.nack_out, stats.drops)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
