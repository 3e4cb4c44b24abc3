use super::*;

/// A link that lets a token bucket's bytes pass at once.
struct Link {
    bps: f64,
    bucket: f64,
    /// Of the packets of a probe, in bytes.
    size: usize,
    /// Bytes that wait, or the negative of what may pass.
    queue: f64,
    last: i64,
}

impl Link {
    fn plain(bps: f64) -> Self {
        Self { bps, bucket: 0.0, size: 1200, queue: 0.0, last: 0 }
    }

    fn shaped(bps: f64, size: usize) -> Self {
        Self { bps, bucket: 6000.0, size, queue: -6000.0, last: 0 }
    }

    /// Sends a probe; returns what it showed and when the feedback was there.
    fn pass(&mut self, probing: &mut Probing, probe: Probe, from: i64) -> (Option<Shown>, i64) {
        let (mut shown, mut arrived) = (None, from);
        let packets = (probe.min_bytes / self.size + 1).max(probe.min_packets) as i64;
        for n in 0..packets {
            let sent_at = from + n * (8e6 * self.size as f64 / probe.bps as f64) as i64;
            let drained = (sent_at - self.last) as f64 * self.bps / 8e6;
            self.queue = f64::max(self.queue - drained, -self.bucket) + self.size as f64;
            self.last = sent_at;
            arrived = sent_at + 20_000 + (self.queue.max(0.0) * 8e6 / self.bps) as i64;
            let result = PacketResult {
                number: n as u64,
                sent_at,
                arrived_at: Some(arrived),
                size: self.size as u32,
                probe: Some(probe.id),
                was_lost: false,
            };
            shown = probing.on_result(&result).or(shown);
        }
        probing.on_feedback_end(shown, packets as u64, arrived + 30_000);
        (shown, arrived + 30_000)
    }
}

/// Sends a probe through a link of `link` bps and returns what it showed.
fn through(probing: &mut Probing, probe: Probe, link: f64, from: i64) -> Option<Shown> {
    Link::plain(link).pass(probing, probe, from).0
}

#[test]
fn grows_while_it_succeeds_and_never_above_what_is_wanted() {
    let mut probing = Probing::default();
    assert_eq!(probing.poll(5e5, false, false, 0), None);
    probing.set_wanted(4e6, 0);
    let first = probing.poll(5e5, false, false, 0).unwrap();
    assert_eq!(first.bps, 1_500_000);
    assert_eq!(probing.poll(5e5, false, false, 0), None, "one at a time");
    let shown = through(&mut probing, first, 1e7, 1000).unwrap().bps;
    assert!((1.4e6..1.51e6).contains(&shown), "{shown}");
    let second = probing.poll(shown, false, false, 200_000).unwrap();
    assert!((2.9e6..3.1e6).contains(&(second.bps as f64)));
    let shown = through(&mut probing, second, 1e7, 200_000).unwrap().bps;
    let third = probing.poll(shown, false, false, 400_000).unwrap();
    assert_eq!(third.bps, 4_000_000);
    through(&mut probing, third, 1e7, 400_000).unwrap();
    assert_eq!(probing.poll(4e6, false, false, 500_000), None);
}

#[test]
fn a_probe_of_little_aims_lower() {
    let probe = |known: f64| {
        let mut probing = Probing { began: true, ..Probing::default() };
        probing.set_wanted(4e6, 0);
        probing.poll(known, false, true, 0).unwrap()
    };
    assert_eq!(probe(1e6).bps, 2_000_000);
    for known in [5e4, 9e4, 2e5, 4e5] {
        let probe = probe(known);
        let queue = (probe.bps as f64 / known - 1.0) * probe.duration.as_secs_f64();
        assert!(probe.bps as f64 > 1.3 * known && queue < 1.3 * MAX_QUEUE, "{known}: {probe:?}, {queue} s");
    }
}

