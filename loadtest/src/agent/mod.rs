//! Several testers together: an agent waits on each machine, one coordinator gives each its share of a run, and adds up
//! what they saw.
//!
//! One connection a run, encrypted and proved (see [`line`]), messages as lines of JSON. Agents get a token for each of their
//! participants, never the API key.

mod line;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::line::AgentSecret;
use self::line::{Door, Line, connect};
use crate::client::{BotPlan, Trust};
use crate::measure::{Second, Tally};
use crate::media::stamp::StampClock;
use crate::run::{Local, Outcome, Progress, RelaySource, Share, Target, plans, run};
use crate::scenario::Scenario;
use crate::token::Entry;

/// Longest line: the tally of some ten thousand streams.
const MAX_LINE: u64 = 512 << 20;
/// Longest line while clocks are compared.
const MAX_TIME: u64 = 4096;
/// How long an answer may take where nothing has to be done for it.
const ANSWER: Duration = Duration::from_secs(5);
/// The agents' tokens are good for so much longer than the run.
const SPARE: Duration = Duration::from_secs(3600);
/// Times that the clocks are compared; the quickest answer counts.
const CLOCK_ROUNDS: usize = 20;
/// A clock that is known less well makes delays doubtful.
const MAX_CLOCK_ERROR: Duration = Duration::from_millis(10);

#[derive(Serialize, Deserialize)]
struct Job {
    url: String,
    tls: bool,
    /// In PEM: one that the operator trusts besides those of the agent's system.
    authority: Option<String>,
    /// One for each participant of the share, by identity.
    tokens: HashMap<String, String>,
    local: Option<Local>,
    threads: usize,
    scenario: Scenario,
    share: Share,
    offset_ns: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ToAgent {
    /// Asks for the time.
    Time,
    Run(Box<Job>),
    Stop,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FromAgent {
    Time { unix_ns: u64 },
    Progress { failed_joins: u64, second: Box<Second> },
    Done(Box<Tally>),
    Failed(String),
}

/// Serves coordinators, one run at a time, until `stop`.
///
/// # Errors
/// There is no certificate to be had, or no more connections.
pub async fn serve(
    listener: TcpListener,
    secret: &AgentSecret,
    mut stop: watch::Receiver<bool>,
    say: impl Fn(&str),
) -> anyhow::Result<()> {
    let door = Door::new()?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        if let Err(error) = serve_one(stream, &door, secret, &say).await {
            say(&format!("a coordinator's run ended: {error:#}"));
        }
    }
}

async fn serve_one(
    stream: TcpStream,
    door: &Door,
    secret: &AgentSecret,
    say: &impl Fn(&str),
) -> anyhow::Result<()> {
    let mut line = timeout(ANSWER, door.accept(stream, secret)).await.context("no proof in time")??;
    let job = loop {
        match timeout(ANSWER, line.receive(MAX_LINE)).await.context("no job in time")?? {
            ToAgent::Time => {
                let unix_ns = StampClock::start(0).at(Instant::now());
                line.send(&FromAgent::Time { unix_ns }).await?;
            }
            ToAgent::Run(job) => break job,
            ToAgent::Stop => return Ok(()),
        }
    };
    let Job { url, tls, authority, tokens, local, threads, scenario, share, offset_ns } = *job;
    say(&format!("running a share of {}", scenario.name));
    let local = match local {
        Some(local) => local,
        None => crate::run::local_towards(&url)?,
    };
    let trust = tls.then(|| Trust::new(authority)).transpose()?;
    let relay = RelaySource::default();
    let target = Target { url, trust, entry: Entry::Tokens(tokens), local, threads, relay };
    let (stop, stopped) = watch::channel(false);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let running = run(&target, &scenario, share, offset_ns, stopped, move |p| {
        // The coordinator may have gone.
        let second = Box::new(p.second.clone());
        let _ = tell.send(FromAgent::Progress { failed_joins: p.failed_joins, second });
    });
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            Some(progress) = told.recv() => line.send(&progress).await?,
            // The only word that may come now is to stop; so does a coordinator that goes.
            () = line.anything() => {
                let _ = stop.send(true);
                break running.await;
            }
        }
    };
    say("done");
    match outcome {
        Ok(outcome) => line.send(&FromAgent::Done(Box::new(outcome.tally))).await,
        Err(error) => line.send(&FromAgent::Failed(format!("{error:#}"))).await,
    }
}

