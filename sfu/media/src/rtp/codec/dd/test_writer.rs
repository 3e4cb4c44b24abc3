//! Dependency Descriptors of generated streams, written from the specification and not from the reader.
//!
//! A [`Mode`] names the layers as [scalability mode identifiers](https://www.w3.org/TR/webrtc-svc/#scalabilitymodes*) do;
//! [`Encoder`] gives its frames, with the references that an encoder of that mode makes.

use std::collections::BTreeMap;

/// How layers of one picture depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coupling {
    /// `LxTy`: in every picture.
    Full,
    /// `LxTy_KEY`: in key pictures only.
    Key,
    /// `LxTy_KEY_SHIFT`: the same, and the second layer's temporal pattern begins one picture earlier.
    KeyShift,
    /// `SxTy`: never.
    Simulcast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    pub(crate) coupling: Coupling,
}

pub(crate) const L1T3: Mode = Mode { spatial: 1, temporal: 3, coupling: Coupling::Full };
pub(crate) const L3T3: Mode = Mode { spatial: 3, temporal: 3, coupling: Coupling::Full };
pub(crate) const L3T3_KEY: Mode = Mode { spatial: 3, temporal: 3, coupling: Coupling::Key };
pub(crate) const L2T2_KEY_SHIFT: Mode = Mode { spatial: 2, temporal: 2, coupling: Coupling::KeyShift };
pub(crate) const S3T3: Mode = Mode { spatial: 3, temporal: 3, coupling: Coupling::Simulcast };
pub(crate) const ALL: [Mode; 5] = [L1T3, L3T3, L3T3_KEY, L2T2_KEY_SHIFT, S3T3];

/// One layer's frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    pub(crate) picture: u64,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    pub(crate) key: bool,
    /// `-`, `D`, `S` or `R` for each decode target: `spatial * T + temporal`.
    pub(crate) dtis: String,
    /// Frame numbers.
    pub(crate) references: Vec<u64>,
    /// Distances, one for each chain.
    pub(crate) chains: Vec<u64>,
    /// Last frame of its picture.
    pub(crate) last: bool,
}

impl Frame {
    fn diffs(&self) -> Vec<u64> {
        self.references.iter().map(|r| self.number - r).collect()
    }

    fn shape(&self) -> Shape {
        (self.spatial, self.temporal, self.dtis.clone(), self.diffs(), self.chains.clone())
    }
}

type Shape = (u8, u8, String, Vec<u64>, Vec<u64>);

/// Makes the pictures of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    pub(crate) mode: Mode,
    number: u64,
    picture: u64,
    /// Pictures since the key picture.
    age: u64,
    /// Frames since the key picture by layer: number and temporal layer, newest last.
    sent: BTreeMap<u8, Vec<(u64, u8)>>,
    /// Last frame of each chain.
    chains: Vec<Option<u64>>,
}

impl Encoder {
    pub(crate) fn new(mode: Mode, first: u64) -> Self {
        let chains = vec![None; usize::from(mode.spatial)];
        Self { mode, number: first, picture: 0, age: 0, sent: BTreeMap::new(), chains }
    }

    fn temporal(&self, spatial: u8, key: bool) -> u8 {
        let shift = u64::from(self.mode.coupling == Coupling::KeyShift && spatial == 1 && !key);
        let age = (self.age + shift) as usize;
        match self.mode.temporal {
            1 => 0,
            2 => [0, 1][age % 2],
            _ => [0, 2, 1, 2][age % 4],
        }
    }

    /// The frames of the next picture, lowest layer first.
    pub(crate) fn picture(&mut self, key: bool) -> Vec<Frame> {
        let key = key || self.sent.is_empty();
        if key {
            self.age = 0;
            self.sent.clear();
            self.chains.fill(None);
        }
        let mut frames: Vec<Frame> = vec![];
        for spatial in 0..self.mode.spatial {
            let temporal = self.temporal(spatial, key);
            let number = self.number;
            let mut references = vec![];
            if !key {
                let before = self.sent[&spatial].iter().rev();
                let refers = |(_, t): &&(u64, u8)| *t < temporal || temporal == 0 && *t == 0;
                references.extend(before.copied().collect::<Vec<_>>().iter().find(refers).map(|(n, _)| *n));
            }
            let coupled = match self.mode.coupling {
                Coupling::Full => true,
                Coupling::Key | Coupling::KeyShift => key,
                Coupling::Simulcast => false,
            };
            if spatial > 0 && coupled {
                references.push(number - 1);
            }
            let chains = self.chains.iter().map(|last| last.map_or(0, |last| number - last)).collect();
            frames.push(Frame {
                number,
                picture: self.picture,
                spatial,
                temporal,
                key,
                dtis: self.dtis(spatial, temporal, key, coupled),
                references,
                chains,
                last: spatial + 1 == self.mode.spatial,
            });
            if temporal == 0 {
                for chain in 0..self.mode.spatial {
                    if chain == spatial || chain > spatial && coupled {
                        self.chains[usize::from(chain)] = Some(number);
                    }
                }
            }
            self.sent.entry(spatial).or_default().push((number, temporal));
            self.number += 1;
        }
        self.picture += 1;
        self.age += 1;
        frames
    }

    fn dtis(&self, spatial: u8, temporal: u8, key: bool, coupled: bool) -> String {
        let mut dtis = String::new();
        for target_spatial in 0..self.mode.spatial {
            for target_temporal in 0..self.mode.temporal {
                let below = spatial < target_spatial && coupled;
                dtis.push(match (spatial == target_spatial, below) {
                    _ if temporal > target_temporal => '-',
                    (true, _) if temporal > 0 && temporal == target_temporal => 'D',
                    (true, _) => 'S',
                    (_, true) if key => 'S',
                    (_, true) => 'R',
                    _ => '-',
                });
            }
        }
        dtis
    }
}

