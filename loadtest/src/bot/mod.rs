//! One participant: its signalling, its two PeerConnections, its frames.

mod cryptor;
mod participant;
mod peer;
mod signal;
mod source;

pub use self::cryptor::{CryptorError, FrameCryptor, FrameKind};
pub use self::participant::{Participant, ParticipantConfig, Report, StreamReport};
pub use self::signal::SignalError;
