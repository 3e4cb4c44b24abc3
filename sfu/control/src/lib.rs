//! The control link between `signaling` and `sfu`, and the verification of access tokens that both do.

pub mod messages;
