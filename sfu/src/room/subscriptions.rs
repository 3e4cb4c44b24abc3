//! Who receives which track. [`Room::consider`] is the one place that decides it: every change of a grant, a wish or a
//! track ends there.

use std::sync::Arc;

use livekit_protocol as proto;
use proto::signal_response::Message;
use sfu_media::command::{SendSection, ShardCommand, SubscriptionTarget};
use sfu_media::ids::{SubId, TrackId};

use super::participant::{Key, Participant};
use super::sdp::SendTrack;
use super::{Room, Step};

/// One track on its way to one participant.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) sub: SubId,
    /// What the description exchange settled; the shard sends from then on.
    pub(super) live: Option<SendSection>,
    pub(super) target: SubscriptionTarget,
    /// The shard says that the path does not carry it.
    pub(super) paused: bool,
    /// The client was told so. A muted track is not paused.
    pub(super) told_paused: bool,
}

enum Verdict {
    Yes,
    No,
    /// Its publisher does not let this participant.
    Denied,
}

impl Room {
    fn verdict(&self, key: Key, track_id: TrackId) -> Verdict {
        let (Some(p), Some(track)) = (self.participants.get(&key), self.tracks.get(&track_id)) else {
            return Verdict::No;
        };
        let wanted = p.wants.get(&track_id).copied().unwrap_or(p.auto_subscribe);
        let fits = p.subs.contains_key(&track_id) || p.subs.len() < self.config.max_subscriptions;
        let closed = p.transports.any_closed();
        let own = track.publisher == key;
        if own || closed || !wanted || !fits || !p.permissions.can_subscribe || track.binding.is_none() {
            return Verdict::No;
        }
        match self.participants.get(&track.publisher) {
            Some(publisher) if publisher.allowed.permits(track.sid(), &p.sid, &p.identity) => Verdict::Yes,
            Some(_) => Verdict::Denied,
            None => Verdict::No,
        }
    }

    /// Starts or ends a subscription as the rules now say.
    pub(super) fn consider(&mut self, key: Key, track_id: TrackId, step: &mut Step<'_>) {
        match self.verdict(key, track_id) {
            Verdict::Yes => {
                self.tell_denial(key, track_id, false, step);
                self.start_sub(key, track_id);
            }
            Verdict::No => self.drop_sub(key, track_id, step),
            Verdict::Denied => {
                self.drop_sub(key, track_id, step);
                self.tell_denial(key, track_id, true, step);
            }
        }
    }

    /// The same for every participant.
    pub(super) fn consider_track(&mut self, track_id: TrackId, step: &mut Step<'_>) {
        for key in self.keys() {
            self.consider(key, track_id, step);
        }
    }

    /// The same for every track.
    pub(super) fn consider_participant(&mut self, key: Key, step: &mut Step<'_>) {
        let tracks: Vec<_> = self.tracks.keys().copied().collect();
        for track_id in tracks {
            self.consider(key, track_id, step);
        }
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.participants.keys().copied().collect()
    }

    fn tell_denial(&mut self, key: Key, track_id: TrackId, denied: bool, step: &mut Step<'_>) {
        let Some(track) = self.tracks.get(&track_id) else { return };
        let publisher = self.participants.get(&track.publisher).map(|p| p.sid.clone()).unwrap_or_default();
        let Some(p) = self.participants.get_mut(&key) else { return };
        let news = if denied { p.denied.insert(track_id) } else { p.denied.remove(&track_id) };
        if news {
            step.signal(
                p.session,
                Message::SubscriptionPermissionUpdate(proto::SubscriptionPermissionUpdate {
                    participant_sid: publisher,
                    track_sid: track.sid().to_owned(),
                    allowed: !denied,
                }),
            );
        }
    }

    fn start_sub(&mut self, key: Key, track_id: TrackId) {
        let Some(track) = self.tracks.get(&track_id) else { return };
        let Some(binding) = &track.binding else { return };
        let speaks = self.speaks(track);
        let publisher = self.participants.get(&track.publisher).map(|p| p.sid.clone()).unwrap_or_default();
        let Some(p) = self.participants.get_mut(&key) else { return };
        if p.subs.contains_key(&track_id) {
            return;
        }
        let sub = self.ids.sub();
        let stream = match track.info.stream.as_str() {
            // With two PeerConnections the client knows a track by this id alone: browsers keep the first track's own id
            // when a section is used again.
            stream if p.transports.is_single() && p.syncs_streams() && !stream.is_empty() => stream,
            _ => track.sid(),
        };
        let stream_id = format!("{publisher}|{stream}");
        let connection = p.transports.receiving();
        let ssrc = connection.ssrc(&mut self.rng);
        let has_rtx = binding.codecs.iter().any(|c| c.rtx.is_some());
        let rtx_ssrc = has_rtx.then(|| connection.ssrc(&mut self.rng));
        connection.negotiation.add_track(SendTrack {
            sub,
            kind: track.kind,
            stream_id,
            track_id: track.sid().to_owned(),
            ssrc,
            rtx_ssrc,
            cname: Arc::from(publisher),
            codecs: binding.codecs.clone(),
        });
        let target = track.target(p.settings.get(&track_id), speaks);
        p.subs.insert(track_id, Subscription { sub, live: None, target, paused: false, told_paused: false });
        self.dynacast.touch(track_id);
        self.renegotiate.insert(key);
    }

