//! What the tests run against: relay and signalling in this process, and a network in between that does known harm.

mod host;
mod proxy;

pub use host::Host;
pub use proxy::{Harm, Proxy};
