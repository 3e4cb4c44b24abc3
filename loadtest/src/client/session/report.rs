//! What one participant saw so far, for people and scripts that watch it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Session;
use crate::measure::{Kind, StreamResult};

/// What a participant saw so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VisitReport {
    /// The publishing PeerConnection is up.
    pub publisher_connected: bool,
    /// The receiving PeerConnection is up.
    pub subscriber_connected: bool,
    /// Frames sent.
    pub frames_sent: u64,
    /// Key frames that were asked for.
    pub key_frame_requests: u64,
    /// Received streams by track id.
    pub streams: BTreeMap<String, VisitStream>,
    /// Requests that the service refused, in its words.
    pub refusals: Vec<String>,
    /// Identities of the others in the room.
    pub others: Vec<String>,
}

/// One received stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VisitStream {
    /// Sound or picture.
    pub kind: Kind,
    /// Whole frames received.
    pub frames: u64,
    /// Frames of these that authenticated.
    pub opened: u64,
    /// Frames that are encrypted but did not authenticate.
    pub failed: u64,
    /// Frames that are not encrypted; without a key all of them.
    pub clear: u64,
}

impl VisitStream {
    fn of(result: &StreamResult, keyed: bool) -> Self {
        let &StreamResult { kind, frames, failed, clear, .. } = result;
        let clear = if keyed { clear } else { frames };
        Self { kind, frames, opened: frames.saturating_sub(failed + clear), failed, clear }
    }
}

impl Session<'_> {
    /// What was seen so far.
    pub(in crate::client) fn report(&self) -> VisitReport {
        let keyed = self.context.cryptor.is_some();
        let board = self.context.board();
        let ended = board.streams.iter().map(|result| (result.track.clone(), VisitStream::of(result, keyed)));
        let live = self.remotes.iter().map(|(track, remote)| (track, remote.meter.so_far()));
        let live = live.filter(|(_, result)| result.packets > 0);
        let live = live.map(|(track, result)| (track.clone(), VisitStream::of(result, keyed)));
        VisitReport {
            publisher_connected: self.publisher.as_ref().is_some_and(|p| p.transport.rtc.is_connected()),
            subscriber_connected: self.subscriber.up,
            frames_sent: self.publisher.as_ref().map_or(0, |publisher| publisher.frames),
            key_frame_requests: board.key_frames_wanted,
            streams: ended.chain(live).collect(),
            refusals: self.refusals.clone(),
            others: self.others.values().cloned().collect(),
        }
    }
}
