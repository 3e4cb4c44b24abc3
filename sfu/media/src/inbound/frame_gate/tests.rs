use super::*;
use crate::inbound::stream::tests::meta;
use crate::rtp::PayloadInfo;
use proptest::prelude::*;

const SSRC: Ssrc = Ssrc(0xdead_beef);

struct Gate {
    gate: FrameGate,
    store: PacketStore,
    start: Instant,
    released: Vec<u64>,
}

impl Gate {
    fn new(kind: MediaKind) -> Self {
        Self {
            gate: FrameGate::new(SSRC, kind, true),
            store: PacketStore::new(kind),
            start: crate::sim::clock::epoch(),
            released: vec![],
        }
    }

    fn put_spatial(
        &mut self,
        index: u64,
        frame: u32,
        spatial: u8,
        end: bool,
        payload: &[u8],
        at_ms: u64,
    ) -> Result<(), DropReason> {
        let mut m = meta(index, self.start + Duration::from_millis(at_ms));
        m.timestamp = RtpTime(frame.wrapping_mul(3000));
        m.codec = Codec::Vp9;
        m.info = PayloadInfo { frame_start: false, frame_end: end, key_frame: false, spatial, ..m.info };
        let mut out = vec![];
        let result = self.gate.admit(&mut self.store, &m, payload, &mut out);
        self.released.extend(out.iter().map(|i| i.0));
        result
    }

    fn put(&mut self, index: u64, frame: u32, end: bool, payload: &[u8]) -> Result<(), DropReason> {
        self.put_spatial(index, frame, 0, end, payload, 0)
    }

    fn take(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.released)
    }

    fn timeout(&mut self, at_ms: u64) {
        let mut out = vec![];
        self.gate.handle_timeout(&mut self.store, self.start + Duration::from_millis(at_ms), &mut out);
        self.released.extend(out.iter().map(|i| i.0));
    }
}

fn sealed() -> Vec<u8> {
    let mut p = vec![0x55; 20];
    p.extend(SSRC.0.to_be_bytes());
    p.extend([9; 8]);
    p.extend([12, 3]);
    p
}

fn sealed_otherwise() -> Vec<u8> {
    let mut p = vec![0x55; 40];
    p.extend([12, 15]);
    p
}

const PLAIN: &[u8] = &[0x55; 60];

#[test]
fn a_frame_leaves_when_its_end_passes() {
    let mut g = Gate::new(MediaKind::Video);
    assert_eq!(g.put(1, 1, false, PLAIN), Ok(()));
    assert_eq!(g.put(2, 1, false, PLAIN), Ok(()));
    assert!(g.take().is_empty());
    assert!(g.store.get(ExtSeq(1)).is_none(), "held packets must not be retransmitted");
    assert_eq!(g.put(3, 1, true, &sealed()), Ok(()));
    assert_eq!(g.take(), [1, 2, 3]);
    assert!(g.store.get(ExtSeq(1)).is_some());
    assert_eq!(g.gate.deadline(), None);
}

#[test]
fn a_plaintext_frame_is_refused_whole() {
    let mut g = Gate::new(MediaKind::Video);
    g.put(1, 1, true, &sealed()).unwrap();
    g.put(2, 2, false, PLAIN).unwrap();
    g.put(3, 2, false, PLAIN).unwrap();
    assert_eq!(g.put(5, 2, true, PLAIN), Err(DropReason::NotEncrypted));
    assert_eq!(g.gate.take_drops(), Some((DropReason::NotEncrypted, 2)));
    assert_eq!(g.gate.take_drops(), None);
    // Its late packet, and what a retransmission of it brings.
    assert_eq!(g.put(4, 2, false, PLAIN), Err(DropReason::NotEncrypted));
    assert_eq!(g.put(4, 2, false, PLAIN), Err(DropReason::Duplicate));
    g.put(6, 3, true, &sealed()).unwrap();
    assert_eq!(g.take(), [1, 6]);
    assert!((2..6).all(|i| g.store.get(ExtSeq(i)).is_none()));
}

#[test]
fn a_likely_trailer_does_not_pass_soon_after_plaintext() {
    let mut g = Gate::new(MediaKind::Video);
    g.put(0, 0, true, &sealed_otherwise()).unwrap();
    assert_eq!(g.put(1, 1, true, PLAIN), Err(DropReason::NotEncrypted));
    for i in 2..10 {
        assert_eq!(g.put(i, i as u32, true, &sealed_otherwise()), Err(DropReason::NotEncrypted), "{i}");
    }
    assert_eq!(g.put(10, 10, true, &sealed_otherwise()), Ok(()));
    assert_eq!(g.take(), [0, 10]);
    assert_eq!(g.put(11, 11, true, PLAIN), Err(DropReason::NotEncrypted));
    assert_eq!(g.put(12, 12, true, &sealed()), Ok(()));
}

