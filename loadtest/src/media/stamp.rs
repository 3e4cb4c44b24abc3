//! What a frame says about itself, inside the encryption: a frame whose stamp is read has been authenticated.
//!
//! ```text
//! | magic 4 | clock 8 | number 4 | depends 2 | next 4 | spoken 4 | more 1 | layer 1 | layers 1 | sent bytes 8 * layers | filling |
//! ```

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

const MAGIC: [u8; 4] = *b"CLT2";
const FIXED: usize = 29;
/// Most simulcast layers that a stamp describes.
pub const MAX_LAYERS: usize = 3;

/// The clock of the stamps: the machine's time of day at the start of the process, counted on by the monotonic clock, so
/// that setting the clock during a run moves nothing.
#[derive(Debug, Clone, Copy)]
pub struct StampClock {
    start: Instant,
    unix_ns: u64,
}

impl StampClock {
    /// Starts now. `offset_ns` is added to this machine's time: what the coordinator of several testers measured.
    pub fn start(offset_ns: i64) -> Self {
        static BASE: OnceLock<(Instant, u64)> = OnceLock::new();
        let (start, unix_ns) = *BASE.get_or_init(|| {
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            (Instant::now(), u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX))
        });
        Self { start, unix_ns: unix_ns.saturating_add_signed(offset_ns) }
    }

    /// Nanoseconds since 1970 at `now`.
    pub fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_nanos();
        self.unix_ns.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// The stamp of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When the frame was handed to the sender's WebRTC stack, nanoseconds since 1970.
    pub clock_ns: u64,
    /// Number of the frame in its layer.
    pub number: u32,
    /// How many frames back the one is that it needs; 0 when it needs none.
    pub depends: u16,
    /// When the layer's next frame is due after this one.
    pub next: Duration,
    /// Packets of speech so far, this one included; 0 in pictures.
    pub spoken: u32,
    /// The next one holds something to hear or see.
    pub more: bool,
    /// Simulcast layer, lowest first.
    pub layer: u8,
    /// Number of layers.
    pub layers: u8,
    /// Bytes of frames sent on each layer so far, this one included.
    pub sent: [u64; MAX_LAYERS],
}

impl Stamp {
    /// Length of a stamp with this many layers.
    pub const fn len(layers: usize) -> usize {
        FIXED + 8 * layers
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.clock_ns.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.depends.to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.next.as_micros()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.spoken.to_be_bytes());
        out.extend_from_slice(&[u8::from(self.more), self.layer, self.layers]);
        for sent in self.sent.iter().take(usize::from(self.layers)) {
            out.extend_from_slice(&sent.to_be_bytes());
        }
    }

    /// Reads the stamp at the start of a decrypted body. `None` for frames of other senders.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut rest = body;
        let magic = take::<4>(&mut rest)?;
        if magic != MAGIC {
            return None;
        }
        let clock_ns = u64::from_be_bytes(take(&mut rest)?);
        let number = u32::from_be_bytes(take(&mut rest)?);
        let depends = u16::from_be_bytes(take(&mut rest)?);
        let next = Duration::from_micros(u64::from(u32::from_be_bytes(take(&mut rest)?)));
        let spoken = u32::from_be_bytes(take(&mut rest)?);
        let [more, layer, layers] = take(&mut rest)?;
        if more > 1 || usize::from(layers) > MAX_LAYERS || layer >= layers {
            return None;
        }
        let mut sent = [0; MAX_LAYERS];
        for sent in sent.iter_mut().take(usize::from(layers)) {
            *sent = u64::from_be_bytes(take(&mut rest)?);
        }
        Some(Self { clock_ns, number, depends, next, spoken, more: more == 1, layer, layers, sent })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_and_nothing_else_is_one() {
        let stamp = Stamp {
            clock_ns: 1_700_000_000_000_000_123,
            number: 7,
            depends: 2,
            next: Duration::from_micros(33_333),
            spoken: 5,
            more: true,
            layer: 1,
            layers: 3,
            sent: [1, 2, 3],
        };
        let mut bytes = Vec::new();
        stamp.write(&mut bytes);
        assert_eq!(bytes.len(), Stamp::len(3));
        bytes.extend_from_slice(&[9; 100]);
        assert_eq!(Stamp::read(&bytes), Some(stamp));
        for cut in 0..Stamp::len(3) {
            assert_eq!(Stamp::read(&bytes[..cut]), None);
        }
        bytes[0] ^= 1;
        assert_eq!(Stamp::read(&bytes), None);
    }

    proptest::proptest! {
        #[test]
        fn any_body_after_the_magic_is_read_or_refused(rest in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            if let Some(stamp) = Stamp::read(&[&MAGIC[..], &rest].concat()) {
                proptest::prop_assert!(usize::from(stamp.layers) <= MAX_LAYERS && stamp.layer < stamp.layers);
                let mut back = Vec::new();
                stamp.write(&mut back);
                proptest::prop_assert_eq!(&back[4..], &rest[..back.len() - 4]);
            }
        }
    }
}
