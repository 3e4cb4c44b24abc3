//! The header of a subscription's packets, written once: from packet to packet only its numbers change.

use crate::command::{Extension, ExtensionMap};
use crate::ids::Mid;
use crate::inbound::PacketMeta;
use crate::rtp::{AudioLevelExt, ExtensionValues, RtpHeader, RtpHeaderOut};

/// The longest header that is kept: sixteen bytes of mid and four short extensions.
const MAX_LEN: usize = 48;

/// A header with the extensions that nearly every packet has, and where in it their values are.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeaderTemplate {
    bytes: [u8; MAX_LEN],
    len: usize,
    /// With an audio level.
    level: bool,
    level_at: Option<usize>,
    time_at: Option<usize>,
    number_at: Option<usize>,
}

impl HeaderTemplate {
    /// A header as [`RtpHeaderOut::write`] writes it; `None` when it is too long to be kept.
    pub(super) fn new(map: &ExtensionMap, mid: Mid, level: bool, delay: Option<[u8; 3]>) -> Option<Self> {
        let values = ExtensionValues {
            mid: Some(mid),
            audio_level: level.then_some(AudioLevelExt { level: 0, voice: false }),
            abs_send_time: map.id(Extension::AbsSendTime).map(|_| 0),
            transport_cc: map.id(Extension::TransportCc).map(|_| 0),
            playout_delay: delay,
            ..ExtensionValues::default()
        };
        let blank = RtpHeaderOut {
            marker: false,
            pt: crate::ids::Pt(0),
            seq: crate::ids::SeqNo(0),
            timestamp: crate::ids::RtpTime(0),
            ssrc: crate::ids::Ssrc(0),
        };
        let mut long = [0; crate::rtp::MAX_HEADER];
        let len = blank.write(&mut long, &values, map);
        let mut bytes = [0; MAX_LEN];
        bytes.get_mut(..len)?.copy_from_slice(&long[..len]);
        let header = RtpHeader::parse(&bytes[..len]).ok()?;
        let start = bytes.as_ptr().addr();
        let at = |extension: Extension| {
            let id = map.id(extension)?;
            let (_, value) = header.extensions(&bytes[..len]).find(|(have, _)| *have == id)?;
            Some(value.as_ptr().addr() - start)
        };
        let (level_at, time_at, number_at) =
            (at(Extension::AudioLevel), at(Extension::AbsSendTime), at(Extension::TransportCc));
        Some(Self { bytes, len, level, level_at, time_at, number_at })
    }

    /// Reads its ends.
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.bytes[0]) + self.len as u64
    }

    /// Whether it has an audio level.
    pub(super) fn is_with_level(&self) -> bool {
        self.level
    }

    /// Whether it is for a packet with these extensions, apart from a Dependency Descriptor.
    pub(super) fn fits(&self, meta: &PacketMeta) -> bool {
        meta.orientation.is_none() && meta.playout_delay.is_none() && meta.audio_level.is_some() == self.level
    }

    /// Writes the header of a packet that [fits](Self::fits) to the start of `out`, which has room for it; returns its
    /// length. `number` is its transport-wide number, `time` its abs-send-time.
    pub(super) fn write(
        &self,
        out: &mut [u8],
        header: &RtpHeaderOut,
        meta: &PacketMeta,
        number: u16,
        time: u32,
    ) -> usize {
        let Some(out) = out.first_chunk_mut::<MAX_LEN>() else { return 0 };
        *out = self.bytes;
        out[1] = u8::from(header.marker) << 7 | header.pt.0 & 0x7f;
        out[2..4].copy_from_slice(&header.seq.0.to_be_bytes());
        out[4..8].copy_from_slice(&header.timestamp.0.to_be_bytes());
        out[8..12].copy_from_slice(&header.ssrc.0.to_be_bytes());
        if let (Some(at), Some(AudioLevelExt { level, voice })) = (self.level_at, meta.audio_level) {
            out[at] = u8::from(voice) << 7 | level & 0x7f;
        }
        if let Some(at) = self.time_at {
            out[at..at + 3].copy_from_slice(&time.to_be_bytes()[1..]);
        }
        if let Some(at) = self.number_at {
            out[at..at + 2].copy_from_slice(&number.to_be_bytes());
        }
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Pt, RtpTime, SeqNo, Ssrc};
    use crate::outbound::TwccSeqCounter;
    use crate::outbound::test_kit::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn writes_what_the_general_way_writes(
            ids in prop::array::uniform5(0u8..20), mixed: bool, level: Option<(u8, bool)>, delay: Option<[u8; 3]>, name in "[a-z0-9]{1,16}",
            marker: bool, numbers: (u16, u32, u32), sent in 0u32..70_000, micros in 0u64..1 << 40,
        ) {
            let t = crate::sim::clock::epoch();
            let mut map = ExtensionMap::default();
            map.allow_mixed = mixed;
            let extensions = [
                Extension::Mid,
                Extension::AudioLevel,
                Extension::AbsSendTime,
                Extension::TransportCc,
                Extension::PlayoutDelay,
            ];
            for (at, (extension, id)) in extensions.into_iter().zip(ids).enumerate() {
                // Ids of different extensions differ.
                map.set(extension, if id == 0 { 0 } else { id * 5 + at as u8 });
            }
            let mid = Mid::new(&name).unwrap();
            let mut meta = video(0, 1, 0, 0);
            meta.audio_level = level.map(|(level, voice)| AudioLevelExt { level: level & 0x7f, voice });
            let header = RtpHeaderOut {
                marker, pt: Pt(96), seq: SeqNo(numbers.0), timestamp: RtpTime(numbers.1), ssrc: Ssrc(numbers.2),
            };
            let mut twcc = TwccSeqCounter::new(t);
            (0..sent).for_each(|_| twcc.advance());
            let now = t + std::time::Duration::from_micros(micros);
            let Some(template) = HeaderTemplate::new(&map, mid, level.is_some(), delay) else {
                // Sixteen bytes of mid and the two-byte form.
                return Ok(());
            };
            prop_assert!(template.fits(&meta));
            let values = ExtensionValues {
                mid: Some(mid),
                audio_level: meta.audio_level,
                abs_send_time: Some(twcc.abs_send_time(now)),
                transport_cc: Some(twcc.peek()),
                playout_delay: delay,
                ..ExtensionValues::default()
            };
            let (mut want, mut got) = ([0; crate::rtp::MAX_HEADER], [0; crate::rtp::MAX_HEADER]);
            let want_len = header.write(&mut want, &values, &map);
            let len = template.write(&mut got, &header, &meta, twcc.peek(), twcc.abs_send_time(now));
            prop_assert_eq!(&want[..want_len], &got[..len]);
        }
    }
}
