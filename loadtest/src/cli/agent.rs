//! `loadtest agent`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use loadtest::agent::{AgentSecret, LISTEN, serve};

use super::run::stop_signal;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to wait on for a coordinator: one that it reaches, of a network that few others do.
    #[arg(long, default_value_t = LISTEN, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Secret that agents and coordinator share, at least 16 characters: `openssl rand -hex 16` makes one.
    #[arg(long, value_name = "SECRET", env = "LOADTEST_AGENT_SECRET", hide_env_values = true)]
    agent_secret: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let secret = AgentSecret::new(&args.agent_secret)?;
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("waiting for a coordinator on {}", listener.local_addr()?);
    serve(listener, &secret, stop_signal(), |what| eprintln!("{what}")).await?;
    Ok(ExitCode::SUCCESS)
}
