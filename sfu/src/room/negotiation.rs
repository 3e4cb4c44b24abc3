//! Description exchanges: the client's offers and the relay's answers, and where the client speaks v0 the relay's
//! offers.

use livekit_protocol as proto;
use proto::signal_response::Message;
use sfu_media::command::ShardCommand;

use super::participant::Key;
use super::transports::{Stage, relay_channels};
use super::{Room, Step};

impl Room {
    /// The client offers on its publishing (or only) connection.
    pub(super) fn offer(&mut self, key: Key, offer: &proto::SessionDescription, step: &mut Step<'_>) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        let session = p.session;
        let connection = &mut p.transports.publisher;
        if connection.stage == Stage::Closed {
            return;
        }
        if connection.negotiation.restarts_ice(&offer.sdp)
            && let Some(command) = connection.restart_ice(&mut self.rng)
        {
            step.shard(command);
        }
        let negotiated = match connection.negotiation.answer(&offer.sdp) {
            Ok(negotiated) => negotiated,
            Err(error) => return refuse_description(session, "offer", &error, step),
        };
        connection.answered = true;
        connection.requested = None;
        if let Some(command) = connection.open(Vec::new()) {
            self.peers.insert(connection.peer, key);
            step.shard(command);
        }
        if let Some(command) = connection.set_remote(&negotiated.remote) {
            step.shard(command);
        }
        self.apply_receive(key, negotiated.receive, negotiated.remote_tracks, step);
        if self.participants.get(&key).is_some_and(|p| p.transports.is_single()) {
            self.apply_send(key, negotiated.send, &negotiated.unsupported, step);
            self.renegotiate.insert(key);
        }
        step.signal(
            session,
            Message::Answer(proto::SessionDescription {
                r#type: "answer".to_owned(),
                sdp: negotiated.sdp,
                id: offer.id,
                mid_to_track_id: negotiated.mid_to_track_id,
            }),
        );
    }

    /// The client answers the relay's offer. Native SDKs leave the id zero.
    pub(super) fn answer(&mut self, key: Key, answer: &proto::SessionDescription, step: &mut Step<'_>) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        let session = p.session;
        let Some(connection) = p.transports.subscriber.as_mut() else { return };
        let stale = answer.id != 0 && answer.id != connection.offer_id;
        if !connection.in_flight || stale || !connection.is_open() {
            return;
        }
        connection.in_flight = false;
        let negotiated = match connection.negotiation.accept_answer(&answer.sdp) {
            Ok(negotiated) => negotiated,
            Err(error) => return refuse_description(session, "answer", &error, step),
        };
        if let Some(command) = connection.set_remote(&negotiated.remote) {
            step.shard(command);
        }
        self.apply_send(key, negotiated.send, &negotiated.unsupported, step);
        self.renegotiate.insert(key);
    }

    /// Starts the exchanges that this step made necessary. A connection has one at a time; what changes meanwhile goes
    /// into the next.
    pub(super) fn flush_negotiation(&mut self, step: &mut Step<'_>) {
        for key in std::mem::take(&mut self.renegotiate) {
            let Some(p) = self.participants.get_mut(&key) else { continue };
            if p.session.is_none() {
                continue; // a resume asks again
            }
            if p.transports.is_single() {
                self.request_sections(key, step)
            } else {
                self.send_offer(key, step)
            }
        }
    }

    /// Asks a v1 client for an offer, with the sections that its tracks need.
    fn request_sections(&mut self, key: Key, step: &mut Step<'_>) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        let connection = &mut p.transports.publisher;
        // Its first offer comes by itself and brings sections to receive on.
        if !connection.answered || !connection.is_open() || !connection.negotiation.needs_negotiation() {
            return;
        }
        let need = connection.negotiation.unassigned();
        let (audios, videos) = connection.requested.unwrap_or((0, 0));
        let more = (need.audios.saturating_sub(audios), need.videos.saturating_sub(videos));
        if connection.requested.is_some() && more == (0, 0) {
            return;
        }
        connection.requested = Some((audios + more.0, videos + more.1));
        step.signal(
            p.session,
            Message::MediaSectionsRequirement(proto::MediaSectionsRequirement {
                num_audios: u32::try_from(more.0).unwrap_or(0),
                num_videos: u32::try_from(more.1).unwrap_or(0),
            }),
        );
    }

    /// Offers to a v0 client.
    fn send_offer(&mut self, key: Key, step: &mut Step<'_>) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        let idle = p.subs.is_empty() && !p.permissions.can_subscribe;
        let session = p.session;
        let Some(connection) = p.transports.subscriber.as_mut() else { return };
        let unused = connection.stage == Stage::New && idle;
        let over = connection.stage == Stage::Closed;
        if connection.in_flight || over || unused || !connection.negotiation.needs_negotiation() {
            return;
        }
        let sdp = connection.negotiation.offer();
        if let Some(command) = connection.open(relay_channels()) {
            self.peers.insert(connection.peer, key);
            step.shard(command);
        }
        connection.in_flight = true;
        connection.offer_id = connection.offer_id.wrapping_add(1).max(1);
        step.signal(
            session,
            Message::Offer(proto::SessionDescription {
                r#type: "offer".to_owned(),
                sdp,
                id: connection.offer_id,
                mid_to_track_id: connection.negotiation.mid_to_track_id(),
            }),
        );
    }

    /// The relay's side of an ICE restart after a resume: new credentials go with a new offer.
    pub(super) fn restart_subscriber(&mut self, key: Key, step: &mut Step<'_>) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        p.transports.publisher.requested = None;
        if let Some(connection) = p.transports.subscriber.as_mut() {
            connection.in_flight = false;
            if connection.is_open()
                && let Some(command) = connection.restart_ice(&mut self.rng)
            {
                step.shard(command);
            }
        }
        self.renegotiate.insert(key);
    }

    /// The sections that a client may send on, as its offer left them.
    fn apply_receive(
        &mut self,
        key: Key,
        receive: Vec<sfu_media::command::ReceiveSection>,
        remote_tracks: Vec<super::sdp::RemoteTrack>,
        step: &mut Step<'_>,
    ) {
        self.unbind_missing(key, &remote_tracks, step);
        let Some(p) = self.participants.get_mut(&key) else { return };
        let connection = &mut p.transports.publisher;
        if connection.receive != receive {
            step.shard(ShardCommand::SetReceive { peer: connection.peer, sections: receive.clone() });
            connection.receive = receive;
        }
        let before = std::mem::take(&mut connection.remote_tracks);
        connection.remote_tracks = remote_tracks.iter().map(|t| (t.mid, t.clone())).collect();
        self.bind_offered(key, &before, &remote_tracks, step);
    }
}

/// The client's description is not usable. The last good one stands, and the call goes on with it.
fn refuse_description(
    session: Option<super::SessionId>,
    what: &str,
    error: &super::sdp::SdpError,
    step: &mut Step<'_>,
) {
    tracing::debug!(what, %error, "description refused");
    step.signal(
        session,
        Message::RequestResponse(proto::RequestResponse {
            reason: proto::request_response::Reason::InvalidRequest as i32,
            message: format!("the {what} was not accepted: {error}"),
            ..Default::default()
        }),
    );
}
