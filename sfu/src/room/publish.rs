//! Tracks of participants: announced, bound to a section of the client's offer, muted, ended.

use std::collections::HashMap;
use std::time::Duration;

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};
use proto::signal_response::Message;
use sfu_media::command::{Codec, MediaKind, ShardCommand};
use sfu_media::ids::{Mid, TrackId};

use super::participant::Key;
use super::sdp::RemoteTrack;
use super::tracks::{MAX_TRACK_TEXT, Track, announced_codec};
use super::{Room, Step, transports};

/// How often at most it is reported that one track's media is not encrypted.
const PLAIN_REPORT_INTERVAL: Duration = Duration::from_secs(10);

impl Room {
    /// A client announces a track. The answer is `TrackPublishedResponse`, or a `RequestResponse` that says why not.
    pub(super) fn add_track(&mut self, key: Key, request: proto::AddTrackRequest, step: &mut Step<'_>) {
        let Some(p) = self.participants.get(&key) else { return };
        let session = p.session;
        // Announced twice, as after a resume: the same answer again.
        let again = p.tracks.iter().filter_map(|id| self.tracks.get(id)).find(|t| {
            t.binding.is_none() && t.info.r#type == request.r#type && t.cids.contains(&request.cid)
        });
        if let Some(track) = again {
            let response =
                proto::TrackPublishedResponse { cid: request.cid, track: Some(track.info.clone()) };
            return step.signal(session, Message::TrackPublished(response));
        }
        let (kind, unix) = match self.judge_track(key, &request) {
            Ok(kind) => (kind, i64::try_from(step.now.unix.as_micros()).unwrap_or(i64::MAX)),
            Err((reason, message)) => {
                tracing::debug!(?reason, message, "track refused");
                if let Some(p) = self.participants.get_mut(&key) {
                    p.transports.publisher.refuse(&request.cid);
                }
                return step.signal(
                    session,
                    Message::RequestResponse(proto::RequestResponse {
                        reason: reason as i32,
                        message: message.to_owned(),
                        request: Some(Request::AddTrack(request)),
                        ..Default::default()
                    }),
                );
            }
        };
        let id = self.ids.track();
        let sid =
            format!("TR_{}{}", kind_letters(kind, request.source), transports::token(&mut self.rng, 12));
        let track = Track::announced(id, sid, key, kind, &request, unix);
        let codec = announced_codec(kind, &request).filter(|c| self.config.codecs.contains(c));
        let Some(p) = self.participants.get_mut(&key) else { return };
        for cid in &track.cids {
            p.transports.publisher.accept(cid);
            p.transports.publisher.negotiation.set_publish_hint(cid, track.hint(codec));
        }
        p.tracks.push(id);
        // The offer may have come first.
        let waiting = p
            .transports
            .publisher
            .remote_tracks
            .values()
            .filter(|t| t.kind == kind && track.cids.contains(&t.track_id))
            .find(|t| !p.tracks.iter().any(|id| is_bound_to(self.tracks.get(id), t.mid)))
            .cloned();
        let response = proto::TrackPublishedResponse { cid: request.cid, track: Some(track.info.clone()) };
        step.signal(session, Message::TrackPublished(response));
        self.track_sids.insert(track.info.sid.clone(), id);
        self.tracks.insert(id, track);
        if let Some(remote) = waiting {
            self.bind(id, &remote, step);
        }
    }

    fn judge_track(
        &self,
        key: Key,
        request: &proto::AddTrackRequest,
    ) -> Result<MediaKind, (Reason, &'static str)> {
        let p = self.participants.get(&key).ok_or((Reason::NotFound, "no such participant"))?;
        if !p.permissions.may_publish(request.source) {
            return Err((Reason::NotAllowed, "no permission to publish a track of this source"));
        }
        let kind = match proto::TrackType::try_from(request.r#type) {
            Ok(proto::TrackType::Audio) => MediaKind::Audio,
            Ok(proto::TrackType::Video) => MediaKind::Video,
            _ => return Err((Reason::UnsupportedType, "tracks are audio or video")),
        };
        if !p.permissions.may_publish_kind(kind, request.source) {
            return Err((Reason::NotAllowed, "no permission to publish a track of this kind as this source"));
        }
        if !request.sid.is_empty() {
            return Err((Reason::UnsupportedType, "a second codec for a track is not supported"));
        }
        let texts = [&request.cid, &request.name, &request.stream];
        if request.cid.is_empty() || texts.iter().any(|t| t.len() > MAX_TRACK_TEXT) {
            return Err((Reason::InvalidRequest, "the track's client id is empty, or a text is too long"));
        }
        let encrypted = matches!(
            proto::encryption::Type::try_from(request.encryption),
            Ok(proto::encryption::Type::Gcm | proto::encryption::Type::Custom)
        );
        if self.requires_encryption() && !encrypted {
            return Err((
                Reason::NotAllowed,
                "this room requires end-to-end encryption, and the track was announced without it",
            ));
        }
        if p.tracks.len() >= self.config.max_tracks_per_participant {
            return Err((Reason::LimitExceeded, "too many tracks"));
        }
        Ok(kind)
    }

