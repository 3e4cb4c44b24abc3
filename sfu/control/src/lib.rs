//! The control link between `signaling` and `sfu`, and the verification of access tokens that both do.
//!
//! - [`messages`]: what travels on the link, [`framing`]: how it is delimited, [`tls`]: who may speak on it.
//! - [`link`]: the end in `signaling`; [`server`]: the end in `sfu`.
//! - [`token`]: access tokens. Both processes verify them; the relay's word counts. [`jwks_source`] keeps both supplied
//!   with the public keys of an identity provider.
//! - [`process`]: metrics that every process has.

pub mod config_text;
pub mod framing;
pub mod jwks_source;
pub mod link;
pub mod messages;
pub mod process;
pub mod server;
pub mod tls;
pub mod token;
