//! A simulated network with clients on it, under a virtual clock: how the shard is tested without sockets or sleeping.

pub mod bot;
pub mod clock;
pub mod net;
pub mod world;
