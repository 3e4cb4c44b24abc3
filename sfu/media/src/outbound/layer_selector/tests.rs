use super::*;
use crate::outbound::test_kit::{inner, key, ms, start, temporal, video};

fn selector(max_spatial: u8, max_temporal: u8) -> LayerSelector {
    let mut s = LayerSelector::new(MediaKind::Video);
    s.set_target(SubscriptionTarget { max_spatial, max_temporal, ..Default::default() });
    s
}

const FORWARD: Decision = Decision::Forward(Look { marker: true, active: None });
const UNFINISHED: Decision = Decision::Forward(Look { marker: false, active: None });
const SWITCH: Decision = Decision::Switch(Look { marker: true, active: None });
const WAIT: Decision = Decision::Ignore(DropReason::WaitingForKeyFrame);
const NOT_SELECTED: Decision = Decision::Ignore(DropReason::LayerNotSelected);
const LEFT_OUT: Decision = Decision::LeaveOut(DropReason::LayerNotSelected);

#[test]
fn waits_for_a_key_frame_and_then_for_the_target_layers() {
    let mut s = selector(2, 9);
    assert_eq!(s.wants_key_frame(), Some(2));
    assert_eq!(s.decide(&video(0, 1, 0, 0)), WAIT);
    // The target does not send: the best below it is asked.
    assert_eq!(s.wants_key_frame(), Some(0));
    assert_eq!(s.decide(&key(video(0, 2, 0, 0))), SWITCH);
    assert_eq!(s.wants_key_frame(), None);
    assert_eq!(s.decide(&video(2, 50, 0, 10)), NOT_SELECTED);
    assert_eq!(s.wants_key_frame(), Some(2));
    assert_eq!(s.decide(&key(video(1, 7, 0, 10))), NOT_SELECTED);
    assert_eq!(s.decide(&video(0, 3, 0, 20)), FORWARD);
    assert_eq!(s.decide(&key(video(2, 51, 0, 20))), SWITCH);
    assert_eq!(s.decide(&video(0, 4, 0, 30)), NOT_SELECTED);
    assert_eq!(s.decide(&video(2, 52, 0, 30)), FORWARD);
    assert_eq!(s.wants_key_frame(), None);
}

#[test]
fn only_the_first_packet_of_a_key_frame_in_order_is_an_entry() {
    let mut s = selector(9, 9);
    let mut middle = key(video(0, 5, 0, 0));
    middle.info.frame_start = false;
    assert_eq!(s.decide(&middle), WAIT);
    assert_eq!(s.decide(&key(video(0, 4, 0, 0))), WAIT, "late");
    assert_eq!(s.decide(&key(inner(video(0, 6, 0, 0), 1, true))), WAIT, "not the base layer");
    assert_eq!(s.decide(&key(video(0, 7, 0, 0))), SWITCH);
}

#[test]
fn falls_back_when_the_layer_dies_and_returns() {
    let mut s = selector(2, 9);
    s.decide(&key(video(2, 1, 0, 0)));
    for i in 0..140u64 {
        s.decide(&video(0, i, 0, i * 10));
        assert_eq!(s.wants_key_frame(), None, "{i}");
    }
    s.decide(&video(0, 200, 0, 1500));
    assert_eq!(s.wants_key_frame(), Some(0));
    assert_eq!(s.decide(&key(video(0, 201, 0, 1510))), SWITCH);
    // A late packet of the stream that was left may fill a gap.
    assert_eq!(s.decide(&video(2, 0, 0, 1510)), Decision::Late);
    assert_eq!(s.decide(&video(2, 2, 0, 1520)), NOT_SELECTED);
    assert_eq!(s.wants_key_frame(), Some(2));
}

#[test]
fn a_higher_layer_takes_over_only_from_those_that_are_gone_for_long() {
    let mut s = selector(0, 9);
    s.decide(&key(video(0, 1, 0, 0)));
    s.decide(&video(1, 1, 0, 0));
    // The encoder leaves the small layer out for a while, as after a key frame.
    for i in 1..500u64 {
        assert_eq!(s.decide(&video(1, 1 + i, 0, i * 10)), NOT_SELECTED);
        assert_eq!(s.wants_key_frame(), None, "{i}");
    }
    assert_eq!(s.decide(&video(0, 2, 0, 4995)), FORWARD, "it goes on without one");
    s.decide(&video(1, 600, 0, 9994));
    assert_eq!(s.wants_key_frame(), None);
    s.decide(&video(1, 601, 0, 9995));
    assert_eq!(s.wants_key_frame(), Some(1));
    assert_eq!(s.decide(&key(video(1, 602, 0, 10_000))), SWITCH);
}

