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

/// Starts the thread.
pub(super) fn start(index: usize, context: Context, plans: Vec<BotPlan>) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    std::thread::Builder::new()
        .name(format!("bots-{index}"))
        .spawn(move || {
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
                watch.abort();
            });
        })
        .context("a thread")
}

/// Measures the thread itself over the window.
async fn watch(context: &Context) {
    tokio::time::sleep_until(context.window.start.into()).await;
    let (start, cpu) = (Instant::now(), thread_cpu());
    let mut due = start + BEAT;
    let mut round = 0u32;
    while Instant::now() < context.window.end {
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
        due = (due + BEAT).max(now);
    }
}
