//! `loadtest join`: one participant that plays recordings, to see whether a relay carries a call.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use loadtest::client::{Visit, join};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address of the signalling service, `ws://` or `wss://`.
    #[arg(long)]
    url: String,
    /// PEM file of an authority to trust besides the system's, for `wss://`.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
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
    /// Local address of the media sockets, IPv4 or IPv6; may be given once for each. Without it those that the system would use
    /// to reach the server.
    #[arg(long, value_name = "ADDRESS")]
    local: Vec<IpAddr>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { url, ca, token, key, video, audio, seconds, local } = args;
    let local = super::run::local_address(&url, &local)?;
    let trust = super::run::trust(&url, ca.as_deref())?;
    let visit = Visit { url, trust, token, passphrase: key, video, audio, local };
    join(visit, seconds, |report| {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(report)?).context("cannot write the report")
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