#[test]
fn a_packet_that_is_overtaken_does_not_count() {
    let mut probing = Probing::default();
    probing.set_wanted(4e6, 0);
    let probe = probing.poll(5e5, false, false, 0).unwrap();
    let mut shown = None;
    let skipped = probe.min_packets as i64 - 5;
    for n in (0..skipped).chain([0, 1, 3, 4, 5, 2].map(|n| skipped + n)) {
        let sent_at = n * 6400;
        let late = if n == skipped + 2 { 40_000 } else { 0 };
        let arrived_at = Some(sent_at + 20_000 + late);
        let (probe, was_lost) = (Some(probe.id), false);
        let result = PacketResult { number: n as u64, sent_at, arrived_at, size: 1200, probe, was_lost };
        shown = probing.on_result(&result).or(shown);
    }
    let shown = shown.unwrap();
    assert!(!shown.saturated && (1.1e6..1.5e6).contains(&shown.bps), "{shown:?}");
}

#[test]
fn what_is_lost_is_repeated_soon_but_not_for_ever() {
    let mut probing = Probing::default();
    probing.set_wanted(4e6, 0);
    let (mut now, mut tries) = (0, 0);
    while now < 1_000_000 {
        if let Some(probe) = probing.poll(5e5, false, false, now) {
            tries += 1;
            assert_eq!(probe.bps, 1_500_000);
            let packets = probe.min_packets as u64;
            (0..packets).for_each(|n| probing.on_sent(probe.id, 100 * tries + n));
            probing.on_feedback_end(None, 100 * tries + packets - 2, now + 30_000);
            assert_eq!(
                probing.poll(5e5, false, false, now + 40_000),
                None,
                "its last packet may still arrive"
            );
            probing.on_feedback_end(None, 100 * tries + packets, now + 50_000);
        }
        now += 10_000;
    }
    assert_eq!(tries, 5, "then it waits a second");
}

#[test]
fn one_that_left_unevenly_is_no_failure() {
    let mut probing = Probing::default();
    probing.set_wanted(4e6, 0);
    let (mut now, mut begun) = (0, Vec::new());
    while now < 3_000_000 {
        now += 10_000;
        let Some(probe) = probing.poll(5e5, false, false, now) else { continue };
        begun.push(now);
        assert_eq!(probe.bps, 1_500_000);
        // The last packets, which are measured, leave at half the rate, and arrive as they left.
        let (mut sent_at, mut shown) = (now, None);
        for n in 0..probe.min_packets + 2 {
            sent_at += if n + 7 > probe.min_packets { 12_800 } else { 6400 };
            let arrived_at = Some(sent_at + 20_000);
            let (number, probe, was_lost) = (n as u64, Some(probe.id), false);
            let result = PacketResult { number, sent_at, arrived_at, size: 1200, probe, was_lost };
            shown = probing.on_result(&result).or(shown);
        }
        assert!(shown.is_some_and(|shown| !shown.saturated && shown.bps < 8e5), "{shown:?}");
        now = sent_at + 40_000;
        probing.on_feedback_end(shown, 1000, now);
        assert_eq!(probing.poll(5e5, false, false, now + UNEVEN_PAUSE - 1), None);
    }
    assert_eq!(begun.len(), 1 + MAX_REPEATS as usize, "then it is one: {begun:?}");
    assert!(begun.windows(2).all(|two| two[1] - two[0] < MIN_PAUSE), "{begun:?}");
}

#[test]
fn shows_the_link_when_it_is_slower_and_waits_then() {
    let mut probing = Probing::default();
    probing.set_wanted(4e6, 0);
    let probe = probing.poll(1e6, false, false, 0).unwrap();
    let Shown { bps: shown, saturated, .. } = through(&mut probing, probe, 1.2e6, 0).unwrap();
    assert!(saturated);
    assert!((1.1e6..1.2e6).contains(&shown), "{shown}");
    assert_eq!(probing.poll(shown, false, false, 300_000), None);
    let due = probing.due_at(shown, 0, true).unwrap();
    assert!(probing.poll(shown, false, false, due).is_some());
    // One that never leaves or arrives is over after a while.
    probing.handle_timeout(50_000, due + 1_050_000);
    assert!(probing.poll(shown, false, false, due + 1_050_000 + MAX_PAUSE).is_some());
}