#[test]
fn trailers() {
    let metadata = |tail: &[u8]| {
        let mut p = tail.to_vec();
        p.extend([0x01 ^ 0xff, 8 ^ 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 15 ^ 0xff]);
        p.extend(b"LKTS");
        p
    };
    let with_tail = |tail: &[u8]| [&[7; 40][..], tail].concat();
    for (payload, passes) in [
        (with_tail(&[12, 0]), true),
        (with_tail(&[12, 15]), true),
        (with_tail(&[12, 16]), false),
        (with_tail(&[11, 0]), false),
        (with_tail(&[0, 0]), false),
        (vec![12, 0], true), // the frame's other packets carry the rest
        (vec![0], false),
        (metadata(&with_tail(&[12, 0])), true),
        (metadata(&with_tail(&[1, 0])), false),
        (b"LKTS".to_vec(), false),
        ([&[0; 30][..], b"LKTS"].concat(), false),
    ] {
        let mut g = Gate::new(MediaKind::Video);
        assert_eq!(g.put(1, 1, true, &payload).is_ok(), passes, "{payload:?}");
    }
}

#[test]
fn an_av1_trailer_may_be_cut_between_its_two_bytes() {
    // The last packet is an aggregation header and the key index; the byte before it ends the packet before.
    for (before_end, key, want) in
        [(12, 3, Ok(())), (11, 3, Err(DropReason::NotEncrypted)), (12, 16, Err(DropReason::NotEncrypted))]
    {
        for late in [false, true] {
            let mut g = Gate::new(MediaKind::Video);
            let mut put = |index: u64, end: bool, payload: &[u8]| {
                let mut m = meta(index, g.start);
                (m.timestamp, m.codec) = (RtpTime(5), Codec::Av1);
                m.info = PayloadInfo { frame_start: false, frame_end: end, ..m.info };
                let mut out = vec![];
                let result = g.gate.admit(&mut g.store, &m, payload, &mut out);
                g.released.extend(out.iter().map(|i| i.0));
                result
            };
            let body = [&[0x10; 60][..], &[before_end]].concat();
            let last = if late {
                put(2, true, &[0x90, key]).unwrap();
                put(1, false, &body)
            } else {
                put(1, false, &body).unwrap();
                put(2, true, &[0x90, key])
            };
            assert_eq!(last, want, "{before_end} {key} {late}");
            let released: &[u64] = if want.is_ok() { &[1, 2] } else { &[] };
            assert_eq!(g.take(), released);
        }
    }
}

#[test]
fn each_audio_packet_is_a_frame() {
    let mut g = Gate::new(MediaKind::Audio);
    // Encrypted comfort noise of one byte is 31 bytes long.
    let dtx = [&[0xf8; 17][..], &[5; 12], &[12, 0]].concat();
    for (i, (payload, want)) in [
        (&dtx[..], Ok(())),
        (&dtx[2..], Err(DropReason::NotEncrypted)), // too short to hold tag, IV and trailer
        (&[0xf8, 0xff, 0xfe], Err(DropReason::NotEncrypted)),
        (PLAIN, Err(DropReason::NotEncrypted)),
        (&sealed()[..], Ok(())),
        (&dtx[..], Ok(())),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(g.put(i as u64, i as u32, false, payload), want, "{i}");
    }
    assert_eq!(g.take(), [0, 4, 5]);
}

#[test]
fn a_late_end_releases_in_order() {
    let mut g = Gate::new(MediaKind::Video);
    g.put(1, 1, false, PLAIN).unwrap();
    // 2, the end of frame 1, is lost; frames 2 and 3 must not overtake.
    g.put(3, 2, false, PLAIN).unwrap();
    g.put(4, 2, true, &sealed()).unwrap();
    g.put(5, 3, true, &sealed()).unwrap();
    assert!(g.take().is_empty());
    g.put(2, 1, true, &sealed()).unwrap();
    assert_eq!(g.take(), [1, 2, 3, 4, 5]);
}

#[test]
fn losses_that_leave_no_frame_open_delay_nothing() {
    let mut g = Gate::new(MediaKind::Video);
    g.put(1, 1, false, PLAIN).unwrap();
    g.put(3, 1, true, &sealed()).unwrap();
    assert_eq!(g.take(), [1, 3]);
    // Frame 2 (4 to 6) is lost whole, frame 3 goes on; then frame 2 comes by retransmission.
    g.put(7, 3, true, &sealed()).unwrap();
    g.put(2, 1, false, PLAIN).unwrap();
    assert_eq!(g.take(), [7, 2]);
    g.put(4, 2, false, PLAIN).unwrap();
    g.put(6, 2, true, &sealed()).unwrap();
    g.put(5, 2, false, PLAIN).unwrap();
    assert_eq!(g.take(), [4, 6, 5]);
}

