//! The calls of LiveKit's RoomService on one room.

use bytes::Bytes;
use livekit_protocol as proto;
use proto::request_response::Reason;
use proto::signal_response::Message;
use sfu_control::messages::{ErrorCode, Refusal};
use std::time::Duration;

use super::api::AdminRequest;
use super::lifecycle::Goodbye;
use super::participant::Key;
use super::permissions::Permissions;
use super::{Room, Step, refusal};

/// Longest timeout that a call may set.
const MAX_TIMEOUT: u32 = 7 * 24 * 3600;

fn reply(message: &impl prost::Message) -> Result<Bytes, Refusal> {
    Ok(Bytes::from(message.encode_to_vec()))
}

impl Room {
    pub(super) fn admin(&mut self, request: AdminRequest, step: &mut Step<'_>) -> Result<Bytes, Refusal> {
        match request {
            AdminRequest::CreateRoom(request) => self.configure(request, step),
            AdminRequest::DeleteRoom(_) => {
                self.finish(proto::DisconnectReason::RoomDeleted, step);
                reply(&proto::DeleteRoomResponse {})
            }
            AdminRequest::ListParticipants(_) => {
                reply(&proto::ListParticipantsResponse { participants: self.participants() })
            }
            AdminRequest::GetParticipant(request) => {
                let key = self.named(&request.identity)?;
                self.reply_participant(key)
            }
            AdminRequest::RemoveParticipant(request) => {
                let key = self.named(&request.identity)?;
                self.remove(key, proto::DisconnectReason::ParticipantRemoved, Goodbye::Disconnect, step);
                reply(&proto::RemoveParticipantResponse {})
            }
            AdminRequest::MutePublishedTrack(request) => self.mute_published(&request, step),
            AdminRequest::UpdateParticipant(request) => self.update_participant(&request, step),
            AdminRequest::UpdateSubscriptions(request) => {
                let key = self.named(&request.identity)?;
                let known = |sid: &String| self.track_sids.contains_key(sid);
                let groups = request.participant_tracks.iter().flat_map(|g| &g.track_sids);
                if !request.track_sids.iter().chain(groups).all(known) {
                    return Err(refusal(ErrorCode::NotFound, "track does not exist"));
                }
                self.choose_tracks(
                    key,
                    &request.track_sids,
                    request.subscribe,
                    &request.participant_tracks,
                    step,
                );
                reply(&proto::UpdateSubscriptionsResponse {})
            }
            AdminRequest::SendData(request) => {
                if request.data.len() > self.config.max_data_bytes {
                    return Err(refusal(ErrorCode::InvalidArgument, "data exceeds the size limit"));
                }
                self.send_data(request, step);
                reply(&proto::SendDataResponse {})
            }
            AdminRequest::UpdateRoomMetadata(request) => {
                self.check_metadata(&request.metadata)?;
                self.metadata = request.metadata;
                self.room_changed();
                self.tell_at_once();
                reply(&self.info())
            }
        }
    }

    /// Zero and empty settings leave things as they are.
    fn configure(
        &mut self,
        request: proto::CreateRoomRequest,
        step: &mut Step<'_>,
    ) -> Result<Bytes, Refusal> {
        self.check_metadata(&request.metadata)?;
        let timeout = |seconds: u32| Duration::from_secs(u64::from(seconds.min(MAX_TIMEOUT)));
        if request.empty_timeout > 0 {
            self.empty_timeout = timeout(request.empty_timeout);
        }
        if request.departure_timeout > 0 {
            self.departure_timeout = timeout(request.departure_timeout);
        }
        if request.max_participants > 0 {
            self.max_participants = request.max_participants;
        }
        if !request.metadata.is_empty() {
            self.metadata = request.metadata;
        }
        self.room_changed();
        self.tell_at_once();
        self.start(step);
        reply(&self.info())
    }

    fn check_metadata(&self, metadata: &str) -> Result<(), Refusal> {
        if metadata.len() > self.config.max_metadata_bytes {
            return Err(refusal(ErrorCode::InvalidArgument, "metadata exceeds the size limit"));
        }
        Ok(())
    }

    fn named(&self, identity: &str) -> Result<Key, Refusal> {
        let key = self.identities.get(identity).copied();
        key.ok_or_else(|| refusal(ErrorCode::NotFound, "participant does not exist"))
    }

    fn reply_participant(&self, key: Key) -> Result<Bytes, Refusal> {
        let p = self
            .participants
            .get(&key)
            .ok_or_else(|| refusal(ErrorCode::NotFound, "participant does not exist"))?;
        reply(&self.participant_info(p))
    }

    fn mute_published(
        &mut self,
        request: &proto::MuteRoomTrackRequest,
        step: &mut Step<'_>,
    ) -> Result<Bytes, Refusal> {
        let key = self.named(&request.identity)?;
        let session = self.session_of(key);
        let not_found = || refusal(ErrorCode::NotFound, "track does not exist");
        let track = self.own_track(key, &request.track_sid).ok_or_else(not_found)?;
        // A microphone is opened by who sits before it.
        if track.info.muted && !request.muted {
            return Err(refusal(ErrorCode::FailedPrecondition, "remote unmute not enabled"));
        }
        let id = track.id;
        if request.muted && !track.info.muted {
            let message = proto::MuteTrackRequest { sid: request.track_sid.clone(), muted: true };
            step.signal(session, Message::Mute(message));
            self.set_muted(id, true, step);
        }
        let track = self.tracks.get(&id).map(|t| t.info.clone());
        reply(&proto::MuteRoomTrackResponse { track })
    }

    fn update_participant(
        &mut self,
        request: &proto::UpdateParticipantRequest,
        step: &mut Step<'_>,
    ) -> Result<Bytes, Refusal> {
        let key = self.named(&request.identity)?;
        self.set_profile(key, &request.metadata, &request.name, &request.attributes).map_err(
            |(reason, message)| match reason {
                Reason::NotFound => refusal(ErrorCode::NotFound, message),
                _ => refusal(ErrorCode::InvalidArgument, message),
            },
        )?;
        if let Some(permission) = &request.permission {
            self.set_permissions(key, Permissions::from_proto(permission), step);
        }
        self.reply_participant(key)
    }

    /// Permissions change, and what they no longer permit ends in the same step.
    fn set_permissions(&mut self, key: Key, permissions: Permissions, step: &mut Step<'_>) {
        let Some(p) = self.participants.get(&key) else { return };
        if p.permissions == permissions {
            return;
        }
        let sources = p.tracks.iter().filter_map(|id| self.tracks.get(id)).map(|t| (t.id, t.info.source));
        let ended: Vec<_> =
            sources.filter(|(_, source)| !permissions.may_publish(*source)).map(|(id, _)| id).collect();
        for id in ended {
            self.unpublish(id, true, step);
        }
        if permissions.hidden
            && let Some(p) = self.participants.remove(&key)
        {
            self.gone(&p, proto::DisconnectReason::UnknownReason, step);
            self.participants.insert(key, p);
        }
        if let Some(p) = self.participants.get_mut(&key) {
            p.permissions = permissions;
        }
        self.changed(key, true);
        self.room_changed();
        self.tell_at_once();
        self.consider_participant(key, step);
    }
}
