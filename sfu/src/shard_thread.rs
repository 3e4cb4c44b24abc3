//! One pinned thread that owns a UDP socket and a [`Shard`], and the way to reach it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sfu_media::command::{ShardCommand, ShardEvent};
use sfu_media::shard::{Shard, ShardConfig};
use sfu_media::tx::TxQueue;
use sfu_udp::{RecvBatch, UdpSocket, UdpSocketConfig, Waker};
use tokio::sync::mpsc;

use crate::crossbar::Crossbar;
use crate::tcp::links::{Links, TcpInput};

/// Most commands that wait for a shard before data-channel messages are dropped.
const COMMAND_BACKLOG: usize = 16_384;
/// Most receive batches between two looks at commands and timers.
const BATCHES_PER_TURN: usize = 4;
/// Commands of a turn: so long at most, and a few between two looks at the clock. The rest keeps its order for the next turns.
const COMMAND_TIME: Duration = Duration::from_micros(500);
const COMMAND_BATCH: usize = 4;
/// Checks and handshakes of a turn: so long at most, and a few between two looks at the clock. A handshake takes as long as
/// hundreds of packets; when many join at once, media has its turns in between.
const CONNECT_TIME: Duration = Duration::from_micros(500);
const CONNECT_BATCH: usize = 2;
/// Bytes of a fan-out that are sent before it goes on: they are still in the nearest caches then.
const SEND_AT: usize = 64 * 1024;
/// Timers may be so late: those of hundreds of peers share a wake-up. ..
const GRID: Duration = Duration::from_millis(4);
/// .. Those for which nobody waits, and reports that are received apart, may be so late: mostly media wakes before.
const PATIENCE: Duration = Duration::from_millis(20);
/// Receivers report at least so often; when nothing came for so long, the next report wakes.
const REPORTS: Duration = Duration::from_millis(150);
/// Under load the thread wakes at most so often: one wake-up finds what many would have found one by one.
const REST: Duration = Duration::from_millis(1);
/// Longest sleep: bounds how late the CPU figure is.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Event of a shard, with the shard it came from.
pub type TaggedEvent = (usize, ShardEvent);

/// How to open a shard.
#[derive(Debug)]
pub struct ShardThreadConfig {
    /// Which shard this is.
    pub index: usize,
    /// Its socket.
    pub socket: UdpSocketConfig,
    /// Pin the thread to the core of its index.
    pub pin: bool,
    /// The media core's part.
    pub shard: ShardConfig,
    /// Seed for identifiers and secrets that the core makes up.
    pub seed: u64,
    /// Its way to the other shards.
    pub crossbar: Crossbar,
}

