//! What all handlers share, and the table of paths.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use metrics_exporter_prometheus::PrometheusHandle;
use sfu_control::link::{Link, LinkState};
use sfu_control::process::ProcessMetrics;
use sfu_control::token::Verifier;
use tokio::sync::{mpsc, watch};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use crate::audit::Audit;
use crate::config::Limits;
use crate::{metrics, page, rtc, twirp};

/// Shared by all handlers.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) link: Link,
    pub(crate) limits: Limits,
    pub(crate) audit: Option<Audit>,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) process: ProcessMetrics,
    /// True once the process is stopping.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Cloned by each session; when all clones are gone, so are the sessions.
    pub(crate) alive: mpsc::WeakSender<()>,
}

impl std::ops::Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Counts a session for as long as it is held.
pub(crate) struct OpenSession {
    _alive: Option<mpsc::Sender<()>>,
}

impl App {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    pub(crate) fn enter_session(&self) -> OpenSession {
        ::metrics::gauge!(metrics::SESSIONS).increment(1.0);
        OpenSession { _alive: self.alive.upgrade() }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        ::metrics::gauge!(metrics::SESSIONS).decrement(1.0);
    }
}

/// What the main listener serves.
pub(crate) struct Doors<'a> {
    pub(crate) page: Option<&'a std::path::Path>,
    pub(crate) metrics: bool,
    /// The listener speaks TLS.
    pub(crate) tls: bool,
}

/// The paths of the main listener.
pub(crate) fn router(app: App, doors: &Doors<'_>) -> Router {
    // Pages of any origin may call, as with LiveKit: what lets a caller in is the token, never a cookie.
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([
            Method::OPTIONS,
            Method::HEAD,
            Method::GET,
            Method::POST,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
        .max_age(std::time::Duration::from_secs(86_400));
    let mut router = Router::new()
        .route("/rtc", get(rtc::v0))
        .route("/rtc/validate", get(rtc::validate_v0))
        .route("/rtc/v1", get(rtc::v1))
        .route("/rtc/v1/validate", get(rtc::validate_v1))
        .route("/twirp/{service}/{method}", any(twirp::call))
        .layer(tower_http::set_header::SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(cors)
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready));
    if doors.metrics {
        router = router.route("/metrics", get(show_metrics));
    }
    if let Some(folder) = doors.page {
        router = router.fallback_service(page::service(folder, doors.tls));
    }
    router.with_state(app)
}

/// The paths of a metrics listener.
pub(crate) fn metrics_router(app: App) -> Router {
    Router::new().route("/metrics", get(show_metrics)).with_state(app)
}

async fn ready(State(app): State<App>) -> Response {
    if app.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response()
    } else if app.link.state() == LinkState::Down {
        (StatusCode::SERVICE_UNAVAILABLE, "the media relay cannot be reached").into_response()
    } else {
        "ready".into_response()
    }
}

async fn show_metrics(State(app): State<App>) -> Response {
    match &app.metrics {
        Some(handle) => {
            let text = handle.render() + &app.process.render();
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no metrics recorder is installed").into_response(),
    }
}
