//! The header extensions that the relay understands, decoded.

use crate::command::{Extension, ExtensionMap};
use crate::ids::{Mid, Rid};
use crate::rtp::header::RtpHeader;

/// Loudness of the audio in this packet ([RFC 6464](https://www.rfc-editor.org/rfc/rfc6464)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevelExt {
    /// -dBov: 0 is the loudest, 127 is silence.
    pub level: u8,
    /// The sender's voice activity detector says that this is speech.
    pub voice: bool,
}

/// The values of one packet's header extensions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionValues<'a> {
    /// Media section that the packet belongs to.
    pub mid: Option<Mid>,
    /// Simulcast stream that the packet belongs to.
    pub rid: Option<Rid>,
    /// Simulcast stream that this retransmission repairs.
    pub repaired_rid: Option<Rid>,
    /// Audio level.
    pub audio_level: Option<AudioLevelExt>,
    /// Time of sending in seconds, 6.18 fixed point, 24 bits.
    pub abs_send_time: Option<u32>,
    /// Transport-wide sequence number.
    pub transport_cc: Option<u16>,
    /// AV1 Dependency Descriptor, not parsed: see [`DdReader`](crate::rtp::DdReader).
    pub dependency_descriptor: Option<&'a [u8]>,
    /// Rotation and camera, as in 3GPP TS 26.114.
    pub video_orientation: Option<u8>,
    /// Minimum and maximum playout delay, 12 bits each, in 10 ms.
    pub playout_delay: Option<[u8; 3]>,
}

impl<'a> ExtensionValues<'a> {
    /// Reads the extensions of a packet under the ids of its media section.
    ///
    /// Unknown ids and values of the wrong length are skipped: an extension is an aid, not a reason to lose media. Of an
    /// id that occurs twice the last value counts.
    pub fn read(header: &RtpHeader, packet: &'a [u8], map: &ExtensionMap) -> Self {
        let mut values = Self::default();
        for (id, data) in header.extensions(packet) {
            if let Some(extension) = map.extension(id) {
                values.set(extension, data);
            }
        }
        values
    }

    fn set(&mut self, extension: Extension, data: &'a [u8]) {
        match (extension, data) {
            (Extension::Mid, _) => self.mid = Mid::from_bytes(data),
            (Extension::Rid, _) => self.rid = Rid::from_bytes(data),
            (Extension::RepairedRid, _) => self.repaired_rid = Rid::from_bytes(data),
            (Extension::AudioLevel, &[b]) => {
                self.audio_level = Some(AudioLevelExt { level: b & 0x7f, voice: b & 0x80 != 0 });
            }
            (Extension::AbsSendTime, &[a, b, c]) => {
                self.abs_send_time = Some(u32::from_be_bytes([0, a, b, c]));
            }
            // Version 2 of the extension appends a request for feedback, which the relay sends anyway.
            (Extension::TransportCc, &[a, b] | &[a, b, _, _]) => {
                self.transport_cc = Some(u16::from_be_bytes([a, b]));
            }
            (Extension::DependencyDescriptor, _) if data.len() >= 3 => {
                self.dependency_descriptor = Some(data);
            }
            (Extension::VideoOrientation, &[b]) => self.video_orientation = Some(b),
            (Extension::PlayoutDelay, &[a, b, c]) => self.playout_delay = Some([a, b, c]),
            _ => {}
        }
    }

    /// Gives each present value with its extension and its bytes on the wire.
    pub(super) fn for_each(&self, mut each: impl FnMut(Extension, &[u8])) {
        if let Some(mid) = &self.mid {
            each(Extension::Mid, mid.as_str().as_bytes());
        }
        if let Some(rid) = &self.rid {
            each(Extension::Rid, rid.as_str().as_bytes());
        }
        if let Some(rid) = &self.repaired_rid {
            each(Extension::RepairedRid, rid.as_str().as_bytes());
        }
        if let Some(AudioLevelExt { level, voice }) = self.audio_level {
            each(Extension::AudioLevel, &[u8::from(voice) << 7 | level & 0x7f]);
        }
        if let Some(time) = self.abs_send_time {
            let [_, a, b, c] = time.to_be_bytes();
            each(Extension::AbsSendTime, &[a, b, c]);
        }
        if let Some(seq) = self.transport_cc {
            each(Extension::TransportCc, &seq.to_be_bytes());
        }
        if let Some(dd) = self.dependency_descriptor {
            each(Extension::DependencyDescriptor, dd);
        }
        if let Some(b) = self.video_orientation {
            each(Extension::VideoOrientation, &[b]);
        }
        if let Some(delay) = self.playout_delay {
            each(Extension::PlayoutDelay, &delay);
        }
    }
}
