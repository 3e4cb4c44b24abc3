//! Runs a scenario: spreads the bots over threads, watches threads and relay while they run, collects what they saw.

mod local;
mod os;
mod plan;
mod relay;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use tokio::sync::watch;

pub use self::local::{Local, local_towards};
pub use self::plan::{Share, plans};
pub use self::relay::{RelaySample, RelaySource, RelayUse, grown, relay_use};
use crate::client::{Context, Play, Trust};
use crate::measure::{Board, Second, Tally, Window};
use crate::media::FrameCryptor;
use crate::media::speech::Dice;
use crate::media::stamp::StampClock;
use crate::scenario::Scenario;
use crate::token::Entry;

/// Time from the start of the threads to the first join.
const LEAD: Duration = Duration::from_millis(300);
/// After the window the bots stay for as long as a lost packet may take, so that the last second is measured like the others.
const TAIL: Duration = Duration::from_millis(1200);
/// Descriptors that a participant needs: one TCP connection, and two UDP sockets of each address family.
const fn files_each(local: Local) -> u64 {
    if local.other().is_some() { 5 } else { 3 }
}

/// Descriptors that the process needs besides.
const FILES_MORE: u64 = 200;

/// Where a run goes, and what with.
#[derive(Debug, Clone)]
pub struct Target {
    /// `ws://` or `wss://` address of the server.
    pub url: String,
    /// Whom to trust where the server speaks TLS.
    pub trust: Option<Trust>,
    /// Where the bots' tokens come from.
    pub entry: Entry,
    /// Local addresses of the media sockets.
    pub local: Local,
    /// Threads; 0 is one per core.
    pub threads: usize,
    /// Where the relay's own figures come from.
    pub relay: RelaySource,
}

/// What is seen while a run goes on, each second.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Of the whole run.
    pub total: Duration,
    /// The window is on.
    pub measuring: bool,
    /// Participants in their rooms, and planned.
    pub present: u64,
    /// See `present`.
    pub planned: u64,
    /// Joins that failed so far.
    pub failed_joins: u64,
    /// The last second.
    pub second: Second,
}

/// What a run brought.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What the bots saw.
    pub tally: Tally,
    /// The relay's figures over the window.
    pub relay: Vec<RelaySample>,
    /// Length of the window in seconds.
    pub window_s: f64,
    /// Start of the run, seconds since 1970.
    pub started_unix: u64,
}

/// Nobody could join; the reason of the first.
#[derive(Debug, thiserror::Error)]
#[error("nobody could join: {0}")]
pub struct NobodyJoined(String);

/// Raises the limit of open files to what the run needs.
///
/// # Errors
/// The hard limit is lower.
fn raise_file_limit(participants: u64, local: Local) -> anyhow::Result<()> {
    let needed = participants * files_each(local) + FILES_MORE;
    let (_, hard) = rlimit::Resource::NOFILE.get().context("reading the limit of open files")?;
    ensure!(
        hard >= needed,
        "{participants} participants need {needed} open files, and this account may have {hard}: raise it, for example \
         with `ulimit -Hn {needed}` as root or LimitNOFILE= in the unit"
    );
    rlimit::increase_nofile_limit(hard).context("raising the limit of open files")?;
    Ok(())
}

