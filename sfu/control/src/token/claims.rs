//! What a token says, as LiveKit's server SDKs write it (camelCase JSON).

use std::collections::HashMap;
use std::fmt;

use livekit_protocol::participant_info::{Kind, KindDetail};
use livekit_protocol::{ParticipantPermission, TrackSource};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TokenError;

/// Longest identity and longest room name, in bytes; LiveKit's limits.
pub const MAX_NAME_SIZE: usize = 256;

/// A token's content. The `Debug` form shows no personal data.
#[derive(Clone, Default, PartialEq)]
pub struct Claims {
    /// Who the holder is in the room (`sub`, else `jti`).
    pub identity: String,
    /// Display name.
    pub name: String,
    /// What the holder may do.
    pub video: VideoGrants,
    /// Participant metadata.
    pub metadata: String,
    /// Participant attributes.
    pub attributes: HashMap<String, String>,
    /// Hash of a body that the token vouches for (webhooks); empty in access tokens.
    pub sha256: String,
    /// Kind of participant.
    pub kind: Kind,
    /// Finer kinds.
    pub kind_details: Vec<KindDetail>,
    /// End of validity in seconds since the Unix epoch (`exp`).
    pub expires_at: u64,
    /// Start of validity in seconds since the Unix epoch (`nbf`).
    pub not_before: Option<u64>,
    /// The issuer (`iss`): the API key of an HS256 token, else what the identity provider wrote.
    pub api_key: String,
    /// Signed with an API key's secret, not by a key of a key set.
    pub by_api_key: bool,
    /// When the first token of a chain of refreshed ones was used, in seconds since the Unix epoch.
    pub session_since: Option<u64>,
}

/// The `video` claim. Absent permissions mean "allowed" where LiveKit says so; ask the methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrants {
    /// May create and delete rooms.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub room_create: bool,
    /// May list rooms.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub room_list: bool,
    /// May record.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub room_record: bool,
    /// May administer `room`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub room_admin: bool,
    /// May join `room`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub room_join: bool,
    /// The room's name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub room: String,
    /// May publish; absent means yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// May subscribe; absent means yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// May send data; absent means as `can_publish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// If not empty, only these sources may be published. A source that is not known here becomes `Unknown`, which
    /// permits nothing but keeps the list from being empty.
    #[serde(deserialize_with = "read_sources", serialize_with = "write_sources")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<TrackSource>,
    /// May change its own name, metadata and attributes; absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// May administer ingress.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub ingress_admin: bool,
    /// Others do not see it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub hidden: bool,
    /// It records.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub recorder: bool,
    /// It is an agent.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub agent: bool,
    /// May subscribe to metrics; absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    /// May manage an agent session; absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
    /// The room that it may forward to.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub destination_room: String,
}

/// Why a valid token does not let its holder join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GrantError {
    /// The token lacks the grant. The text is LiveKit's, which SDKs show.
    #[error("permissions denied")]
    Denied,
    /// The token names no identity.
    #[error("identity cannot be empty")]
    NoIdentity,
    /// The identity is longer than [`MAX_NAME_SIZE`].
    #[error("participant identity exceeds {MAX_NAME_SIZE} bytes")]
    LongIdentity,
    /// The token names no room.
    #[error("no room name")]
    NoRoom,
    /// The room's name is longer than [`MAX_NAME_SIZE`].
    #[error("room name exceeds {MAX_NAME_SIZE} bytes")]
    LongRoom,
}

impl Claims {
    /// The room that the token lets its holder join.
    ///
    /// # Errors
    /// No `roomJoin`, or no usable identity or room name.
    pub fn join_room(&self) -> Result<&str, GrantError> {
        if !self.video.room_join {
            return Err(GrantError::Denied);
        }
        match (self.identity.len(), self.video.room.len()) {
            (0, _) => Err(GrantError::NoIdentity),
            (1..=MAX_NAME_SIZE, 0) => Err(GrantError::NoRoom),
            (1..=MAX_NAME_SIZE, 1..=MAX_NAME_SIZE) => Ok(&self.video.room),
            (1..=MAX_NAME_SIZE, _) => Err(GrantError::LongRoom),
            _ => Err(GrantError::LongIdentity),
        }
    }

    /// The token lets its holder join this room.
    pub fn permits_join(&self, room: &str) -> bool {
        self.join_room() == Ok(room)
    }

    /// The token lets its holder administer this room.
    pub fn permits_admin(&self, room: &str) -> bool {
        self.video.room_admin && self.video.room == room
    }