#[test]
fn a_probe_that_filled_a_contested_path_is_followed_by_a_pause() {
    for contested in [false, true] {
        let mut probing = Probing { began: true, ..Probing::default() };
        probing.set_wanted(1e7, 0);
        let probe = probing.poll(1e6, false, contested, 0).unwrap();
        let shown = through(&mut probing, probe, 1.75e6, 0).unwrap();
        assert!(shown.saturated);
        assert_eq!(probing.poll(shown.bps, false, contested, 200_000).is_some(), !contested);
        assert!(contested == probing.poll(shown.bps, false, contested, 200_000 + FULL_PAUSE).is_some());
    }
}

#[test]
fn a_token_bucket_does_not_show() {
    let mut probing = Probing::default();
    probing.set_wanted(4e6, 0);
    for from in [0, 10_000_000] {
        let probe = probing.poll(4.5e5, false, false, from).unwrap();
        let Shown { bps, saturated, .. } = Link::shaped(5e5, 1200).pass(&mut probing, probe, from).0.unwrap();
        assert!(saturated && (4.5e5..5.5e5).contains(&bps), "{bps}");
    }
}

#[test]
fn what_may_be_a_token_bucket_on_a_slow_path_that_was_full_is_tried_further_at_once() {
    for link in [1e5, 1e6] {
        let mut probing = Probing { began: true, ..Probing::default() };
        probing.set_wanted(4e6, 0);
        let mut path = Link::shaped(link, 300);
        let (mut now, mut unsure) = (0, 0);
        let shown = loop {
            let probe = probing.poll(9.5e4, false, true, now).expect("one after the other");
            let (shown, known) = path.pass(&mut probing, probe, now);
            now = known;
            let shown = shown.unwrap();
            if !shown.unsure {
                break shown;
            }
            unsure += 1;
        };
        assert!((1..=2).contains(&unsure), "{unsure}");
        if link < 2e5 {
            assert!(shown.saturated && shown.bps < 1.3 * link, "{shown:?}");
            let waited = path.queue.max(0.0) * 8.0 / link;
            assert!(waited < 0.15, "{waited} s");
            assert_eq!(probing.poll(9.5e4, false, true, now + MIN_PAUSE - 1), None);
            // The next ones come at longer intervals, though each of them begins well.
            let (mut pauses, mut tried) = (vec![], now);
            for _ in 0..3 {
                let due = probing.due_at(9.5e4, 50_000, true).unwrap();
                pauses.push(due - tried);
                tried = due;
                while let Some(probe) = probing.poll(9.5e4, false, true, tried) {
                    tried = path.pass(&mut probing, probe, tried).1;
                }
            }
            assert_eq!(pauses, [MIN_PAUSE, 2 * MIN_PAUSE, 4 * MIN_PAUSE]);
        } else {
            assert!(!shown.saturated && shown.bps > 1.25 * 9.5e4, "{shown:?}");
        }
    }
}

#[test]
fn a_path_of_which_hardly_more_is_wanted_is_believed_in_the_end() {
    let mut probing = Probing { began: true, ..Probing::default() };
    probing.set_wanted(9.6e4, 0);
    let mut path = Link::shaped(1e6, 300);
    let mut now = 0;
    let mut probes = 0;
    while let Some(probe) = probing.poll(9.5e4, false, true, now) {
        probes += 1;
        let (shown, known) = path.pass(&mut probing, probe, now);
        now = known;
        if shown.is_some_and(|shown| !shown.unsure) {
            break;
        }
    }
    assert_eq!(probes, MAX_UNSURE + 1);
}

#[test]
fn where_as_much_is_sent_anyway_probes_are_short() {
    let [mut idle, mut probing] = [Probing::default(), Probing::default()];
    idle.set_wanted(4e6, 0);
    probing.set_wanted(4e6, 0);
    assert!(idle.poll(4.5e5, false, false, 0).unwrap().min_packets > 10);
    let probe = probing.poll(4.5e5, true, false, 0).unwrap();
    assert_eq!(probe.min_packets, 5);
    let Shown { bps, saturated, .. } = through(&mut probing, probe, 5e5, 0).unwrap();
    assert!(saturated && (4.5e5..5.1e5).contains(&bps), "{bps}");
}
