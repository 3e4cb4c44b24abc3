use proptest::prelude::*;

use super::test_writer::{ALL, Encoder, Frame, L1T3, L2T2_KEY_SHIFT, L3T3, L3T3_KEY, S3T3, Writer};
use super::*;

/// Pictures whose frames get templates: as browsers choose them, and too few of them.
const STEADY: [u64; 5] = [0, 4, 5, 6, 7];
const FEW: [u64; 3] = [0, 1, 2];

fn indications(info: &DdInfo) -> String {
    (0..info.targets)
        .map(|target| match info.indications.get(target) {
            Indication::NotPresent => '-',
            Indication::Discardable => 'D',
            Indication::Switch => 'S',
            Indication::Required => 'R',
        })
        .collect()
}

/// Whether the reader says of a frame what the encoder says, its numbers `ahead` of the encoder's.
fn check(info: &DdInfo, frame: &Frame, ahead: u64) {
    assert_eq!(info.frame_number, frame.number + ahead, "{frame:?}");
    assert_eq!((info.spatial, info.temporal), (frame.spatial, frame.temporal), "{frame:?}");
    assert_eq!(indications(info), frame.dtis, "{frame:?}");
    let references: Vec<u64> = info.references().map(|n| n - ahead).collect();
    assert_eq!(references, frame.references, "{frame:?}");
    for (chain, diff) in (0u8..).zip(&frame.chains) {
        let want = (*diff > 0).then(|| frame.number + ahead - diff);
        assert_eq!(info.previous_in_chain(chain), want, "{frame:?}");
    }
}

#[test]
fn every_mode_is_read_as_it_was_written() {
    // With all templates, and with so few that most frames have custom fields.
    for (mode, pictures) in ALL.iter().flat_map(|mode| [(mode, &STEADY[..]), (mode, &FEW)]) {
        let writer = Writer::of_pictures(*mode, 60, pictures);
        // The numbers wrap on the way.
        let mut encoder = Encoder::new(*mode, 65_500);
        let mut reader = DdReader::new();
        let mut index = 0;
        let mut ahead = None;
        for picture in 0..60 {
            for frame in encoder.picture(picture == 33) {
                let bytes = writer.write(&frame, true, true, None);
                let info = reader.read(&bytes, ExtSeq(index)).unwrap();
                let ahead = *ahead.get_or_insert(info.frame_number - frame.number);
                check(&info, &frame, ahead);
                assert_eq!(info.key_frame, frame.key && frame.references.is_empty());
                assert_eq!(info.generation, 1);
                index += 1;
            }
        }
    }
}

#[test]
fn decode_targets_know_what_they_are_made_of() {
    // Which targets come along with the highest one.
    for (mode, within) in [
        (L1T3, 0b111),
        (L3T3, 0b111_111_111),
        (L3T3_KEY, 0b111_000_000),
        (L2T2_KEY_SHIFT, 0b11_00),
        (S3T3, 0b111_000_000),
    ] {
        let mut encoder = Encoder::new(mode, 1);
        let key = Writer::new(mode, 0).write(&encoder.picture(true)[0], true, false, None);
        let targets = attached_targets(&key).unwrap();
        let layers: Vec<_> = targets.iter().map(|t| (t.spatial, t.temporal, t.chain)).collect();
        let want: Vec<_> =
            (0..mode.spatial).flat_map(|s| (0..mode.temporal).map(move |t| (s, t, Some(s)))).collect();
        assert_eq!(layers, want);
        let highest = targets.last().unwrap();
        let mask =
            (0..).zip(&targets).filter(|(_, t)| t.is_within(highest)).map(|(i, _)| 1 << i).sum::<u32>();
        assert_eq!(mask, within, "{mode:?}");
    }
    assert_eq!(attached_targets(&[0x80, 0, 1]), None);
    assert_eq!(attached_targets(&[0x80, 0, 1, 0]), None);
}

#[test]
fn a_structure_that_comes_late_does_not_replace_the_newer_one() {
    let mut reader = DdReader::new();
    let (old, new) = (Writer::new(L3T3_KEY, 0), Writer::new(L1T3, 40));
    let mut encoder = Encoder::new(L3T3_KEY, 500);
    let first = encoder.picture(true);
    let second = encoder.picture(false);
    reader.read(&old.write(&first[0], true, false, None), ExtSeq(10)).unwrap();
    let mut next = Encoder::new(L1T3, 600);
    let key = next.picture(true);
    assert_eq!(reader.read(&new.write(&key[0], true, false, None), ExtSeq(20)).unwrap().generation, 2);
    // The old key frame again, and frames behind it: still read by their own structure.
    let info = reader.read(&old.write(&first[0], true, false, None), ExtSeq(11)).unwrap();
    assert_eq!((info.generation, info.targets), (1, 9));
    let info = reader.read(&old.write(&second[2], true, false, None), ExtSeq(15)).unwrap();
    assert_eq!((info.generation, info.spatial, indications(&info)), (1, 2, second[2].dtis.clone()));
    // And those of the new one by the new.
    let info = reader.read(&new.write(&next.picture(false)[0], true, true, None), ExtSeq(21)).unwrap();
    assert_eq!((info.generation, info.targets, info.temporal), (2, 3, 2));
    // A structure never seen that is older than both is used and forgotten.
    let other = Writer::new(S3T3, 7);
    let key = Encoder::new(S3T3, 550).picture(true);
    assert_eq!(reader.read(&other.write(&key[0], true, false, None), ExtSeq(17)).unwrap().generation, 3);
    assert_eq!(
        reader.read(&new.write(&next.picture(false)[0], true, true, None), ExtSeq(22)).unwrap().generation,
        2
    );
}

