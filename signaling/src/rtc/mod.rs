//! The doors of participants: `/rtc` and `/rtc/v1` (WebSocket) and the `validate` paths beside them, which SDKs ask
//! why a WebSocket was refused.

mod codec;
mod limit;
mod params;
mod session;

use std::time::Instant;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query as QueryOf, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sfu_control::link::{LinkError, LinkState};
use sfu_control::messages::ErrorCode;

use crate::app::App;
use crate::{auth, metrics};
use params::{Join, Query};

/// Answers of the WebSocket layer may wait up to this many bytes for a slow client before its writer has to wait.
const WRITE_BUFFER: usize = 1024 * 1024;
/// Clients' messages are small; a longer one is read in several steps. Each connection keeps a buffer of this size (the
/// library's default is 128 KiB), and fills it with zeros before it reads.
const READ_BUFFER: usize = 4096;

/// A refused request: LiveKit's status and text.
struct Refused {
    status: StatusCode,
    text: String,
    /// For the metrics.
    outcome: &'static str,
}

impl Refused {
    fn new(status: StatusCode, outcome: &'static str, reason: impl std::fmt::Display) -> Self {
        Self { status, text: reason.to_string(), outcome }
    }
}

pub(crate) async fn v0(
    State(app): State<App>,
    query: QueryOf<Query>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    serve(app, &query, &headers, upgrade, false).await
}

pub(crate) async fn v1(
    State(app): State<App>,
    query: QueryOf<Query>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    serve(app, &query, &headers, upgrade, true).await
}

pub(crate) async fn validate_v0(
    State(app): State<App>,
    query: QueryOf<Query>,
    headers: HeaderMap,
) -> Response {
    validate(&app, &query, &headers, false)
}

pub(crate) async fn validate_v1(
    State(app): State<App>,
    query: QueryOf<Query>,
    headers: HeaderMap,
) -> Response {
    validate(&app, &query, &headers, true)
}

fn validate(app: &App, query: &Query, headers: &HeaderMap, v1: bool) -> Response {
    match check(app, query, headers, v1) {
        Ok(_) if app.link.state() == LinkState::Down => unavailable().into_response(),
        Ok(_) => "success".into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// What can be said without the relay.
fn check(app: &App, query: &Query, headers: &HeaderMap, v1: bool) -> Result<(Join, auth::Verified), Refused> {
    let verified = auth::verify(&app.verifier, headers, query.access_token.clone())
        .map_err(|error| Refused::new(StatusCode::UNAUTHORIZED, "unauthenticated", error))?;
    let join = query.join(v1).map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "bad_request", error))?;
    use sfu_control::token::GrantError;
    verified.claims.join_room().map_err(|error| match error {
        GrantError::Denied => Refused::new(StatusCode::UNAUTHORIZED, "denied", error),
        _ => Refused::new(StatusCode::BAD_REQUEST, "bad_request", error),
    })?;
    if join.updates_metadata && !verified.claims.video.may_update_own_metadata() {
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "denied", GrantError::Denied));
    }
    Ok((join, verified))
}

async fn serve(
    app: App,
    query: &Query,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    v1: bool,
) -> Response {
    // As LiveKit: a plain request finds nothing here.
    let Ok(upgrade) = upgrade else { return StatusCode::NOT_FOUND.into_response() };
    match open(&app, query, headers, v1).await {
        Ok((session, claims)) => {
            ::metrics::counter!(metrics::JOINS, "outcome" => "accepted").increment(1);
            upgrade
                .read_buffer_size(READ_BUFFER)
                .max_message_size(app.limits.message_size)
                .max_frame_size(app.limits.message_size)
                .max_write_buffer_size(WRITE_BUFFER)
                .on_upgrade(move |socket| session::run(app, socket, session, claims))
        }
        Err(refused) => {
            ::metrics::counter!(metrics::JOINS, "outcome" => refused.outcome).increment(1);
            tracing::debug!(outcome = refused.outcome, status = refused.status.as_u16(), "join refused");
            refused.into_response()
        }
    }
}

async fn open(
    app: &App,
    query: &Query,
    headers: &HeaderMap,
    v1: bool,
) -> Result<(sfu_control::link::Session, sfu_control::token::Claims), Refused> {
    let (Join { mut open, .. }, auth::Verified { token, claims }) = check(app, query, headers, v1)?;
    if app.is_stopping() {
        return Err(unavailable());
    }
    open.token = token;
    let started = Instant::now();
    match app.link.open_session(open).await {
        Ok(session) => {
            ::metrics::histogram!(metrics::JOIN_SECONDS).record(started.elapsed().as_secs_f64());
            Ok((session, claims))
        }
        Err(LinkError::Refused(refusal)) => {
            let code = ErrorCode::try_from(refusal.code).unwrap_or(ErrorCode::Internal);
            let status =
                StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(Refused::new(status, code.twirp(), refusal.message))
        }
        Err(error) => {
            tracing::debug!(%error, "no session with the media relay");
            Err(unavailable())
        }
    }
}

fn unavailable() -> Refused {
    Refused::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "relay_unavailable",
        "no media relay is available; try again",
    )
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, self.text).into_response()
    }
}
