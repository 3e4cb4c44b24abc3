//! `curtain-dev`: signaling and sfu in one process on loopback, for development and tests.
//!
//! The two talk over the same QUIC control link with mutual TLS as in production. Keys and certificates are made at the
//! first start and kept in the data folder, so that links stay valid over restarts.

mod links;
mod state;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use metrics_exporter_prometheus::PrometheusBuilder;
use sfu::config::{E2ee, SfuConfig, TurnSettings};
use sfu::{ControlTls, Relay};

use sfu_control::link::LinkState;
use sfu_control::tls::DEV_SERVER_NAME;
use sfu_control::token::Secret;
use signaling::config::{AuditConfig, Config, Limits, MetricsConfig, Pem, RelayConfig};
use tracing_subscriber::EnvFilter;

use crate::links::Links;
use crate::state::DevState;

/// As in `sfu`, see there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the control link may take to come up.
const LINK_TIME: Duration = Duration::from_secs(10);

/// Runs signaling and sfu on loopback with development defaults.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// TCP port of the page, the signalling WebSocket and the RoomService.
    #[arg(long, default_value_t = 7880)]
    http_port: u16,
    /// TCP port of the relay's room visibility and metrics.
    #[arg(long, default_value_t = 7881)]
    sfu_http_port: u16,
    /// First UDP port for media; each shard takes one.
    #[arg(long, default_value_t = 7882)]
    udp_port: u16,
    /// TCP port for media; 0 is the number of --udp-port.
    #[arg(long, default_value_t = 0)]
    tcp_port: u16,
    /// UDP port of the control link between the two.
    #[arg(long, default_value_t = 7879)]
    control_port: u16,
    /// Number of shards; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    shards: usize,
    /// Participants of one room on one shard, so that small rooms span shards; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    room_participants_per_shard: usize,
    /// Address for the page and for media. Browsers give pages camera access only over HTTPS or on loopback.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Address of the media sockets, when it is not that of --bind.
    #[arg(long)]
    media_bind: Option<IpAddr>,
    /// Address put into ICE candidates; may be given more than once. Without it the address of the media sockets.
    #[arg(long)]
    advertise: Vec<IpAddr>,
    /// URL of a TURN server that clients are told of; may be given more than once.
    #[arg(long, requires = "turn_secret_file")]
    turn_url: Vec<String>,
    /// File with the secret that the relay shares with the TURN servers.
    #[arg(long, requires = "turn_url")]
    turn_secret_file: Option<PathBuf>,
    /// Whether rooms demand end-to-end encryption.
    #[arg(long, value_enum, default_value_t = Policy::Required)]
    e2ee: Policy,
    /// Room of the ready links.
    #[arg(long, default_value = "visit")]
    room: String,
    /// Folder for keys and the audit trail.
    #[arg(long, default_value = "run")]
    data_dir: PathBuf,
    /// Folder of the built visit page.
    #[arg(long, default_value = "client/dist")]
    page: PathBuf,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Policy {
    Required,
    Optional,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("CURTAIN_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = Args::parse();
    let shutdown = sfu::shutdown_signal()?;
    let state = DevState::load_or_make(&args.data_dir)?;
    let metrics = PrometheusBuilder::new().install_recorder().context("installing the metrics recorder")?;

    let relay = Relay::start(
        relay_config(&args, &state)?,
        ControlTls {
            identity: state.pki.sfu.identity()?,
            authority: state.pki.authority.clone().into_bytes(),
        },
        metrics.clone(),
    )
    .await?;
    let control = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), relay.control_addr()?.port());
    let relay_http = relay.http_addr()?;
    let (stop_relay, relay_stopped) = tokio::sync::oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async {
        let _ = relay_stopped.await;
    }));

    let service = signaling::Server::start(signaling_config(&args, &state, control), Some(metrics)).await?;
    let mut link = service.watch_link();
    tokio::time::timeout(LINK_TIME, link.wait_for(|state| *state == LinkState::Up))
        .await
        .context("the control link did not come up")?
        .context("the control link ended")?;
    Links::new(&args.room, service.address(), relay_http, &state).print(args.json)?;

    shutdown.await;
    service.stop().await;
    let _ = stop_relay.send(());
    relay.await.context("the relay's task")??;
    if !args.json {
        println!("Stopped.");
    }
    Ok(())
}

fn relay_config(args: &Args, state: &DevState) -> anyhow::Result<SfuConfig> {
    let mut config = SfuConfig::default();
    config.media.bind = args.media_bind.unwrap_or(args.bind);
    config.media.udp_port = args.udp_port;
    config.media.tcp_port = args.tcp_port;
    config.media.shards = args.shards;
    config.media.room_participants_per_shard = args.room_participants_per_shard;
    config.media.advertise.clone_from(&args.advertise);
    config.control.listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), args.control_port);
    config.http.listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), args.sfu_http_port);
    config.auth.keys = state.keys();
    config.room.e2ee = match args.e2ee {
        Policy::Required => E2ee::Required,
        Policy::Optional => E2ee::Optional,
    };
    if let Some(file) = &args.turn_secret_file {
        let secret =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let (urls, secret) = (args.turn_url.clone(), Secret::new(secret.trim()));
        config.turn = Some(TurnSettings { urls, secret, ttl_s: 3600 });
    }
    Ok(config)
}

fn signaling_config(args: &Args, state: &DevState, control: SocketAddr) -> Config {
    let page = args.page.is_dir().then(|| args.page.clone());
    if page.is_none() {
        tracing::warn!("the visit page is not built: run `make client`");
    }
    Config {
        bind: SocketAddr::new(args.bind, args.http_port),
        tls: None,
        keys: state.keys().into_iter().map(|(name, secret)| (name, Secret::new(secret))).collect(),
        jwks: None,
        relay: RelayConfig {
            address: control.to_string(),
            server_name: DEV_SERVER_NAME.to_owned(),
            certificate: Pem::Text(state.pki.signaling.certificate.clone()),
            key: Pem::Text(state.pki.signaling.key.clone()),
            authority: Pem::Text(state.pki.authority.clone()),
        },
        page,
        metrics: MetricsConfig::default(),
        audit: Some(AuditConfig {
            file: args.data_dir.join("audit.sqlite"),
            pseudonym_key: Secret::new(state.api_secret.clone()),
        }),
        limits: Limits::default(),
    }
}
