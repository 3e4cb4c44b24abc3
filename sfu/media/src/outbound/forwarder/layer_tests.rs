//! What subscribers to generated streams with Dependency Descriptors get, judged by a receiver that works as libwebrtc's
//! does: frames under extended numbers, decoded once what they refer to is, shown when a picture's marked end is there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ids::RtpTime;
use crate::outbound::test_kit::{Got, Subscriber, params, start, video};
use crate::rtp::dd_writer::{
    ALL, Coupling, Encoder, Frame, L1T3, L2T2_KEY_SHIFT, L3T3, L3T3_KEY, Mode, S3T3, Writer,
};
use crate::rtp::{DdReader, inspect};

/// Pictures between a request and the key frame.
const ROUND_TRIP: u64 = 3;

/// One of the publisher's streams.
struct Sender {
    encoder: Encoder,
    writer: Writer,
    reader: DdReader,
    index: u64,
    timestamp: u32,
    key_at: Option<u64>,
}

/// A packet that was forwarded, and the frame that it is of.
#[derive(Debug, Clone)]
struct Sent {
    got: Got,
    stream: u8,
    frame: Frame,
}

struct Call {
    senders: Vec<Sender>,
    sub: Subscriber,
    /// Gets packet by packet what the other one gets in runs, which are only a shorter way to the same bytes.
    twin: Subscriber,
    receiver: Receiver,
    target: SubscriptionTarget,
    picture: u64,
    /// Frames that were lost before the relay, by stream.
    lost: BTreeSet<(u8, u64)>,
    store: Vec<PacketStore>,
    sent: Vec<Sent>,
}

impl Call {
    fn new(mode: Mode, streams: u8, seed: u64) -> Self {
        let senders = (0..streams).map(|stream| Sender {
            // Every stream has its own numbers, and they wrap on the way.
            encoder: Encoder::new(mode, 65_400 + u64::from(stream) * 30_000),
            writer: Writer::new(mode, 50 + u32::from(stream) * 7),
            reader: DdReader::new(),
            index: 1000 * u64::from(stream + 1),
            timestamp: 0xffff_0000u32.wrapping_add(u32::from(stream) << 30),
            key_at: None,
        });
        let subscriber = || {
            let mut sub = Subscriber::new(MediaKind::Video, vec![params(96, Codec::Av1, 0)], seed);
            sub.target(9, 9);
            sub
        };
        Self {
            senders: senders.collect(),
            sub: subscriber(),
            twin: subscriber(),
            receiver: Receiver::default(),
            target: SubscriptionTarget::default(),
            picture: 0,
            lost: BTreeSet::new(),
            store: (0..streams).map(|_| PacketStore::new(MediaKind::Video)).collect(),
            sent: vec![],
        }
    }

    fn set_target(&mut self, enabled: bool, max_spatial: u8, max_temporal: u8) {
        self.target = SubscriptionTarget { enabled, max_spatial, max_temporal, priority: 0 };
        self.sub.forwarder.set_target(self.target);
        self.twin.forwarder.set_target(self.target);
    }

    /// Sends a picture of every stream but for the frames in `lost`, by stream and layer; returns what came out of it.
    fn picture(&mut self, lost: u32) -> Vec<Sent> {
        let at_ms = self.picture * 33;
        let mut out = vec![];
        let simulcast = self.senders.len() > 1;
        for (stream, sender) in (0u8..).zip(&mut self.senders) {
            let key = sender.key_at.is_some_and(|at| at <= self.picture);
            if key {
                sender.key_at = None;
            }
            for frame in sender.encoder.picture(key) {
                let mut packets = vec![];
                for (first, last) in [(true, false), (false, false), (false, true)] {
                    let index = ExtSeq(sender.index);
                    sender.index += 1;
                    if lost >> (stream * 3 + frame.spatial) & 1 == 1 {
                        self.lost.insert((stream, frame.number));
                        continue;
                    }
                    let dd = sender.writer.write(&frame, first, last, None);
                    let info = sender.reader.read(&dd, index).ok();
                    if info.is_none() {
                        // The first key frame was lost.
                        sender.key_at.get_or_insert(self.picture + ROUND_TRIP);
                    }
                    let payload = [0x10, stream, frame.spatial, u8::from(first)];
                    let marker = frame.last && last;
                    let mut meta = video(stream, index.0, sender.timestamp, at_ms);
                    (meta.codec, meta.marker) = (Codec::Av1, marker);
                    meta.info = inspect(Codec::Av1, &payload, marker, info.as_ref()).unwrap();
                    meta.spatial = if simulcast { stream } else { meta.info.spatial };
                    meta.dd.extend(dd.iter().copied().filter(|_| info.is_some()));
                    meta.frame = info;
                    self.store[usize::from(stream)].insert(&meta, &payload).unwrap();
                    packets.push((meta, payload));
                }
                let packets: Vec<Packet<'_>> =
                    packets.iter().map(|(meta, payload)| (meta, &payload[..])).collect();
                let now = start() + Duration::from_millis(at_ms);
                let (datagrams, refused) = self.sub.forward_all(&packets, true, now);
                assert_eq!((datagrams.clone(), refused.clone()), self.twin.forward_all(&packets, false, now));
                for (_, reason) in refused {
                    assert!(
                        matches!(reason, DropReason::LayerNotSelected | DropReason::WaitingForKeyFrame),
                        "{reason:?}"
                    );
                }
                for datagram in datagrams {
                    let got = self.sub.open(datagram);
                    out.push(Sent { got, stream, frame: frame.clone() });
                }
            }
            sender.timestamp = sender.timestamp.wrapping_add(2970);
        }
        assert_eq!(self.sub.forwarder.wants_key_frame(), self.twin.forwarder.wants_key_frame());
        if let Some(wanted) = self.sub.forwarder.wants_key_frame() {
            let top = self.senders.len() - 1;
            let sender = &mut self.senders[usize::from(wanted).min(top)];
            sender.key_at.get_or_insert(self.picture + ROUND_TRIP);
        }
        self.picture += 1;
        for sent in &out {
            self.receiver.take(sent, &self.lost);
        }
        self.sent.extend(out.iter().cloned());
        out
    }

