//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01): which packets of a transport arrived,
//! and when.
//!
//! ```text
//! |      base sequence number     |      packet status count      |
//! |                 reference time                | fb pkt. count |
//! |  packet chunks, 16 bits each ..                               |
//! |  receive deltas, 8 or 16 bits each ..             | zeros     |
//!
//! run length chunk:     |0| symbol (2) |        run length (13)           |
//! status vector chunk:  |1|0|  14 symbols of one bit                      |
//!                       |1|1|  7 symbols of two bits                      |
//! ```
//!
//! Symbols: 0 not received, 1 received with a delta of 8 bits, 2 with a signed delta of 16 bits. A delta is the time
//! since the arrival of the packet before, for the first one since the reference time, in 250 µs.

use super::{fmt, pt, write};
use crate::ids::Ssrc;

/// 250 µs ticks in the reference time's unit of 64 ms.
const TICKS_PER_REFERENCE: u64 = 256;
/// Chunks and deltas of one feedback packet take no more bytes than these, so that it fits any path.
const MAX_FCI: usize = 1100;

const NOT_RECEIVED: u8 = 0;
const SMALL: u8 = 1;
const LARGE: u8 = 2;

/// One feedback packet, checked whole when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwccFeedback<'a> {
    /// Who reports.
    pub sender: Ssrc,
    /// Some stream of the transport; says nothing.
    pub media: Ssrc,
    /// Transport-wide number of the first packet reported on.
    pub base_seq: u16,
    /// Packets reported on.
    pub status_count: u16,
    /// What the first delta counts from: 24 bits in units of 64 ms since an unknown time; wraps.
    pub reference_time: u32,
    /// Number of this feedback packet; wraps.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TwccFeedback<'a> {
    pub(super) fn read(sender: Ssrc, media: Ssrc, fci: &'a [u8]) -> Option<Self> {
        let (&[q0, q1, c0, c1, t2, t1, t0, feedback_count], body) = fci.split_first_chunk::<8>()?;
        let status_count = u16::from_be_bytes([c0, c1]);
        let mut chunks_len = 0;
        let mut deltas_len = 0;
        let mut left = usize::from(status_count);
        while left > 0 {
            let chunk = Chunk::read(body.get(chunks_len..)?)?;
            chunks_len += 2;
            let n = chunk.len.min(left);
            left -= n;
            deltas_len += chunk.deltas_len(n)?;
        }
        let (chunks, rest) = body.split_at_checked(chunks_len)?;
        Some(Self {
            sender,
            media,
            base_seq: u16::from_be_bytes([q0, q1]),
            status_count,
            reference_time: u32::from_be_bytes([0, t2, t1, t0]),
            feedback_count,
            chunks,
            deltas: rest.get(..deltas_len)?,
        })
    }

    /// The packets reported on, in order: number, and if it arrived its delta in 250 µs.
    pub fn statuses(&self) -> TwccStatuses<'a> {
        TwccStatuses {
            seq: self.base_seq,
            left: self.status_count,
            chunks: self.chunks,
            chunk: Chunk { kind: Kind::Run(NOT_RECEIVED), len: 0 },
            at: 0,
            deltas: self.deltas,
        }
    }
}

impl<'a> IntoIterator for &TwccFeedback<'a> {
    type Item = (u16, Option<i16>);
    type IntoIter = TwccStatuses<'a>;

    fn into_iter(self) -> TwccStatuses<'a> {
        self.statuses()
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Run(u8),
    OneBit(u16),
    TwoBit(u16),
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    kind: Kind,
    len: usize,
}

impl Chunk {
    fn read(bytes: &[u8]) -> Option<Chunk> {
        let word = u16::from_be_bytes(*bytes.first_chunk()?);
        Some(match word >> 14 {
            0 | 1 => Chunk { kind: Kind::Run((word >> 13) as u8), len: usize::from(word & 0x1fff) },
            2 => Chunk { kind: Kind::OneBit(word), len: 14 },
            _ => Chunk { kind: Kind::TwoBit(word), len: 7 },
        })
    }

