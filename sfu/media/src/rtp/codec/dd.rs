//! The Dependency Descriptor header extension
//! ([AV1 RTP appendix A](https://aomediacodec.github.io/av1-rtp-spec/#a8-syntax)).
//!
//! Three bytes stand in every packet. Which layers a frame belongs to is said by a template number, and the templates by
//! a structure that only the first packet of a key frame carries: a reader keeps it per stream.
//!
//! ```text
//! |S|E| template  |          frame number         |   S, E: start and end of the frame
//! |structure|active targets|custom dtis|custom fdiffs|custom chains|  one flag each, then the parts
//! ```

use arrayvec::ArrayVec;

use super::bits::Bits;

/// Templates are numbered in six bits.
const MAX_TEMPLATES: usize = 64;
/// Layers above these do not exist (section A.8.3, `MaxTemporalId`, `MaxSpatialId`).
const MAX_TEMPORAL: u8 = 7;
const MAX_SPATIAL: u8 = 3;

/// What a Dependency Descriptor says of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DdInfo {
    /// First packet of the frame (of one layer's frame).
    pub start_of_frame: bool,
    /// Last packet of the frame (of one layer's frame).
    pub end_of_frame: bool,
    /// Number of the frame; wraps.
    pub frame_number: u16,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// A template structure is attached: the first packet of a key frame.
    pub key_frame: bool,
    /// Decode targets that the sender still produces, one bit each, when this packet says so.
    pub active_decode_targets: Option<u32>,
}

/// Why a Dependency Descriptor could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DdError {
    /// Cut short or against the syntax.
    #[error("malformed dependency descriptor")]
    Malformed,
    /// It names a template of a structure that was not seen: a key frame is needed.
    #[error("dependency descriptor without its structure")]
    NoStructure,
}

/// Reads the Dependency Descriptors of one RTP stream, and keeps the stream's latest template structure.
#[derive(Debug, Clone, Default)]
pub struct DdReader {
    structure: Option<Structure>,
}

impl DdReader {
    /// A reader that has seen no structure.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the extension of one authenticated packet. A structure in it replaces the one kept, but only if the whole
    /// descriptor is well formed.
    ///
    /// # Errors
    /// See [`DdError`].
    pub fn read(&mut self, extension: &[u8]) -> Result<DdInfo, DdError> {
        let bits = &mut Bits::new(extension);
        let head = Head::read(bits).ok_or(DdError::Malformed)?;
        let mut flags = Flags::default();
        let mut attached = None;
        if extension.len() > 3 {
            flags = Flags::read(bits).ok_or(DdError::Malformed)?;
            if flags.structure {
                attached = Some(Structure::read(bits).ok_or(DdError::Malformed)?);
            }
        }
        let structure = attached.as_ref().or(self.structure.as_ref()).ok_or(DdError::NoStructure)?;
        let mut active_decode_targets = None;
        if flags.active_targets {
            active_decode_targets = Some(bits.read(structure.targets).ok_or(DdError::Malformed)?);
        }
        let Some(&(spatial, temporal)) = structure.template(head.template) else {
            // With its structure attached that is a fault; else the structure may have been one that was lost.
            return Err(if attached.is_some() { DdError::Malformed } else { DdError::NoStructure });
        };
        skip_definition(bits, flags, structure).ok_or(DdError::Malformed)?;
        let info = DdInfo {
            start_of_frame: head.start,
            end_of_frame: head.end,
            frame_number: head.frame_number,
            spatial,
            temporal,
            key_frame: attached.is_some(),
            active_decode_targets,
        };
        if attached.is_some() {
            self.structure = attached;
        }
        Ok(info)
    }

    /// Whether a structure was seen.
    pub fn has_structure(&self) -> bool {
        self.structure.is_some()
    }
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

#[derive(Debug, Clone)]
struct Structure {
    id_offset: u8,
    /// Decode targets, 1 to 32.
    targets: u32,
    chains: u32,
    /// Spatial and temporal layer of each template.
    templates: ArrayVec<(u8, u8), MAX_TEMPLATES>,
}

impl Structure {
    /// `template_dependency_structure()`, section A.8.3. Only the layers are kept; the rest is walked to find its end.
    fn read(bits: &mut Bits<'_>) -> Option<Structure> {
        let id_offset = bits.read(6)? as u8;
        let targets = bits.read(5)? + 1;
        let mut templates = ArrayVec::new();
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            templates.try_push((spatial, temporal)).ok()?;
            match bits.read(2)? {
                0 => {}
                1 if temporal < MAX_TEMPORAL => temporal += 1,
                2 if spatial < MAX_SPATIAL => (spatial, temporal) = (spatial + 1, 0),
                3 => break,
                _ => return None,
            }
        }
        // template_dtis()
        bits.skip(templates.len() * targets as usize * 2)?;
        // template_fdiffs()
        for _ in 0..templates.len() {
            while bits.flag()? {
                bits.skip(4)?;
            }
        }
        // template_chains()
        let chains = bits.non_symmetric(targets + 1)?;
        if chains > 0 {
            for _ in 0..targets {
                bits.non_symmetric(chains)?;
            }
            bits.skip(templates.len() * chains as usize * 4)?;
        }
        // render_resolutions()
        if bits.flag()? {
            bits.skip((usize::from(spatial) + 1) * 32)?;
        }
        Some(Structure { id_offset, targets, chains, templates })
    }

    fn template(&self, id: u8) -> Option<&(u8, u8)> {
        let index = (usize::from(id) + MAX_TEMPLATES - usize::from(self.id_offset)) % MAX_TEMPLATES;
        self.templates.get(index)
    }
}

/// `frame_dependency_definition()`, section A.8.2: walked only to see that it is whole.
fn skip_definition(bits: &mut Bits<'_>, flags: Flags, structure: &Structure) -> Option<()> {
    if flags.custom_dtis {
        bits.skip(structure.targets as usize * 2)?;
    }
    if flags.custom_fdiffs {
        loop {
            match bits.read(2)? {
                0 => break,
                size => bits.skip(size as usize * 4)?,
            }
        }
    }
    if flags.custom_chains {
        bits.skip(structure.chains as usize * 8)?;
    }
    Some(())
}
