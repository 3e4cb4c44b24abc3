//! H264 payloads ([RFC 6184 section 5](https://www.rfc-editor.org/rfc/rfc6184#section-5)) of packetization modes 0 and
//! 1: single NAL units, STAP-A and FU-A. NAL headers are clear, and so are two bytes after those of slices.

use super::{DdInfo, PayloadInfo};
use crate::drop_reason::DropReason;

const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const ACCESS_UNIT_DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

pub(super) fn inspect(payload: &[u8], marker: bool, dd: Option<&DdInfo>) -> Result<PayloadInfo, DropReason> {
    let mut shown = Shown::default();
    shown.payload(payload).ok_or(DropReason::RtpMalformed)?;
    Ok(match dd {
        Some(dd) => PayloadInfo {
            frame_start: dd.start_of_frame,
            frame_end: dd.end_of_frame,
            key_frame: dd.key_frame,
            spatial: dd.spatial,
            temporal: dd.temporal,
            switch_up: false,
            inter_layer: false,
            picture_id: None,
            tl0_pic_idx: None,
        },
        None => PayloadInfo {
            frame_start: shown.start,
            frame_end: marker,
            key_frame: shown.sps || shown.idr,
            spatial: 0,
            temporal: 0,
            switch_up: false,
            inter_layer: false,
            picture_id: None,
            tl0_pic_idx: None,
        },
    })
}

#[derive(Default)]
struct Shown {
    start: bool,
    sps: bool,
    idr: bool,
}

impl Shown {
    fn payload(&mut self, payload: &[u8]) -> Option<()> {
        let (&head, rest) = payload.split_first()?;
        match head & 0x1f {
            STAP_A => {
                let mut rest = rest;
                loop {
                    let (len, units) = rest.split_first_chunk::<2>()?;
                    let (unit, after) = units.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
                    let (&head, slice) = unit.split_first()?;
                    self.unit(head & 0x1f, slice.first());
                    if after.is_empty() {
                        return Some(());
                    }
                    rest = after;
                }
            }
            FU_A => {
                let (&fu, fragment) = rest.split_first()?;
                let kind = fu & 0x1f;
                self.idr |= kind == IDR_SLICE;
                if fu & 0x80 != 0 {
                    self.unit(kind, fragment.first());
                }
                Some(())
            }
            kind @ 1..=23 => {
                self.unit(kind, rest.first());
                Some(())
            }
            // STAP-B, MTAP and FU-B belong to the interleaved mode, which is not negotiated.
            _ => None,
        }
    }

    /// One NAL unit by its type and the first byte after its header.
    fn unit(&mut self, kind: u8, first: Option<&u8>) {
        // A slice header starts with first_mb_in_slice in Exp-Golomb code: a set first bit is number 0. An IDR picture
        // has its parameter sets before it, so its slices start nothing.
        let first_slice = kind == SLICE && first.is_some_and(|b| b & 0x80 != 0);
        self.start |= first_slice || kind == SPS || kind == ACCESS_UNIT_DELIMITER;
        self.sps |= kind == SPS;
        self.idr |= kind == IDR_SLICE;
    }
}
