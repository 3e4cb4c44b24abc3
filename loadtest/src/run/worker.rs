//! One thread with its share of the bots.

use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::LocalSet;

use super::os::thread_cpu;
use crate::client::{BotPlan, Context, run_bot};

/// How often it is measured how late timers fire.
const BEAT: Duration = Duration::from_millis(10);
/// Timers of the runtime fire on the next millisecond.
const GRAIN: Duration = Duration::from_millis(1);

/// Bots of one thread.
#[derive(Debug, Default)]
pub(super) struct Crew {
    pub(super) plans: Vec<BotPlan>,
    /// What they measure is disturbed by the other threads' work: they run before these, where that is allowed.
    pub(super) first: bool,
}

/// Deals bots out to so many threads. Where it is measured what many who join late do to those who are there already, these have
/// a thread of their own, beside those: else it would be measured how late the tester itself is.
pub(super) fn crews(plans: &[BotPlan], measure_joining: bool, threads: usize) -> Vec<Crew> {
    let late = |plan: &&BotPlan| !plan.role.join_after.get().is_zero();
    let (late, there): (Vec<_>, Vec<_>) = plans.iter().partition(late);
    let apart = measure_joining && !late.is_empty() && !there.is_empty();
    let rest = if apart { late } else { plans.iter().collect() };
    let threads = threads.min(rest.len()).max(1);
    let deal = |index| rest.iter().skip(index).step_by(threads).map(|plan| (*plan).clone()).collect();
    let first = apart.then(|| Crew { plans: there.into_iter().cloned().collect(), first: true });
    first.into_iter().chain((0..threads).map(|index| Crew { plans: deal(index), first: false })).collect()
}

/// Starts the thread.
pub(super) fn start(
    index: usize,
    context: Context,
    Crew { plans, first }: Crew,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    std::thread::Builder::new()
        .name(format!("bots-{index}"))
        .spawn(move || {
            if first {
                // Where it is not allowed, the delays say what that means.
                let _ = sfu_udp::run_before_others();
            }
            // The context lives as long as the process's run: bots borrow it for as long.
            let context: std::rc::Rc<Context> = std::rc::Rc::new(context);
            let bots = LocalSet::new();
            let handles: Vec<_> = plans
                .into_iter()
                .map(|plan| {
                    let context = context.clone();
                    bots.spawn_local(async move { run_bot(plan, &context).await })
                })
                .collect();
            bots.block_on(&runtime, async {
                let watch = tokio::task::spawn_local({
                    let context = context.clone();
                    async move { watch(&context).await }
                });
                for handle in handles {
                    let _ = handle.await;
                }
                // A thread that stood still to the end of the window has yet to say so.
                match Instant::now() < context.window.end {
                    true => watch.abort(),
                    false => drop(watch.await),
                }
            });
        })
        .context("a thread")
}

/// Measures the thread itself over the window. What it stands still for counts from when a timer was due, be that the first or the
/// last one of the window, or all of them.
async fn watch(context: &Context) {
    tokio::time::sleep_until(context.window.start.into()).await;
    let (start, cpu) = (Instant::now(), thread_cpu());
    let mut due = context.window.start + BEAT;
    let mut round = 0u32;
    loop {
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        let late = now.saturating_duration_since(due).saturating_sub(GRAIN);
        let mut board = context.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.tester.loop_delay.record(late.as_micros() as u64);
        round += 1;
        if round.is_multiple_of(50)
            && let (Some(before), Some(after)) = (cpu, thread_cpu())
        {
            let wall = now.saturating_duration_since(start).as_secs_f64();
            board.tester.cpu = after.saturating_sub(before).as_secs_f64() / wall;
        }
        if now >= context.window.end {
            return;
        }
        due = (due + BEAT).max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Share, plans};
    use super::*;
    use crate::scenario::{Role, Rooms, Scenario, Span};

    #[test]
    fn those_who_are_there_when_many_join_have_a_thread_of_their_own() {
        let mut scenario = Scenario::simple(1, vec![Role::speaking(5, None, true)]);
        let latecomer = Role { join_after: Span::ms(10), ..Role::speaking(7, None, false) };
        scenario.rooms.push(Rooms { count: 1, roles: vec![latecomer] });
        let plans = plans(&scenario, Share { tester: 0, testers: 1, run: 1 });
        let sizes = |joining, threads| {
            let crews = crews(&plans, joining, threads);
            crews.iter().map(|crew| (crew.plans.len(), crew.first)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(true, 2), [(5, true), (4, false), (3, false)]);
        assert_eq!(sizes(false, 2), [(6, false), (6, false)]);
        assert_eq!(crews(&plans[..5], true, 9).len(), 5, "nobody comes late, and no thread has nobody");
    }
}
