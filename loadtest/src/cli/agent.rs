//! `loadtest agent`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use loadtest::agent::{LISTEN, serve};

use super::run::stop_signal;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to wait on for a coordinator.
    #[arg(long, default_value_t = LISTEN)]
    listen: SocketAddr,
    /// Secret that agents and coordinator share.
    #[arg(long, env = "LOADTEST_AGENT_SECRET", hide_env_values = true)]
    agent_secret: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("waiting for a coordinator on {}", listener.local_addr()?);
    serve(listener, &args.agent_secret, stop_signal(), |what| eprintln!("{what}")).await?;
    Ok(ExitCode::SUCCESS)
}
