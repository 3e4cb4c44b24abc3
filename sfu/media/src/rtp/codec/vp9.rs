//! VP9 payload descriptor ([RFC 9628 section 4.2](https://www.rfc-editor.org/rfc/rfc9628#section-4.2)).
//!
//! ```text
//!         |I|P|L|F|B|E|V|Z|
//! I:      |M| PICTURE ID  |  and one more byte if M
//! L:      | TID |U| SID |D|
//! L, !F:  |   TL0PICIDX   |
//! P, F:   | P_DIFF      |N|  up to three times, while N
//! V:      | SS ..         |
//! ```

use arrayvec::ArrayVec;

use super::{PayloadInfo, read_picture_id, rewrite_picture_id};
use crate::drop_reason::DropReason;

const I: u8 = 0x80;
const P: u8 = 0x40;
const L: u8 = 0x20;
const F: u8 = 0x10;
const B: u8 = 0x08;
const E: u8 = 0x04;
const V: u8 = 0x02;

/// A frame refers to at most three others (RFC 9628 section 4.2, P_DIFF).
const MAX_REFERENCES: usize = 3;

pub(super) fn inspect(payload: &[u8], marker: bool) -> Result<PayloadInfo, DropReason> {
    read(payload, marker).ok_or(DropReason::RtpMalformed)
}

fn read(payload: &[u8], marker: bool) -> Option<PayloadInfo> {
    let mut bytes = payload.iter().copied();
    let flags = bytes.next()?;
    let mut info = PayloadInfo {
        frame_start: flags & B != 0,
        // The E bit ends a layer's frame, the marker the picture.
        frame_end: flags & E != 0 || marker,
        // Not predicted from an earlier picture. A higher spatial layer of the same picture may be, which is fine: it
        // is a switch point to that layer.
        key_frame: flags & P == 0,
        spatial: 0,
        temporal: 0,
        switch_up: false,
        inter_layer: false,
        picture_id: None,
        tl0_pic_idx: None,
    };
    if flags & I != 0 {
        let (id, len) = read_picture_id(payload.get(1..)?)?;
        info.picture_id = Some(id);
        bytes.nth(len - 1)?;
    }
    if flags & L != 0 {
        let layer = bytes.next()?;
        info.temporal = layer >> 5;
        info.switch_up = layer & 0x10 != 0;
        info.spatial = layer >> 1 & 0x07;
        info.inter_layer = layer & 0x01 != 0;
        if flags & F == 0 {
            info.tl0_pic_idx = Some(bytes.next()?);
        }
    }
    if flags & P != 0 && flags & F != 0 {
        let mut references = 0;
        while bytes.next()? & 1 != 0 {
            references += 1;
            if references == MAX_REFERENCES {
                return None;
            }
        }
    }
    if flags & V != 0 {
        skip_scalability_structure(&mut bytes)?;
    }
    // A packet always carries bytes of the frame.
    bytes.next()?;
    Some(info)
}

/// ```text
/// | N_S |Y|G|-|-|-|   then with Y: N_S + 1 times width and height, 16 bits each
///                     with G:      | N_G |, then N_G times | TID |U| R |-|-| and R times P_DIFF
/// ```
fn skip_scalability_structure(bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
    let head = bytes.next()?;
    if head & 0x10 != 0 {
        bytes.nth((usize::from(head >> 5) + 1) * 4 - 1)?;
    }
    if head & 0x08 != 0 {
        for _ in 0..bytes.next()? {
            let references = usize::from(bytes.next()? >> 2 & 0x03);
            if references > 0 {
                bytes.nth(references - 1)?;
            }
        }
    }
    Some(())
}

pub(super) fn rewrite(
    payload: &[u8],
    picture_id: Option<u16>,
    tl0: Option<u8>,
    out: &mut ArrayVec<u8, 16>,
) -> Option<usize> {
    let &flags = payload.first()?;
    out.push(flags);
    let mut at = 1;
    if flags & I != 0 {
        at += rewrite_picture_id(payload.get(at..)?, picture_id, out)?;
    }
    if flags & L != 0 {
        out.push(*payload.get(at)?);
        at += 1;
        if flags & F == 0 {
            out.push(tl0.unwrap_or(*payload.get(at)?));
            at += 1;
        }
    }
    Some(at)
}
