//! The Dependency Descriptor header extension
//! ([AV1 RTP appendix A](https://aomediacodec.github.io/av1-rtp-spec/#a8-syntax)).
//!
//! Three bytes stand in every packet. Which layers a frame belongs to and which frames it refers to is said by a
//! template number, and the templates by a structure that only the first packet of a key frame carries: a reader keeps
//! it per stream.
//!
//! ```text
//! |S|E| template  |          frame number         |   S, E: start and end of the frame
//! |structure|active targets|custom dtis|custom fdiffs|custom chains|  one flag each, then the parts
//! ```

mod rewrite;
mod structure;
#[cfg(test)]
pub(crate) mod test_writer;

use arrayvec::ArrayVec;

use super::bits::Bits;
use crate::ids::ExtSeq;
use rewrite::EXTENDED;
use structure::{Structure, Template};

pub use rewrite::rewrite_dd;
pub use structure::{DecodeTarget, Indication, Indications, MAX_CHAINS, MAX_REFERENCES, MAX_TARGETS};

/// Most bytes of a descriptor that [`rewrite_dd`] writes: what is kept of one at most, with a mask of 32 targets put in.
pub const MAX_REWRITTEN: usize = 168;
/// First frame numbers are counted from here, so that one late packet does not fall below zero.
const FIRST_EPOCH: u64 = 1 << 16;

/// What a Dependency Descriptor says of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DdInfo {
    /// First packet of the frame (of one layer's frame).
    pub start_of_frame: bool,
    /// Last packet of the frame (of one layer's frame).
    pub end_of_frame: bool,
    /// Number of the frame, extended: sixteen bits of it are on the wire. Every layer's frame has its own.
    pub frame_number: u64,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// A template structure is attached: the first packet of a key frame.
    pub key_frame: bool,
    /// Which structure of the stream this was read by; another number, other decode targets.
    pub generation: u32,
    /// Decode targets of that structure, 1 to 32.
    pub targets: u8,
    /// What the frame is to each of them.
    pub indications: Indications,
    /// Decode targets that the sender still produces, one bit each, when this packet says so.
    pub active_decode_targets: Option<u32>,
    references: [u16; MAX_REFERENCES],
    chains: [u8; MAX_CHAINS],
    layout: Layout,
}

impl DdInfo {
    /// Numbers of the frames that this one refers to.
    pub fn references(&self) -> impl Iterator<Item = u64> + '_ {
        let used = self.references.iter().take_while(|diff| **diff > 0);
        used.map(|diff| self.frame_number.saturating_sub(u64::from(*diff)))
    }

    /// Number of the last frame of a chain before this one; `None` where the chain begins.
    pub fn previous_in_chain(&self, chain: u8) -> Option<u64> {
        let diff = self.chains.get(usize::from(chain)).copied().filter(|diff| *diff > 0)?;
        Some(self.frame_number.saturating_sub(u64::from(diff)))
    }
}

/// Where the parts of a descriptor are, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Behind the structure, where the active decode targets are or would be.
    mask: u16,
    /// Behind those.
    definition: u16,
    /// Behind everything but padding.
    end: u16,
}

/// Why a Dependency Descriptor could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DdError {
    /// Cut short, against the syntax, or with more references or chains than any encoder has.
    #[error("malformed dependency descriptor")]
    Malformed,
    /// It names a template of a structure that was not seen: a key frame is needed.
    #[error("dependency descriptor without its structure")]
    NoStructure,
}

/// Reads the Dependency Descriptors of one RTP stream, and keeps the stream's last two template structures: packets of
/// before a key frame come late.
#[derive(Debug, Clone, Default)]
pub struct DdReader {
    current: Option<Kept>,
    before: Option<Kept>,
    generations: u32,
    /// The highest frame number seen.
    highest: Option<u64>,
}

/// A structure and the packet that it came with first.
#[derive(Debug, Clone)]
struct Kept {
    structure: Structure,
    generation: u32,
    since: ExtSeq,
}

