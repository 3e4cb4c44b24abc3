//! `sfu --config sfu.toml`: the media relay.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use metrics_exporter_prometheus::PrometheusBuilder;
use sfu::config::SfuConfig;
use sfu::{ControlTls, Relay};
use tracing_subscriber::EnvFilter;

/// A shard frees what other threads made, and they free what it made. With the C library's allocator whoever does so holds a lock
/// of that thread's memory, and a shard waited milliseconds for one whose holder had lost its core. No huge pages: to clear a fresh
/// one took up to six milliseconds in the middle of a turn.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The media relay: forwards end-to-end-encrypted media that it cannot read.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("CURTAIN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).json().init();
    let args = Args::parse();
    let text = std::fs::read_to_string(&args.config)
        .with_context(|| format!("cannot read {}", args.config.display()))?;
    let config: SfuConfig =
        SfuConfig::from_toml(&text).with_context(|| format!("{} is not valid", args.config.display()))?;
    let control = ControlTls::from_files(&config.control)?;
    let metrics = PrometheusBuilder::new().install_recorder().context("installing the metrics recorder")?;
    let relay = Relay::start(config, control, metrics).await?;
    tracing::info!(
        control = relay.control_addr()?.port(),
        http = relay.http_addr()?.port(),
        media = ?relay.media_ports(),
        "ready"
    );
    relay.run(sfu::shutdown_signal()?).await
}
