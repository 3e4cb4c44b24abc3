//! The media relay: room logic, and the shell of threads, sockets and servers around the media core.
#![forbid(unsafe_code)]

pub mod config;
pub mod crossbar;
pub mod http;
pub mod metrics;
pub mod node;
pub mod room;
pub mod shard_thread;
pub mod tcp;

mod control;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use sfu_control::jwks_source::JwksSource;
use sfu_control::server;
use sfu_control::tls::Identity;
use sfu_control::token::{Secret, Verifier};
use tokio::task::JoinSet;

use crate::config::{SfuConfig, TurnSettings};
use crate::node::Node;
use crate::room::RoomConfig;

/// The certificates of the control link.
#[derive(Debug)]
pub struct ControlTls {
    /// The relay's own.
    pub identity: Identity,
    /// PEM of the authority that certified `signaling`.
    pub authority: Vec<u8>,
}

impl ControlTls {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Naming the file.
    pub fn from_files(config: &config::ControlConfig) -> anyhow::Result<Self> {
        let read = |path: &std::path::Path| {
            std::fs::read(path).with_context(|| format!("control: cannot read {}", path.display()))
        };
        let identity = Identity::from_pem(&read(&config.cert)?, &read(&config.key)?)
            .with_context(|| format!("control: {} or {}", config.cert.display(), config.key.display()))?;
        Ok(Self { identity, authority: read(&config.ca)? })
    }
}

/// A relay with all its sockets open.
#[derive(Debug)]
pub struct Relay {
    node: Arc<Node>,
    endpoint: quinn::Endpoint,
    http: tokio::net::TcpListener,
    metrics: PrometheusHandle,
    /// End with the relay.
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Opens every socket and starts the shards. Nothing is served before [`Relay::run`].
    ///
    /// # Errors
    /// When an address is in use (the error names it), a certificate is unusable, or no key verifies tokens.
    pub async fn start(
        config: SfuConfig,
        control: ControlTls,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !config.auth.keys.is_empty() || config.auth.jwks.is_some(),
            "neither auth.keys nor auth.jwks: nobody could join"
        );
        let keys = config.auth.keys.into_iter().map(|(name, secret)| (name, Secret::new(secret)));
        let verifier = Arc::new(Verifier::new(keys).context("auth.keys")?);
        crate::metrics::describe();
        let mut tasks = JoinSet::new();
        if let Some(jwks) = config.auth.jwks {
            let source = JwksSource::new(jwks).context("auth.jwks")?;
            let work = source.follow(Arc::clone(&verifier), crate::metrics::jwks_failure).await;
            tasks.spawn(work.context("auth.jwks cannot be read, and there are no API keys")?);
        }
        let mut room = RoomConfig::from(config.room);
        room.turn = config.turn.map(TurnSettings::into_config).transpose()?;
        let node = Node::start(&config.media, room, verifier)?;
        let endpoint =
            server::listen(config.control.listen, control.identity, &control.authority).context("control")?;
        let http = tokio::net::TcpListener::bind(config.http.listen)
            .await
            .with_context(|| format!("http: cannot open TCP address {}", config.http.listen))?;
        Ok(Self { node, endpoint, http, metrics, _tasks: tasks })
    }

    /// Where `signaling` connects.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn control_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Where visibility and metrics are served.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn http_addr(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// UDP ports of the media shards.
    pub fn media_ports(&self) -> Vec<u16> {
        self.node.media_ports()
    }

    /// TCP port for media, where there is one.
    pub fn media_tcp_port(&self) -> Option<u16> {
        self.node.media_tcp_port()
    }

    /// Serves until `shutdown` is done.
    ///
    /// # Errors
    /// When the HTTP listener breaks.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let control = tokio::spawn(control::serve(self.endpoint.clone(), Arc::clone(&self.node)));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let router = http::router(Arc::clone(&self.node), self.metrics);
        let http = tokio::spawn(
            axum::serve(self.http, router)
                .with_graceful_shutdown(async {
                    let _ = stopped.await;
                })
                .into_future(),
        );
        shutdown.await;
        tracing::info!("shutting down");
        let _ = stop.send(());
        control::close(&self.endpoint).await;
        control.abort();
        // Keep-alive connections of scrapers must not hold the process.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), http).await;
        Ok(())
    }
}

/// Completes on Ctrl-C or SIGTERM.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn shutdown_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