#[test]
fn numbers_of_a_restarted_encoder_go_on() {
    let writer = Writer::new(L1T3, 0);
    let mut reader = DdReader::new();
    let mut read = |encoder: &mut Encoder, key, index| {
        let frame = &encoder.picture(key)[0];
        reader.read(&writer.write(frame, true, true, None), ExtSeq(index)).unwrap().frame_number
    };
    let mut encoder = Encoder::new(L1T3, 5000);
    let first = read(&mut encoder, true, 1);
    assert_eq!(read(&mut encoder, false, 2), first + 1);
    let mut encoder = Encoder::new(L1T3, 30);
    let restarted = read(&mut encoder, true, 3);
    assert!(restarted > first + 1 && restarted & 0xffff == 30);
    assert_eq!(read(&mut encoder, false, 4), restarted + 1);
}

#[test]
fn a_structure_inside_a_frame_is_refused() {
    let key = Encoder::new(L1T3, 1).picture(true);
    let mut bytes = Writer::new(L1T3, 0).write(&key[0], true, true, None);
    assert!(DdReader::new().read(&bytes, ExtSeq(1)).is_ok());
    bytes[0] &= 0x7f;
    assert_eq!(DdReader::new().read(&bytes, ExtSeq(1)), Err(DdError::Malformed));
}

#[test]
fn a_rewritten_descriptor_says_the_same_but_for_number_and_targets() {
    for (mode, pictures) in ALL.iter().flat_map(|mode| [(mode, &STEADY[..]), (mode, &FEW)]) {
        let writer = Writer::of_pictures(*mode, 9, pictures);
        let mut encoder = Encoder::new(*mode, 100);
        let key = writer.write(&encoder.clone().picture(true)[0], true, false, None);
        assert!(key.len() <= crate::inbound::MAX_DD, "{mode:?}: {}", key.len());
        let (mut before, mut after) = (DdReader::new(), DdReader::new());
        for (index, frame) in (0..).zip((0..20).flat_map(|_| encoder.picture(false)).collect::<Vec<_>>()) {
            let own = (frame.picture % 3 == 1).then_some(0b101);
            let bytes = writer.write(&frame, true, frame.last, own);
            let info = before.read(&bytes, ExtSeq(index)).unwrap();
            for active in [None, Some(0b010)] {
                let mut out = ArrayVec::new();
                rewrite_dd(&bytes, &info, (frame.number + 7) as u16, active, &mut out);
                let again = after.read(&out, ExtSeq(index)).unwrap();
                check(&again, &frame, again.frame_number - frame.number);
                assert_eq!(again.frame_number as u16, (frame.number + 7) as u16);
                assert_eq!(again.active_decode_targets, active.or(own));
                assert_eq!(
                    (again.key_frame, again.start_of_frame, again.end_of_frame),
                    (info.key_frame, true, frame.last)
                );
                // An encoder that puts the mask in by itself writes the same bytes.
                if let Some(active) = active {
                    let mut moved = frame.clone();
                    moved.references.iter_mut().for_each(|r| *r += 7);
                    moved.number += 7;
                    assert_eq!(out[..], writer.write(&moved, true, frame.last, Some(active))[..]);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_descriptors_are_read_and_rewritten_or_refused(
        dds in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..80), any::<bool>(), 0u64..40), 1..20),
        number in any::<u16>(),
        active in any::<Option<u32>>(),
    ) {
        let writer = Writer::new(L3T3_KEY, 0);
        let key = writer.write(&Encoder::new(L3T3_KEY, 1).picture(true)[0], true, false, None);
        let mut reader = DdReader::new();
        let mut out = ArrayVec::new();
        for (bytes, start, index) in dds {
            // Half of them begin as a key frame does.
            let bytes = if start { [&key[..], &bytes].concat() } else { bytes };
            let _ = attached_targets(&bytes);
            let Ok(info) = reader.read(&bytes, ExtSeq(index)) else { continue };
            prop_assert!(info.references().count() <= MAX_REFERENCES);
            rewrite_dd(&bytes, &info, number, active, &mut out);
            if !out.is_empty() {
                let again = reader.read(&out, ExtSeq(index)).unwrap();
                prop_assert_eq!(again.frame_number as u16, number);
                prop_assert_eq!((again.indications, again.targets), (info.indications, info.targets));
            }
        }
    }
}
