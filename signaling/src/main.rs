//! `signaling --config signaling.toml`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use metrics_exporter_prometheus::PrometheusBuilder;
use signaling::{Config, audit};
use tracing_subscriber::EnvFilter;

/// Lets participants of Curtain visits in and carries their signal messages to the media relay.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "signaling.toml")]
    config: PathBuf,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
    /// Check the audit trail's hash chain and end.
    #[arg(long, conflicts_with = "check")]
    verify_audit: bool,
}

fn main() -> ExitCode {
    match try_main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signaling: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = Config::from_file(&arguments.config)?;
    if arguments.check {
        println!("the configuration is good");
        return Ok(());
    }
    if arguments.verify_audit {
        let audit = config.audit.context("the configuration has no [audit]")?;
        let verified = audit::verify(&audit.file)?;
        println!("{} entries, chain unbroken, head {}", verified.entries, verified.head);
        return Ok(());
    }
    let filter = EnvFilter::try_from_env("CURTAIN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).json().init();
    let metrics = PrometheusBuilder::new().install_recorder().context("the metrics recorder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = shutdown_signal()?;
        signaling::run(config, Some(metrics), shutdown).await
    })
}

/// Ends at SIGINT or SIGTERM.
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
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
