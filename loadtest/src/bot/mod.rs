//! One participant: its signalling, its two PeerConnections, its frames.

mod cryptor;
mod participant;
mod peer;
pub(crate) mod signal;
mod source;

pub use self::cryptor::{CryptorError, FrameCryptor, FrameKind};
pub(crate) use self::participant::tracks_by_mid;
pub use self::participant::{Participant, ParticipantConfig, Report, StreamReport};
pub use self::signal::SignalError;
