//! `loadtest join`: one participant that plays recordings, to see whether a relay carries a call.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use loadtest::bot::{Participant, ParticipantConfig};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
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
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { url, token, key, video, audio, seconds, local } = args;
    let config = ParticipantConfig { url, token, passphrase: key, video, audio, local };
    let mut participant = Participant::join(config).await?;
    let start = Instant::now();
    for second in 1..=seconds {
        participant.run_until(start + Duration::from_secs(second)).await?;
        println!("{}", serde_json::to_string(&participant.report())?);
    }
    participant.leave().await?;
    Ok(ExitCode::SUCCESS)
}
