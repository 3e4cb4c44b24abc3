//! What the benchmarks need: a running call around a shard, the floor that it is measured against, packets.

pub mod call;
pub mod floor;
pub mod live;
pub mod packets;
pub mod pair;
pub mod timing;

/// What a publisher sends at once, and to how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Subscribers.
    pub receivers: usize,
    /// Packets of one frame.
    pub frame: usize,
    /// Bytes of each packet's payload.
    pub payload: usize,
}
