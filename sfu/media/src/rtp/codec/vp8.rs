//! VP8 payload descriptor ([RFC 7741 section 4.2](https://www.rfc-editor.org/rfc/rfc7741#section-4.2)).
//!
//! ```text
//!      |X|R|N|S|R| PID |
//! X:   |I|L|T|K| RSV   |
//! I:   |M| PictureID   |  and one more byte if M
//! L:   |   TL0PICIDX   |
//! T/K: |TID|Y| KEYIDX  |
//! ```

use arrayvec::ArrayVec;

use super::{DdInfo, PayloadInfo, read_picture_id, rewrite_picture_id};
use crate::drop_reason::DropReason;

pub(super) fn inspect(payload: &[u8], marker: bool, dd: Option<&DdInfo>) -> Result<PayloadInfo, DropReason> {
    let descriptor = Descriptor::read(payload).ok_or(DropReason::RtpMalformed)?;
    // A packet always carries bytes of the frame; the first one's lowest bit is the inverse key frame flag
    // (RFC 7741 section 4.3), which cryptors leave clear.
    let first = *payload.get(descriptor.len).ok_or(DropReason::RtpMalformed)?;
    let frame_start = descriptor.partition_start;
    Ok(PayloadInfo {
        frame_start,
        frame_end: marker,
        key_frame: match dd {
            Some(dd) => dd.key_frame,
            None => frame_start && first & 0x01 == 0,
        },
        spatial: 0,
        temporal: descriptor.temporal.or(dd.map(|dd| dd.temporal)).unwrap_or(0),
        switch_up: descriptor.layer_sync,
        inter_layer: false,
        picture_id: descriptor.picture_id,
        tl0_pic_idx: descriptor.tl0_pic_idx,
    })
}

pub(super) fn rewrite(
    payload: &[u8],
    picture_id: Option<u16>,
    tl0: Option<u8>,
    out: &mut ArrayVec<u8, 16>,
) -> Option<usize> {
    let &first = payload.first()?;
    out.push(first);
    if first & 0x80 == 0 {
        return Some(1);
    }
    let &flags = payload.get(1)?;
    out.push(flags);
    let mut at = 2;
    if flags & 0x80 != 0 {
        at += rewrite_picture_id(payload.get(at..)?, picture_id, out)?;
    }
    if flags & 0x40 != 0 {
        out.push(tl0.unwrap_or(*payload.get(at)?));
        at += 1;
    }
    (at <= payload.len()).then_some(at)
}

struct Descriptor {
    partition_start: bool,
    picture_id: Option<u16>,
    tl0_pic_idx: Option<u8>,
    temporal: Option<u8>,
    layer_sync: bool,
    len: usize,
}

impl Descriptor {
    fn read(payload: &[u8]) -> Option<Descriptor> {
        let &first = payload.first()?;
        let mut d = Descriptor {
            // The first packet of the first partition; libvpx frames sent by browsers have only partition 0 marked.
            partition_start: first & 0x10 != 0 && first & 0x07 == 0,
            picture_id: None,
            tl0_pic_idx: None,
            temporal: None,
            layer_sync: false,
            len: 1,
        };
        if first & 0x80 == 0 {
            return Some(d);
        }
        let &flags = payload.get(1)?;
        d.len = 2;
        if flags & 0x80 != 0 {
            let (id, len) = read_picture_id(payload.get(d.len..)?)?;
            d.picture_id = Some(id);
            d.len += len;
        }
        if flags & 0x40 != 0 {
            d.tl0_pic_idx = Some(*payload.get(d.len)?);
            d.len += 1;
        }
        if flags & 0x30 != 0 {
            let &layer = payload.get(d.len)?;
            d.temporal = (flags & 0x20 != 0).then_some(layer >> 6);
            d.layer_sync = flags & 0x20 != 0 && layer & 0x20 != 0;
            d.len += 1;
        }
        Some(d)
    }
}
