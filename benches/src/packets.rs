//! RTP packets as a publisher sends them, before SRTP.

/// Header extension ids, the same on all sections.
pub mod ext {
    /// Audio level.
    pub const AUDIO_LEVEL: u8 = 1;
    /// Transport-wide sequence number.
    pub const TRANSPORT_CC: u8 = 3;
    /// Media section.
    pub const MID: u8 = 4;
}

/// Payload type of VP8, of its retransmissions, of Opus.
pub const VP8: u8 = 96;
/// See [`VP8`].
pub const VP8_RTX: u8 = 97;
/// See [`VP8`].
pub const OPUS: u8 = 111;

/// Bytes of header, extension and all, that [`Stream`] writes.
pub const HEADER: usize = 12 + 4 + 8;
/// Bytes that a cryptor leaves at a frame's end: IV, its length, key index.
const TRAILER: usize = 14;
/// Bytes of the VP8 descriptor and the first byte of the frame.
const DESCRIPTOR: usize = 7;

/// Writes the packets of one stream: VP8 frames, or Opus packets.
#[derive(Debug, Clone)]
pub struct Stream {
    ssrc: u32,
    audio: bool,
    seq: u16,
    timestamp: u32,
    picture: u16,
}

impl Stream {
    /// Begins near the wrap of the sequence numbers, so that the rollover counter moves too.
    pub fn new(ssrc: u32, audio: bool) -> Self {
        Self { ssrc, audio, seq: 65_000, timestamp: 1, picture: 1 }
    }

    /// One frame of so many packets with so many bytes of payload each. `numbers` are transport-wide sequence numbers.
    pub fn frame(&mut self, packets: usize, payload: usize, key: bool, numbers: &mut u16) -> Vec<Vec<u8>> {
        self.timestamp = self.timestamp.wrapping_add(if self.audio { 960 } else { 900 });
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        (0..packets).map(|at| self.packet(at == 0, at + 1 == packets, payload, key, numbers)).collect()
    }

    fn packet(&mut self, first: bool, last: bool, payload: usize, key: bool, numbers: &mut u16) -> Vec<u8> {
        assert!(payload >= DESCRIPTOR + TRAILER, "a payload has room for descriptor and trailer");
        let mut out = Vec::with_capacity(HEADER + payload);
        let pt = if self.audio { OPUS } else { VP8 };
        out.extend([0x90, u8::from(last && !self.audio) << 7 | pt]);
        out.extend(self.seq.to_be_bytes());
        out.extend(self.timestamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        let [hi, lo] = numbers.to_be_bytes();
        out.extend([0xbe, 0xde, 0, 2]);
        out.extend([ext::TRANSPORT_CC << 4 | 1, hi, lo, ext::AUDIO_LEVEL << 4, 0x80 | 30, 0, 0, 0]);
        self.seq = self.seq.wrapping_add(1);
        *numbers = numbers.wrapping_add(1);
        let start = out.len();
        if !self.audio {
            // X, S at a frame's start; I, L, T; fifteen bits of picture id; TL0PICIDX; TID 0.
            let [hi, lo] = self.picture.to_be_bytes();
            out.extend([0x80 | u8::from(first) << 4, 0xe0, 0x80 | hi, lo, lo, 0]);
            out.push(u8::from(!key));
        }
        let filler = start + payload - TRAILER - out.len();
        out.extend((0..filler).map(|at| (at * 7) as u8));
        // The cryptor's trailer: an IV that begins with the SSRC, its length, the key's index.
        out.extend(self.ssrc.to_be_bytes());
        out.extend([7, 7, 7, 7, self.seq.to_be_bytes()[0], self.seq.to_be_bytes()[1], 7, 7, 12, 0]);
        out
    }
}
