//! `loadtest run`.

use std::fs::OpenOptions;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use loadtest::agent::{AgentSecret, run_together};
use loadtest::client::Trust;
use loadtest::report::{Objectives, Report, html, junit, summary};
use loadtest::run::{Local, Outcome, Progress, RelaySource, Share, Target, local_towards, run as run_share};
use loadtest::scenario::{READY, Resolution, Role, Scenario, Span};
use loadtest::token::{ApiKey, Entry};
use tokio::sync::watch;

use super::progress::View;
use super::{BROKEN, HOLDS, INVALID};

pub(crate) const EXAMPLES: &str = "\
Examples (LIVEKIT_API_KEY and LIVEKIT_API_SECRET are set):
  loadtest run --url ws://127.0.0.1:7880 --scenario one-to-one
  loadtest run --url wss://visit.example.org --rooms 25 --participants 4 --video 720p --audio --html run.html
  loadtest run --scenario webinar --print-scenario > mine.toml

Exit status: 0 all objectives hold, 1 one is broken, 2 the run could not be made, 3 the run is not valid.";

/// The server under test.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Server {
    /// Address of the server, `ws://` or `wss://`.
    #[arg(long)]
    url: Option<String>,
    /// PEM file of an authority to trust besides the system's, for `wss://`.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Name of the API key that the server knows.
    #[arg(long, value_name = "KEY", env = "LIVEKIT_API_KEY")]
    api_key: Option<String>,
    /// The key's secret.
    #[arg(long, value_name = "SECRET", env = "LIVEKIT_API_SECRET", hide_env_values = true)]
    api_secret: Option<String>,
    /// Where the relay's Prometheus metrics are (Curtain's or LiveKit's names), for its CPU and packets.
    #[arg(long, value_name = "URL")]
    relay_metrics: Option<String>,
    /// Process id of a relay on this machine, for its CPU and memory.
    #[arg(long, value_name = "PID")]
    relay_pid: Option<u32>,
    /// Local address of the media sockets, IPv4 or IPv6; may be given once for each. Without it those that the system would use
    /// to reach the server.
    #[arg(long, value_name = "ADDRESS")]
    local: Vec<IpAddr>,
    /// Threads of the tester; 0 is one per core.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    threads: usize,
}

/// What is run.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "What is run")]
pub(crate) struct What {
    /// A ready scenario (`loadtest run --list-scenarios`) or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    scenario: Option<String>,
    /// Rooms. With a ready scenario or a file: of each kind.
    #[arg(long, value_name = "COUNT")]
    rooms: Option<u32>,
    /// Participants in each room. With a ready scenario or a file: of the last role.
    #[arg(long, value_name = "COUNT")]
    participants: Option<u32>,
    /// Everybody has a camera of this size: 180p, 360p, 720p or 1080p. With a ready scenario or a file: those who have one.
    #[arg(long, value_name = "SIZE")]
    video: Option<Resolution>,
    /// Everybody has a microphone. With neither --video nor --audio everybody has 720p and a microphone.
    #[arg(long)]
    audio: bool,
    /// How long is measured: 90s, 5m [default: the scenario's, or 60s; in a search 20s].
    #[arg(long, value_name = "TIME")]
    duration: Option<Span>,
    /// Over how long the joins are spread [default: the scenario's, or 5s].
    #[arg(long, value_name = "TIME")]
    ramp: Option<Span>,
    /// Seed of all random choices: who speaks when, who leaves when.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Send frames in clear, to a server that takes them so.
    #[arg(long)]
    no_e2ee: bool,
}