    /// Ends the tracks whose sections the client's offer no longer sends on.
    pub(super) fn unbind_missing(&mut self, key: Key, remote: &[RemoteTrack], step: &mut Step<'_>) {
        let Some(p) = self.participants.get(&key) else { return };
        let ended: Vec<_> = p
            .tracks
            .iter()
            .copied()
            .filter(|id| {
                let mid = self.tracks.get(id).and_then(|t| t.binding.as_ref()).map(|b| b.mid);
                mid.is_some_and(|mid| !remote.iter().any(|t| t.mid == mid))
            })
            .collect();
        for id in ended {
            self.unpublish(id, false, step);
        }
    }

    /// Binds announced tracks to sections of an offer: by the client's id, and for browsers that write ids of their own
    /// (Firefox), in order of announcement to sections that are new.
    pub(super) fn bind_offered(
        &mut self,
        key: Key,
        before: &HashMap<Mid, RemoteTrack>,
        remote: &[RemoteTrack],
        step: &mut Step<'_>,
    ) {
        let mut unclaimed = Vec::new();
        for offered in remote {
            let Some(p) = self.participants.get(&key) else { return };
            if p.tracks.iter().any(|id| is_bound_to(self.tracks.get(id), offered.mid)) {
                continue;
            }
            let by_id = |t: &&Track| t.cids.contains(&offered.track_id);
            let id = self.announced(key, offered.kind).find(by_id).map(|t| t.id);
            match id {
                Some(id) => self.bind(id, offered, step),
                None => unclaimed.push(offered),
            }
        }
        for offered in unclaimed {
            let Some(p) = self.participants.get(&key) else { return };
            let known = before.get(&offered.mid).is_some_and(|t| t.track_id == offered.track_id);
            if known || p.transports.publisher.is_refused(&offered.track_id) {
                continue;
            }
            let id = self.announced(key, offered.kind).next().map(|t| t.id);
            if let Some(id) = id {
                self.bind(id, offered, step);
            }
        }
    }

    /// Tracks that wait for a section.
    fn announced(&self, key: Key, kind: MediaKind) -> impl Iterator<Item = &Track> {
        let ids = self.participants.get(&key).map(|p| p.tracks.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| self.tracks.get(id)).filter(move |t| t.kind == kind && t.binding.is_none())
    }

    fn bind(&mut self, id: TrackId, remote: &RemoteTrack, step: &mut Step<'_>) {
        let required = self.requires_encryption();
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let Some(p) = self.participants.get(&track.publisher) else { return };
        let connection = &p.transports.publisher;
        let codecs = connection.receive.iter().find(|s| s.mid == remote.mid).map(|s| s.codecs.clone());
        let Some(codecs) = codecs else { return };
        track.bind(remote.mid, codecs, &remote.codecs);
        let (key, info, voice) = (track.publisher, track.info.clone(), track.is_voice());
        step.shard(ShardCommand::Publish {
            peer: connection.peer,
            mid: remote.mid,
            track: id,
            policy: track.policy(required),
        });
        self.changed(key, true);
        self.room_changed();
        let max = self.config.max_forwarded_speakers;
        if voice && max > 0 {
            step.shard(ShardCommand::LimitSpeakers { track: id, group: self.speaker_group, max });
        }
        self.begin_dynacast(id, step);
        self.track_event("track_published", key, &info, step);
        self.consider_track(id, step);
    }

    fn track_event(&self, name: &str, key: Key, track: &proto::TrackInfo, step: &mut Step<'_>) {
        let participant = self.participants.get(&key).map(|p| self.participant_info(p));
        self.event(name, participant.as_ref(), Some(track), step);
    }