/// Runs this tester's share of a scenario.
///
/// # Errors
/// The tester itself cannot run: file limits, threads, the relay's metrics; or nobody can join.
pub async fn run(
    target: &Target,
    scenario: &Scenario,
    share: Share,
    offset_ns: i64,
    stop: watch::Receiver<bool>,
    mut progress: impl FnMut(&Progress),
) -> anyhow::Result<Outcome> {
    scenario.check()?;
    let plans = plans(scenario, share);
    raise_file_limit(plans.len() as u64, target.local)?;
    let threads = match target.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let crews = worker::crews(&plans, scenario.measure_joining, threads);
    let mut relay = relay::RelayWatch::new(target.relay.clone());
    // The source of figures is named by the operator: that it is wrong should show before the run.
    relay.sample(Instant::now()).await?;

    let cryptor = scenario.e2ee.then(|| Arc::new(FrameCryptor::from_passphrase("a load test")));
    let filling: Arc<[u8]> = {
        let mut dice = Dice::new(scenario.seed ^ 0xf111);
        (0..1 << 16).map(|_| dice.roll() as u8).collect()
    };
    let started_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let epoch = Instant::now() + LEAD;
    let first =
        if scenario.measure_joining { epoch } else { epoch + scenario.ramp.get() + scenario.settle.get() };
    let window = Window { start: first, end: first + scenario.duration.get() };
    let end = window.end + TAIL;
    // The bots stop when the operator says so, or when nobody can join.
    let (early, stopping) = watch::channel(*stop.borrow());
    let mut workers = Vec::new();
    let planned = plans.len() as u64;
    for (index, crew) in crews.into_iter().enumerate() {
        let board = Arc::new(Mutex::new(Board::default()));
        let context = Context {
            url: target.url.clone(),
            trust: target.trust.clone(),
            entry: target.entry.clone(),
            play: Play::Stamped,
            local: target.local,
            cryptor: cryptor.clone(),
            clock: StampClock::start(offset_ns),
            window,
            epoch,
            end,
            board: board.clone(),
            filling: filling.clone(),
            stop: stopping.clone(),
        };
        workers.push((board, worker::start(index, context, crew)?));
    }

    let mut tally = Tally { participants: planned, ..Tally::default() };
    let mut samples = Vec::new();
    let mut stopped = stop.clone();
    // Seconds begin where the window begins.
    let ahead = window.start.saturating_duration_since(epoch);
    let mut next = epoch + ahead.saturating_sub(Duration::from_secs(ahead.as_secs()));
    let (mut dropped_before, mut first_look): (Option<u64>, Second) = (None, Second::default());
    let (mut interrupted, mut anybody, mut hopeless) = (false, false, None);
    let last = end + Duration::from_secs(1);
    while next < last && workers.iter().any(|(_, thread)| !thread.is_finished()) {
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            _ = stopped.wait_for(|stop| *stop), if !interrupted => {
                interrupted = true;
                let _ = early.send(true);
            }
        }
        let now = Instant::now();
        let mut second = Second::default();
        let (mut failed_joins, mut ports) = (0, std::collections::BTreeSet::new());
        let mut reason = None;
        for (board, _) in &workers {
            let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
            second.merge(&board.take_second());
            failed_joins += board.joins.iter().filter_map(failure).count() as u64;
            reason = reason.or(board.joins.iter().find_map(failure).map(str::to_owned));
            ports.extend(board.ports.iter().copied());
        }
        if interrupted {
            break;
        }
        // Waiting for the end would tell no more.
        if let Some(reason) = reason.filter(|_| now > window.start && !anybody && second.present == 0) {
            let _ = early.send(true);
            hopeless = Some(reason);
            break;
        }
        anybody |= second.present > 0;
        let measuring = window.holds(now);
        // What happened up to here belongs to the second that ends now; the first ends a second after the window's start.
        if now > window.start + Duration::from_millis(500) && tally.seconds.len() < seconds_of(scenario) {
            first_look.merge_late(&second);
            first_look.present = second.present;
            tally.seconds.push(std::mem::take(&mut first_look));
        } else if let Some(last) = tally.seconds.last_mut() {
            last.merge_late(&second);
        } else {
            // What came between the window's start and this look at it.
            first_look.merge_late(&second);
        }
        if measuring {
            // What sockets dropped before the window does not count.
            let dropped = os::socket_drops(&ports);
            let before = *dropped_before.get_or_insert(dropped);
            if let Some((board, _)) = workers.first() {
                let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
                board.tester.dropped = board.tester.dropped.max(dropped.saturating_sub(before));
            }
            let last = now + Duration::from_secs(1) >= window.end;
            if relay.is_due(samples.is_empty(), last)
                && let Some(sample) = relay.sample(now).await.ok().flatten()
            {
                samples.push(sample);
            }
        }
        next += Duration::from_secs(1);
        if now > end {
            continue; // everybody is leaving
        }
        progress(&Progress {
            elapsed: now.saturating_duration_since(epoch),
            total: end.saturating_duration_since(epoch),
            // The first look comes when the first second begins.
            measuring: measuring && now > window.start + Duration::from_millis(500),
            present: second.present,
            planned,
            failed_joins,
            second,
        });
    }
    for (board, thread) in workers {
        // Bots leave by themselves; each goodbye has a time limit.
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if thread.join().is_err() {
            tally.doubts.push("a thread of the tester broke off".to_owned());
        }
        let board = std::mem::take(&mut *board.lock().unwrap_or_else(PoisonError::into_inner));
        tally.merge(board.into_tally());
    }
    let all_failed = tally.joins.iter().all(|join| failure(join).is_some());
    if !interrupted
        && all_failed
        && let Some(reason) = hopeless.or(tally.joins.iter().find_map(failure).map(str::to_owned))
    {
        bail!(NobodyJoined(reason));
    }
    if interrupted {
        tally.doubts.push("the run was interrupted".to_owned());
    }
    Ok(Outcome { tally, relay: samples, window_s: scenario.duration.get().as_secs_f64(), started_unix })
}

fn failure(join: &crate::measure::Join) -> Option<&str> {
    match &join.outcome {
        crate::measure::JoinOutcome::Failed(reason) => Some(reason),
        crate::measure::JoinOutcome::Joined => None,
    }
}

fn seconds_of(scenario: &Scenario) -> usize {
    scenario.duration.get().as_secs_f64().ceil() as usize
}
