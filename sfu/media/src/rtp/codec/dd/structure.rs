//! `template_dependency_structure()`
//! ([AV1 RTP section A.8.3](https://aomediacodec.github.io/av1-rtp-spec/#a83-syntax)): what a key frame says of all
//! frames up to the next one.

use arrayvec::ArrayVec;

use super::super::bits::Bits;

/// Templates are numbered in six bits.
const MAX_TEMPLATES: usize = 64;
/// Decode targets are numbered in five bits.
pub const MAX_TARGETS: usize = 32;
/// References of one frame at most: AV1 has seven, other codecs fewer.
pub const MAX_REFERENCES: usize = 8;
/// Chains at most. Encoders have one for each spatial layer; the syntax allows 32.
pub const MAX_CHAINS: usize = 8;
/// Layers above these do not exist (section A.8.3, `MaxTemporalId`, `MaxSpatialId`).
const MAX_TEMPORAL: u8 = 7;
const MAX_SPATIAL: u8 = 3;

/// What a frame is to a decode target ([AV1 RTP section
/// A.4](https://aomediacodec.github.io/av1-rtp-spec/#a4-dependency-descriptor-format), DTI).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indication {
    /// The target does without it.
    NotPresent,
    /// Of the target, and no other frame of the target refers to it.
    Discardable,
    /// Of the target; once it is decoded, all later frames of the target are decodable.
    Switch,
    /// Of the target.
    Required,
}

impl Indication {
    fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }
}

/// Indications of all decode targets, two bits each, the first target lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Indications(u64);

impl Indications {
    /// What the frame is to a decode target.
    pub fn get(self, target: u8) -> Indication {
        Indication::from_bits(self.0.checked_shr(u32::from(target) * 2).unwrap_or(0))
    }

    pub(super) fn read(bits: &mut Bits<'_>, targets: u8) -> Option<Self> {
        let mut all = 0;
        for target in 0..targets {
            all |= u64::from(bits.read(2)?) << (target * 2);
        }
        Some(Self(all))
    }
}

/// How a frame depends on others: what a template says, or the frame itself in the template's stead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Template {
    pub(super) spatial: u8,
    pub(super) temporal: u8,
    pub(super) dtis: Indications,
    /// Distances in frame numbers to the frames referred to; unused places are 0.
    pub(super) references: [u16; MAX_REFERENCES],
    /// Distance to the previous frame of each chain; 0 where the chain begins.
    pub(super) chains: [u8; MAX_CHAINS],
}

/// The highest layers of a decode target, and the templates that it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeTarget {
    /// Its spatial layer.
    pub spatial: u8,
    /// Its temporal layer.
    pub temporal: u8,
    /// The chain whose frames it must have, if there are chains.
    pub chain: Option<u8>,
    /// The templates whose frames belong to it, one bit each.
    templates: u64,
}

impl DecodeTarget {
    /// Whether who gets all frames of `other` gets all of this target.
    pub fn is_within(&self, other: &DecodeTarget) -> bool {
        self.templates & !other.templates == 0
    }
}

/// A template structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Structure {
    id_offset: u8,
    /// Decode targets, 1 to 32.
    pub(super) targets: u8,
    pub(super) chains: u8,
    templates: ArrayVec<Template, MAX_TEMPLATES>,
    protected_by: [u8; MAX_TARGETS],
}

impl Structure {
    pub(super) fn read(bits: &mut Bits<'_>) -> Option<Structure> {
        let id_offset = bits.read(6)? as u8;
        let targets = bits.read(5)? as u8 + 1;
        let mut templates = ArrayVec::<Template, MAX_TEMPLATES>::new();
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            templates.try_push(Template { spatial, temporal, ..Template::default() }).ok()?;
            match bits.read(2)? {
                0 => {}
                1 if temporal < MAX_TEMPORAL => temporal += 1,
                2 if spatial < MAX_SPATIAL => (spatial, temporal) = (spatial + 1, 0),
                3 => break,
                _ => return None,
            }
        }
        // template_dtis()
        for template in &mut templates {
            template.dtis = Indications::read(bits, targets)?;
        }
        // template_fdiffs()
        for template in &mut templates {
            let mut places = template.references.iter_mut();
            while bits.flag()? {
                *places.next()? = bits.read(4)? as u16 + 1;
            }
        }
        // template_chains()
        let chains = bits.non_symmetric(u32::from(targets) + 1)? as u8;
        let mut protected_by = [0; MAX_TARGETS];
        if chains > 0 {
            if usize::from(chains) > MAX_CHAINS {
                return None;
            }
            for chain in protected_by.iter_mut().take(usize::from(targets)) {
                *chain = bits.non_symmetric(u32::from(chains))? as u8;
            }
            for template in &mut templates {
                for diff in template.chains.iter_mut().take(usize::from(chains)) {
                    *diff = bits.read(4)? as u8;
                }
            }
        }
        // render_resolutions(): for whoever shows the pictures.
        if bits.flag()? {
            bits.skip((usize::from(spatial) + 1) * 32)?;
        }
        Some(Structure { id_offset, targets, chains, templates, protected_by })
    }

    pub(super) fn template(&self, id: u8) -> Option<&Template> {
        let index = (usize::from(id) + MAX_TEMPLATES - usize::from(self.id_offset)) % MAX_TEMPLATES;
        self.templates.get(index)
    }

    /// The decode targets, in their order.
    pub(super) fn decode_targets(&self) -> ArrayVec<DecodeTarget, MAX_TARGETS> {
        (0..self.targets)
            .zip(&self.protected_by)
            .map(|(target, chain)| self.decode_target(target, *chain))
            .collect()
    }

    fn decode_target(&self, number: u8, chain: u8) -> DecodeTarget {
        let chain = (self.chains > 0).then_some(chain);
        let mut target = DecodeTarget { spatial: 0, temporal: 0, chain, templates: 0 };
        for (i, template) in self.templates.iter().enumerate() {
            if template.dtis.get(number) != Indication::NotPresent {
                target.templates |= 1 << i;
                target.spatial = target.spatial.max(template.spatial);
                target.temporal = target.temporal.max(template.temporal);
            }
        }
        target
    }
}