/// A running shard. Dropping it stops and joins the thread.
#[derive(Debug)]
pub struct ShardThread {
    inbox: Arc<Inbox>,
    local: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inbox {
    commands: Mutex<Vec<ShardCommand>>,
    /// What TCP connections bring. Bounded by them: each waits until little of its own is left here.
    tcp: Mutex<Vec<TcpInput>>,
    waker: Waker,
    /// There is something in either: else the thread need not take the locks.
    filled: AtomicBool,
    stop: AtomicBool,
    /// Data-channel messages dropped because the shard did not keep up.
    dropped: AtomicU64,
    cpu_ns: AtomicU64,
    send_dropped: AtomicU64,
}

/// Where TCP connections bring what they have for a shard.
#[derive(Debug, Clone)]
pub struct TcpInlet(Arc<Inbox>);

impl TcpInlet {
    pub(crate) fn push(&self, input: TcpInput) {
        self.0.tcp.lock().unwrap_or_else(PoisonError::into_inner).push(input);
        self.0.wake_to_take();
    }
}

impl Inbox {
    fn wake_to_take(&self) {
        self.filled.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl ShardThread {
    /// Binds the socket and starts the thread.
    ///
    /// # Errors
    /// When the port is in use or no thread can be had.
    pub fn spawn(config: ShardThreadConfig, events: mpsc::Sender<TaggedEvent>) -> io::Result<Self> {
        let socket = UdpSocket::bind(config.socket)?;
        let local = socket.local_addr()?;
        let inbox = Arc::new(Inbox {
            commands: Mutex::new(Vec::new()),
            tcp: Mutex::new(Vec::new()),
            waker: config.crossbar.waker().clone(),
            filled: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            cpu_ns: AtomicU64::new(0),
            send_dropped: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&inbox);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{}", config.index))
            .spawn(move || Loop::new(config, socket, theirs, events).run())?;
        Ok(Self { inbox, local, thread: Some(thread) })
    }

    /// The address of its socket.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Hands over commands, in order, with one wake-up. Takes them out of `commands`.
    pub fn send(&self, commands: &mut Vec<ShardCommand>) {
        if commands.is_empty() {
            return;
        }
        {
            let mut queue = self.inbox.commands.lock().unwrap_or_else(PoisonError::into_inner);
            for command in commands.drain(..) {
                if queue.len() >= COMMAND_BACKLOG && matches!(command, ShardCommand::SendData { .. }) {
                    self.inbox.dropped.fetch_add(1, Ordering::Relaxed);
                } else {
                    queue.push(command);
                }
            }
        }
        self.inbox.wake_to_take();
    }

    /// For the listener of TCP connections.
    pub fn tcp_inlet(&self) -> TcpInlet {
        TcpInlet(Arc::clone(&self.inbox))
    }

    /// CPU time that the thread has used.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.inbox.cpu_ns.load(Ordering::Relaxed))
    }

    /// Datagrams that the kernel or a TCP connection did not take, and data-channel messages dropped before the shard.
    pub fn overflow(&self) -> u64 {
        self.inbox.send_dropped.load(Ordering::Relaxed) + self.inbox.dropped.load(Ordering::Relaxed)
    }

    /// Whether the thread still runs.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }
}

impl Drop for ShardThread {
    fn drop(&mut self) {
        self.inbox.stop.store(true, Ordering::Release);
        self.inbox.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Loop {
    config_index: usize,
    pin: bool,
    socket: Rc<RefCell<UdpSocket>>,
    shard: Shard,
    inbox: Arc<Inbox>,
    /// Commands that are not handled yet.
    commands: VecDeque<ShardCommand>,
    events: mpsc::Sender<TaggedEvent>,
    /// Events that the channel had no room for; they keep their order.
    waiting: VecDeque<ShardEvent>,
    tx: TxQueue,
    links: Links,
    crossbar: Crossbar,
}

impl Loop {
    fn new(
        config: ShardThreadConfig,
        socket: UdpSocket,
        inbox: Arc<Inbox>,
        events: mpsc::Sender<TaggedEvent>,
    ) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let socket = Rc::new(RefCell::new(socket));
        let shard = Shard::new(config.shard, config.seed, Instant::now(), unix);
        Self {
            config_index: config.index,
            pin: config.pin,
            tx: TxQueue::with_outlet(SEND_AT, outlet(&socket, &inbox, config.index)),
            socket,
            shard,
            inbox,
            commands: VecDeque::new(),
            events,
            waiting: VecDeque::new(),
            links: Links::default(),
            crossbar: config.crossbar,
        }
    }

    /// One turn: 1. wait ([`Rhythm`] says for what and how long); 2. commands, so that mute and leave act before the next
    /// datagram is read, for a bounded time; 3. datagrams of TCP connections, which are bounded there; 4. what other shards
    /// hand over, bounded by the rings; 5. media of the socket, a bounded number of batches; 6. RTCP, where the kernel sorts
    /// it out; 7. checks and handshakes, for a bounded time; 8. timers; 9. send, to other shards as well; 10. events.
    fn run(mut self) {
        if self.pin
            && let Err(error) = sfu_udp::pin_to_cpu(self.config_index)
        {
            tracing::warn!(shard = self.config_index, %error, "cannot pin the shard to a core");
        }
        // Else many who join at once make media wait for signalling's threads to finish their slices.
        if let Err(error) = sfu_udp::run_before_others() {
            tracing::info!(
                shard = self.config_index,
                %error,
                "the shard's thread runs among others, not before them: root or LimitNICE=-10 would allow it"
            );
        }
        if !self.socket.borrow().is_sorted() {
            tracing::warn!(
                shard = self.config_index,
                "the kernel does not sort datagrams here: receiving all together"
            );
        }
        let mut batch = RecvBatch::new();
        let mut commands = Vec::new();
        let mut tcp = Vec::new();
        let mut more = false;
        let mut rhythm = Rhythm::new(self.socket.borrow().is_sorted(), Instant::now());
        while !self.inbox.stop.load(Ordering::Acquire) {
            let now = Instant::now();
            let wait = if more {
                Wait { rest: None, timeout: Duration::ZERO, for_feedback: true }
            } else if !self.waiting.is_empty() {
                Wait { rest: None, timeout: Duration::from_millis(1), for_feedback: true }
            } else {
                rhythm.wait(Deadlines::of(&self.shard, now), now)
            };
            if let Some(rest) = wait.rest {
                std::thread::sleep(rest);
            }
            let waited = self.socket.borrow().wait(&self.inbox.waker, Some(wait.timeout), wait.for_feedback);
            let ready = match waited {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(shard = self.config_index, %error, "the shard cannot wait on its socket");
                    return;
                }
            };
            let now = Instant::now();
            rhythm.woke(now);
            if ready.woken && self.inbox.filled.swap(false, Ordering::AcqRel) {
                std::mem::swap(
                    &mut commands,
                    &mut *self.inbox.commands.lock().unwrap_or_else(PoisonError::into_inner),
                );
                self.commands.extend(commands.drain(..));
                std::mem::swap(&mut tcp, &mut *self.inbox.tcp.lock().unwrap_or_else(PoisonError::into_inner));
            }
            more = self.command(now);
            for input in tcp.drain(..) {
                self.links.handle(input, &mut self.shard, &mut self.tx, now);
            }
            if self.crossbar.receive(&mut self.shard, &mut self.tx, now) {
                self.flush();
            }
            if ready.readable {
                match self.take(&mut batch, Part::Media, BATCHES_PER_TURN, None) {
                    Some((_, left)) => more |= left,
                    None => return,
                }
            }
            if ready.feedback || rhythm.feedback_due(now) {
                match self.take(&mut batch, Part::Feedback, BATCHES_PER_TURN, None) {
                    Some((found, left)) => {
                        rhythm.took_feedback(found, now);
                        more |= left;
                    }
                    None => return,
                }
            }
            if ready.connect {
                let until = Instant::now() + CONNECT_TIME;
                match self.take(&mut batch, Part::Connect, usize::MAX, Some(until)) {
                    Some((_, left)) => more |= left,
                    None => return,
                }
            }
            let now = Instant::now();
            if self.shard.poll_timeout().is_some_and(|at| at <= now) {
                self.shard.handle_timeout(&mut self.tx, now);
            }
            self.links.sweep(&self.shard, now);
            self.crossbar.send(&mut self.shard);
            self.flush();
            self.report();
        }
    }

    /// Handles commands, for a bounded time. Returns whether some are left.
    fn command(&mut self, now: Instant) -> bool {
        let mut handled = 0;
        while let Some(command) = self.commands.pop_front() {
            self.shard.handle_command(command, &mut self.tx, now);
            handled += 1;
            if handled % COMMAND_BATCH == 0 && now.elapsed() >= COMMAND_TIME {
                break;
            }
        }
        !self.commands.is_empty()
    }

    /// Takes datagrams of a kind, so many batches at most and until then. Returns how many there were, and whether more may
    /// be there; nothing when the socket is broken.
    fn take(
        &mut self,
        batch: &mut RecvBatch,
        part: Part,
        batches: usize,
        until: Option<Instant>,
    ) -> Option<(usize, bool)> {
        let mut found = 0;
        for _ in 0..batches {
            let socket = self.socket.borrow();
            let received = match part {
                Part::Media => socket.recv_batch(batch),
                Part::Feedback => socket.recv_feedback(batch),
                Part::Connect => socket.recv_connect(batch, CONNECT_BATCH),
            };
            drop(socket);
            let full = match received {
                Ok(full) => full,
                Err(error) => {
                    tracing::error!(shard = self.config_index, %error, "the shard's socket is broken");
                    return None;
                }
            };
            let now = Instant::now();
            found += batch.datagrams().count();
            self.shard.handle_datagrams(batch.datagrams(), &mut self.tx, now);
            self.crossbar.send(&mut self.shard);
            self.flush();
            if !full {
                return Some((found, false));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        Some((found, true))
    }

    fn flush(&mut self) {
        if self.tx.is_empty() {
            // What went through the outlet is not counted again.
            return self.tx.clear();
        }
        send(&mut self.socket.borrow_mut(), &self.tx, &self.inbox, self.config_index);
        let dropped = self.links.send(&self.tx);
        self.tx.clear();
        if dropped > 0 {
            self.inbox.send_dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn report(&mut self) {
        while let Some(event) = self.shard.poll_event() {
            if matches!(event, ShardEvent::Stats(_)) {
                let cpu = u64::try_from(sfu_udp::thread_cpu_time().as_nanos()).unwrap_or(u64::MAX);
                self.inbox.cpu_ns.store(cpu, Ordering::Relaxed);
            }
            if matches!(event, ShardEvent::Data { .. }) && self.waiting.len() >= COMMAND_BACKLOG {
                self.inbox.dropped.fetch_add(1, Ordering::Relaxed);
            } else {
                self.waiting.push_back(event);
            }
        }
        while let Some(event) = self.waiting.pop_front() {
            match self.events.try_send((self.config_index, event)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full((_, event))) => {
                    self.waiting.push_front(event);
                    break;
                }
                // The node is gone; the stop flag follows.
                Err(mpsc::error::TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }
}

/// What datagrams are, where the kernel sorts them; else all are [`Part::Media`].
#[derive(Debug, Clone, Copy)]
enum Part {
    Media,
    Feedback,
    Connect,
}

/// When the thread wakes. A wake-up costs as much as forwarding several packets, so that what need not be on time to the
/// millisecond waits for company; a quiet shard is not woken for nothing.
#[derive(Debug)]
struct Rhythm {
    /// Deadlines are rounded up from here on.
    start: Instant,
    /// RTCP comes on a socket of its own.
    apart: bool,
    /// The last two turns.
    woke: [Instant; 2],
    /// When there was last a look at reports, and when there were some.
    looked: Instant,
    found: Option<Instant>,
}

/// What a shard wants to be woken for.
#[derive(Debug, Clone, Copy, Default)]
struct Deadlines {
    /// Somebody waits for it.
    prompt: Option<Instant>,
    /// .. and it counts to the point.
    exact: bool,
    /// The first of all.
    any: Option<Instant>,
}

impl Deadlines {
    fn of(shard: &Shard, now: Instant) -> Self {
        Self { prompt: shard.poll_prompt_timeout(), exact: shard.is_exact(now), any: shard.poll_timeout() }
    }
}

/// What to wait for.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    /// First sleep for so long, whatever comes.
    rest: Option<Duration>,
    /// Then wait at most so long ..
    timeout: Duration,
    /// .. for datagrams, and for RTCP or not.
    for_feedback: bool,
}

impl Rhythm {
    fn new(apart: bool, now: Instant) -> Self {
        Self { start: now, apart, woke: [now; 2], looked: now, found: None }
    }

    fn woke(&mut self, now: Instant) {
        self.woke = [self.woke[1], now];
    }

    /// What to wait for now.
    fn wait(&self, Deadlines { prompt, exact, any }: Deadlines, now: Instant) -> Wait {
        let [before, last] = self.woke;
        // A turn that followed right upon another is one of many; a lone one is not held up.
        let dense = last.saturating_duration_since(before) < REST;
        let rest = REST.saturating_sub(now.saturating_duration_since(last));
        let rest = Some(rest).filter(|rest| dense && !exact && !rest.is_zero());
        let now = now + rest.unwrap_or_default();
        let prompt = prompt.map(|at| if exact { at } else { self.round_up(at) });
        let deadline = [prompt, any.map(|at| at + PATIENCE)].into_iter().flatten().min();
        let deadline = deadline.map_or(MAX_SLEEP, |at| at.saturating_duration_since(now));
        // Where there were reports a moment ago there will be more: they are collected. Where there were none they wake.
        let held = Some(self.looked + PATIENCE).filter(|until| self.expects_reports(now) && *until > now);
        let held_for = held.map(|until| until.saturating_duration_since(now));
        let timeout = deadline.min(MAX_SLEEP).min(held_for.unwrap_or(MAX_SLEEP));
        Wait { rest, timeout, for_feedback: held.is_none() }
    }

    fn round_up(&self, at: Instant) -> Instant {
        let since = at.saturating_duration_since(self.start).as_micros();
        let grid = GRID.as_micros();
        let rounded = since.div_ceil(grid).saturating_mul(grid);
        self.start + Duration::from_micros(u64::try_from(rounded).unwrap_or(u64::MAX / 2))
    }

    /// Whether there is a look at reports in a turn that has another reason.
    fn feedback_due(&self, now: Instant) -> bool {
        self.expects_reports(now) && now >= self.looked + GRID
    }

    fn took_feedback(&mut self, found: usize, now: Instant) {
        self.looked = now;
        if found > 0 {
            self.found = Some(now);
        }
    }

    fn expects_reports(&self, now: Instant) -> bool {
        self.apart && self.found.is_some_and(|at| now.saturating_duration_since(at) < REPORTS)
    }
}

/// Takes what a fan-out queues while it goes on.
fn outlet(
    socket: &Rc<RefCell<UdpSocket>>,
    inbox: &Arc<Inbox>,
    shard: usize,
) -> impl FnMut(&TxQueue) + 'static {
    let (socket, inbox) = (Rc::clone(socket), Arc::clone(inbox));
    move |tx| send(&mut socket.borrow_mut(), tx, &inbox, shard)
}

/// Sends what is for UDP.
fn send(socket: &mut UdpSocket, tx: &TxQueue, inbox: &Inbox, shard: usize) {
    let report = socket.send(tx);
    if report.dropped > 0 {
        inbox.send_dropped.fetch_add(report.dropped, Ordering::Relaxed);
    }
    if report.gso_disabled {
        tracing::warn!(shard, "no UDP segmentation offload here: sending singly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    fn prompt(at: Instant) -> Deadlines {
        Deadlines { prompt: Some(at), exact: false, any: Some(at) }
    }

    #[test]
    fn a_lone_datagram_is_not_held_up_and_many_are_taken_together() {
        let t = Instant::now();
        let mut rhythm = Rhythm::new(false, t);
        for n in 1..5 {
            let now = t + us(20_000 * n);
            rhythm.woke(now);
            assert_eq!(
                rhythm.wait(Deadlines::default(), now + us(30)),
                Wait { rest: None, timeout: MAX_SLEEP, for_feedback: true }
            );
        }
        // Another one, right behind.
        let now = t + us(80_100);
        rhythm.woke(now);
        assert_eq!(rhythm.wait(Deadlines::default(), now + us(40)).rest, Some(us(960)));
        // What took longer than that has no rest.
        assert_eq!(rhythm.wait(Deadlines::default(), now + us(1_000)).rest, None);
    }

    #[test]
    fn deadlines_share_wake_ups_and_none_is_early() {
        let t = Instant::now();
        let mut rhythm = Rhythm::new(false, t);
        let now = t + us(50_000);
        rhythm.woke(now);
        let timeout = |at| rhythm.wait(prompt(t + us(at)), now).timeout;
        assert_eq!([timeout(50_001), timeout(52_000), timeout(52_001)], [us(2_000), us(2_000), us(6_000)]);
        assert_eq!(timeout(40_000), Duration::ZERO);
        let exact = Deadlines { exact: true, ..prompt(t + us(50_001)) };
        assert_eq!(rhythm.wait(exact, now).timeout, us(1), "while there is a probe");
        assert_eq!(timeout(9_000_000), MAX_SLEEP);
        let patient = Deadlines { any: Some(t + us(51_000)), ..Deadlines::default() };
        assert_eq!(rhythm.wait(patient, now).timeout, us(1_000) + PATIENCE);
        let both = Deadlines { any: Some(t + us(40_000)), ..prompt(t + us(57_000)) };
        assert_eq!(rhythm.wait(both, now).timeout, us(10_000).min(PATIENCE - us(10_000)));
    }

    #[test]
    fn reports_are_collected_while_there_are_some() {
        let t = Instant::now();
        let mut rhythm = Rhythm::new(true, t);
        let at = t + us(100_000);
        rhythm.woke(at);
        assert!(rhythm.wait(Deadlines::default(), at).for_feedback, "there was none: the first wakes");
        rhythm.took_feedback(3, at);
        let wait = rhythm.wait(Deadlines::default(), at);
        assert_eq!(wait, Wait { rest: None, timeout: PATIENCE, for_feedback: false });
        assert!(!rhythm.feedback_due(at + us(3_900)));
        assert!(rhythm.feedback_due(at + GRID), "another reason woke the thread");
        assert!(
            rhythm.wait(Deadlines::default(), at + PATIENCE).for_feedback,
            "they have waited for long enough"
        );
        // A look that finds none says little: they come every 50 or 100 ms.
        rhythm.took_feedback(0, at + GRID);
        assert!(!rhythm.wait(Deadlines::default(), at + GRID).for_feedback);
        let later = at + REPORTS;
        assert!(rhythm.wait(Deadlines::default(), later).for_feedback && !rhythm.feedback_due(later));
    }
}