/// The templates of a mode, numbered from an offset, and the descriptors made with them.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    mode: Mode,
    offset: u32,
    templates: Vec<Shape>,
}

impl Writer {
    /// Templates for a key picture and what goes on in the long run, as browsers make them. The pictures between need
    /// custom fields.
    pub(crate) fn new(mode: Mode, offset: u32) -> Self {
        Self::of_pictures(mode, offset, &[0, 4, 5, 6, 7])
    }

    /// Templates for the frames of these pictures only.
    pub(crate) fn of_pictures(mode: Mode, offset: u32, pictures: &[u64]) -> Self {
        let mut encoder = Encoder::new(mode, 1000);
        let mut templates: Vec<Shape> = vec![];
        for picture in 0..12 {
            let frames = encoder.picture(false);
            for frame in frames.into_iter().filter(|_| pictures.contains(&picture)) {
                let fits = frame.diffs().iter().all(|d| *d <= 16) && frame.chains.iter().all(|d| *d <= 15);
                if fits && !templates.contains(&frame.shape()) {
                    templates.push(frame.shape());
                }
            }
        }
        templates.sort_by_key(|t| (t.0, t.1));
        assert!(templates.len() <= 64);
        Self { mode, offset, templates }
    }

    /// The descriptor of one packet of a frame.
    pub(crate) fn write(&self, frame: &Frame, first: bool, last: bool, active: Option<u32>) -> Vec<u8> {
        let same = self.templates.iter().position(|t| *t == frame.shape());
        let layer = || self.templates.iter().position(|t| (t.0, t.1) == (frame.spatial, frame.temporal));
        let at = same.or_else(layer).expect("a template of each layer");
        let template = &self.templates[at];
        let mut bits = BitWriter::default();
        bits.put(u32::from(first), 1).put(u32::from(last), 1);
        bits.put((at as u32 + self.offset) % 64, 6).put(frame.number as u32 & 0xffff, 16);
        // Layers that refer to no other carry the structure each, as key frames of their own.
        let attached = first && frame.key && frame.references.is_empty();
        let custom = [template.2 != frame.dtis, template.3 != frame.diffs(), template.4 != frame.chains];
        if !attached && active.is_none() && !custom.contains(&true) {
            return bits.bytes;
        }
        bits.put(u32::from(attached), 1).put(u32::from(active.is_some()), 1);
        for flag in custom {
            bits.put(u32::from(flag), 1);
        }
        if attached {
            self.structure(&mut bits);
        }
        if let Some(active) = active {
            bits.put(active, u32::from(self.mode.spatial * self.mode.temporal));
        }
        if custom[0] {
            put_dtis(&mut bits, &frame.dtis);
        }
        if custom[1] {
            for diff in frame.diffs() {
                let size = if diff <= 16 {
                    1
                } else if diff <= 256 {
                    2
                } else {
                    3
                };
                bits.put(size, 2).put(diff as u32 - 1, size * 4);
            }
            bits.put(0, 2);
        }
        if custom[2] {
            for diff in &frame.chains {
                bits.put(*diff as u32, 8);
            }
        }
        bits.bytes
    }

    fn structure(&self, bits: &mut BitWriter) {
        let targets = u32::from(self.mode.spatial * self.mode.temporal);
        bits.put(self.offset, 6).put(targets - 1, 5);
        for (i, template) in self.templates.iter().enumerate() {
            let next = self.templates.get(i + 1);
            bits.put(
                match next {
                    None => 3,
                    Some(next) if next.0 > template.0 => 2,
                    Some(next) if next.1 > template.1 => 1,
                    Some(_) => 0,
                },
                2,
            );
        }
        for template in &self.templates {
            put_dtis(bits, &template.2);
        }
        for template in &self.templates {
            for diff in &template.3 {
                bits.put(1, 1).put(*diff as u32 - 1, 4);
            }
            bits.put(0, 1);
        }
        let chains = u32::from(self.mode.spatial);
        bits.non_symmetric(chains, targets + 1);
        for target in 0..targets {
            bits.non_symmetric(target / u32::from(self.mode.temporal), chains);
        }
        for template in &self.templates {
            for diff in &template.4 {
                bits.put(*diff as u32, 4);
            }
        }
        bits.put(1, 1);
        for spatial in 0..chains {
            let scale = chains - 1 - spatial;
            bits.put((1280 >> scale) - 1, 16).put((720 >> scale) - 1, 16);
        }
    }
}

fn put_dtis(bits: &mut BitWriter, dtis: &str) {
    for dti in dtis.chars() {
        let value = "-DSR".find(dti).expect("one of the four");
        bits.put(value as u32, 2);
    }
}

/// Writes bits, most significant first.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    pub(crate) bytes: Vec<u8>,
    len: usize,
}

impl BitWriter {
    pub(crate) fn put(&mut self, value: u32, n: u32) -> &mut Self {
        for bit in (0..n).rev() {
            if self.len.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().expect("just pushed") |= ((value >> bit & 1) as u8) << (7 - self.len % 8);
            self.len += 1;
        }
        self
    }

    /// `ns(n)` of the AV1 specification: the values below `m` in one bit less than the others.
    fn non_symmetric(&mut self, value: u32, n: u32) {
        let mut w = 0;
        while n >> w > 0 {
            w += 1;
        }
        let m = (1 << w) - n;
        if value < m {
            self.put(value, w - 1);
        } else {
            self.put(value + m, w);
        }
    }
}
