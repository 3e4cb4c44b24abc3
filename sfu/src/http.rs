//! Room visibility, health and metrics over HTTP.
//!
//! `GET /rooms` wants a bearer token with `roomList`; `GET /rooms/{name}` and `/rooms/{name}/participants` want `roomAdmin`
//! for that room. Answers are JSON in the field names of LiveKit's protobuf messages.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use livekit_protocol as proto;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use sfu_control::messages::{ErrorCode, Refusal};
use sfu_control::process::ProcessMetrics;
use sfu_control::token::Claims;

use crate::node::{Node, refusal};

/// What handlers share.
#[derive(Clone)]
struct Shared {
    node: Arc<Node>,
    metrics: PrometheusHandle,
    process: ProcessMetrics,
}

/// The relay's HTTP API.
pub fn router(node: Arc<Node>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/rooms", get(rooms))
        .route("/rooms/{name}", get(room))
        .route("/rooms/{name}/participants", get(participants))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Shared { node, metrics, process: ProcessMetrics::new() })
}

#[derive(Serialize)]
struct Rooms {
    rooms: Vec<proto::Room>,
}

#[derive(Serialize)]
struct RoomDetail {
    room: proto::Room,
    participants: Vec<proto::ParticipantInfo>,
}

#[derive(Serialize)]
struct Participants {
    participants: Vec<proto::ParticipantInfo>,
}

async fn rooms(State(shared): State<Shared>, headers: HeaderMap) -> Result<Json<Rooms>, Refused> {
    let claims = authorise(&shared.node, &headers)?;
    if !claims.video.room_list {
        return Err(denied());
    }
    let rooms = shared.node.snapshots().await.into_iter().map(|s| s.room).collect();
    Ok(Json(Rooms { rooms }))
}

async fn room(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<RoomDetail>, Refused> {
    let snapshot = admin_snapshot(&shared.node, &headers, &name).await?;
    Ok(Json(RoomDetail { room: snapshot.room, participants: snapshot.participants }))
}

async fn participants(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Participants>, Refused> {
    let snapshot = admin_snapshot(&shared.node, &headers, &name).await?;
    Ok(Json(Participants { participants: snapshot.participants }))
}

async fn admin_snapshot(
    node: &Node,
    headers: &HeaderMap,
    name: &str,
) -> Result<crate::node::RoomSnapshot, Refused> {
    // Whether a room exists is for its administrators to know: the grant is checked first.
    if !authorise(node, headers)?.permits_admin(name) {
        return Err(denied());
    }
    let missing = || Refused(refusal(ErrorCode::NotFound, "requested room does not exist"));
    node.snapshot(name).await.ok_or_else(missing)
}

async fn ready(State(shared): State<Shared>) -> Response {
    if shared.node.is_ready() {
        "ready".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "a shard has stopped").into_response()
    }
}

async fn render(State(shared): State<Shared>) -> Response {
    shared.metrics.run_upkeep();
    let text = shared.metrics.render() + &shared.process.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn authorise(node: &Node, headers: &HeaderMap) -> Result<Claims, Refused> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| Refused(refusal(ErrorCode::Unauthenticated, "a bearer token is required")))?;
    node.verify(token.trim()).map_err(Refused)
}

fn denied() -> Refused {
    Refused(refusal(ErrorCode::PermissionDenied, "permissions denied"))
}

/// A refusal as HTTP has it.
struct Refused(Refusal);

#[derive(Serialize)]
struct ErrorBody {
    code: &'static str,
    msg: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let code = self.0.code();
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody { code: code.twirp(), msg: self.0.message })).into_response()
    }
}