    /// The layers of what came out of some pictures: stream, spatial, temporal.
    fn layers(&mut self, pictures: u64) -> BTreeSet<(u8, u8, u8)> {
        let sent: Vec<Sent> = (0..pictures).flat_map(|_| self.picture(0)).collect();
        sent.iter().map(|s| (s.stream, s.frame.spatial, s.frame.temporal)).collect()
    }
}

/// The subscriber's receiver.
#[derive(Default)]
struct Receiver {
    reader: DdReader,
    /// The highest frame number, extended as libwebrtc does, and the stream and frame that had it.
    newest: Option<u64>,
    next_index: Option<u64>,
    /// Frames that are decodable, by the receiver's numbers.
    decoded: BTreeSet<u64>,
    /// The receiver's number of each of the publisher's frames.
    names: BTreeMap<(u8, u64), u64>,
    timestamp: Option<RtpTime>,
    marked: bool,
    /// Decode targets that it was told of.
    active: u32,
}

impl Receiver {
    fn take(&mut self, sent: &Sent, lost: &BTreeSet<(u8, u64)>) {
        let Sent { got, stream, frame } = sent;
        if let Some(next) = self.next_index {
            assert!(got.index >= next && (got.index == next || !lost.is_empty()), "a gap: {sent:?}");
        }
        self.next_index = Some(got.index + 1);
        let info = self.reader.read(&got.dd, ExtSeq(got.index)).expect("a structure that fits");
        if info.key_frame {
            self.active = u32::MAX;
        }
        if let Some(active) = info.active_decode_targets {
            self.active = active;
        }
        // libwebrtc's unwrapping: less than half the range is ahead.
        let wire = u16::from_be_bytes([got.dd[1], got.dd[2]]);
        let number = match self.newest {
            None => 1 << 20 | u64::from(wire),
            Some(newest) => {
                let ahead = wire.wrapping_sub(newest as u16);
                assert!(ahead < 0x8000, "backwards: {sent:?}");
                newest + u64::from(ahead)
            }
        };
        let name = *self.names.entry((*stream, frame.number)).or_insert(number);
        assert_eq!(name, number, "one frame under two numbers");
        if info.start_of_frame {
            assert!(self.newest.is_none_or(|newest| number > newest), "a number twice: {sent:?}");
            self.picture(got, lost);
            assert_eq!((info.spatial, info.temporal), (frame.spatial, frame.temporal));
            // The references as the publisher made them, under the receiver's numbers.
            let own = info.references().map(|r| number - (info.frame_number - r));
            let own: Vec<u64> = own.collect();
            for (reference, name) in frame.references.iter().zip(&own) {
                if lost.contains(&(*stream, *reference)) {
                    continue;
                }
                assert_eq!(self.names.get(&(*stream, *reference)), Some(name), "not sent: {sent:?}");
                assert!(self.decoded.contains(name), "not decodable: {sent:?}");
            }
            self.decoded.insert(number);
        }
        assert!(!self.marked, "a packet behind the end of its picture: {sent:?}");
        self.marked = got.marker;
        self.newest = Some(number);
    }

    /// At a frame's start: the picture before must be complete.
    fn picture(&mut self, got: &Got, lost: &BTreeSet<(u8, u64)>) {
        let timestamp = RtpTime(got.timestamp);
        if self.timestamp != Some(timestamp) {
            if let Some(before) = self.timestamp {
                assert!(timestamp.since(before) > 0, "time goes backwards");
                assert!(self.marked || !lost.is_empty(), "the picture before has no end");
            }
            self.timestamp = Some(timestamp);
            self.marked = false;
        }
    }
}