/// What an agent told: its last second, and of what adds up all that was not shown yet. Its seconds begin when they like, so that
/// between two looks there may have come none or two.
#[derive(Debug, Clone, Default)]
struct Seen {
    failed_joins: u64,
    second: Second,
}

impl Seen {
    fn take(&mut self) -> Second {
        let taken = self.second.clone();
        (self.second.lost, self.second.freezes) = (0, 0);
        taken
    }

    fn add(&mut self, failed_joins: u64, second: &Second) {
        self.failed_joins = failed_joins;
        let Second { lost, freezes, .. } = self.second;
        self.second = second.clone();
        self.second.lost += lost;
        self.second.freezes += freezes;
    }
}

/// Runs a scenario with this process and the agents.
///
/// # Errors
/// An agent cannot be reached, has another secret, or cannot run.
pub async fn run_together(
    target: &Target,
    scenario: &Scenario,
    agents: &[String],
    secret: &AgentSecret,
    stop: watch::Receiver<bool>,
    mut progress: impl FnMut(&Progress),
) -> anyhow::Result<Outcome> {
    let testers = u32::try_from(agents.len() + 1)?;
    let share = Share { testers, ..Share::whole() };
    let (mut lines, mut doubts) = (Vec::new(), Vec::new());
    for address in agents {
        ensure!(
            address.rsplit_once(':').is_some_and(|(host, port)| {
                port.parse::<u16>().is_ok() && (!host.contains(':') || host.starts_with('['))
            }),
            "--agent {address} is no HOST:PORT; an IPv6 address goes in brackets"
        );
        let connected = timeout(ANSWER, TcpStream::connect(address)).await;
        let stream = connected
            .with_context(|| format!("agent {address} does not answer: is a firewall in between?"))?
            .with_context(|| {
                format!(
                    "agent {address} cannot be reached: does `loadtest agent --listen {address}` run there?"
                )
            })?;
        let ready = async {
            let mut line = timeout(ANSWER, connect(stream, secret)).await.context(
                "it says nothing: is it busy with another run, or something else than `loadtest agent`?",
            )??;
            let compared = compare_clocks(&mut line).await?;
            anyhow::Ok((line, compared))
        };
        let (line, (offset_ns, error)) = ready.await.with_context(|| format!("agent {address}"))?;
        doubts.extend(clock_doubt(address, error));
        lines.push((address, line, offset_ns));
    }
    let seen = Arc::new(Mutex::new(vec![Seen::default(); lines.len()]));
    let mut tasks = JoinSet::new();
    for (index, (address, mut line, offset_ns)) in lines.into_iter().enumerate() {
        let share = Share { tester: index as u32 + 1, ..share };
        let length = scenario.ramp.get() + scenario.settle.get() + scenario.duration.get();
        let token = |plan: BotPlan| {
            let token = target.entry.token(&plan.room, &plan.identity, length + SPARE)?;
            Some((plan.identity, token))
        };
        let job = Job {
            url: target.url.clone(),
            tls: target.trust.is_some(),
            authority: target.trust.as_ref().and_then(Trust::authority),
            tokens: plans(scenario, share).into_iter().filter_map(token).collect(),
            // Each agent finds the address from which it reaches the server.
            local: target.local.is_loopback().then_some(target.local),
            threads: target.threads,
            scenario: scenario.clone(),
            share,
            offset_ns,
        };
        line.send(&ToAgent::Run(Box::new(job))).await.with_context(|| format!("agent {address}"))?;
        let (seen, address, mut stop) = (seen.clone(), address.clone(), stop.clone());
        tasks.spawn(async move {
            let tally = follow(&mut line, &mut stop, |failed_joins, second| {
                if let Some(seen) = seen.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
                    seen.add(failed_joins, second);
                }
            });
            tally.await.with_context(|| format!("agent {address}"))
        });
    }
    let own = run(target, scenario, share, 0, stop, |own| {
        let mut all = own.clone();
        all.planned = scenario.participants();
        for seen in seen.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            all.failed_joins += seen.failed_joins;
            all.second.merge(&seen.take());
        }
        all.present = all.second.present;
        progress(&all);
    });
    tokio::pin!(own);
    let mut tally = Tally::default();
    // Without one of the agents the run is not what was asked for: that is said at once.
    let mut outcome = loop {
        tokio::select! {
            outcome = &mut own => break outcome?,
            Some(done) = tasks.join_next() => tally.merge(done??),
        }
    };
    // Agents began within the same second; longer than that after our own end something is wrong.
    let all = async {
        while let Some(done) = tasks.join_next().await {
            tally.merge(done??);
        }
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(30), all)
        .await
        .context("an agent does not end: stop it, and look at what it says")??;
    outcome.tally.merge(tally);
    outcome.tally.doubts.extend(doubts);
    Ok(outcome)
}

