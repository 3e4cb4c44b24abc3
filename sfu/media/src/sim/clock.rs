//! Where virtual time starts.

use std::sync::OnceLock;
use std::time::Instant;

/// The instant at which every simulation of this process starts.
///
/// `Instant` has no constructor but the clock, so this reads it once; only differences to it matter.
#[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}
