//! Header extensions ([RFC 8285](https://www.rfc-editor.org/rfc/rfc8285)): walking a block, reading the values that the
//! relay understands, writing a header with them.
//!
//! ```text
//! one-byte form, profile 0xBEDE:   |  ID   | len-1 |  data ..
//! two-byte form, profile 0x100x:   |      ID       |      len      |  data ..
//! ```

mod values;
mod write;

pub use values::{AudioLevelExt, ExtensionValues};
pub use write::{MAX_HEADER, RtpHeaderOut};

/// "Defined by profile" of the one-byte form.
const ONE_BYTE: u16 = 0xbede;
/// The same of the two-byte form; its low four bits are for the application.
const TWO_BYTE: u16 = 0x1000;

/// The elements of an extension block, in order.
#[derive(Debug, Clone)]
pub struct ExtensionIter<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> ExtensionIter<'a> {
    pub(super) fn new(profile: u16, block: &'a [u8]) -> Self {
        let two_byte = profile & 0xfff0 == TWO_BYTE;
        let known = two_byte || profile == ONE_BYTE;
        Self { rest: if known { block } else { &[] }, two_byte }
    }

    fn element(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            // A zero byte is padding in both forms.
            if first == 0 {
                self.rest = rest;
                continue;
            }
            let (id, len, rest) = if self.two_byte {
                let (&len, rest) = rest.split_first()?;
                (first, usize::from(len), rest)
            } else {
                let id = first >> 4;
                // 15 stops processing by definition; so does 0 with a length (RFC 8285 section 4.2).
                if id == 15 || id == 0 {
                    return None;
                }
                (id, usize::from(first & 0x0f) + 1, rest)
            };
            let (value, rest) = rest.split_at_checked(len)?;
            self.rest = rest;
            return Some((id, value));
        }
    }
}

impl<'a> Iterator for ExtensionIter<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.element();
        if element.is_none() {
            self.rest = &[];
        }
        element
    }
}
