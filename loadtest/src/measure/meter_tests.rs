use super::*;
use crate::media::vp8::{Descriptor, MAX_PAYLOAD, packetize};

const PERIOD: Duration = Duration::from_millis(40);

/// A sender and a meter with a clock of their own.
struct World {
    start: Instant,
    clock: StampClock,
    cryptor: FrameCryptor,
    board: Board,
    meter: Meter,
    seq: u64,
    sent: [u64; 3],
}

impl World {
    fn new(kind: Kind) -> Self {
        let clock = StampClock::start(0);
        let start = Instant::now();
        let window = Window { start, end: start + Duration::from_secs(3600) };
        Self {
            start,
            clock,
            cryptor: FrameCryptor::from_passphrase("key"),
            board: Board::default(),
            meter: Meter::new(kind, window, clock, start),
            seq: 1000,
            sent: [0; 3],
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// The packets of a frame, made at `ms`.
    fn frame(&mut self, ms: u64, number: u32, depends: u16, size: usize) -> Vec<(u64, bool, Arc<[u8]>)> {
        self.sent[0] += size as u64;
        let mut bytes = vec![if depends == 0 { 0x10 } else { 0x11 }; if depends == 0 { 10 } else { 3 }];
        Stamp {
            clock_ns: self.clock.at(self.at(ms)),
            number,
            depends,
            next: PERIOD,
            spoken: 0,
            more: true,
            layer: 0,
            layers: 1,
            sent: self.sent,
        }
        .write(&mut bytes);
        bytes.resize(size, 7);
        let iv = self.cryptor.random_iv();
        self.cryptor.seal_in_place(FrameKind::Vp8, iv, &mut bytes);
        let d = Descriptor { picture: number as u16, tl0: 0, temporal: 0, discardable: false };
        let mut packets = Vec::new();
        packetize(&bytes, d, MAX_PAYLOAD, |payload, last| {
            packets.push((self.seq, last, payload));
            self.seq += 1;
        });
        packets
    }

    fn take(&mut self, ms: u64, packet: &(u64, bool, Arc<[u8]>)) {
        let now = self.at(ms);
        let rtp = packet.0 as f64 * 0.04;
        self.meter.on_packet(packet.0, rtp, packet.1, &packet.2, Some(&self.cryptor), &mut self.board, now);
    }

    fn finish(mut self, ms: u64) -> (StreamResult, Board) {
        let now = self.at(ms);
        let result = self.meter.finish(false, &mut self.board, now);
        (result, self.board)
    }
}

#[test]
fn a_gap_counts_for_as_long_as_it_was() {
    let mut w = World::new(Kind::Video);
    for i in 0..100u64 {
        // Two gaps: frames 30 to 39 and 60 to 65 come together with the next.
        let (made, depends) = (i * 40, u16::from(i > 0));
        let came = match i {
            30..=39 => 40 * 40,
            60..=65 => 66 * 40,
            _ => made,
        };
        for packet in w.frame(made, i as u32, depends, 500) {
            w.take(came + 20, &packet);
        }
    }
    let (r, mut board) = w.finish(100 * 40);
    assert_eq!((r.freezes, r.long_freezes), (2, 0));
    // From frame 29 to 40 and from 59 to 66.
    assert_eq!(r.frozen, Duration::from_millis(11 * 40 + 7 * 40));
    assert_eq!(r.longest_freeze, Duration::from_millis(440));
    assert_eq!((r.shown, r.lost, r.failed, r.missing), (100, 0, 0, false));
    assert!((r.delay.ms(0.5) - 20.0).abs() < 2.0, "{}", r.delay.ms(0.5));
    assert!((board.delay(Kind::Video).ms(0.5) - 20.0).abs() < 0.1);
    assert!((board.delay(Kind::Video).max_ms() - 420.0).abs() < 1.0);
    assert_eq!(r.shown_bytes, 99 * 500);
}

#[test]
fn a_frame_waits_for_what_it_needs_and_a_lost_one_stops_the_picture_until_a_key_frame() {
    let mut w = World::new(Kind::Video);
    let first = w.frame(0, 0, 0, 3000);
    let second = w.frame(40, 1, 1, 500);
    let third = w.frame(80, 2, 1, 500);
    first.iter().for_each(|p| w.take(10, p));
    third.iter().for_each(|p| w.take(90, p));
    assert_eq!(w.meter.result.shown, 1);
    second.iter().for_each(|p| w.take(150, p));
    assert_eq!(w.meter.result.shown, 3, "both can be shown when the missing one is there");
    assert!((w.board.delay(Kind::Video).max_ms() - 110.0).abs() < 1.0);

    // The fourth never comes; the fifth to the twentieth cannot be shown.
    w.frame(120, 3, 1, 500);
    let mut asked = 0;
    for i in 4..20u64 {
        let packets = w.frame(i * 40, i as u32, 1, 500);
        packets.iter().for_each(|p| w.take(i * 40, p));
        let now = w.at(i * 40 + 1);
        asked += u32::from(w.meter.tick(&mut w.board, now));
    }
    assert_eq!(w.meter.result.shown, 3);
    assert_eq!(asked, 1, "a key frame is asked for after 300 ms, not each time");
    let key = w.frame(800, 20, 0, 3000);
    key.iter().for_each(|p| w.take(810, p));
    assert_eq!(w.meter.result.shown, 4);
    let now = w.at(2000);
    w.meter.tick(&mut w.board, now);
    assert_eq!(w.meter.result.lost, 1);
    let (r, _) = w.finish(840);
    assert_eq!((r.freezes, r.long_freezes), (1, 1));
    assert_eq!(r.long_frozen, Duration::from_millis(810 - 150));
}

impl World {
    /// A packet of sound made at `ms`; the next is due after `next`.
    fn sound(&mut self, ms: u64, next: u64, spoken: u32, more: bool) -> (u64, bool, Arc<[u8]>) {
        self.sent[0] += 80;
        let mut bytes = vec![0x78];
        let stamp = Stamp {
            clock_ns: self.clock.at(self.at(ms)),
            number: 1,
            depends: 0,
            next: Duration::from_millis(next),
            spoken,
            more,
            layer: 0,
            layers: 1,
            sent: self.sent,
        };
        stamp.write(&mut bytes);
        bytes.resize(80, 7);
        let iv = self.cryptor.random_iv();
        self.cryptor.seal_in_place(FrameKind::Opus, iv, &mut bytes);
        self.seq += 1;
        (self.seq, false, Arc::from(bytes))
    }
}

#[test]
fn a_pause_that_the_sender_means_is_no_freeze_but_one_after_it_is() {
    let mut w = World::new(Kind::Audio);
    for (made, next, spoken) in [(0, 20, 1), (20, 400, 2), (420, 5000, 2)] {
        let packet = w.sound(made, next, spoken, false);
        w.take(made + 5, &packet);
    }
    // It was announced for 5420 and comes 300 ms later than usual.
    let packet = w.sound(5420, 20, 3, true);
    w.take(5725, &packet);
    let (r, _) = w.finish(5725);
    assert_eq!((r.freezes, r.shown), (1, 4));
    assert_eq!(r.frozen.as_millis(), 300);
}

#[test]
fn silence_that_a_server_does_not_forward_is_no_freeze_but_missed_speech_is() {
    let mut w = World::new(Kind::Audio);
    let packet = w.sound(0, 400, 10, false);
    w.take(5, &packet);
    // Ten packets of silence do not come, nor the first two of speech.
    let packet = w.sound(4_000, 20, 13, true);
    w.take(4_005, &packet);
    // Then fifteen packets of speech do not come.
    let packet = w.sound(4_320, 400, 29, false);
    w.take(4_325, &packet);
    let (r, _) = w.finish(10_000);
    assert_eq!(r.freezes, 1);
    assert_eq!(r.frozen.as_millis(), 300);
}

#[test]
fn an_end_without_pictures_is_a_freeze_and_a_stream_that_never_came_is_missed() {
    let mut w = World::new(Kind::Video);
    let key = w.frame(0, 0, 0, 500);
    key.iter().for_each(|p| w.take(0, p));
    let (r, _) = w.finish(3000);
    assert_eq!(r.long_freezes, 1);
    assert!(!r.missing);
    let (r, _) = World::new(Kind::Video).finish(3000);
    assert!(r.missing);
    let mut off = World::new(Kind::Video);
    let now = off.at(10);
    off.meter.ask(None, now);
    let (r, _) = off.finish(3000);
    assert!(!r.missing, "nobody looks at it");
    assert_eq!(r.watched, Duration::from_millis(10));
}

#[test]
fn a_strangers_frame_fails_and_is_not_shown() {
    let mut w = World::new(Kind::Video);
    let packets = w.frame(0, 0, 0, 500);
    let stranger = FrameCryptor::from_passphrase("another");
    let now = w.at(10);
    for (seq, marker, payload) in &packets {
        w.meter.on_packet(*seq, 0.0, *marker, payload, Some(&stranger), &mut w.board, now);
    }
    let (r, _) = w.finish(100);
    assert_eq!((r.frames, r.failed, r.shown), (1, 1, 0));
}

#[test]
fn frames_that_a_server_makes_up_do_not_count() {
    let mut w = World::new(Kind::Audio);
    w.meter = w.meter.without(Arc::from(&b"made up"[..]));
    for (seq, bytes) in [(5_000, &b"\xf8\xff\xfemade up"[..]), (5_001, &b"\xf8\xff\xfe, in clear"[..])] {
        let packet = (seq, false, Arc::from(bytes));
        w.take(10, &packet);
    }
    let (r, _) = w.finish(100);
    assert_eq!(
        (r.packets, r.frames, r.clear),
        (2, 1, 1),
        "the other is a participant's that is not encrypted"
    );
}

#[test]
fn a_frame_that_comes_before_it_was_sent_shows_that_clocks_disagree() {
    let mut w = World::new(Kind::Video);
    // Made by a clock that is half a millisecond ahead, then by one that is 20 ms ahead.
    let packets = w.frame(10, 0, 0, 500);
    let now = w.at(10).checked_sub(Duration::from_micros(500)).unwrap();
    let (seq, marker, payload) = &packets[0];
    w.meter.on_packet(*seq, 0.0, *marker, payload, Some(&w.cryptor), &mut w.board, now);
    let packets = w.frame(60, 1, 1, 500);
    w.take(40, &packets[0]);
    let (r, _) = w.finish(100);
    assert_eq!((r.shown, r.delay.count(), r.from_the_future), (2, 1, 1));
}
