//! What goes to subscribers: one [`Forwarder`] for each subscription, one [`TwccSeqCounter`] for each transport.
//!
//! The order of calls:
//!
//! ```text
//! Forwarder::new(section, seed, now), set_target(target)
//! Forwarder::handle_sender_report(stream, report)   the last one of each of the track's streams, if any, and each
//!                                                   new one as it comes
//! Forwarder::forward(run, ..)                       each packet that InboundStream released, of all of the track's
//!                                                   streams (the forwarder itself chooses among them), in that order,
//!                                                   those of one frame together, in parts as Forwarder::step says
//! Forwarder::skip(stream, index)                    each packet that InboundStream refused as Padding on the primary
//!                                                   SSRC (not the ones on the RTX SSRC): closes the gap it leaves
//! Forwarder::wants_key_frame()                      after set_target, require_key_frame, a refusal as
//!                                                   WaitingForKeyFrame, and every 100 ms or so: Some(stream) means
//!                                                   InboundStream::request_key_frame of that stream, or of the
//!                                                   highest below it that exists, else of the lowest
//! Forwarder::handle_key_frame_request()             a PLI or FIR of the subscriber: gives the stream to pass it to
//! Forwarder::retransmit(lost, stores, ..)           each sequence number of a NACK for Forwarder::ssrc()
//! Forwarder::handle_report_block(block, now)        report blocks for Forwarder::ssrc()
//! Forwarder::sender_report(now, clock)              about once a second; with section().cname for the SDES
//! Forwarder::require_key_frame()                    the track's packets were interrupted: muted or unmuted
//! Forwarder::replace_stream(stream)                 another InboundStream takes the place of this one
//! ```
//!
//! Errors are drops of one packet, to be counted. [`DropReason::LayerNotSelected`](crate::drop_reason::DropReason) is
//! the normal fate of the layers that a subscriber does not get.

mod even;
mod forwarder;
mod header_template;
mod history;
mod layer_selector;
mod pacer;
mod playout_delay;
mod range_map;
mod reports;
mod rewriter;
mod rtx;
#[cfg(test)]
mod test_kit;
mod twcc_seq;

pub use forwarder::{Forwarder, OutboundStats};
pub use pacer::Pacer;
pub use playout_delay::PlayoutDelay;
pub use reports::{NtpClock, ReceiverView};
pub use twcc_seq::TwccSeqCounter;

use crate::inbound::PacketMeta;

/// Streams of one track at most: the simulcast layers.
pub const MAX_STREAMS: usize = 4;

/// What a [`PacketStore`](crate::inbound::PacketStore) gives out.
pub type Packet<'a> = (&'a PacketMeta, &'a [u8]);

/// Takes released packets apart into runs, to be decided on and numbered as one: consecutive packets of one frame that differ
/// in their markers and payloads only, or in what their Dependency Descriptors say of where in the frame they are.
pub fn runs<'r, 'a>(packets: &'r [Packet<'a>]) -> impl Iterator<Item = &'r [Packet<'a>]> {
    packets.chunk_by(|(before, _), (next, _)| continues(before, next))
}

fn continues(before: &PacketMeta, next: &PacketMeta) -> bool {
    let of = |meta: &PacketMeta| {
        let PacketMeta { timestamp, stream, spatial, codec, variant, clock_rate, opaque, info, .. } = meta;
        let level = meta.audio_level.is_some();
        let layers = (*stream, *spatial, info.spatial, info.temporal);
        let frame = meta.frame.as_ref().map(|frame| (frame.generation, frame.frame_number));
        let numbers = (info.picture_id, info.tl0_pic_idx, frame);
        (*timestamp, layers, *codec, *variant, *clock_rate, *opaque, level, numbers)
    };
    // A descriptor that cannot be read says nothing of the frame.
    let known = |meta: &PacketMeta| meta.frame.is_some() || meta.dd.is_empty();
    next.index.0 == before.index.0 + 1
        && !next.info.frame_start
        && of(before) == of(next)
        && known(before)
        && known(next)
}
