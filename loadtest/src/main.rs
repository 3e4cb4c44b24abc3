//! `loadtest join`: one participant on an independent WebRTC stack, to see whether a relay carries a call.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use loadtest::bot::{Participant, ParticipantConfig};
use tracing_subscriber::EnvFilter;

/// Drives a relay from outside.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Joins a room as one participant and prints a line of JSON a second about what it receives.
    Join {
        /// Address of the signalling service, `ws://` or `wss://`.
        #[arg(long)]
        url: String,
        /// Access token.
        #[arg(long, env = "CURTAIN_TOKEN", hide_env_values = true)]
        token: String,
        /// Passphrase of the end-to-end encryption; without it frames are sent in clear.
        #[arg(long, env = "CURTAIN_E2EE_KEY", hide_env_values = true)]
        key: Option<String>,
        /// Publish a recorded test pattern.
        #[arg(long)]
        video: bool,
        /// Publish a recorded tone.
        #[arg(long)]
        audio: bool,
        /// Seconds to stay.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Local address of the media sockets.
        #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
        local: Ipv4Addr,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("CURTAIN_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Command::Join { url, token, key, video, audio, seconds, local } = Args::parse().command;
    let config = ParticipantConfig { url, token, passphrase: key, video, audio, local };
    let mut participant = Participant::join(config).await?;
    let start = Instant::now();
    for second in 1..=seconds {
        participant.run_until(start + Duration::from_secs(second)).await?;
        println!("{}", serde_json::to_string(&participant.report())?);
    }
    participant.leave().await?;
    Ok(())
}
