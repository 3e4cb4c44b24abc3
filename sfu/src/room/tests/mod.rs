//! The room driven as clients, administrators and a shard drive it.

mod admin;
mod client;
mod data;
mod joins;
mod large;
mod layers;
mod random;
mod shards;
mod tracks;
mod world;
