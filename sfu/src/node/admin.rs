//! RoomService calls: who may make them, and which room they go to.

use std::sync::Arc;

use livekit_protocol as proto;
use prost::Message;
use prost::bytes::Bytes;
use sfu_control::messages::{AdminCall, ErrorCode, Refusal};
use sfu_control::token::Claims;
use tokio::sync::oneshot;

use super::actor::{RoomHandle, RoomMessage};
use super::{Node, refusal};
use crate::room::AdminRequest;

/// Longest room name, in bytes.
const MAX_ROOM_NAME: usize = 256;

impl Node {
    /// Carries out one call; the answer is the encoded response message.
    ///
    /// # Errors
    /// When the token does not allow it, the request is malformed, or what it names does not exist.
    pub async fn admin(self: &Arc<Self>, call: AdminCall) -> Result<Bytes, Refusal> {
        let claims = self.verify(&call.token)?;
        let body = call.request;
        match call.method.as_str() {
            "ListRooms" => {
                require(claims.video.room_list)?;
                let request: proto::ListRoomsRequest = decode(body)?;
                let rooms = self.snapshots().await.into_iter().map(|s| s.room);
                let rooms =
                    rooms.filter(|r| request.names.is_empty() || request.names.contains(&r.name)).collect();
                Ok(proto::ListRoomsResponse { rooms }.encode_to_vec().into())
            }
            "CreateRoom" => {
                require(claims.video.room_create)?;
                let request: proto::CreateRoomRequest = decode(body)?;
                if request.name.is_empty() || request.name.len() > MAX_ROOM_NAME {
                    return Err(refusal(
                        ErrorCode::InvalidArgument,
                        format!("a room's name has 1 to {MAX_ROOM_NAME} bytes"),
                    ));
                }
                let room = self.room_or_new(&request.name);
                ask(&room, AdminRequest::CreateRoom(request)).await
            }
            "DeleteRoom" => {
                require(claims.video.room_create)?;
                let request: proto::DeleteRoomRequest = decode(body)?;
                let room = self.existing(&request.room)?;
                ask(&room, AdminRequest::DeleteRoom(request)).await
            }
            method => {
                let (name, request) = request_of(method, body)?;
                self.require_admin(&claims, &name)?;
                let room = self.existing(&name)?;
                ask(&room, request).await
            }
        }
    }

    fn require_admin(&self, claims: &Claims, room: &str) -> Result<(), Refusal> {
        require(claims.permits_admin(room))
    }

    fn existing(&self, name: &str) -> Result<RoomHandle, Refusal> {
        self.rooms
            .get(name)
            .map(|room| room.value().clone())
            .ok_or_else(|| refusal(ErrorCode::NotFound, "requested room does not exist"))
    }
}

/// Calls that need `roomAdmin` for the room they name.
fn request_of(method: &str, body: Bytes) -> Result<(String, AdminRequest), Refusal> {
    macro_rules! request {
        ($kind:ident, $message:ident) => {
            decode::<proto::$message>(body).map(|r| (r.room.clone(), AdminRequest::$kind(r)))
        };
    }
    match method {
        "ListParticipants" => request!(ListParticipants, ListParticipantsRequest),
        "GetParticipant" => request!(GetParticipant, RoomParticipantIdentity),
        "RemoveParticipant" => request!(RemoveParticipant, RoomParticipantIdentity),
        "MutePublishedTrack" => request!(MutePublishedTrack, MuteRoomTrackRequest),
        "UpdateParticipant" => request!(UpdateParticipant, UpdateParticipantRequest),
        "UpdateSubscriptions" => request!(UpdateSubscriptions, UpdateSubscriptionsRequest),
        "SendData" => request!(SendData, SendDataRequest),
        "UpdateRoomMetadata" => request!(UpdateRoomMetadata, UpdateRoomMetadataRequest),
        _ => Err(refusal(ErrorCode::Unimplemented, "no such method")),
    }
}

fn require(granted: bool) -> Result<(), Refusal> {
    if granted { Ok(()) } else { Err(refusal(ErrorCode::PermissionDenied, "permissions denied")) }
}

fn decode<M: Message + Default>(body: Bytes) -> Result<M, Refusal> {
    M::decode(body)
        .map_err(|_| refusal(ErrorCode::InvalidArgument, "the request is not the method's message"))
}

async fn ask(room: &RoomHandle, request: AdminRequest) -> Result<Bytes, Refusal> {
    let gone = || refusal(ErrorCode::NotFound, "requested room does not exist");
    let (reply, answer) = oneshot::channel();
    room.send(RoomMessage::Admin { request: Box::new(request), reply }).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}
