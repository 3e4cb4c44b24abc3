//! Writing a Dependency Descriptor with other numbers in it.

use arrayvec::ArrayVec;

use super::super::bits::Bits;
use super::{DdInfo, MAX_REWRITTEN};

/// Bits before the structure when there are extended fields: the mandatory ones and five flags.
pub(super) const EXTENDED: u16 = 24 + 5;

/// Writes the descriptor `dd`, which [`DdReader`](super::DdReader) read as `info`, to `out`: with this frame number,
/// and where it is given with this mask of active decode targets in the stead of its own or of none.
///
/// The rest is copied bit by bit, since what follows the mask moves. `out` stays empty for a descriptor longer than the
/// relay keeps.
pub fn rewrite_dd(
    dd: &[u8],
    info: &DdInfo,
    frame_number: u16,
    active: Option<u32>,
    out: &mut ArrayVec<u8, MAX_REWRITTEN>,
) {
    out.clear();
    if dd.len() + 5 > MAX_REWRITTEN {
        return;
    }
    let Some(&head) = dd.first() else { return };
    let [hi, lo] = frame_number.to_be_bytes();
    out.extend([head, hi, lo]);
    let Some(active) = active else {
        out.extend(dd.iter().skip(3).copied());
        return;
    };
    // structure, active targets, custom dtis, custom fdiffs, custom chains
    let flags = dd.get(3).map_or(0, |flags| flags >> 3);
    let mut to = BitsOut { out, len: 24 };
    to.put(u32::from(flags) | 0b01000, 5);
    to.copy(dd, EXTENDED, info.layout.mask);
    to.put(active, info.targets);
    to.copy(dd, info.layout.definition, info.layout.end);
}

/// Appends bits, most significant first, to whole bytes.
struct BitsOut<'a> {
    out: &'a mut ArrayVec<u8, MAX_REWRITTEN>,
    len: usize,
}

impl BitsOut<'_> {
    fn put(&mut self, value: u32, n: u8) {
        for bit in (0..n).rev() {
            if self.len.is_multiple_of(8) {
                // The caller made sure that there is room.
                let _ = self.out.try_push(0);
            }
            if let Some(last) = self.out.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.len % 8);
            }
            self.len += 1;
        }
    }

    fn copy(&mut self, from: &[u8], start: u16, end: u16) {
        let mut bits = Bits::new(from);
        if bits.skip(usize::from(start)).is_none() {
            return;
        }
        for _ in start..end {
            let Some(bit) = bits.read(1) else { return };
            self.put(bit, 1);
        }
    }
}
