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

use crate::tcp::links::{Links, TcpInput};

/// Most commands that wait for a shard before data-channel messages are dropped.
const COMMAND_BACKLOG: usize = 16_384;
/// Most receive batches between two looks at commands and timers.
const BATCHES_PER_TURN: usize = 4;
/// Bytes of a fan-out that are sent before it goes on: they are still in the nearest caches then.
const SEND_AT: usize = 64 * 1024;
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
        self.0.waker.wake();
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
            waker: Waker::new()?,
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
        self.inbox.waker.wake();
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
    events: mpsc::Sender<TaggedEvent>,
    /// Events that the channel had no room for; they keep their order.
    waiting: VecDeque<ShardEvent>,
    tx: TxQueue,
    links: Links,
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
            events,
            waiting: VecDeque::new(),
            links: Links::default(),
        }
    }

    /// One turn: 1. wait; 2. commands, so that mute and leave act before the next datagram is read; 3. datagrams of TCP
    /// connections, which are bounded there; 4. those of the socket, a bounded number of batches; 5. timers; 6. send;
    /// 7. events.
    fn run(mut self) {
        if self.pin
            && let Err(error) = sfu_udp::pin_to_cpu(self.config_index)
        {
            tracing::warn!(shard = self.config_index, %error, "cannot pin the shard to a core");
        }
        let mut batch = RecvBatch::new();
        let mut commands = Vec::new();
        let mut tcp = Vec::new();
        let mut more = false;
        while !self.inbox.stop.load(Ordering::Acquire) {
            let now = Instant::now();
            let timeout = if more || !self.waiting.is_empty() {
                if more { Duration::ZERO } else { Duration::from_millis(1) }
            } else {
                self.shard
                    .poll_timeout()
                    .map_or(MAX_SLEEP, |at| at.saturating_duration_since(now))
                    .min(MAX_SLEEP)
            };
            let ready = match self.socket.borrow().wait(&self.inbox.waker, Some(timeout)) {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(shard = self.config_index, %error, "the shard cannot wait on its socket");
                    return;
                }
            };
            let now = Instant::now();
            if ready.woken {
                std::mem::swap(
                    &mut commands,
                    &mut *self.inbox.commands.lock().unwrap_or_else(PoisonError::into_inner),
                );
                for command in commands.drain(..) {
                    self.shard.handle_command(command, &mut self.tx, now);
                }
                std::mem::swap(&mut tcp, &mut *self.inbox.tcp.lock().unwrap_or_else(PoisonError::into_inner));
                for input in tcp.drain(..) {
                    self.links.handle(input, &mut self.shard, &mut self.tx, now);
                }
            }
            more = false;
            if ready.readable {
                for _ in 0..BATCHES_PER_TURN {
                    match self.socket.borrow().recv_batch(&mut batch) {
                        Ok(full) => more = full,
                        Err(error) => {
                            tracing::error!(shard = self.config_index, %error, "the shard's socket is broken");
                            return;
                        }
                    }
                    let now = Instant::now();
                    self.shard.handle_datagrams(batch.datagrams(), &mut self.tx, now);
                    self.flush();
                    if !more {
                        break;
                    }
                }
            }
            let now = Instant::now();
            if self.shard.poll_timeout().is_some_and(|at| at <= now) {
                self.shard.handle_timeout(&mut self.tx, now);
            }
            self.links.sweep(&self.shard, now);
            self.flush();
            self.report();
        }
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
