//! Listeners: TCP, TLS, HTTP/1.1, and their orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::config::{TlsConfig, identity};
use crate::metrics;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound listener.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// Names the address, above all when it is in use.
    pub(crate) async fn bind(
        what: &str,
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let tcp =
            TcpListener::bind(address).await.with_context(|| format!("cannot bind {what} to {address}"))?;
        Ok(Self { tcp, tls, connections: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))) })
    }

    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        self.tcp.local_addr().context("a bound listener has no address")
    }

    /// Serves until `stopping` is true.
    pub(crate) async fn serve(self, router: Router, mut stopping: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                accepted = self.tcp.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, above all: others must end before it makes sense to go on.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let Ok(permit) = self.connections.clone().try_acquire_owned() else {
                ::metrics::counter!(metrics::CONNECTIONS_REFUSED, "reason" => "limit").increment(1);
                continue;
            };
            let (tls, router, stopping) = (self.tls.clone(), router.clone(), stopping.clone());
            tokio::spawn(async move {
                ::metrics::gauge!(metrics::CONNECTIONS).increment(1.0);
                connection(stream, tls, router, stopping).await;
                ::metrics::gauge!(metrics::CONNECTIONS).decrement(1.0);
                drop(permit);
            });
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    stopping: watch::Receiver<bool>,
) {
    // Signal messages are small and urgent. Fails only on a dead socket, which reading shows.
    let _ = stream.set_nodelay(true);
    match tls {
        None => http(stream, router, stopping).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => http(stream, router, stopping).await,
            Ok(Err(_)) | Err(_) => {
                ::metrics::counter!(metrics::CONNECTIONS_REFUSED, "reason" => "tls").increment(1);
            }
        },
    }
}

async fn http<S>(stream: S, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(
        router.map_request(|request: Request<_>| without_double_slash(request.map(Body::new))),
    );
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // How a connection of a client ended is nobody's concern here.
        _ = serving.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    // Finishes what is under way and takes nothing new.
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

/// SDKs that are given `wss://host/` ask for `//rtc`; LiveKit's server takes it.
fn without_double_slash(mut request: Request<Body>) -> Request<Body> {
    let Some(rest) = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix("//")) else {
        return request;
    };
    if let Ok(uri) = format!("/{rest}").parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

/// The TLS of the main listener.
pub(crate) fn acceptor(config: &TlsConfig) -> anyhow::Result<TlsAcceptor> {
    let (chain, key) = identity(&config.certificate, &config.key)?.into_parts();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("[tls] certificate and key do not go together")?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}
