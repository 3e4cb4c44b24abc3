//! The media relay: room logic, and the shell of threads, sockets and servers around the media core.
#![forbid(unsafe_code)]

pub mod room;
