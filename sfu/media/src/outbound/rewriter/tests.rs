use super::*;
use crate::outbound::test_kit::{ms, start, video};

fn picture(mut meta: PacketMeta, id: u16, tl0: u8) -> PacketMeta {
    meta.info.picture_id = Some(id);
    meta.info.tl0_pic_idx = Some(tl0);
    meta
}

fn report(ntp_ms: u64, rtp: u32) -> SenderReport {
    SenderReport { ntp: (ntp_ms << 32) / 1000, rtp: RtpTime(rtp), arrival: start() }
}

#[test]
fn losses_stay_gaps_and_what_is_left_out_closes() {
    let mut r = Rewriter::new(100);
    let at = |i: u64| video(0, 65_530 + i, i as u32 * 3000, i * 33);
    assert_eq!(r.switch(&at(0)).out, ExtSeq(100));
    assert_eq!(r.forward(&at(1)).unwrap().out, ExtSeq(101));
    // 2 is lost; 3, 4 left out; 5 lost; 6 left out; 7 goes out.
    r.leave_out(&at(3));
    r.leave_out(&at(4));
    r.leave_out(&at(6));
    assert_eq!(r.forward(&at(7)).unwrap().out, ExtSeq(104));
    assert_eq!(r.forward(&at(2)).unwrap().out, ExtSeq(102));
    assert_eq!(r.forward(&at(5)).unwrap().out, ExtSeq(103));
    assert_eq!(r.forward(&at(4)), None);
    assert!(!r.skip(0, ExtSeq(65_530)) && !r.skip(1, ExtSeq(65_540)));
    assert!(r.skip(0, at(8).index));
    assert_eq!(r.forward(&at(9)).unwrap().out, ExtSeq(105));
}

#[test]
fn numbers_go_on_across_a_switch() {
    let mut r = Rewriter::new(2);
    r.switch(&picture(video(0, 10, 0, 0), 0x7ffe, 255));
    let ids = r.forward(&picture(video(0, 12, 6000, 66), 1, 0)).unwrap();
    assert_eq!((ids.out, ids.picture_id, ids.tl0_pic_idx), (ExtSeq(4), Some(1), Some(0)));
    let ids = r.switch(&picture(video(1, 9_000, 77, 99), 500, 60));
    assert_eq!((ids.out, ids.picture_id, ids.tl0_pic_idx), (ExtSeq(5), Some(2), Some(1)));
    let ids = r.forward(&picture(video(1, 9_001, 3077, 132), 501, 60)).unwrap();
    assert_eq!((ids.out, ids.picture_id, ids.tl0_pic_idx), (ExtSeq(6), Some(3), Some(1)));
    // Late ones, of the stream that was left and of the time before the switch.
    let ids = r.forward(&picture(video(0, 11, 3000, 133), 0, 0)).unwrap();
    assert_eq!((ids.out, ids.picture_id, ids.timestamp), (ExtSeq(3), Some(0), RtpTime(3000)));
    assert_eq!(r.forward(&video(0, 13, 9000, 133)), None);
    assert_eq!(r.forward(&video(1, 8_999, 0, 133)), None);
}

#[test]
fn vp8_picture_ids_close_over_left_out_frames_and_vp9_ones_stay() {
    for (codec, want) in [(Codec::Vp8, 11), (Codec::Vp9, 12)] {
        let mut r = Rewriter::new(2);
        let at = |i: u64, id: u16| {
            let mut m = picture(video(0, i, i as u32 * 3000, i * 33), id, 1);
            m.codec = codec;
            m
        };
        r.switch(&at(1, 10));
        // A frame of two packets.
        r.leave_out(&at(2, 11));
        r.leave_out(&at(3, 11));
        let ids = r.forward(&at(4, 12)).unwrap();
        assert_eq!((ids.out, ids.picture_id), (ExtSeq(3), Some(want)), "{codec:?}");
    }
}

#[test]
fn picture_ids_of_seven_bits_go_on_in_fifteen() {
    let mut r = Rewriter::new(2);
    r.switch(&picture(video(0, 0, 0, 0), 0, 0));
    for i in 1..1000u64 {
        let ids = r.forward(&picture(video(0, i, i as u32, 0), (i % 128) as u16, 0)).unwrap();
        assert_eq!(ids.picture_id, Some(i as u16));
    }
}

#[test]
fn timestamps_across_a_switch() {
    // Layer 0 is at 90,000 when its wall clock shows 1 s; layer 1 at 5,000,000 when its shows 1.5 s.
    for (reports, old, new, at_ms, want, what) in [
        // Captured at 1.6 s by layer 1's clock.
        ((true, true), 135_000, 5_009_000, 640, 144_000, "by sender reports"),
        ((true, false), 135_000, 5_009_000, 640, 135_000 + 57_600, "by time"),
        ((false, true), 135_000, 5_009_000, 640, 135_000 + 57_600, "by time"),
        // The same capture time as what went out.
        ((true, true), 144_000, 5_009_000, 640, 144_001, "monotonic"),
        ((true, true), 150_000, 5_009_000, 640, 150_001, "monotonic"),
        // Reports of another timeline.
        ((true, true), 135_000, 905_009_000, 640, 135_000 + 57_600, "too far off"),
        ((false, false), 135_000, 1, 0, 135_001, "no time went by"),
        ((false, false), u32::MAX, 1, 100, 8_999, "wraps"),
    ] {
        let mut r = Rewriter::new(2);
        if reports.0 {
            r.set_report(0, report(1000, 90_000));
        }
        if reports.1 {
            r.set_report(1, report(1500, 5_000_000));
        }
        r.switch(&video(0, 10, old, 0));
        assert_eq!(r.switch(&video(1, 10, new, at_ms)).timestamp, RtpTime(want), "{what}");
    }
}

#[test]
fn a_pause_keeps_the_timeline_of_its_stream() {
    let mut r = Rewriter::new(2);
    assert_eq!(r.switch(&video(0, 10, 1000, 0)).timestamp, RtpTime(1000));
    // 20 ms of jitter do not show.
    let ids = r.switch(&video(0, 500, 901_000, 10_020));
    assert_eq!((ids.out, ids.timestamp), (ExtSeq(3), RtpTime(901_000)));
    r.forget(0);
    let ids = r.switch(&video(0, 7, 5, 10_020 + 100));
    assert_eq!((ids.out, ids.timestamp), (ExtSeq(4), RtpTime(910_000)));
    assert_eq!(r.last_timestamp(), Some((RtpTime(910_000), start() + ms(10_120))));
}
