//! Reading a byte slice bit by bit, most significant first.

pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits read so far; a header extension has at most 255 bytes.
    pub(super) fn at(&self) -> u16 {
        self.at as u16
    }

    /// An unsigned number of `n` bits, at most 32.
    pub(super) fn read(&mut self, n: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..n {
            let byte = *self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        Some(self.read(1)? == 1)
    }

    pub(super) fn skip(&mut self, n: usize) -> Option<()> {
        self.at = self.at.checked_add(n).filter(|at| *at <= self.bytes.len() * 8)?;
        Some(())
    }

    /// `ns(n)` of the AV1 specification section 4.10.7: a number below `n`, in as few bits as that needs.
    pub(super) fn non_symmetric(&mut self, n: u32) -> Option<u32> {
        let width = n.checked_ilog2()? + 1;
        let short = (1u32 << width) - n;
        let value = self.read(width - 1)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1 | self.read(1)?) - short)
    }
}