/// The layers that a target gets, when everything has settled.
fn settled(mode: Mode, max_spatial: u8, max_temporal: u8) -> BTreeSet<(u8, u8, u8)> {
    let spatial = max_spatial.min(mode.spatial - 1);
    let temporal = max_temporal.min(mode.temporal - 1);
    let lowest = if mode.coupling == Coupling::Full { 0 } else { spatial };
    (lowest..=spatial).flat_map(|s| (0..=temporal).map(move |t| (0, s, t))).collect()
}

#[test]
fn every_target_of_every_mode_is_reached() {
    for mode in ALL {
        let mut call = Call::new(mode, 1, 1);
        for (max_spatial, max_temporal) in [(9, 9), (0, 0), (2, 1), (1, 9), (1, 0), (0, 9), (9, 0), (9, 9)] {
            call.set_target(true, max_spatial, max_temporal);
            // Time for a key frame, and for a base frame after it.
            for _ in 0..12 {
                call.picture(0);
            }
            let got = call.layers(8);
            assert_eq!(
                got,
                settled(mode, max_spatial, max_temporal),
                "{mode:?} {max_spatial} {max_temporal}"
            );
            assert_eq!(call.sub.forwarder.wants_key_frame(), None, "{mode:?}");
        }
    }
}

#[test]
fn less_is_sent_from_the_next_picture_on() {
    for (mode, after) in [
        (L3T3, BTreeSet::from([(0, 0, 0)])),
        // Nothing of the lower layers was sent, so the highest goes on without its temporal layers.
        (L3T3_KEY, BTreeSet::from([(0, 2, 0)])),
        (S3T3, BTreeSet::from([(0, 2, 0)])),
    ] {
        let mut call = Call::new(mode, 1, 2);
        call.layers(10);
        call.set_target(true, 0, 0);
        assert_eq!(call.layers(ROUND_TRIP), after, "{mode:?}");
        let wanted = (mode != L3T3).then_some(0);
        assert_eq!(call.senders[0].key_at.is_some(), wanted.is_some(), "{mode:?}");
        call.layers(ROUND_TRIP);
        assert_eq!(call.layers(8), BTreeSet::from([(0, 0, 0)]), "{mode:?}");
        call.set_target(false, 9, 9);
        assert!(call.layers(4).is_empty());
    }
}

#[test]
fn temporal_layers_come_back_without_a_key_frame() {
    for mode in ALL {
        let mut call = Call::new(mode, 1, 3);
        call.set_target(true, 9, 0);
        call.layers(6);
        let keys = call.sent.iter().filter(|s| s.frame.key).count();
        call.set_target(true, 9, 9);
        assert_eq!(call.sub.forwarder.wants_key_frame(), None);
        // A base frame comes every fourth picture.
        call.layers(4);
        assert_eq!(call.layers(8), settled(mode, 9, 9), "{mode:?}");
        assert_eq!(call.sent.iter().filter(|s| s.frame.key).count(), keys, "{mode:?}");
    }
}

#[test]
fn only_the_wanted_layer_of_independent_ones_is_entered() {
    let mut call = Call::new(S3T3, 1, 4);
    assert_eq!(call.layers(8), settled(S3T3, 9, 9));
    let first = &call.sent[0].frame;
    assert_eq!((first.spatial, first.key), (2, true));
}

#[test]
fn the_receiver_is_told_of_the_targets_it_gets() {
    for (mode, target, want) in [
        (L3T3, (1, 1), 0b000_011_011),
        (L3T3_KEY, (1, 1), 0b000_011_000),
        (S3T3, (0, 9), 0b000_000_111),
        (L2T2_KEY_SHIFT, (1, 0), 0b01_00),
        (L1T3, (0, 1), 0b011),
    ] {
        let mut call = Call::new(mode, 1, 5);
        call.set_target(true, target.0, target.1);
        call.layers(10);
        assert_eq!(call.receiver.active, want, "{mode:?}");
        // More without a key frame must be told as well.
        call.set_target(true, target.0, 9);
        call.layers(8);
        let more = call.receiver.active;
        assert!(more & want == want && (more != want || target.1 == 9), "{mode:?}");
    }
}

#[test]
fn a_publisher_that_ceases_a_layer_leaves_no_one_waiting() {
    // Frames of the highest layer are lost for good, all of them: it is dead after a while.
    let mut call = Call::new(L3T3_KEY, 1, 6);
    call.layers(10);
    let mut last = BTreeSet::new();
    for _ in 0..80 {
        last = call.picture(0b100).iter().map(|s| s.frame.spatial).collect();
    }
    assert_eq!(last, BTreeSet::from([1]));
    // It comes back.
    call.layers(8);
    assert_eq!(call.layers(8), settled(L3T3_KEY, 9, 9));
}