    /// Ends a track at once. `tell` says that it was not its publisher who ended it.
    pub(super) fn unpublish(&mut self, id: TrackId, tell: bool, step: &mut Step<'_>) {
        let Some(track) = self.tracks.remove(&id) else { return };
        self.track_sids.remove(track.sid());
        self.speakers.forget(id);
        self.dynacast.forget(id);
        let key = track.publisher;
        let mut session = None;
        if let Some(p) = self.participants.get_mut(&key) {
            p.tracks.retain(|t| *t != id);
            session = p.session;
            if track.binding.is_some() && p.transports.publisher.is_open() {
                step.shard(ShardCommand::Unpublish { track: id });
            }
        }
        for subscriber in self.keys() {
            self.drop_sub(subscriber, id, step);
            if let Some(p) = self.participants.get_mut(&subscriber) {
                p.wants.remove(&id);
                p.settings.remove(&id);
                p.denied.remove(&id);
            }
        }
        if tell {
            let message = proto::TrackUnpublishedResponse { track_sid: track.info.sid.clone() };
            step.signal(session, Message::TrackUnpublished(message));
        }
        if track.binding.is_some() {
            self.changed(key, true);
            self.room_changed();
            self.tell_at_once();
            self.track_event("track_unpublished", key, &track.info, step);
        }
    }

    /// Mutes or unmutes a track.
    pub(super) fn set_muted(&mut self, id: TrackId, muted: bool, step: &mut Step<'_>) {
        let required = self.requires_encryption();
        let Some(track) = self.tracks.get_mut(&id) else { return };
        if track.info.muted == muted {
            return;
        }
        track.info.muted = muted;
        let (key, bound) = (track.publisher, track.binding.is_some());
        if bound {
            if self.participants.get(&key).is_some_and(|p| p.transports.publisher.is_open()) {
                step.shard(ShardCommand::SetTrackPolicy { track: id, policy: track.policy(required) });
            }
            self.changed(key, true);
        }
        self.tell_pauses(id, step);
        if muted {
            self.silence(id, step);
        }
    }

    /// The participant's own track of this sid.
    pub(super) fn own_track(&mut self, key: Key, sid: &str) -> Option<&mut Track> {
        let id = self.track_sids.get(sid)?;
        self.tracks.get_mut(id).filter(|t| t.publisher == key)
    }

    /// The publisher's codec, as its media shows it.
    pub(super) fn layer_live(&mut self, id: TrackId, codec: Codec) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        if !std::mem::replace(&mut track.codec_seen, true) && track.set_codec(codec) {
            let key = track.publisher;
            self.changed(key, true);
            self.dynacast.touch(id);
        }
    }

    /// A track's media is not encrypted though the room requires it; the shard drops it.
    pub(super) fn not_encrypted(&mut self, id: TrackId, step: &mut Step<'_>) {
        let now = step.now.instant;
        let Some(track) = self.tracks.get_mut(&id) else { return };
        // Frames that alternate between encrypted and not would flood the event feed, and the audit trail behind it.
        if track.plain_reported.is_some_and(|at| now < at + PLAIN_REPORT_INTERVAL) {
            return;
        }
        track.plain_reported = Some(now);
        let (key, info) = (track.publisher, track.info.clone());
        self.track_event("media_not_encrypted", key, &info, step);
        step.signal(
            self.session_of(key),
            Message::RequestResponse(proto::RequestResponse {
                reason: Reason::NotAllowed as i32,
                message: format!(
                    "this room requires end-to-end encryption: media of track {} is not encrypted and is not forwarded",
                    info.sid
                ),
                ..Default::default()
            }),
        );
    }
}

fn is_bound_to(track: Option<&Track>, mid: Mid) -> bool {
    track.and_then(|t| t.binding.as_ref()).is_some_and(|b| b.mid == mid)
}

/// LiveKit's sids tell the kind and source of a track.
fn kind_letters(kind: MediaKind, source: i32) -> &'static str {
    match (kind, proto::TrackSource::try_from(source)) {
        (MediaKind::Video, Ok(proto::TrackSource::Camera)) => "VC",
        (MediaKind::Video, Ok(proto::TrackSource::ScreenShare)) => "VS",
        (MediaKind::Video, _) => "V",
        (MediaKind::Audio, Ok(proto::TrackSource::Microphone)) => "AM",
        (MediaKind::Audio, Ok(proto::TrackSource::ScreenShareAudio)) => "AS",
        (MediaKind::Audio, _) => "A",
    }
}
