//! What the bots say and show: frame sizes after a recorded trace, talk spurts and muted spells, VP8's packet format, and
//! the stamp inside each encrypted frame that measurements rest on; recordings, and the encryption itself.

mod cryptor;
pub(crate) mod recording;
pub mod speech;
pub mod stamp;
pub mod trace;
pub mod vp8;

pub use self::cryptor::{CryptorError, FrameCryptor, FrameKind, SEAL_BYTES};