    /// Symbol number `at`, below `len`.
    fn symbol(self, at: usize) -> u8 {
        match self.kind {
            Kind::Run(symbol) => symbol,
            Kind::OneBit(word) => (word >> (13 - at) & 1) as u8,
            Kind::TwoBit(word) => (word >> (12 - 2 * at) & 3) as u8,
        }
    }

    /// Bytes of the deltas of the first `n` symbols; `None` with the reserved symbol or a run of nothing, which would
    /// let a packet hold any number of chunks that say nothing.
    fn deltas_len(self, n: usize) -> Option<usize> {
        if n == 0 {
            return None;
        }
        if let Kind::Run(symbol) = self.kind {
            return Some(delta_len(symbol)? * n);
        }
        (0..n).map(|at| delta_len(self.symbol(at))).sum()
    }
}

fn delta_len(symbol: u8) -> Option<usize> {
    match symbol {
        NOT_RECEIVED => Some(0),
        SMALL => Some(1),
        LARGE => Some(2),
        _ => None,
    }
}

/// See [`TwccFeedback::statuses`].
#[derive(Debug, Clone)]
pub struct TwccStatuses<'a> {
    seq: u16,
    left: u16,
    chunks: &'a [u8],
    chunk: Chunk,
    /// Symbols of `chunk` given.
    at: usize,
    deltas: &'a [u8],
}

impl Iterator for TwccStatuses<'_> {
    type Item = (u16, Option<i16>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if self.at == self.chunk.len {
            self.chunk = Chunk::read(self.chunks)?;
            self.chunks = self.chunks.get(2..)?;
            self.at = 0;
        }
        let symbol = self.chunk.symbol(self.at);
        self.at += 1;
        let delta = match symbol {
            SMALL => {
                let (&delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                Some(i16::from(delta))
            }
            LARGE => {
                let (&delta, rest) = self.deltas.split_first_chunk::<2>()?;
                self.deltas = rest;
                Some(i16::from_be_bytes(delta))
            }
            _ => None,
        };
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        Some((seq, delta))
    }
}

/// A packet that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwccArrival {
    /// Its transport-wide number.
    pub seq: u16,
    /// When, in 250 µs since any fixed time.
    pub ticks: u64,
}

/// Appends one feedback packet about the packets from `base_seq` on and returns how many of `arrivals` it covers: at
/// least one, unless there are none, in which case nothing is written. The rest belongs in further packets, whose base
/// is the number after the last one covered.
///
/// `arrivals` are in the order of their numbers, without repetition, at or after `base_seq`; numbers between them are
/// reported as lost. A packet ends early before an arrival that is more than 8.19 s from the one before, or less than
/// in order, or when it would grow beyond what fits a datagram. An arrival so far behind `base_seq` that the packet could
/// not reach it moves the base up to itself.
pub fn write_twcc(
    out: &mut Vec<u8>,
    sender: Ssrc,
    media: Ssrc,
    base_seq: u16,
    feedback_count: u8,
    arrivals: &[TwccArrival],
) -> usize {
    let Some(first) = arrivals.first() else { return 0 };
    // A gap of half the number space is a number before the base.
    let base_seq = if first.seq.wrapping_sub(base_seq) < 0x8000 { base_seq } else { first.seq };
    let reference = first.ticks / TICKS_PER_REFERENCE;
    let mut covered = 0;
    write::feedback(out, fmt::TWCC, pt::RTPFB, sender, media, |out| {
        let head = out.len();
        out.extend(base_seq.to_be_bytes());
        out.extend([0, 0]);
        let [.., t2, t1, t0] = reference.to_be_bytes();
        out.extend([t2, t1, t0, feedback_count]);

        let mut chunks = ChunkWriter::default();
        let mut deltas_len = 0;
        let mut status_count = 0u16;
        let mut last = reference * TICKS_PER_REFERENCE;
        let body = out.len();
        for arrival in arrivals {
            let at = arrival.seq.wrapping_sub(base_seq);
            let delta = arrival.ticks.wrapping_sub(last) as i64;
            let Ok(delta) = i16::try_from(delta) else { break };
            // A chunk still open takes up to two words: 14 one-bit symbols may turn into two two-bit vectors.
            let full = out.len() - body + 3 * 2 + deltas_len + 2 > MAX_FCI;
            if at < status_count || at == u16::MAX || (covered > 0 && full) {
                break;
            }
            let symbol = if (0..=255).contains(&delta) { SMALL } else { LARGE };
            chunks.run(NOT_RECEIVED, at - status_count, out);
            chunks.run(symbol, 1, out);
            deltas_len += usize::from(symbol);
            status_count = at + 1;
            last = arrival.ticks;
            covered += 1;
        }
        chunks.finish(out);
        let mut last = reference * TICKS_PER_REFERENCE;
        for arrival in arrivals.iter().take(covered) {
            let delta = arrival.ticks.wrapping_sub(last) as i64;
            last = arrival.ticks;
            match u8::try_from(delta) {
                Ok(small) => out.push(small),
                Err(_) => out.extend((delta as i16).to_be_bytes()),
            }
        }
        out[head + 2..head + 4].copy_from_slice(&status_count.to_be_bytes());
        out.resize(head + (out.len() - head).next_multiple_of(4), 0);
    });
    covered
}

