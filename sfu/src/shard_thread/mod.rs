//! One pinned thread that owns a UDP socket and a [`Shard`], and the way to reach it.

mod inbox;
mod rhythm;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sfu_media::command::{ShardCommand, ShardEvent};
use sfu_media::shard::{Shard, ShardConfig};
use sfu_media::tx::TxQueue;
use sfu_udp::{RecvBatch, UdpSocket, UdpSocketConfig};
use tokio::sync::mpsc;

use crate::crossbar::Crossbar;
use crate::tcp::links::Links;
pub use inbox::TcpInlet;
use inbox::{COMMAND_BACKLOG, Commands, Inbox};
use rhythm::{Deadlines, Rhythm, Wait};

/// Most receive batches between two looks at commands and timers.
const BATCHES_PER_TURN: usize = 4;
/// Checks and handshakes of a turn: so long at most, and a few between two looks at the clock. A handshake takes as long as
/// hundreds of packets; when many join at once, media has its turns in between.
const CONNECT_TIME: Duration = Duration::from_micros(500);
const CONNECT_BATCH: usize = 2;
/// Bytes of a fan-out that are sent before it goes on: they are still in the nearest caches then.
const SEND_AT: usize = 64 * 1024;

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

impl ShardThread {
    /// Binds the socket and starts the thread.
    ///
    /// # Errors
    /// When the port is in use or no thread can be had.
    pub fn spawn(config: ShardThreadConfig, events: mpsc::Sender<TaggedEvent>) -> io::Result<Self> {
        let socket = UdpSocket::bind(config.socket)?;
        let local = socket.local_addr()?;
        let inbox = Arc::new(Inbox::new(config.crossbar.waker().clone()));
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
        self.inbox.bring(commands);
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
        self.inbox.stop();
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
    commands: Commands,
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
            commands: Commands::default(),
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
        let mut tcp = Vec::new();
        let mut more = false;
        let mut rhythm = Rhythm::new(self.socket.borrow().is_sorted(), Instant::now());
        while !self.inbox.is_stopped() {
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
            if ready.woken {
                self.inbox.take(&mut self.commands, &mut tcp);
            }
            let Self { commands, shard, tx, .. } = &mut self;
            more = commands.handle(now, Instant::now, |command| shard.handle_command(command, tx, now));
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