#[test]
fn a_lower_target_waits_for_its_key_frame() {
    let mut s = selector(2, 9);
    s.decide(&key(video(2, 1, 0, 0)));
    s.decide(&video(0, 1, 0, 0));
    s.set_target(SubscriptionTarget { max_spatial: 1, max_temporal: 9, ..Default::default() });
    assert_eq!(s.wants_key_frame(), Some(0), "layer 1 does not exist");
    assert_eq!(s.decide(&video(2, 2, 0, 5)), FORWARD);
    assert_eq!(s.decide(&key(video(0, 2, 0, 5))), SWITCH);
}

#[test]
fn a_target_below_all_layers_means_the_lowest() {
    let mut s = selector(0, 9);
    assert_eq!(s.decide(&key(video(1, 1, 0, 0))), SWITCH);
}

#[test]
fn disabled_sends_nothing_and_resumes_at_a_key_frame() {
    let mut s = selector(0, 9);
    s.decide(&key(video(0, 1, 0, 0)));
    s.set_target(SubscriptionTarget { enabled: false, ..Default::default() });
    assert_eq!(s.decide(&key(video(0, 2, 0, 0))), NOT_SELECTED);
    assert_eq!(s.wants_key_frame(), None);
    s.set_target(SubscriptionTarget { max_spatial: 0, max_temporal: 9, ..Default::default() });
    assert_eq!(s.wants_key_frame(), Some(0));
    assert_eq!(s.decide(&video(0, 3, 0, 0)), WAIT);
    assert_eq!(s.decide(&key(video(0, 4, 0, 0))), SWITCH);
    s.interrupt();
    assert_eq!(s.decide(&video(0, 5, 0, 0)), WAIT);
}

#[test]
fn temporal_layers_go_at_a_frame_and_come_back_at_a_key_frame() {
    let mut s = selector(0, 2);
    s.decide(&key(video(0, 1, 0, 0)));
    assert_eq!(s.decide(&temporal(video(0, 2, 10, 0), 2)), FORWARD);
    s.set_target(SubscriptionTarget { max_spatial: 0, max_temporal: 0, ..Default::default() });
    // The frame that was begun is finished.
    let mut rest = temporal(video(0, 3, 10, 0), 2);
    rest.info.frame_start = false;
    assert_eq!(s.decide(&rest), FORWARD);
    assert_eq!(s.decide(&temporal(video(0, 4, 20, 0), 1)), LEFT_OUT);
    assert_eq!(s.decide(&video(0, 5, 30, 0)), FORWARD);
    s.set_target(SubscriptionTarget { max_spatial: 0, max_temporal: 1, ..Default::default() });
    // Whether this one refers to what was left out does not show; a key frame is waited for only so long.
    assert_eq!(s.decide(&temporal(video(0, 6, 40, 0), 1)), LEFT_OUT);
    assert_eq!(s.wants_key_frame(), None);
    assert_eq!(s.decide(&temporal(video(0, 7, 50, 2001), 1)), LEFT_OUT);
    assert_eq!(s.wants_key_frame(), Some(0));
    assert_eq!(s.decide(&key(video(0, 8, 60, 2001))), FORWARD);
    assert_eq!(s.wants_key_frame(), None);
    assert_eq!(s.decide(&temporal(video(0, 9, 70, 2001), 1)), FORWARD);
}

#[test]
fn inner_layers_end_with_a_marker() {
    let mut s = selector(1, 9);
    let picture = |i: u64, layer: u8| inner(video(0, i, i as u32 / 3, 0), layer, layer == 2);
    assert_eq!(s.decide(&key(picture(0, 0))), Decision::Switch(Look { marker: false, active: None }));
    assert_eq!(s.decide(&picture(1, 1)), FORWARD);
    assert_eq!(s.decide(&picture(2, 2)), LEFT_OUT);
    assert_eq!(s.wants_key_frame(), None);
    s.set_target(SubscriptionTarget { max_spatial: 0, max_temporal: 9, ..Default::default() });
    assert_eq!(s.decide(&picture(3, 0)), FORWARD);
    assert_eq!(s.decide(&picture(4, 1)), LEFT_OUT);
    assert_eq!(s.decide(&picture(5, 2)), LEFT_OUT);
    s.set_target(SubscriptionTarget { max_spatial: 2, max_temporal: 9, ..Default::default() });
    assert_eq!(s.wants_key_frame(), Some(0));
    assert_eq!(s.decide(&picture(6, 0)), FORWARD);
    assert_eq!(s.decide(&picture(7, 1)), LEFT_OUT);
    assert_eq!(s.decide(&key(picture(9, 0))), UNFINISHED);
    assert_eq!(s.decide(&picture(10, 1)), UNFINISHED);
    assert_eq!(s.decide(&picture(11, 2)), FORWARD);
    assert_eq!(s.wants_key_frame(), None);
}