    /// Ends a subscription at once, when there is one.
    pub(super) fn drop_sub(&mut self, key: Key, track_id: TrackId, step: &mut Step<'_>) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        let Some(subscription) = p.subs.remove(&track_id) else { return };
        self.dynacast.touch(track_id);
        let connection = p.transports.receiving();
        connection.negotiation.remove_track(subscription.sub);
        if subscription.live.is_some() && connection.is_open() {
            step.shard(ShardCommand::Unsubscribe { sub: subscription.sub });
        }
        self.renegotiate.insert(key);
    }

    /// An exchange settled what the participant receives.
    pub(super) fn apply_send(
        &mut self,
        key: Key,
        send: Vec<(SubId, SendSection)>,
        unsupported: &[SubId],
        step: &mut Step<'_>,
    ) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        let session = p.session;
        let mut lost = Vec::new();
        let mut refused = Vec::new();
        let mut started = Vec::new();
        let connection = p.transports.receiving_ref();
        let (peer, open) = (connection.peer, connection.is_open());
        for (track_id, subscription) in &mut p.subs {
            if unsupported.contains(&subscription.sub) {
                refused.push((*track_id, subscription.sub));
                continue;
            }
            let section = send.iter().find(|(sub, _)| *sub == subscription.sub).map(|(_, section)| section);
            match (&subscription.live, section) {
                (None, Some(section)) if open => {
                    step.shard(ShardCommand::Subscribe {
                        sub: subscription.sub,
                        track: *track_id,
                        peer,
                        section: section.clone(),
                        target: subscription.target,
                    });
                    subscription.live = Some(section.clone());
                    started.push(*track_id);
                }
                (Some(live), Some(section)) if live == section => {}
                // The client took the section back, or settled on something else for it. An egress stream never starts
                // over, so another one takes its place.
                (Some(_), _) => lost.push((*track_id, section.is_some())),
                (None, _) => {}
            }
        }
        for (track_id, sub) in refused {
            p.wants.insert(track_id, false);
            self.dynacast.touch(track_id);
            let track_sid = self.tracks.get(&track_id).map(|t| t.sid().to_owned()).unwrap_or_default();
            // A client can take back a codec that it is being sent.
            if p.subs.remove(&track_id).is_some_and(|s| s.live.is_some()) && open {
                step.shard(ShardCommand::Unsubscribe { sub });
            }
            step.signal(
                session,
                Message::SubscriptionResponse(proto::SubscriptionResponse {
                    track_sid,
                    err: proto::SubscriptionError::SeCodecUnsupported as i32,
                }),
            );
        }
        for (track_id, again) in lost {
            self.drop_sub(key, track_id, step);
            if again {
                self.consider(key, track_id, step);
            }
        }
        for track_id in started {
            self.tell_subscribed(track_id, step);
        }
    }

    /// Tells a publisher that its track has its first subscriber.
    fn tell_subscribed(&mut self, track_id: TrackId, step: &mut Step<'_>) {
        let Some(track) = self.tracks.get_mut(&track_id) else { return };
        if !std::mem::replace(&mut track.subscribed, true) {
            let message = proto::TrackSubscribed { track_sid: track.sid().to_owned() };
            let publisher = track.publisher;
            step.signal(self.session_of(publisher), Message::TrackSubscribed(message));
        }
    }

    /// A participant, or an administrator for it, chooses tracks.
    pub(super) fn choose_tracks(
        &mut self,
        key: Key,
        track_sids: &[String],
        subscribe: bool,
        groups: &[proto::ParticipantTracks],
        step: &mut Step<'_>,
    ) {
        let limit = self.config.max_subscriptions;
        let sids = track_sids.iter().chain(groups.iter().flat_map(|g| &g.track_sids)).take(limit);
        for sid in sids {
            let Some(track_id) = self.track_sids.get(sid).copied() else {
                if subscribe {
                    step.signal(
                        self.session_of(key),
                        Message::SubscriptionResponse(proto::SubscriptionResponse {
                            track_sid: sid.clone(),
                            err: proto::SubscriptionError::SeTrackNotfound as i32,
                        }),
                    );
                }
                continue;
            };
            if let Some(p) = self.participants.get_mut(&key) {
                p.wants.insert(track_id, subscribe);
                self.consider(key, track_id, step);
            }
        }
    }

    /// What a participant's page wants of tracks.
    pub(super) fn track_settings(
        &mut self,
        key: Key,
        settings: &proto::UpdateTrackSettings,
        step: &mut Step<'_>,
    ) {
        for sid in settings.track_sids.iter().take(self.config.max_subscriptions) {
            let Some(track) = self.track_sids.get(sid).and_then(|id| self.tracks.get(id)) else { continue };
            let speaks = self.speaks(track);
            let Some(p) = self.participants.get_mut(&key) else { return };
            let own = proto::UpdateTrackSettings { track_sids: Vec::new(), ..settings.clone() };
            let target = track.target(Some(&own), speaks);
            p.settings.insert(track.id, own);
            let open = p.transports.receiving_ref().is_open();
            if let Some(subscription) = p.subs.get_mut(&track.id)
                && subscription.target != target
            {
                subscription.target = target;
                self.dynacast.touch(track.id);
                if subscription.live.is_some() && open {
                    step.shard(ShardCommand::SetTarget { sub: subscription.sub, target });
                }
            }
        }
    }

    /// A subscriber's path no longer carries a track, or does again: its page says so instead of showing a frozen picture.
    pub(super) fn stream_paused(&mut self, track_id: TrackId, sub: SubId, paused: bool, step: &mut Step<'_>) {
        let of =
            |(_, p): &(&Key, &mut Participant)| p.subs.get(&track_id).is_some_and(|have| have.sub == sub);
        let Some((key, p)) = self.participants.iter_mut().find(of) else { return };
        let Some(subscription) = p.subs.get_mut(&track_id) else { return };
        subscription.paused = paused;
        let key = *key;
        self.tell_pause(key, track_id, step);
    }

    /// Tells the subscribers of a track whether it is paused, those for whom it changed.
    pub(super) fn tell_pauses(&mut self, track_id: TrackId, step: &mut Step<'_>) {
        for key in self.keys() {
            self.tell_pause(key, track_id, step);
        }
    }

    fn tell_pause(&mut self, key: Key, track_id: TrackId, step: &mut Step<'_>) {
        let Some(track) = self.tracks.get(&track_id) else { return };
        let Some(p) = self.participants.get_mut(&key) else { return };
        let Some(subscription) = p.subs.get_mut(&track_id) else { return };
        let paused = subscription.paused && !track.info.muted;
        if std::mem::replace(&mut subscription.told_paused, paused) == paused {
            return;
        }
        let session = p.session;
        let publisher = self.participants.get(&track.publisher).map_or("", |p| &p.sid);
        let info = stream_state(publisher, track.sid(), paused);
        let update = proto::StreamStateUpdate { stream_states: vec![info] };
        step.signal(session, Message::StreamStateUpdate(update));
    }

    /// Tells a subscriber that came back what is paused: it may have missed it.
    pub(super) fn repeat_pauses(&self, key: Key, step: &mut Step<'_>) {
        let Some(p) = self.participants.get(&key) else { return };
        let states: Vec<_> = p
            .subs
            .iter()
            .filter(|(_, sub)| sub.live.is_some())
            .filter_map(|(id, sub)| {
                let track = self.tracks.get(id)?;
                let publisher = self.participants.get(&track.publisher)?;
                Some(stream_state(&publisher.sid, track.sid(), sub.told_paused))
            })
            .collect();
        if !states.is_empty() {
            step.signal(
                p.session,
                Message::StreamStateUpdate(proto::StreamStateUpdate { stream_states: states }),
            );
        }
    }

    /// The layers of a track changed: the same wishes may mean other layers.
    pub(super) fn retarget(&mut self, track_id: TrackId, step: &mut Step<'_>) {
        let Some(track) = self.tracks.get(&track_id) else { return };
        let speaks = self.speaks(track);
        // The layers may have other names, too.
        self.dynacast.touch(track_id);
        for p in self.participants.values_mut() {
            let open = p.transports.receiving_ref().is_open();
            let target = track.target(p.settings.get(&track_id), speaks);
            if let Some(subscription) = p.subs.get_mut(&track_id)
                && subscription.target != target
            {
                subscription.target = target;
                if subscription.live.is_some() && open {
                    step.shard(ShardCommand::SetTarget { sub: subscription.sub, target });
                }
            }
        }
    }
}

fn stream_state(publisher: &str, track: &str, paused: bool) -> proto::StreamStateInfo {
    let state = if paused { proto::StreamState::Paused } else { proto::StreamState::Active };
    proto::StreamStateInfo {
        participant_sid: publisher.to_owned(),
        track_sid: track.to_owned(),
        state: state as i32,
    }
}
