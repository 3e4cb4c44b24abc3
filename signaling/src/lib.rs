//! The signalling service: lets participants in by token and carries their signal messages to the media relay.
//!
//! It holds no room state. While it is away media flows on, and clients resume when it is back.

mod app;
pub mod audit;
mod auth;
pub mod config;
mod metrics;
mod page;
mod rtc;
mod server;
mod twirp;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use sfu_control::jwks_source::JwksSource;
use sfu_control::link::{Link, LinkConfig, LinkState};
use sfu_control::tls;
use sfu_control::token::Verifier;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use config::Config;

/// How long sessions may take to say goodbye when the process stops.
const GOODBYE: Duration = Duration::from_secs(3);

/// How often the metrics recorder is tidied up.
const UPKEEP: Duration = Duration::from_secs(5);

/// A running service. Dropping it stops it without goodbyes; use [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    link: Link,
    stop: watch::Sender<bool>,
    goodbye: mpsc::Receiver<()>,
    alive: mpsc::Sender<()>,
    tasks: JoinSet<()>,
    audit: Option<audit::Writer>,
}

impl Server {
    /// Starts the service; returns when its listeners are bound. The link to the relay comes up, and comes back, by
    /// itself.
    ///
    /// `metrics` renders the process's recorder; the caller installs it, because there is one per process.
    ///
    /// # Errors
    /// What in the configuration cannot be used; above all a port in use, by name.
    pub async fn start(config: Config, metrics: Option<PrometheusHandle>) -> anyhow::Result<Self> {
        config.check()?;
        metrics::describe();
        let tls = config.tls.as_ref().map(server::acceptor).transpose()?;
        let secure = tls.is_some();
        let connections = config.limits.connections;
        let main = server::Listener::bind("the main listener", config.bind, tls, connections).await?;
        let metrics_listener = match config.metrics.bind {
            Some(bind) => Some(server::Listener::bind("the metrics listener", bind, None, 64).await?),
            None => None,
        };
        let address = main.address()?;
        let metrics_address = metrics_listener.as_ref().map(server::Listener::address).transpose()?;

        let mut tasks = JoinSet::new();
        let verifier = Arc::new(Verifier::new(config.keys.clone())?);
        if let Some(jwks) = config.jwks.clone() {
            let source = JwksSource::new(jwks).context("[jwks]")?;
            let count = || ::metrics::counter!(metrics::JWKS_FAILURES).increment(1);
            let work = source.follow(verifier.clone(), count).await;
            tasks.spawn(work.context("[jwks] cannot be read, and there are no API keys")?);
        }

        let link = start_link(&config)?;
        let writer = config.audit.as_ref().map(audit::Writer::open).transpose()?;
        if let Some(writer) = &writer {
            tasks.spawn(audit::follow(link.clone(), writer.handle()));
        }
        tasks.spawn(report_link(link.clone()));
        if let Some(handle) = metrics.clone() {
            tasks.spawn(upkeep(handle));
        }

        let (stop, stopping) = watch::channel(false);
        let (alive, goodbye) = mpsc::channel(1);
        let app = app::App::new(app::Shared {
            verifier,
            link: link.clone(),
            limits: config.limits.clone(),
            audit: writer.as_ref().map(audit::Writer::handle),
            metrics,
            process: sfu_control::process::ProcessMetrics::new(),
            stopping: stopping.clone(),
            alive: alive.downgrade(),
        });
        let doors = app::Doors {
            page: config.page.as_deref(),
            metrics: metrics_listener.is_none() && config.bind.ip().is_loopback(),
            tls: secure,
        };
        tasks.spawn(main.serve(app::router(app.clone(), &doors), stopping.clone()));
        if let Some(listener) = metrics_listener {
            tasks.spawn(listener.serve(app::metrics_router(app), stopping));
        }
        tracing::info!(%address, tls = secure, "signaling listens");
        Ok(Self { address, metrics_address, link, stop, goodbye, alive, tasks, audit: writer })
    }

    /// Where the main listener is; of use when the configuration asked for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the metrics listener is, if there is one of its own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Follows whether the media relay can be reached.
    pub fn watch_link(&self) -> watch::Receiver<LinkState> {
        self.link.watch()
    }

    /// Closes the listeners, tells every client to resume elsewhere or later, and writes the audit trail's end.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        drop(self.alive);
        // Ends when the last session has let go of its sender.
        if tokio::time::timeout(GOODBYE, self.goodbye.recv()).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
        self.tasks.shutdown().await;
        if let Some(audit) = self.audit.take() {
            audit.close().await;
        }
    }
}

/// Runs the service until `shutdown` is done.
///
/// # Errors
/// As [`Server::start`].
pub async fn run(
    config: Config,
    metrics: Option<PrometheusHandle>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let server = Server::start(config, metrics).await?;
    shutdown.await;
    server.stop().await;
    Ok(())
}

fn start_link(config: &Config) -> anyhow::Result<Link> {
    let relay = &config.relay;
    let identity = config::identity(&relay.certificate, &relay.key)?;
    let tls = tls::client_config(identity, &relay.authority.read()?).context("[relay] certificates")?;
    rustls::pki_types::ServerName::try_from(relay.server_name.as_str()).context("[relay] server_name")?;
    Ok(Link::start(LinkConfig {
        address: relay.address.clone(),
        server_name: relay.server_name.clone(),
        tls,
    }))
}

async fn report_link(link: Link) {
    let mut state = link.watch();
    loop {
        let up = *state.borrow_and_update() == LinkState::Up;
        ::metrics::gauge!(metrics::LINK_UP).set(if up { 1.0 } else { 0.0 });
        if state.changed().await.is_err() {
            return;
        }
    }
}

async fn upkeep(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        handle.run_upkeep();
    }
}
