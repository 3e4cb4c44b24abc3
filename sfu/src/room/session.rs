//! What clients ask for over their signalling connection.

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};
use proto::signal_request::Message as Asked;
use proto::signal_response::Message;

use super::api::SessionId;
use super::lifecycle::Goodbye;
use super::participant::Key;
use super::permissions::Allowed;
use super::{Room, Step};

impl Room {
    /// One request. Requests of a connection that was replaced or closed are ignored.
    pub(super) fn signal(&mut self, session: SessionId, request: proto::SignalRequest, step: &mut Step<'_>) {
        let Some(key) = self.sessions.get(&session).copied() else { return };
        let Some(message) = request.message else { return };
        match message {
            Asked::Offer(offer) => self.offer(key, &offer, step),
            Asked::Answer(answer) => self.answer(key, &answer, step),
            // The relay is ICE-lite: the client's checks tell it all that candidates could.
            Asked::Trickle(_) => {}
            Asked::AddTrack(request) => self.add_track(key, request, step),
            Asked::Mute(request) => {
                if let Some(id) = self.own_track(key, &request.sid).map(|t| t.id) {
                    self.set_muted(id, request.muted, step);
                }
            }
            Asked::Subscription(request) => {
                self.choose_tracks(
                    key,
                    &request.track_sids,
                    request.subscribe,
                    &request.participant_tracks,
                    step,
                );
            }
            Asked::TrackSetting(settings) => self.track_settings(key, &settings, step),
            Asked::Leave(leave) => {
                tracing::debug!(reason = leave.reason, "leave");
                self.remove(key, proto::DisconnectReason::ClientInitiated, Goodbye::Silent, step);
            }
            #[allow(deprecated)] // older SDKs send it
            Asked::UpdateLayers(request) => self.update_layers(key, &request.track_sid, request.layers, step),
            Asked::SubscriptionPermission(request) => self.allow(key, request, step),
            Asked::SyncState(state) => self.sync_state(key, &state, step),
            // Faults are simulated by tests of the relay, not by clients in a visit.
            Asked::Simulate(_) => {}
            Asked::Ping(_) => {
                let now = step.now.unix_ms().cast_signed();
                step.signal(Some(session), Message::Pong(now));
            }
            Asked::PingReq(ping) => {
                let timestamp = step.now.unix_ms().cast_signed();
                let pong = proto::Pong { last_ping_timestamp: ping.timestamp, timestamp };
                step.signal(Some(session), Message::PongResp(pong));
            }
            Asked::UpdateMetadata(request) => self.update_own_metadata(key, session, request, step),
            Asked::UpdateAudioTrack(request) => {
                if let Some(track) = self.own_track(key, &request.track_sid) {
                    track.info.audio_features = request.features.into_iter().take(16).collect();
                    self.changed(key, true);
                }
            }
            Asked::UpdateVideoTrack(request) => {
                if let Some(track) = self.own_track(key, &request.track_sid) {
                    track.set_dimensions(request.width, request.height);
                    let id = track.id;
                    self.changed(key, true);
                    self.retarget(id, step);
                }
            }
            Asked::PublishDataTrackRequest(request) => step.signal(
                Some(session),
                refuse(
                    0,
                    Reason::UnsupportedType,
                    "data tracks are not supported",
                    Some(Request::PublishDataTrack(request)),
                ),
            ),
            Asked::UnpublishDataTrackRequest(request) => step.signal(
                Some(session),
                refuse(
                    0,
                    Reason::InvalidHandle,
                    "no such data track",
                    Some(Request::UnpublishDataTrack(request)),
                ),
            ),
            Asked::UpdateDataSubscription(_) => {}
            Asked::StoreDataBlobRequest(request) => {
                let id = request.request_id;
                step.signal(
                    Some(session),
                    refuse(id, Reason::UnsupportedType, "data blobs are not stored", None),
                );
            }
            Asked::GetDataBlobRequest(request) => {
                let id = request.request_id;
                step.signal(Some(session), refuse(id, Reason::NotFound, "data blobs are not stored", None));
            }
        }
    }