impl DdReader {
    /// A reader that has seen no structure.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the extension of one authenticated packet, which has this sequence number. A structure in it replaces the
    /// one kept, but only if the whole descriptor is well formed and the packet is younger than that one.
    ///
    /// # Errors
    /// See [`DdError`].
    pub fn read(&mut self, extension: &[u8], index: ExtSeq) -> Result<DdInfo, DdError> {
        let bits = &mut Bits::new(extension);
        let head = Head::read(bits).ok_or(DdError::Malformed)?;
        let mut flags = Flags::default();
        let mut attached = None;
        if extension.len() > 3 {
            flags = Flags::read(bits).ok_or(DdError::Malformed)?;
            if flags.structure {
                // Only a frame's first packet may have it (section A.8.2).
                if !head.start {
                    return Err(DdError::Malformed);
                }
                attached = Some(Structure::read(bits).ok_or(DdError::Malformed)?);
            }
        }
        let key_frame = attached.is_some();
        let late = self.current.as_ref().is_some_and(|kept| index < kept.since);
        let kept = if late { self.before.as_ref() } else { self.current.as_ref() };
        // The same structure again is no new one.
        let fresh = attached.as_ref().is_some_and(|new| kept.is_none_or(|kept| kept.structure != *new));
        let (structure, generation) = match (&attached, kept) {
            (Some(new), _) if fresh => (new, self.generations + 1),
            (_, Some(kept)) => (&kept.structure, kept.generation),
            _ => return Err(DdError::NoStructure),
        };
        // Without extended fields there is nothing between the mandatory ones and the end.
        let mask = if extension.len() > 3 { bits.at() } else { EXTENDED };
        let mut active_decode_targets = None;
        if flags.active_targets {
            let targets = u32::from(structure.targets);
            active_decode_targets = Some(bits.read(targets).ok_or(DdError::Malformed)?);
        }
        let definition = if extension.len() > 3 { bits.at() } else { EXTENDED };
        let Some(template) = structure.template(head.template) else {
            // With its structure attached that is a fault; else the structure may have been one that was lost.
            return Err(if key_frame { DdError::Malformed } else { DdError::NoStructure });
        };
        let frame = define(bits, flags, structure, *template).ok_or(DdError::Malformed)?;
        let end = if extension.len() > 3 { bits.at() } else { EXTENDED };
        let targets = structure.targets;
        let restart = key_frame && !late;
        let frame_number = self.extend(head.frame_number, restart);
        if fresh {
            self.generations += 1;
            let structure = attached.filter(|_| !late);
            if let Some(structure) = structure {
                let kept = Kept { structure, generation, since: index };
                self.before = self.current.replace(kept);
            }
        }
        Ok(DdInfo {
            start_of_frame: head.start,
            end_of_frame: head.end,
            frame_number,
            spatial: frame.spatial,
            temporal: frame.temporal,
            key_frame,
            generation,
            targets,
            indications: frame.dtis,
            active_decode_targets,
            references: frame.references,
            chains: frame.chains,
            layout: Layout { mask, definition, end },
        })
    }

    /// Whether a structure was seen.
    pub fn has_structure(&self) -> bool {
        self.current.is_some()
    }

    /// The extended frame number nearest to the highest one. An encoder that was restarted may begin at any number, with
    /// a key frame: that is ahead, however it looks.
    fn extend(&mut self, number: u16, restart: bool) -> u64 {
        let Some(highest) = self.highest else {
            let number = FIRST_EPOCH + u64::from(number);
            self.highest = Some(number);
            return number;
        };
        let ahead = number.wrapping_sub(highest as u16);
        // Layers' key frames may come in any order, within one picture or a few.
        let back = ahead.wrapping_neg();
        let number = if ahead < 0x8000 || (restart && back > MAX_DISORDER) {
            highest + u64::from(ahead)
        } else {
            highest.saturating_sub(u64::from(back))
        };
        self.highest = Some(highest.max(number));
        number
    }
}

/// Frames that a key frame may be behind others that were sent after it.
const MAX_DISORDER: u16 = 256;

/// The decode targets of the structure in a descriptor, if it carries one that [`DdReader`] reads.
pub fn attached_targets(extension: &[u8]) -> Option<ArrayVec<DecodeTarget, MAX_TARGETS>> {
    let bits = &mut Bits::new(extension);
    Head::read(bits)?;
    if !Flags::read(bits)?.structure {
        return None;
    }
    Some(Structure::read(bits)?.decode_targets())
}

struct Head {
    start: bool,
    end: bool,
    template: u8,
    frame_number: u16,
}

impl Head {
    fn read(bits: &mut Bits<'_>) -> Option<Head> {
        Some(Head {
            start: bits.flag()?,
            end: bits.flag()?,
            template: bits.read(6)? as u8,
            frame_number: bits.read(16)? as u16,
        })
    }
}

#[derive(Clone, Copy, Default)]
struct Flags {
    structure: bool,
    active_targets: bool,
    custom_dtis: bool,
    custom_fdiffs: bool,
    custom_chains: bool,
}

impl Flags {
    fn read(bits: &mut Bits<'_>) -> Option<Flags> {
        Some(Flags {
            structure: bits.flag()?,
            active_targets: bits.flag()?,
            custom_dtis: bits.flag()?,
            custom_fdiffs: bits.flag()?,
            custom_chains: bits.flag()?,
        })
    }
}

/// `frame_dependency_definition()`, section A.8.2: the template, with what the frame says in its stead.
fn define(bits: &mut Bits<'_>, flags: Flags, structure: &Structure, template: Template) -> Option<Template> {
    let mut frame = template;
    if flags.custom_dtis {
        frame.dtis = Indications::read(bits, structure.targets)?;
    }
    if flags.custom_fdiffs {
        frame.references = [0; MAX_REFERENCES];
        let mut places = frame.references.iter_mut();
        loop {
            match bits.read(2)? {
                0 => break,
                size => *places.next()? = bits.read(size * 4)? as u16 + 1,
            }
        }
    }
    if flags.custom_chains {
        for diff in frame.chains.iter_mut().take(usize::from(structure.chains)) {
            *diff = bits.read(8)? as u8;
        }
    }
    Some(frame)
}

#[cfg(test)]
mod tests;
