//! What a participant may do: from its token at the join, from administrators later.

use livekit_protocol as proto;
use sfu_control::token::VideoGrants;
use sfu_media::command::MediaKind;

/// The permissions in force for one participant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Permissions {
    pub(super) can_publish: bool,
    /// `TrackSource` values; empty means any.
    pub(super) publish_sources: Vec<i32>,
    pub(super) can_subscribe: bool,
    pub(super) can_publish_data: bool,
    pub(super) can_update_metadata: bool,
    pub(super) can_subscribe_metrics: bool,
    pub(super) hidden: bool,
    recorder: bool,
    agent: bool,
    can_manage_agent_session: bool,
}

impl Permissions {
    /// As a token grants them.
    pub(super) fn granted(grants: &VideoGrants) -> Self {
        Self::from_proto(&grants.to_permission())
    }

    /// As an administrator sets them. All of them are replaced, as LiveKit does.
    #[allow(deprecated)] // old SDKs still read `recorder` and `agent`
    pub(super) fn from_proto(p: &proto::ParticipantPermission) -> Self {
        Self {
            can_publish: p.can_publish,
            publish_sources: p.can_publish_sources.clone(),
            can_subscribe: p.can_subscribe,
            can_publish_data: p.can_publish_data,
            can_update_metadata: p.can_update_metadata,
            can_subscribe_metrics: p.can_subscribe_metrics,
            hidden: p.hidden,
            recorder: p.recorder,
            agent: p.agent,
            can_manage_agent_session: p.can_manage_agent_session,
        }
    }

    /// The form that clients read.
    #[allow(deprecated)]
    pub(super) fn to_proto(&self) -> proto::ParticipantPermission {
        proto::ParticipantPermission {
            can_subscribe: self.can_subscribe,
            can_publish: self.can_publish,
            can_publish_data: self.can_publish_data,
            can_publish_sources: self.publish_sources.clone(),
            hidden: self.hidden,
            recorder: self.recorder,
            can_update_metadata: self.can_update_metadata,
            agent: self.agent,
            can_subscribe_metrics: self.can_subscribe_metrics,
            can_manage_agent_session: self.can_manage_agent_session,
        }
    }

    /// May publish a track of this `TrackSource`. Nobody can see who is hidden, so its tracks could not be shown either.
    pub(super) fn may_publish(&self, source: i32) -> bool {
        let listed = source != proto::TrackSource::Unknown as i32 && self.publish_sources.contains(&source);
        self.can_publish && !self.hidden && (self.publish_sources.is_empty() || listed)
    }

    /// Where sources are listed, a microphone is sound and a camera is a picture: who may only speak cannot show a picture
    /// by calling it a microphone.
    pub(super) fn may_publish_kind(&self, kind: MediaKind, source: i32) -> bool {
        let of_source = match proto::TrackSource::try_from(source) {
            Ok(proto::TrackSource::Microphone | proto::TrackSource::ScreenShareAudio) => MediaKind::Audio,
            Ok(proto::TrackSource::Camera | proto::TrackSource::ScreenShare) => MediaKind::Video,
            Ok(proto::TrackSource::Unknown) | Err(_) => return true,
        };
        self.publish_sources.is_empty() || kind == of_source
    }

    /// The participant records the room.
    pub(super) fn is_recorder(&self) -> bool {
        self.recorder
    }
}

/// Whom a publisher lets subscribe to its tracks.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed {
    /// `None`: everybody.
    only: Option<Vec<proto::TrackPermission>>,
}

impl Allowed {
    /// From the publisher's request.
    pub(super) fn new(request: proto::SubscriptionPermission) -> Self {
        Self { only: (!request.all_participants).then_some(request.track_permissions) }
    }

    /// Whether a participant may subscribe to a track of this publisher.
    pub(super) fn permits(&self, track_sid: &str, subscriber_sid: &str, subscriber_identity: &str) -> bool {
        let Some(rules) = &self.only else { return true };
        rules.iter().any(|rule| {
            let named = (!rule.participant_identity.is_empty()
                && rule.participant_identity == subscriber_identity)
                || (!rule.participant_sid.is_empty() && rule.participant_sid == subscriber_sid);
            named && (rule.all_tracks || rule.track_sids.iter().any(|sid| sid == track_sid))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::TrackSource::{Camera, Microphone, ScreenShare, Unknown};

    fn grants() -> VideoGrants {
        VideoGrants { room_join: true, room: "r".into(), ..Default::default() }
    }

    #[test]
    fn absent_grants_mean_what_livekit_says() {
        let p = Permissions::granted(&grants());
        assert!(p.can_publish && p.can_subscribe && p.can_publish_data);
        assert!(!p.can_update_metadata && !p.hidden);
        let p = Permissions::granted(&VideoGrants { can_publish: Some(false), ..grants() });
        assert!(!p.can_publish && !p.can_publish_data);
    }

    #[test]
    fn sources_are_a_closed_list() {
        let p = Permissions::granted(&VideoGrants { can_publish_sources: vec![Microphone], ..grants() });
        assert!(p.may_publish(Microphone as i32));
        for source in [Camera as i32, ScreenShare as i32, Unknown as i32, 77] {
            assert!(!p.may_publish(source), "{source}");
        }
        assert!(Permissions::granted(&grants()).may_publish(Unknown as i32));
        assert!(!Permissions::granted(&VideoGrants { hidden: true, ..grants() }).may_publish(Camera as i32));
    }

    #[test]
    fn a_publisher_names_participants_and_tracks() {
        let rule = |identity: &str, all_tracks, sids: &[&str]| proto::TrackPermission {
            participant_identity: identity.into(),
            all_tracks,
            track_sids: sids.iter().map(|s| (*s).to_owned()).collect(),
            ..Default::default()
        };
        let allowed = Allowed::new(proto::SubscriptionPermission {
            all_participants: false,
            track_permissions: vec![rule("a", true, &[]), rule("b", false, &["TR_1"]), rule("", true, &[])],
        });
        assert!(allowed.permits("TR_2", "PA_a", "a"));
        assert!(allowed.permits("TR_1", "PA_b", "b") && !allowed.permits("TR_2", "PA_b", "b"));
        assert!(!allowed.permits("TR_1", "", ""), "an empty name in a rule names nobody");
        assert!(Allowed::default().permits("TR_2", "PA_c", "c"));
    }
}
