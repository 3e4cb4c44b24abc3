//! How much one subscriber's path carries: Google Congestion Control as published
//! ([draft-ietf-rmcat-gcc-02](https://datatracker.ietf.org/doc/html/draft-ietf-rmcat-gcc-02)) with what libwebrtc added
//! since.
//!
//! ```text
//! on_sent ──> SendLog <── on_feedback            number -> time of sending, size, probe
//!                │ results, in order of arrival
//!                ├─> AckedRate                   what arrived a second
//!                ├─> ProbeResults                what a burst of known rate says of the link
//!                ├─> PacketGroups -> Trendline   does the one-way delay grow? -> RateControl (AIMD)
//!                └─> LossControl                 which rate explains the losses?
//!                        │
//!                Estimator: the least of them, drains the queue, asks for probes
//! ```
//!
//! Pure: no packets, no clock. Rates are bits per second (`bps`), sizes bytes on the wire.

mod acked_rate;
pub mod allocator;
mod estimator;
mod loss;
mod packet_groups;
mod probe;
mod queue_delay;
mod rate_control;
mod send_log;
mod sent_rate;
#[cfg(test)]
mod tests;
mod trendline;

use std::num::NonZeroU32;
use std::time::Duration;

pub use estimator::{Estimator, EstimatorConfig};

/// One probe of one peer. Packets that belong to it carry it to [`Estimator::on_sent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId(NonZeroU32);

/// A burst that shows whether the path carries a rate: to be sent at `bps`, media first, the rest padding, until
/// `min_bytes` and `min_packets` have left. A probe that a later one replaces, or that cannot end, may be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Marks its packets.
    pub id: ProbeId,
    /// The rate to send at, media included.
    pub bps: u64,
    /// Bytes to send at least: `bps` times `duration`.
    pub min_bytes: usize,
    /// Packets to send at least.
    pub min_packets: usize,
    /// How long it lasts.
    pub duration: Duration,
}