    fn update_layers(
        &mut self,
        key: Key,
        track_sid: &str,
        layers: Vec<proto::VideoLayer>,
        step: &mut Step<'_>,
    ) {
        if let Some(track) = self.own_track(key, track_sid) {
            track.set_layers(layers);
            let id = track.id;
            self.changed(key, true);
            self.retarget(id, step);
        }
    }

    /// A publisher says who may subscribe to its tracks.
    fn allow(&mut self, key: Key, request: proto::SubscriptionPermission, step: &mut Step<'_>) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        p.allowed = Allowed::new(request);
        for id in p.tracks.clone() {
            self.consider_track(id, step);
        }
    }

    fn update_own_metadata(
        &mut self,
        key: Key,
        session: SessionId,
        request: proto::UpdateParticipantMetadata,
        step: &mut Step<'_>,
    ) {
        let id = request.request_id;
        let outcome = match self.participants.get(&key) {
            Some(p) if p.permissions.can_update_metadata => {
                self.set_profile(key, &request.metadata, &request.name, &request.attributes)
            }
            _ => Err((Reason::NotAllowed, "does not have permission to update own metadata")),
        };
        let response = match outcome {
            Ok(()) => refuse(id, Reason::Ok, "", None),
            Err((reason, message)) => refuse(id, reason, message, Some(Request::UpdateMetadata(request))),
        };
        step.signal(Some(session), response);
    }

    /// Changes what a participant shows of itself. Empty texts leave things as they are; an attribute with an empty value
    /// is deleted. All or nothing.
    pub(super) fn set_profile(
        &mut self,
        key: Key,
        metadata: &str,
        name: &str,
        attributes: &std::collections::HashMap<String, String>,
    ) -> Result<(), (Reason, &'static str)> {
        let config = &self.config;
        let Some(p) = self.participants.get_mut(&key) else {
            return Err((Reason::NotFound, "no such participant"));
        };
        if metadata.len() > config.max_metadata_bytes {
            return Err((Reason::LimitExceeded, "metadata exceeds the size limit"));
        }
        if name.len() > config.max_name_bytes {
            return Err((Reason::LimitExceeded, "name exceeds the size limit"));
        }
        if p.attribute_bytes(attributes) > config.max_attributes_bytes {
            return Err((Reason::LimitExceeded, "attributes exceed the size limit"));
        }
        if !metadata.is_empty() {
            metadata.clone_into(&mut p.metadata);
        }
        if !name.is_empty() {
            name.clone_into(&mut p.name);
        }
        p.set_attributes(attributes);
        self.changed(key, true);
        Ok(())
    }

    /// After a resume the client says what it believes. A track that the room does not know cannot be repaired by it.
    pub(super) fn sync_state(&mut self, key: Key, state: &proto::SyncState, step: &mut Step<'_>) {
        let unknown = state.publish_tracks.iter().any(|t| {
            let sid = t.track.as_ref().map(|t| t.sid.as_str()).unwrap_or_default();
            self.own_track(key, sid).is_none()
        });
        if unknown || !state.publish_data_tracks.is_empty() {
            return self.remove(key, proto::DisconnectReason::StateMismatch, Goodbye::Reconnect, step);
        }
        if let Some(choice) = &state.subscription {
            self.choose_tracks(key, &choice.track_sids, choice.subscribe, &choice.participant_tracks, step);
        }
        let disabled = proto::UpdateTrackSettings {
            track_sids: state.track_sids_disabled.clone(),
            disabled: true,
            ..Default::default()
        };
        self.track_settings(key, &disabled, step);
    }
}

fn refuse(request_id: u32, reason: Reason, message: &str, request: Option<Request>) -> Message {
    Message::RequestResponse(proto::RequestResponse {
        request_id,
        reason: reason as i32,
        message: message.to_owned(),
        request,
    })
}