/// Where results go.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Results")]
pub(crate) struct Output {
    /// Write the report as JSON, for `loadtest compare` and programs.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with charts.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Show nothing while it runs.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Who else runs it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Several machines")]
pub(crate) struct Cluster {
    /// Address of a `loadtest agent` that takes a share of the participants; may be given more than once.
    #[arg(long, value_name = "HOST:PORT", requires = "agent_secret")]
    agent: Vec<String>,
    /// Secret that agents and coordinator share, at least 16 characters.
    #[arg(long, value_name = "SECRET", env = "LOADTEST_AGENT_SECRET", hide_env_values = true)]
    agent_secret: Option<String>,
}

impl Cluster {
    pub(crate) async fn run(
        &self,
        target: &Target,
        scenario: &Scenario,
        stop: watch::Receiver<bool>,
        progress: impl FnMut(&Progress),
    ) -> anyhow::Result<Outcome> {
        match &self.agent_secret {
            Some(secret) if !self.agent.is_empty() => {
                let secret = AgentSecret::new(secret)?;
                run_together(target, scenario, &self.agent, &secret, stop, progress).await
            }
            _ => run_share(target, scenario, Share::whole(), 0, stop, progress).await,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    objectives: Objectives,
    /// Write the objectives as JUnit XML, for pipelines.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    junit: Option<PathBuf>,
    /// List the ready scenarios and exit.
    #[arg(long)]
    list_scenarios: bool,
    /// Print the scenario as TOML and exit.
    #[arg(long)]
    print_scenario: bool,
}

impl Server {
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        // Not told by the parser: what lists and prints needs no server.
        let given = |value: &Option<String>, flag: &str, variable: &str| {
            let value = value.clone().filter(|value| !value.is_empty());
            value.with_context(|| {
                format!("{flag} is missing{variable}: it says which server to test, and how to get in")
            })
        };
        let url = given(&self.url, "--url", "")?;
        let name = given(&self.api_key, "--api-key", " (or LIVEKIT_API_KEY)")?;
        let secret = given(&self.api_secret, "--api-secret", " (or LIVEKIT_API_SECRET)")?;
        Ok(Target {
            trust: trust(&url, self.ca.as_deref())?,
            local: local_address(&url, &self.local)?,
            url,
            entry: Entry::Key(ApiKey { name, secret }),
            threads: self.threads,
            relay: RelaySource { metrics: self.relay_metrics.clone(), pid: self.relay_pid, at_ends: false },
        })
    }
}

/// The local addresses of the media sockets: what was asked for, or those that lead to the server.
pub(crate) fn local_address(url: &str, asked: &[IpAddr]) -> anyhow::Result<Local> {
    if !url.starts_with("ws://") && !url.starts_with("wss://") {
        bail!("--url {url} begins with neither ws:// nor wss://");
    }
    if asked.is_empty() { local_towards(url) } else { Local::asked(asked) }
}

/// Whom to trust, where the server speaks TLS.
pub(crate) fn trust(url: &str, authority: Option<&Path>) -> anyhow::Result<Option<Trust>> {
    url.starts_with("wss://").then(|| Trust::from_file(authority)).transpose()
}

impl What {
    pub(crate) fn scenario(&self) -> anyhow::Result<Scenario> {
        self.scenario_lasting(None)
    }

    /// The scenario; `usual` is its duration where nobody asked for one.
    pub(crate) fn scenario_lasting(&self, usual: Option<Span>) -> anyhow::Result<Scenario> {
        let mut scenario = match &self.scenario {
            Some(name) => Scenario::load(name)?,
            None => {
                let (video, audio) = match (self.video, self.audio) {
                    (None, false) => (Some(Resolution::P720), true),
                    asked => asked,
                };
                let role = Role::speaking(self.participants.unwrap_or(2), video, audio);
                Scenario::simple(self.rooms.unwrap_or(1), vec![role])
            }
        };
        for rooms in &mut scenario.rooms {
            rooms.count = self.rooms.unwrap_or(rooms.count);
            if let Some(role) = rooms.roles.last_mut() {
                role.count = self.participants.unwrap_or(role.count);
            }
            for role in &mut rooms.roles {
                role.video = role.video.map(|usual| self.video.unwrap_or(usual));
                role.audio |= self.audio;
            }
        }
        scenario.duration = self.duration.or(usual).unwrap_or(scenario.duration);
        scenario.ramp = self.ramp.unwrap_or(scenario.ramp);
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        scenario.e2ee &= !self.no_e2ee;
        scenario.check()?;
        Ok(scenario)
    }
}

/// Whether the files that the operator asked for can be written: better known before a run than after it.
pub(crate) fn check_writable(paths: &[Option<&Path>]) -> anyhow::Result<()> {
    for path in paths.iter().flatten() {
        let is_new = !path.exists();
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.with_context(|| format!("cannot write {}", path.display()))?;
        if is_new {
            // One that cannot be removed is written over later.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

/// Writes a file that the operator asked for.
pub(crate) fn save(path: Option<&Path>, text: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text()?).with_context(|| format!("cannot write {}", path.display()))
}

/// Turns true when the operator wants to stop.
pub(crate) fn stop_signal() -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = stop.send(true);
        }
        // The sender lives on, or everybody would take its end for a signal.
        std::future::pending::<()>().await;
    });
    stopped
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.list_scenarios {
        for (name, what) in READY {
            println!("{name:<16} {what}");
        }
        return Ok(ExitCode::from(HOLDS));
    }
    let scenario = args.what.scenario()?;
    if args.print_scenario {
        print!("{}", toml::to_string(&scenario)?);
        return Ok(ExitCode::from(HOLDS));
    }
    let target = args.server.target()?;
    check_writable(&[args.output.json.as_deref(), args.junit.as_deref(), args.output.html.as_deref()])?;
    let mut view = View::new(args.output.quiet);
    let outcome = args.cluster.run(&target, &scenario, stop_signal(), |progress| view.show(progress)).await;
    view.end();
    let report = Report::new(&scenario, outcome?, &args.objectives);
    print!("{}", summary(&report));
    save(args.output.json.as_deref(), || Ok(serde_json::to_string(&report)?))?;
    save(args.junit.as_deref(), || Ok(junit(&report)))?;
    save(args.output.html.as_deref(), || Ok(html(&report, None)))?;
    Ok(exit(&report))
}

pub(crate) fn exit(report: &Report) -> ExitCode {
    ExitCode::from(match (report.is_valid(), report.holds()) {
        (false, _) => INVALID,
        (true, true) => HOLDS,
        (true, false) => BROKEN,
    })
}
