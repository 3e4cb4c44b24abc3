//! What comes from publishers: one [`InboundStream`] for each primary SSRC, one [`TwccRecorder`] for each transport.
//!
//! The order of calls, per datagram that was authenticated and whose SSRC the shard has routed to a stream:
//!
//! ```text
//! TwccRecorder::record(transport_cc, now)                any packet of the transport that has the extension
//! InboundStream::accept(header, index, payload, ..)      on the primary SSRC; payload with its padding, as opened
//! InboundStream::accept_rtx(header, payload, ..)         on the RTX SSRC; the same
//!   -> released: indices, to be forwarded in this order:
//!        InboundStream::store().get(index) -> (&PacketMeta, &[u8]) -> Forwarder::forward of each subscription
//!   -> Err(reason): count it; it concerns this packet only
//! InboundStream::take_drops()                            packets that were held and then given up, to be counted
//! InboundStream::poll_nacks(now, rtt)                    after accept, and on timeouts; not empty: send a NACK
//! InboundStream::poll_key_frame(now)                     after request_key_frame, and on timeouts; true: send a PLI
//! InboundStream::since_key_frame(now)                    when a subscription begins: what to forward to it first
//! InboundStream::handle_timeout(now, released)           at poll_timeout(); forwards what a gate lets go
//! InboundStream::handle_sender_report(ntp, rtp, now)     a sender report of the primary SSRC; hand
//!                                                        last_sender_report() on to the forwarders
//! InboundStream::report_block(now)                       about once a second, for the receiver report
//! TwccRecorder::poll_feedback(now, ..)                   after each batch, and at poll_timeout()
//! ```
//!
//! With `released` there may be an error as well: a plaintext frame that is given up can free the frames behind it. So
//! forward `released` whatever is returned. A change of [`TrackPolicy::muted`](crate::command::TrackPolicy) goes to
//! [`InboundStream::set_policy`] and to [`Forwarder::require_key_frame`](crate::outbound::Forwarder::require_key_frame).

mod frame_gate;
mod key_frame_requests;
mod key_frame_size;
mod layer_rates;
mod nack_register;
mod reports;
mod store;
mod stream;
mod twcc_recorder;

use std::time::Instant;

use arrayvec::ArrayVec;

use crate::command::Codec;
use crate::ids::{ExtSeq, RtpTime};
use crate::rtp::{AudioLevelExt, DdInfo, PayloadInfo};

pub use frame_gate::FrameGate;
pub use key_frame_requests::KeyFrameRequests;
pub use key_frame_size::KeyFrameSize;
pub use layer_rates::LayerRates;
pub use nack_register::NackRegister;
pub use reports::{ReceptionStats, SenderReport};
pub use store::PacketStore;
pub use stream::{InboundConfig, InboundStats, InboundStream};
pub use twcc_recorder::TwccRecorder;

#[cfg(test)]
pub(crate) use stream::tests::meta as test_meta;

/// Most bytes of a Dependency Descriptor that are kept and passed on. The structure of L3T3 with its fifteen templates
/// and three resolutions takes 96.
pub const MAX_DD: usize = 160;

/// Everything about one stored packet but its payload.
#[derive(Debug, Clone)]
pub struct PacketMeta {
    /// Sequence number of its stream, extended.
    pub index: ExtSeq,
    /// Timestamp in units of `clock_rate`.
    pub timestamp: RtpTime,
    /// Marker bit.
    pub marker: bool,
    /// Codec of the payload.
    pub codec: Codec,
    /// RTP clock of the codec in Hz.
    pub clock_rate: u32,
    /// Variant of the codec, see [`CodecParams::variant`](crate::command::CodecParams::variant).
    pub variant: u32,
    /// Which of the track's RTP streams it came on: the simulcast layer, 0 without simulcast.
    pub stream: u8,
    /// Spatial layer of the track: the stream with simulcast, else the layer inside the stream (SVC).
    pub spatial: u8,
    /// What the payload shows.
    pub info: PayloadInfo,
    /// The track demands end-to-end encryption: nothing behind the payload descriptor means anything.
    pub opaque: bool,
    /// Audio level extension.
    pub audio_level: Option<AudioLevelExt>,
    /// Video orientation extension.
    pub orientation: Option<u8>,
    /// Playout delay extension.
    pub playout_delay: Option<[u8; 3]>,
    /// Dependency Descriptor extension; empty for none, or for one that could not be read.
    pub dd: ArrayVec<u8, MAX_DD>,
    /// What the Dependency Descriptor says, when there is one that could be read.
    pub frame: Option<DdInfo>,
    /// When it arrived.
    pub received: Instant,
}

impl PacketMeta {
    /// Becomes a copy of another one. A descriptor is rare and long: where neither has one, the memory for it, which is two thirds
    /// of the whole, is not touched.
    pub(crate) fn become_like(&mut self, other: &Self) {
        let Self {
            index,
            timestamp,
            marker,
            codec,
            clock_rate,
            variant,
            stream,
            spatial,
            info,
            opaque,
            audio_level,
            orientation,
            playout_delay,
            ref dd,
            ref frame,
            received,
        } = *other;
        (self.index, self.timestamp, self.marker, self.codec) = (index, timestamp, marker, codec);
        (self.clock_rate, self.variant, self.stream, self.spatial) = (clock_rate, variant, stream, spatial);
        (self.info, self.opaque, self.received) = (info, opaque, received);
        (self.audio_level, self.orientation, self.playout_delay) = (audio_level, orientation, playout_delay);
        if !(self.dd.is_empty() && dd.is_empty()) {
            self.dd.clone_from(dd);
        }
        if self.frame.is_some() || frame.is_some() {
            self.frame = *frame;
        }
    }
}
