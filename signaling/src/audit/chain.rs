//! What an entry's hash covers.

use ring::digest;

pub(super) const HASH: usize = 32;

/// The hash before the first entry.
pub(super) const GENESIS: [u8; HASH] = [0; HASH];

/// One entry. Empty texts mean "does not apply".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Milliseconds since the Unix epoch.
    pub(super) unix_ms: u64,
    /// What happened.
    pub(super) event: String,
    /// `RM_...`.
    pub(super) room: String,
    /// Pseudonym of the room's name.
    pub(super) room_name: String,
    /// `PA_...`.
    pub(super) participant: String,
    /// Pseudonym of the identity.
    pub(super) person: String,
    /// `TR_...`.
    pub(super) track: String,
    /// More, free of personal data.
    pub(super) detail: String,
}

/// The hash of entry number `seq` after the one with hash `previous`. Fields are length-prefixed, so that no two
/// entries look the same to it.
pub(super) fn hash(seq: i64, entry: &Entry, previous: &[u8; HASH]) -> [u8; HASH] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"curtain-audit/1");
    context.update(previous);
    context.update(&seq.to_be_bytes());
    context.update(&entry.unix_ms.to_be_bytes());
    let texts = [
        &entry.event,
        &entry.room,
        &entry.room_name,
        &entry.participant,
        &entry.person,
        &entry.track,
        &entry.detail,
    ];
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}
