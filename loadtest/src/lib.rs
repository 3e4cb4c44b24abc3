//! Participants that speak LiveKit's client protocol over an independent WebRTC stack (`str0m`), with the same encrypted
//! frame format as browsers: what drives and checks a relay from outside.
//!
//! Nothing here shares code with the relay's media core, so that a fault common to both ends cannot hide.
#![forbid(unsafe_code)]

pub mod agent;
pub mod capacity;
pub mod client;
pub mod measure;
pub mod media;
pub mod report;
pub mod run;
pub mod scenario;
pub mod token;