#[test]
fn what_follows_the_end_under_its_timestamp_does_not_pass_with_it() {
    let mut g = Gate::new(MediaKind::Video);
    g.put(1, 1, true, &sealed()).unwrap();
    g.put(2, 1, false, PLAIN).unwrap();
    assert_eq!(g.take(), [1]);
    assert_eq!(g.put(3, 1, true, PLAIN), Err(DropReason::NotEncrypted));
    assert!(g.take().is_empty());
}

#[test]
fn each_spatial_layer_has_its_own_end() {
    let mut g = Gate::new(MediaKind::Video);
    g.put_spatial(1, 1, 0, true, &sealed(), 0).unwrap();
    g.put_spatial(2, 1, 1, false, PLAIN, 0).unwrap();
    assert_eq!(g.put_spatial(3, 1, 1, true, PLAIN, 0), Err(DropReason::NotEncrypted));
    g.put_spatial(4, 2, 0, true, &sealed(), 0).unwrap();
    g.put_spatial(5, 2, 1, true, &sealed(), 0).unwrap();
    assert_eq!(g.take(), [1, 4, 5]);
}

#[test]
fn an_unfinished_frame_is_given_up() {
    let mut g = Gate::new(MediaKind::Video);
    g.put_spatial(1, 1, 0, false, PLAIN, 0).unwrap();
    g.put_spatial(3, 2, 0, true, &sealed(), 10).unwrap();
    assert_eq!(g.gate.deadline(), Some(g.start + Duration::from_millis(500)));
    g.timeout(499);
    assert!(g.take().is_empty());
    g.timeout(500);
    assert_eq!(g.take(), [3]);
    assert_eq!(g.gate.take_drops(), Some((DropReason::FrameUnfinished, 1)));
    assert_eq!(g.gate.deadline(), None);
    assert_eq!(g.put_spatial(1, 1, 0, false, PLAIN, 501), Err(DropReason::Duplicate));
}

#[test]
fn waiting_is_bounded_by_frames_and_packets() {
    let mut g = Gate::new(MediaKind::Video);
    for i in 0..200u64 {
        g.put(i * 2, i as u32, false, PLAIN).unwrap();
        assert!(g.gate.waiting.len() <= MAX_FRAMES);
    }
    assert_eq!(g.gate.take_drops(), Some((DropReason::FrameUnfinished, 168)));
    let mut g = Gate::new(MediaKind::Video);
    for i in 0..2000u64 {
        g.put(i, 1, false, PLAIN).unwrap();
        assert!(g.gate.packets <= MAX_PACKETS);
    }
    assert!(g.take().is_empty());
}

#[derive(Debug, Clone)]
struct Arrival {
    index: u64,
    frame: u32,
    end: bool,
}

fn arrivals() -> impl Strategy<Value = (Vec<bool>, Vec<Arrival>)> {
    // Frames of 1 to 4 packets, each encrypted or not; then loss, duplication and reordering.
    prop::collection::vec((1u64..5, any::<bool>()), 1..40).prop_flat_map(|frames| {
        let mut packets = vec![];
        for (f, (n, _)) in frames.iter().enumerate() {
            for i in 0..*n {
                packets.push(Arrival { index: packets.len() as u64, frame: f as u32, end: i + 1 == *n });
            }
        }
        let total = packets.len();
        let keys = prop::collection::vec((any::<bool>(), 0usize..12, 0u8..10), total);
        (Just(frames.iter().map(|(_, e)| *e).collect::<Vec<_>>()), Just(packets), keys).prop_map(
            |(encrypted, packets, keys)| {
                let mut order = vec![];
                for (i, (packet, (twice, delay, luck))) in packets.iter().zip(&keys).enumerate() {
                    if *luck > 0 {
                        order.push((i + delay, packet.clone()));
                    }
                    if *twice {
                        order.push((i + 6, packet.clone()));
                    }
                }
                order.sort_by_key(|(at, _)| *at);
                (encrypted, order.into_iter().map(|(_, p)| p).collect())
            },
        )
    })
}

proptest! {
    #[test]
    fn plaintext_never_comes_out_and_whole_frames_do((encrypted, arrivals) in arrivals()) {
        let mut g = Gate::new(MediaKind::Video);
        for a in &arrivals {
            let payload = if a.end && encrypted[a.frame as usize] { sealed() } else { PLAIN.to_vec() };
            let _ = g.put(a.index, a.frame, a.end, &payload);
        }
        g.timeout(1000);
        let out = g.take();
        let of = |i: u64| arrivals.iter().find(|a| a.index == i).unwrap();
        for i in &out {
            prop_assert!(encrypted[of(*i).frame as usize], "packet {i} is plaintext");
            prop_assert_eq!(out.iter().filter(|j| *j == i).count(), 1, "packet {} came out twice", i);
        }
        for a in arrivals.iter().filter(|a| a.end && encrypted[a.frame as usize]) {
            prop_assert!(out.contains(&a.index), "end {} of an encrypted frame is missing", a.index);
        }
    }
}