/// Packs symbols into chunks: equal ones into runs, others into vectors.
#[derive(Default)]
struct ChunkWriter {
    /// Symbols not written yet. Either all are equal, or there are at most 14 of them.
    pending: [u8; 14],
    len: u16,
    mixed: bool,
    large: bool,
}

impl ChunkWriter {
    const MAX_RUN: u16 = 0x1fff;

    fn run(&mut self, symbol: u8, mut n: u16, out: &mut Vec<u8>) {
        while n > 0 {
            if !self.mixed && (self.len == 0 || self.pending[0] == symbol) {
                // A run grows; the array keeps its first symbols in case it stays short and others follow.
                let taken = n.min(Self::MAX_RUN - self.len);
                let start = usize::from(self.len).min(14);
                let end = usize::from(self.len + taken).min(14);
                self.pending[start..end].fill(symbol);
                self.len += taken;
                self.large |= symbol == LARGE;
                n -= taken;
                if self.len == Self::MAX_RUN {
                    self.emit(out, false);
                }
                continue;
            }
            let capacity = if self.large || symbol == LARGE { 7 } else { 14 };
            if self.len >= capacity {
                self.emit(out, false);
                continue;
            }
            self.pending[usize::from(self.len)] = symbol;
            self.len += 1;
            self.mixed = true;
            self.large |= symbol == LARGE;
            n -= 1;
            if self.len == if self.large { 7 } else { 14 } {
                self.emit(out, false);
            }
        }
    }

    /// Writes one chunk: a whole run, a vector of 14 one-bit symbols, or one of the first seven as two-bit symbols. What
    /// the very last vector lacks, the packet's status count cuts off.
    fn emit(&mut self, out: &mut Vec<u8>, last: bool) {
        let len = usize::from(self.len);
        let (word, written) = if !self.mixed {
            (u16::from(self.pending[0]) << 13 | self.len, len)
        } else if !self.large && (len == 14 || last) {
            let bits = self.pending[..len].iter().enumerate();
            (bits.fold(0x8000, |word, (at, symbol)| word | u16::from(*symbol) << (13 - at)), len)
        } else {
            let n = len.min(7);
            let pairs = self.pending[..n].iter().enumerate();
            (pairs.fold(0xc000, |word, (at, symbol)| word | u16::from(*symbol) << (12 - 2 * at)), n)
        };
        out.extend(word.to_be_bytes());
        let old = self.pending;
        let rest = if written >= 14 { &[][..] } else { &old[written..len.min(14)] };
        *self = Self::default();
        for symbol in rest {
            self.run(*symbol, 1, out);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        while self.len > 0 {
            self.emit(out, true);
        }
    }
}
