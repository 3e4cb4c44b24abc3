//! AV1 aggregation header
//! ([AV1 RTP section 4.4](https://aomediacodec.github.io/av1-rtp-spec/#44-av1-aggregation-header)): `|Z|Y| W |N|-|-|-|`.

use super::{DdInfo, PayloadInfo};
use crate::drop_reason::DropReason;

/// The first OBU continues one of the packet before.
const Z: u8 = 0x80;
/// First packet of a coded video sequence, that is of a key frame.
const N: u8 = 0x08;

pub(super) fn inspect(payload: &[u8], marker: bool, dd: Option<&DdInfo>) -> Result<PayloadInfo, DropReason> {
    // An aggregation header alone carries nothing; a new sequence cannot start inside an OBU.
    let [head, _, ..] = *payload else { return Err(DropReason::RtpMalformed) };
    if head & Z != 0 && head & N != 0 {
        return Err(DropReason::RtpMalformed);
    }
    let new_sequence = head & N != 0;
    Ok(match dd {
        Some(dd) => PayloadInfo {
            frame_start: dd.start_of_frame,
            frame_end: dd.end_of_frame,
            key_frame: dd.key_frame || new_sequence,
            spatial: dd.spatial,
            temporal: dd.temporal,
            switch_up: false,
            inter_layer: false,
            picture_id: None,
            tl0_pic_idx: None,
        },
        // Without the Dependency Descriptor only the start of a key frame shows.
        None => PayloadInfo {
            frame_start: new_sequence,
            frame_end: marker,
            key_frame: new_sequence,
            spatial: 0,
            temporal: 0,
            switch_up: false,
            inter_layer: false,
            picture_id: None,
            tl0_pic_idx: None,
        },
    })
}