/// Delays between bots of two testers hold the error of the clocks' comparison.
fn clock_doubt(address: &str, error: Duration) -> Option<String> {
    let ms = error.as_secs_f64() * 1e3;
    (error > MAX_CLOCK_ERROR).then(|| {
        format!(
            "the clock of agent {address} is known to {ms:.1} ms only, so slow is the network to it: delays between testers may \
             be off by that. Use a machine that is nearer, or nothing else on that network"
        )
    })
}

/// What has to be added to the agent's time to get ours, and how far off that may be: of several answers the quickest says
/// it best.
async fn compare_clocks(line: &mut Line) -> anyhow::Result<(i64, Duration)> {
    let clock = StampClock::start(0);
    let mut best: Option<(Duration, i64)> = None;
    for _ in 0..CLOCK_ROUNDS {
        let asked = Instant::now();
        line.send(&ToAgent::Time).await?;
        let answer = timeout(ANSWER, line.receive(MAX_TIME)).await.context("no time in time")??;
        let FromAgent::Time { unix_ns } = answer else { bail!("no answer to a question for the time") };
        let took = asked.elapsed();
        let middle = clock.at(asked + took / 2);
        let offset = i64::try_from(i128::from(middle) - i128::from(unix_ns))?;
        if best.is_none_or(|(quickest, _)| took < quickest) {
            best = Some((took, offset));
        }
    }
    best.map(|(took, offset)| (offset, took / 2)).context("no time")
}

async fn follow(
    line: &mut Line,
    stop: &mut watch::Receiver<bool>,
    mut progress: impl FnMut(u64, &Second),
) -> anyhow::Result<Tally> {
    let mut stopped = false;
    let mut text = Vec::new();
    loop {
        tokio::select! {
            whole = line.read_line(&mut text) => {
                if !whole? {
                    continue;
                }
                match serde_json::from_slice(&text)? {
                    FromAgent::Progress { failed_joins, second } => progress(failed_joins, &second),
                    FromAgent::Done(tally) => return Ok(*tally),
                    FromAgent::Failed(error) => bail!(error),
                    FromAgent::Time { .. } => {}
                }
                text.clear();
            }
            () = told_to(stop), if !stopped => {
                stopped = true;
                line.send(&ToAgent::Stop).await?;
            }
        }
    }
}

/// Completes when everybody is told to stop.
async fn told_to(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Where an agent listens, without a word from the operator.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7990);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_tells_is_a_rate_or_shown_once() {
        let mut seen = Seen::default();
        let told = Second { packets: 100, lost: 3, present: 4, ..Second::default() };
        seen.add(1, &told);
        seen.add(1, &told);
        let both = seen.take();
        assert_eq!((both.packets, both.lost, both.present), (100, 6, 4));
        // Late by a second: nothing new is lost, and the rest is as it was.
        let none = seen.take();
        assert_eq!((none.packets, none.lost, none.present), (100, 0, 4));
    }

    #[test]
    fn a_clock_that_is_not_known_well_makes_a_run_doubtful() {
        assert_eq!(clock_doubt("a:1", Duration::from_millis(10)), None);
        let doubt = clock_doubt("a:1", Duration::from_micros(12_400)).unwrap();
        assert!(doubt.contains("agent a:1 is known to 12.4 ms only"), "{doubt}");
    }
}