#[test]
fn a_lost_base_frame_brings_a_key_frame() {
    let mut call = Call::new(L3T3_KEY, 1, 7);
    call.layers(8);
    call.picture(0b100);
    let mut waited = 0;
    while call.sub.forwarder.wants_key_frame().is_none() {
        call.picture(0);
        waited += 1;
        assert!(waited < 40);
    }
    // After the time that a repair may take.
    assert!((15..24).contains(&waited), "{waited}");
    call.layers(ROUND_TRIP + 1);
    assert_eq!(call.sub.forwarder.wants_key_frame(), None);
}

#[test]
fn numbers_go_on_after_a_pause_of_half_their_range() {
    let mut call = Call::new(L1T3, 1, 8);
    call.layers(10);
    call.set_target(false, 9, 9);
    call.layers(40_000);
    call.set_target(true, 9, 9);
    call.layers(10);
    assert!(call.sent.len() > 30);
}

#[test]
fn simulcast_streams_change_at_key_frames_and_thin_out_before() {
    let mut call = Call::new(L1T3, 3, 9);
    call.layers(10);
    assert_eq!(call.layers(8), BTreeSet::from([(2, 0, 0), (2, 0, 1), (2, 0, 2)]));
    call.set_target(true, 0, 9);
    assert_eq!(call.layers(ROUND_TRIP), BTreeSet::from([(2, 0, 0)]));
    call.layers(2);
    assert_eq!(call.layers(8), BTreeSet::from([(0, 0, 0), (0, 0, 1), (0, 0, 2)]));
    call.set_target(true, 1, 9);
    assert!(call.layers(ROUND_TRIP).contains(&(0, 0, 2)), "on the way up nothing is given up");
    call.layers(2);
    assert_eq!(call.layers(8), BTreeSet::from([(1, 0, 0), (1, 0, 1), (1, 0, 2)]));
}

/// What happens before a picture: a new target, and frames that are lost.
type Step = (Option<(bool, u8, u8)>, u32);

fn steps(lossy: bool) -> impl Strategy<Value = Vec<Step>> {
    let target = (prop::bool::weighted(0.85), 0u8..4, 0u8..4);
    let lost = if lossy { prop_oneof![6 => Just(0u32), 1 => 0u32..512].boxed() } else { Just(0).boxed() };
    prop::collection::vec((prop::option::weighted(0.15, target), lost), 20..150)
}

fn run(mode: Mode, streams: u8, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut call = Call::new(mode, streams, 11);
    for (target, lost) in steps {
        if let Some((enabled, max_spatial, max_temporal)) = *target {
            call.set_target(enabled, max_spatial, max_temporal);
        }
        let sent = call.picture(*lost);
        // A paused subscriber gets nothing, another nothing above what it asked for, but for layers on the way down.
        prop_assert!(call.target.enabled || sent.is_empty());
        for s in &sent {
            let above = s.frame.spatial.max(s.stream) > call.target.max_spatial;
            let limit = if above { 0 } else { call.target.max_temporal };
            prop_assert!(s.frame.temporal <= limit, "{s:?} for {:?}", call.target);
        }
    }
    // Everything settles at what is wanted in the end.
    call.set_target(true, 9, 9);
    for _ in 0..60 {
        call.picture(0);
    }
    prop_assert_eq!(call.sub.forwarder.wants_key_frame(), None);
    let want: BTreeSet<_> = settled(mode, 9, 9).into_iter().map(|(_, s, t)| (streams - 1, s, t)).collect();
    prop_assert_eq!(call.layers(8), want);
    // What is sent again is the same.
    let stores: Vec<&PacketStore> = call.store.iter().collect();
    let now = start() + Duration::from_millis(call.picture * 33);
    for sent in call.sent.iter().rev().take(40) {
        let again = call.sub.retransmit(ExtSeq(sent.got.index).seq(), &stores, now).unwrap();
        prop_assert_eq!(&again.dd, &sent.got.dd);
        prop_assert_eq!(again.marker, sent.got.marker);
        prop_assert_eq!(&again.payload[2..], &sent.got.payload[..]);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_frame_is_decodable_whatever_is_wanted(mode in prop::sample::select(ALL.to_vec()), steps in steps(false)) {
        run(mode, 1, &steps)?;
    }

    #[test]
    fn nothing_that_was_left_out_is_referred_to_whatever_is_lost(
        mode in prop::sample::select(ALL.to_vec()),
        steps in steps(true),
    ) {
        run(mode, 1, &steps)?;
    }

    #[test]
    fn simulcast_streams_follow_each_other_without_a_break(steps in steps(true)) {
        run(L1T3, 3, &steps)?;
    }
}