    pub(super) fn decode(payload: &[u8], by_api_key: bool) -> Result<Self, TokenError> {
        let wire: Wire = serde_json::from_slice(payload).map_err(|_| TokenError::Malformed("claims"))?;
        let identity = if wire.sub.is_empty() { wire.jti } else { wire.sub };
        Ok(Self {
            identity,
            name: wire.name,
            video: wire.video.unwrap_or_default(),
            metadata: wire.metadata,
            attributes: wire.attributes,
            sha256: wire.sha256,
            kind: Kind::from_str_name(&wire.kind.to_ascii_uppercase()).unwrap_or_default(),
            kind_details: wire
                .kind_details
                .iter()
                .filter_map(|detail| KindDetail::from_str_name(&detail.to_ascii_uppercase()))
                .collect(),
            expires_at: wire.exp.ok_or(TokenError::NoExpiry)?.0,
            not_before: wire.nbf.map(|date| date.0),
            api_key: wire.iss,
            by_api_key,
            session_since: wire.session_since,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Standard => String::new(),
            kind => kind.as_str_name().to_ascii_lowercase(),
        };
        let wire = Wire {
            iss: self.api_key.clone(),
            sub: self.identity.clone(),
            jti: String::new(),
            exp: Some(NumericDate(self.expires_at)),
            nbf: self.not_before.map(NumericDate),
            name: self.name.clone(),
            kind,
            kind_details: self.kind_details.iter().map(|k| k.as_str_name().to_ascii_lowercase()).collect(),
            video: Some(self.video.clone()),
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
            sha256: self.sha256.clone(),
            session_since: self.session_since,
        };
        serde_json::to_vec(&wire).expect("claims are maps with string keys, which JSON can hold")
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("expires_at", &self.expires_at)
            .field("room_join", &self.video.room_join)
            .field("room_admin", &self.video.room_admin)
            .finish_non_exhaustive()
    }
}

impl VideoGrants {
    /// May publish at all.
    pub fn may_publish(&self) -> bool {
        self.can_publish.unwrap_or(true)
    }

    /// May publish a track of this source.
    pub fn may_publish_source(&self, source: TrackSource) -> bool {
        self.may_publish()
            && (self.can_publish_sources.is_empty()
                || (source != TrackSource::Unknown && self.can_publish_sources.contains(&source)))
    }

    /// May subscribe.
    pub fn may_subscribe(&self) -> bool {
        self.can_subscribe.unwrap_or(true)
    }

    /// May send data packets.
    pub fn may_publish_data(&self) -> bool {
        self.can_publish_data.unwrap_or_else(|| self.may_publish())
    }

    /// May change its own name, metadata and attributes.
    pub fn may_update_own_metadata(&self) -> bool {
        self.can_update_own_metadata.unwrap_or(false)
    }

    /// Carries a grant that is worth something without a session.
    pub fn is_administrative(&self) -> bool {
        self.room_create
            || self.room_list
            || self.room_record
            || self.room_admin
            || self.ingress_admin
            || self.agent
    }

    /// The same as LiveKit tells participants about each other.
    #[allow(deprecated)] // old SDKs still read `recorder` and `agent`
    pub fn to_permission(&self) -> ParticipantPermission {
        ParticipantPermission {
            can_subscribe: self.may_subscribe(),
            can_publish: self.may_publish(),
            can_publish_data: self.may_publish_data(),
            can_publish_sources: self.can_publish_sources.iter().map(|&source| source as i32).collect(),
            hidden: self.hidden,
            recorder: self.recorder,
            can_update_metadata: self.may_update_own_metadata(),
            agent: self.agent,
            can_subscribe_metrics: self.can_subscribe_metrics.unwrap_or(false),
            can_manage_agent_session: self.can_manage_agent_session.unwrap_or(false),
        }
    }
}

/// `iss` of a payload whose signature is not verified yet; it only names the key to try.
pub(super) fn issuer(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    serde_json::from_slice::<Issuer>(payload).ok().map(|claims| claims.iss)
}

/// The payload as it is written. Unknown members, such as `roomConfig`, are ignored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default, deserialize_with = "or_default")]
    iss: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    sub: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    jti: String,
    #[serde(default)]
    exp: Option<NumericDate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<NumericDate>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    kind: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    kind_details: Vec<String>,
    #[serde(default)]
    video: Option<VideoGrants>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    metadata: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    attributes: HashMap<String, String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    sha256: String,
    #[serde(default, rename = "curtainSessionSince", skip_serializing_if = "Option::is_none")]
    session_since: Option<u64>,
}

/// Seconds since the Unix epoch; JSON may write a fraction
/// ([RFC 7519 section 2](https://www.rfc-editor.org/rfc/rfc7519#section-2)), which is cut off.
#[derive(Clone, Copy)]
struct NumericDate(u64);

impl Serialize for NumericDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        if let Some(seconds) = number.as_u64() {
            return Ok(Self(seconds));
        }
        match number.as_f64() {
            // The cast is exact below 2^53, far beyond any date in use.
            Some(seconds) if (0.0..9.0e15).contains(&seconds) => Ok(Self(seconds as u64)),
            _ => Err(serde::de::Error::custom("not a date")),
        }
    }
}

/// JSON `null` means the default, as in Go.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn read_sources<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<TrackSource>, D::Error> {
    let names = Option::<Vec<String>>::deserialize(d)?.unwrap_or_default();
    Ok(names
        .iter()
        .map(|name| TrackSource::from_str_name(&name.to_ascii_uppercase()).unwrap_or(TrackSource::Unknown))
        .collect())
}

fn write_sources<S: Serializer>(sources: &[TrackSource], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sources.iter().map(|source| source.as_str_name().to_ascii_lowercase()))
}
