//! Room logic without I/O.

pub mod sdp;
