//! What other threads bring a shard: commands, and what came in by TCP.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sfu_media::command::ShardCommand;
use sfu_udp::Waker;

use crate::tcp::links::TcpInput;

/// Most commands that wait for a shard before data-channel messages are dropped.
pub(super) const COMMAND_BACKLOG: usize = 16_384;
/// Commands of a turn: so long at most, and a few between two looks at the clock. The rest keeps its order for the next turns.
const COMMAND_TIME: Duration = Duration::from_micros(500);
const COMMAND_BATCH: usize = 4;

/// What waits to be taken by the shard's thread, and what that says of itself.
#[derive(Debug)]
pub(super) struct Inbox {
    commands: Mutex<Vec<ShardCommand>>,
    /// What TCP connections bring. Bounded by them: each waits until little of its own is left here.
    tcp: Mutex<Vec<TcpInput>>,
    pub(super) waker: Waker,
    /// There is something in either: else the thread need not take the locks.
    filled: AtomicBool,
    stop: AtomicBool,
    /// Data-channel messages dropped because the shard did not keep up.
    pub(super) dropped: AtomicU64,
    pub(super) cpu_ns: AtomicU64,
    pub(super) send_dropped: AtomicU64,
}

impl Inbox {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            commands: Mutex::new(Vec::new()),
            tcp: Mutex::new(Vec::new()),
            waker,
            filled: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            cpu_ns: AtomicU64::new(0),
            send_dropped: AtomicU64::new(0),
        }
    }

    /// Takes over commands, in order, with one wake-up.
    pub(super) fn bring(&self, commands: &mut Vec<ShardCommand>) {
        if commands.is_empty() {
            return;
        }
        {
            let mut queue = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            for command in commands.drain(..) {
                if queue.len() >= COMMAND_BACKLOG && matches!(command, ShardCommand::SendData { .. }) {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                } else {
                    queue.push(command);
                }
            }
        }
        self.wake_to_take();
    }

    /// Takes all that is there, after a wake-up.
    pub(super) fn take(&self, commands: &mut Commands, tcp: &mut Vec<TcpInput>) {
        if self.filled.swap(false, Ordering::AcqRel) {
            commands.take(&mut self.commands.lock().unwrap_or_else(PoisonError::into_inner));
            std::mem::swap(tcp, &mut *self.tcp.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Makes the thread end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn wake_to_take(&self) {
        self.filled.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Where TCP connections bring what they have for a shard.
#[derive(Debug, Clone)]
pub struct TcpInlet(pub(super) Arc<Inbox>);

impl TcpInlet {
    pub(crate) fn push(&self, input: TcpInput) {
        self.0.tcp.lock().unwrap_or_else(PoisonError::into_inner).push(input);
        self.0.wake_to_take();
    }
}

/// Commands that were taken and are not handled yet.
#[derive(Debug, Default)]
pub(super) struct Commands {
    queue: VecDeque<ShardCommand>,
    /// Given in exchange for a filled one, so that the lock is held for a moment only.
    empty: Vec<ShardCommand>,
}

impl Commands {
    fn take(&mut self, commands: &mut Vec<ShardCommand>) {
        std::mem::swap(&mut self.empty, commands);
        self.queue.extend(self.empty.drain(..));
    }

    /// Handles commands in their order for a bounded time, which begins at `now`; `clock` says what time it is meanwhile.
    /// Returns whether some are left.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        clock: impl Fn() -> Instant,
        mut handle: impl FnMut(ShardCommand),
    ) -> bool {
        let mut handled = 0;
        while let Some(command) = self.queue.pop_front() {
            handle(command);
            handled += 1;
            if handled % COMMAND_BATCH == 0 && clock().saturating_duration_since(now) >= COMMAND_TIME {
                break;
            }
        }
        !self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;
    use sfu_media::command::DataLabel;
    use sfu_media::ids::PeerId;

    use super::*;

    /// Commands that are told apart by the peer that they are about.
    fn leaving(peers: std::ops::Range<u64>) -> Vec<ShardCommand> {
        peers.map(|peer| ShardCommand::ClosePeer { peer: PeerId(peer) }).collect()
    }

    /// One turn in which each command takes so long; which peers' commands were handled, and whether some are left.
    fn turn(commands: &mut Commands, each: Duration) -> (Vec<u64>, bool) {
        let start = Instant::now();
        let time = Cell::new(start);
        let mut handled = Vec::new();
        let more = commands.handle(
            start,
            || time.get(),
            |command| {
                let ShardCommand::ClosePeer { peer } = command else { panic!("another command") };
                handled.push(peer.0);
                time.set(time.get() + each);
            },
        );
        (handled, more)
    }

    #[test]
    fn commands_take_half_a_millisecond_of_a_turn_and_keep_their_order() {
        let mut commands = Commands::default();
        commands.take(&mut leaving(0..20));
        // The clock is read after four (400 us) and after eight (800 us).
        assert_eq!(turn(&mut commands, Duration::from_micros(100)), ((0..8).collect(), true));
        // What comes meanwhile is behind what is left.
        commands.take(&mut leaving(20..22));
        assert_eq!(
            turn(&mut commands, Duration::from_millis(100)),
            ((8..12).collect(), true),
            "long ones, too"
        );
        assert_eq!(turn(&mut commands, Duration::from_micros(1)), ((12..22).collect(), false));
        assert_eq!(turn(&mut commands, Duration::from_micros(1)), (vec![], false));
        // Nothing is left where the time is over with the last one.
        commands.take(&mut leaving(0..4));
        assert_eq!(turn(&mut commands, Duration::from_millis(1)), ((0..4).collect(), false));
    }

    #[test]
    fn what_is_brought_is_taken_once_and_data_has_no_room_behind_a_backlog() {
        let inbox = Inbox::new(Waker::new().unwrap());
        let (mut commands, mut tcp) = (Commands::default(), Vec::new());
        inbox.bring(&mut leaving(0..3));
        inbox.bring(&mut leaving(3..COMMAND_BACKLOG as u64));
        let data = || ShardCommand::SendData {
            peer: PeerId(1),
            label: DataLabel::Reliable,
            payload: Bytes::from_static(b"data"),
        };
        inbox.bring(&mut vec![data(), data()]);
        inbox.bring(&mut leaving(7..8));
        assert_eq!(inbox.dropped.load(Ordering::Relaxed), 2);
        inbox.take(&mut commands, &mut tcp);
        let (handled, more) = turn(&mut commands, Duration::ZERO);
        let all: Vec<u64> = (0..COMMAND_BACKLOG as u64).chain([7]).collect();
        assert_eq!((handled == all, more), (true, false));
        inbox.take(&mut commands, &mut tcp);
        assert_eq!(turn(&mut commands, Duration::ZERO), (vec![], false));
    }
}
