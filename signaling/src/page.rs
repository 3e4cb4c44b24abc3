//! The visit page: static files, with headers that leave a page little to do wrong.

use std::convert::Infallible;
use std::path::Path;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tower::ServiceExt as _;
use tower_http::services::ServeDir;

/// Scripts and workers come from here only; media, MLS and SFrame workers may be blobs; signalling may go to any host,
/// because the page may be served apart from it.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self' blob:; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; \
    media-src 'self' blob: mediastream:; connect-src 'self' ws: wss:; manifest-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), speaker-selection=(self), \
         screen-wake-lock=(self), autoplay=(self), geolocation=(), payment=(), usb=()",
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Serves the files of `folder`.
pub(crate) fn service(
    folder: &Path,
    tls: bool,
) -> impl tower::Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    let files = ServeDir::new(folder).append_index_html_on_directories(true);
    tower::service_fn(move |request: Request| {
        let files = files.clone();
        async move {
            // Vite names what it puts into /assets by content.
            let immutable = request.uri().path().starts_with("/assets/");
            let mut response = match files.oneshot(request).await {
                Ok(response) => response.map(Body::new),
                Err(never) => match never {},
            };
            if response.status() == StatusCode::NOT_FOUND {
                response = (StatusCode::NOT_FOUND, "not found").into_response();
            }
            let cache = match (response.status().is_success(), immutable) {
                (true, true) => "public, max-age=31536000, immutable",
                // Asks every time whether it changed.
                (true, false) => "no-cache",
                (false, _) => "no-store",
            };
            secure(response.headers_mut(), cache, tls);
            Ok(response)
        }
    })
}

fn secure(headers: &mut HeaderMap, cache: &'static str, tls: bool) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if tls {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
}