#[test]
fn audio_needs_no_key_frame() {
    let mut s = LayerSelector::new(MediaKind::Audio);
    let mut m = video(0, 1, 0, 0);
    m.info.key_frame = false;
    assert_eq!(s.decide(&m), SWITCH);
    assert_eq!(s.wants_key_frame(), None);
    s.interrupt();
    assert_eq!(s.wants_key_frame(), None);
    m.received = start() + ms(20);
    assert_eq!(s.decide(&m), SWITCH);
    assert_eq!(s.decide(&m), FORWARD);
}

#[test]
fn a_stream_beyond_the_limit_is_ignored() {
    let mut s = selector(9, 9);
    assert_eq!(s.decide(&key(video(MAX_STREAMS as u8, 1, 0, 0))), NOT_SELECTED);
}

/// A frame of VP8 or VP9 in one temporal layer; `up` is the Y or the U bit.
fn layer(codec: crate::command::Codec, i: u64, layer: u8, up: bool) -> PacketMeta {
    let mut meta = temporal(video(0, i, i as u32 * 10, i * 33), layer);
    meta.codec = codec;
    meta.info.switch_up = up;
    meta
}

#[test]
fn temporal_layers_come_back_where_the_descriptor_shows_it() {
    use crate::command::Codec::{Vp8, Vp9};
    let all = SubscriptionTarget::default();
    // Each frame's layer, its bit, and whether it goes out.
    for (codec, frames) in [
        // Y: one layer at a time, at a frame of that layer.
        (
            Vp8,
            vec![
                (2, true, false),
                (1, false, false),
                (0, true, true),
                (1, true, true),
                (2, false, false),
                (2, true, true),
            ],
        ),
        // U: all layers behind the picture, and right behind it only.
        (
            Vp9,
            vec![
                (2, false, false),
                (0, false, true),
                (1, true, false),
                (0, true, true),
                (2, false, true),
                (1, false, true),
            ],
        ),
    ] {
        let mut s = selector(0, 0);
        s.decide(&key(layer(codec, 1, 0, false)));
        assert_eq!(s.decide(&layer(codec, 2, 1, true)), LEFT_OUT);
        s.set_target(SubscriptionTarget { max_spatial: 0, ..all });
        for (i, (tid, up, want)) in (3..).zip(frames) {
            let want = if want { FORWARD } else { LEFT_OUT };
            assert_eq!(s.decide(&layer(codec, i, tid, up)), want, "{codec:?} {i}");
            assert_eq!(s.wants_key_frame(), None);
        }
    }
    // A U picture before more was wanted opens nothing later.
    let mut s = selector(0, 0);
    s.decide(&key(layer(Vp9, 1, 0, true)));
    s.decide(&layer(Vp9, 2, 0, true));
    s.decide(&layer(Vp9, 3, 0, false));
    s.set_target(all);
    assert_eq!(s.decide(&layer(Vp9, 4, 1, false)), LEFT_OUT);
}

#[test]
fn a_stream_above_the_target_thins_out_until_it_is_left() {
    let mut s = selector(2, 9);
    s.decide(&key(video(2, 1, 0, 0)));
    s.decide(&video(0, 1, 0, 0));
    assert_eq!(s.decide(&temporal(video(2, 2, 10, 1), 1)), FORWARD);
    s.set_target(SubscriptionTarget { max_spatial: 0, ..Default::default() });
    assert_eq!(s.decide(&temporal(video(2, 3, 20, 2), 1)), LEFT_OUT);
    assert_eq!(s.decide(&video(2, 4, 30, 3)), FORWARD);
    assert_eq!(s.decide(&key(video(0, 2, 10, 4))), SWITCH);
    assert_eq!(s.decide(&temporal(video(0, 3, 20, 5), 1)), FORWARD);
}
