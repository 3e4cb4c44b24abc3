//! LiveKit's RoomService over Twirp ([specification](https://twitchtv.github.io/twirp/docs/spec_v7.html)): each call
//! goes to the relay, which checks the grants; here only the form and the token's signature are checked.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sfu_control::link::LinkError;
use sfu_control::messages::{AdminCall, ErrorCode};

use crate::app::App;
use crate::audit::AdminRecord;
use crate::{auth, metrics};

/// A Twirp error.
struct TwirpError {
    code: &'static str,
    status: StatusCode,
    message: String,
}

/// Codes that Twirp itself uses, beside those of [`ErrorCode`].
const BAD_ROUTE: &str = "bad_route";
const MALFORMED: &str = "malformed";

type Outcome<T> = Result<T, TwirpError>;

/// One method: how its messages are read and written in JSON, and which room a request is about.
struct MethodOf {
    name: &'static str,
    /// Checks a protobuf request and returns the room that it names.
    room: fn(&[u8]) -> Option<String>,
    from_json: fn(&[u8]) -> Result<Vec<u8>, serde_json::Error>,
    to_json: fn(&[u8]) -> Option<Vec<u8>>,
}

macro_rules! methods {
    ($($name:ident($request:ident.$room:ident) -> $response:ident),* $(,)?) => {
        &[$(MethodOf {
            name: stringify!($name),
            room: |bytes| proto::$request::decode(bytes).ok().map(|request| room_name(request.$room)),
            from_json: request_from_json::<proto::$request>,
            to_json: response_to_json::<proto::$response>,
        }),*]
    };
}

const METHODS: &[MethodOf] = methods![
    CreateRoom(CreateRoomRequest.name) -> Room,
    ListRooms(ListRoomsRequest.names) -> ListRoomsResponse,
    DeleteRoom(DeleteRoomRequest.room) -> DeleteRoomResponse,
    ListParticipants(ListParticipantsRequest.room) -> ListParticipantsResponse,
    GetParticipant(RoomParticipantIdentity.room) -> ParticipantInfo,
    RemoveParticipant(RoomParticipantIdentity.room) -> RemoveParticipantResponse,
    MutePublishedTrack(MuteRoomTrackRequest.room) -> MuteRoomTrackResponse,
    UpdateParticipant(UpdateParticipantRequest.room) -> ParticipantInfo,
    UpdateSubscriptions(UpdateSubscriptionsRequest.room) -> UpdateSubscriptionsResponse,
    SendData(SendDataRequest.room) -> SendDataResponse,
    UpdateRoomMetadata(UpdateRoomMetadataRequest.room) -> Room,
];

/// `POST /twirp/{service}/{method}`.
pub(crate) async fn call(
    State(app): State<App>,
    Path((service, method)): Path<(String, String)>,
    request: Request<Body>,
) -> Response {
    let Some(method) = METHODS.iter().find(|known| service == "livekit.RoomService" && known.name == method)
    else {
        ::metrics::counter!(metrics::TWIRP, "method" => "unknown", "outcome" => BAD_ROUTE).increment(1);
        return bad_route("no handler for this path").into_response();
    };
    let outcome = handle(&app, method, request).await;
    let label = outcome.as_ref().map_or_else(|error| error.code, |_| "ok");
    ::metrics::counter!(metrics::TWIRP, "method" => method.name, "outcome" => label).increment(1);
    outcome.unwrap_or_else(IntoResponse::into_response)
}

async fn handle(app: &App, method: &MethodOf, request: Request<Body>) -> Outcome<Response> {
    if request.method() != Method::POST {
        return Err(bad_route("only POST is allowed"));
    }
    let json = wants_json(request.headers())?;
    let verified = auth::verify(&app.verifier, request.headers(), None)
        .map_err(|error| TwirpError::of(ErrorCode::Unauthenticated, error.to_string()))?;
    let body =
        axum::body::to_bytes(request.into_body(), app.limits.body_size).await.map_err(|_| TwirpError {
            code: ErrorCode::ResourceExhausted.twirp(),
            status: StatusCode::PAYLOAD_TOO_LARGE,
            message: format!("the request cannot be read or exceeds {} bytes", app.limits.body_size),
        })?;
    let body = if json {
        (method.from_json)(&body).map(Bytes::from).map_err(|error| malformed(&json_fault(&error)))?
    } else {
        body
    };
    let room = (method.room)(&body).ok_or_else(|| malformed("the request is not the method's message"))?;

    let call = AdminCall { token: verified.token, method: method.name.to_owned(), request: body };
    let outcome = app.link.admin(call).await.map_err(TwirpError::from);
    if let Some(audit) = &app.audit {
        audit.admin(AdminRecord {
            method: method.name,
            room: &room,
            api_key: &verified.claims.api_key,
            identity: &verified.claims.identity,
            outcome: outcome.as_ref().map_or_else(|error| error.code, |_| "ok"),
        });
    }
    let response = outcome?;
    let (kind, body) = if json {
        let text = (method.to_json)(&response)
            .ok_or_else(|| TwirpError::of(ErrorCode::Internal, "the media relay's answer cannot be read"))?;
        ("application/json", Bytes::from(text))
    } else {
        ("application/protobuf", response)
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response())
}

fn wants_json(headers: &HeaderMap) -> Outcome<bool> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/json" => Ok(true),
        "application/protobuf" => Ok(false),
        _ => Err(bad_route("Content-Type must be application/json or application/protobuf")),
    }
}

fn request_from_json<M: Message + DeserializeOwned>(json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::from_slice::<M>(json).map(|message| message.encode_to_vec())
}

fn response_to_json<M: Message + Default + Serialize>(bytes: &[u8]) -> Option<Vec<u8>> {
    serde_json::to_vec(&M::decode(bytes).ok()?).ok()
}

/// Where and what kind, without the value, which may be personal.
fn json_fault(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "a field has a wrong type",
        _ => "the body is not JSON",
    };
    format!("{kind} (line {}, column {})", error.line(), error.column())
}

/// The room that a request names; with several, none stands for them.
trait RoomName {
    fn into_name(self) -> String;
}

impl RoomName for String {
    fn into_name(self) -> String {
        self
    }
}

impl RoomName for Vec<String> {
    fn into_name(mut self) -> String {
        if self.len() == 1 { self.swap_remove(0) } else { String::new() }
    }
}

fn room_name(name: impl RoomName) -> String {
    name.into_name()
}

fn bad_route(message: &str) -> TwirpError {
    TwirpError { code: BAD_ROUTE, status: StatusCode::NOT_FOUND, message: message.to_owned() }
}

fn malformed(message: &str) -> TwirpError {
    TwirpError { code: MALFORMED, status: StatusCode::BAD_REQUEST, message: message.to_owned() }
}

impl TwirpError {
    fn of(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { code: code.twirp(), status, message: message.into() }
    }
}

impl From<LinkError> for TwirpError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused(refusal) => {
                let code = ErrorCode::try_from(refusal.code).unwrap_or(ErrorCode::Internal);
                Self::of(code, refusal.message)
            }
            error => {
                tracing::debug!(%error, "RoomService call failed");
                Self::of(ErrorCode::Unavailable, "no media relay is available; try again")
            }
        }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Wire<'a> {
            code: &'a str,
            msg: &'a str,
        }
        // Twirp's errors are JSON whatever the request was.
        (self.status, axum::Json(Wire { code: self.code, msg: &self.message })).into_response()
    }
}
