//! One bot's visit from join to leave, and its comings and goings.

mod remotes;
mod report;
mod signals;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use str0m::rtp::Ssrc;
use str0m::{Event, IceConnectionState};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout, timeout_at};

pub use self::report::{VisitReport, VisitStream};
use super::publish::{Publisher, PublisherSpec};
use super::transport::Transport;
use super::view::Wish;
use crate::client::signal::{Request, Response, SignalClient};
use crate::client::trouble::SignalError;
use crate::client::trust::Trust;
use crate::measure::{Board, Join, JoinOutcome, Kind, Meter, Window};
use crate::media::speech::{Dice, Speaker};
use crate::media::stamp::StampClock;
use crate::media::{FrameCryptor, recording};
use crate::run::Local;
use crate::scenario::Role;
use crate::token::Entry;

/// Joining that takes longer has failed.
const JOIN_TIME: Duration = Duration::from_secs(15);
/// Each join has a token of its own.
const TOKEN_LIFE: Duration = Duration::from_secs(6 * 3600);
/// A visit that is over sooner without a media path says nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often lost packets are given up and pictures that stand still are noticed.
const TICK: Duration = Duration::from_millis(100);
/// After a disconnect that nobody asked for a client tries again.
const RETRY: Duration = Duration::from_secs(1);

/// What bots send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// Frames with stamps, from which the others measure. What the server refuses ends the visit.
    Stamped,
    /// Recordings, which anybody can see and hear. What the server refuses is kept for the report.
    Recorded,
}

/// What the bots of a thread share.
pub struct Context {
    /// `ws://` or `wss://` address of the server.
    pub url: String,
    /// Whom they trust where the server speaks TLS.
    pub trust: Option<Trust>,
    /// Where their tokens come from.
    pub entry: Entry,
    /// What they send.
    pub play: Play,
    /// Local addresses of the media sockets.
    pub local: Local,
    /// The end-to-end encryption; without it frames go in clear.
    pub cryptor: Option<Arc<FrameCryptor>>,
    /// Clock of the stamps.
    pub clock: StampClock,
    /// When figures count.
    pub window: Window,
    /// Start of the run.
    pub epoch: Instant,
    /// When everybody leaves.
    pub end: Instant,
    /// Where figures go.
    pub board: Arc<Mutex<Board>>,
    /// Random bytes that frames are filled with.
    pub filling: Arc<[u8]>,
    /// Tells everybody to leave early.
    pub stop: watch::Receiver<bool>,
}

impl Context {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who a bot is.
#[derive(Debug, Clone)]
pub struct BotPlan {
    /// Room.
    pub room: String,
    /// Identity.
    pub identity: String,
    /// What it does.
    pub role: Arc<Role>,
    /// When it joins, after the start of the run.
    pub join_at: Duration,
    /// Seed of the room's schedule.
    pub room_seed: u64,
    /// Seed of its own choices.
    pub seed: u64,
    /// Its number among those of the room that speak, and how many these are.
    pub voice: (u64, u64),
}

/// Plays a bot until the end of the run.
pub async fn run_bot(plan: BotPlan, context: &Context) {
    let mut stop = context.stop.clone();
    let mut dice = Dice::new(plan.seed);
    let mut join_at = context.epoch + plan.join_at;
    while join_at < context.end {
        tokio::select! {
            () = sleep_until(join_at.into()) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let leave_at = match plan.role.stay {
            Some(stay) => {
                let stay = dice.spell(stay.get().as_secs_f64(), stay.get().as_secs_f64() / 4.0);
                (Instant::now() + stay).min(context.end)
            }
            None => context.end,
        };
        let visited = visit(&plan, context, dice.roll(), leave_at).await;
        if *stop.borrow() {
            return;
        }
        join_at = Instant::now()
            + match visited {
                Ok(()) => plan.role.away.get(),
                Err(_) => RETRY,
            };
    }
}

/// One visit. An error is a disconnect, or a join that failed, and is on the board already.
async fn visit(plan: &BotPlan, context: &Context, seed: u64, leave_at: Instant) -> Result<(), ()> {
    let start = Instant::now();
    let mut session = match Session::connect(plan, context, seed, start).await {
        Ok(session) => session,
        Err(why) => {
            context.board().joins.push(Join {
                outcome: JoinOutcome::Failed(why),
                connect_us: 0,
                admit_us: 0,
                transport_us: 0,
                first_media_us: None,
            });
            return Err(());
        }
    };
    let mut ended = session.run(leave_at).await;
    let waits = session.join.is_none() && start.elapsed() > PATIENCE && !*context.stop.borrow();
    if ended.is_ok() && waits {
        ended = Err(session.no_media("by the end of the visit"));
    }
    let reason = ended.as_ref().err().cloned();
    session.finish(reason).await;
    ended.map_err(|_| ())
}

/// A track of somebody else.
struct Remote {
    participant: String,
    kind: Kind,
    /// Order in which tracks came.
    number: u64,
    wish: Option<Wish>,
    meter: Meter,
}

#[allow(clippy::large_enum_variant)] // lives for one turn of the loop
enum Wake {
    Signal(Result<Response, SignalError>),
    Publisher,
    Subscriber,
    Timer,
    Stop,
}

pub(super) struct Session<'a> {
    plan: &'a BotPlan,
    context: &'a Context,
    signal: SignalClient,
    publisher: Option<Publisher>,
    subscriber: Transport,
    remotes: BTreeMap<String, Remote>,
    came: u64,
    tracks_by_mid: BTreeMap<String, String>,
    by_ssrc: HashMap<Ssrc, String>,
    /// Identities by the server's ids.
    others: BTreeMap<String, String>,
    refusals: Vec<String>,
    speaker: Option<String>,
    start: Instant,
    connected_at: Instant,
    admitted_at: Instant,
    join: Option<Join>,
    next_tick: Instant,
    ping_every: Duration,
    next_ping: Instant,
    own_sid: String,
    /// How frames end that the server makes up.
    made_up: Arc<[u8]>,
}

impl<'a> Session<'a> {
    pub(super) async fn connect(
        plan: &'a BotPlan,
        context: &'a Context,
        seed: u64,
        start: Instant,
    ) -> Result<Self, String> {
        let token = context.entry.token(&plan.room, &plan.identity, TOKEN_LIFE);
        let token = token.ok_or("there is no token for this participant")?;
        let by = tokio::time::Instant::from_std(start + JOIN_TIME);
        let connected = timeout_at(by, SignalClient::connect(&context.url, &token, context.trust.as_ref()));
        let mut signal = connected.await.map_err(|_| no_answer())?.map_err(|e| reason(&e))?;
        let connected_at = Instant::now();
        let first = timeout_at(by, signal.next()).await.map_err(|_| no_welcome())?;
        let join = match first.map_err(|e| reason(&e))? {
            Response::Join(join) => join,
            Response::Leave(leave) => return Err(format!("the server refused: {:?}", leave.reason())),
            _ => return Err("the server's first message is no join response".to_owned()),
        };
        let admitted_at = Instant::now();
        let transport = |seed| {
            Transport::new(context.local, plan.role.link, seed)
                .map_err(|error| format!("a socket of the tester: {error}"))
        };
        let recorded = context.play == Play::Recorded;
        let layers = match recorded {
            true => plan.role.video.map(|_| recording::LAYERS.to_vec()),
            false => plan.role.layers(),
        };
        let publishes = plan.role.audio || layers.is_some();
        let publisher = match publishes {
            true => {
                let (member, members) = plan.voice;
                let speaker = plan.role.audio.then(|| match recorded || plan.role.steady.is_some() {
                    true => Speaker::steady(),
                    false => Speaker::new(plan.room_seed, member, members, plan.role.muted),
                });
                let spec = PublisherSpec {
                    speaker,
                    layers,
                    recorded,
                    steady: plan.role.steady,
                    cryptor: context.cryptor.clone(),
                    clock: context.clock,
                    window: context.window,
                    epoch: context.epoch,
                    filling: context.filling.clone(),
                    seed,
                };
                Some(Publisher::new(transport(seed ^ 0x77)?, spec, admitted_at))
            }
            false => None,
        };
        let ping_every = Duration::from_secs(u64::try_from(join.ping_interval).unwrap_or(0).clamp(1, 60));
        let mut session = Self {
            plan,
            context,
            signal,
            publisher,
            subscriber: transport(seed ^ 0x99)?,
            remotes: BTreeMap::new(),
            came: 0,
            tracks_by_mid: BTreeMap::new(),
            by_ssrc: HashMap::new(),
            others: BTreeMap::new(),
            refusals: Vec::new(),
            speaker: None,
            start,
            connected_at,
            admitted_at,
            join: None,
            next_tick: admitted_at + TICK,
            ping_every,
            next_ping: admitted_at + ping_every,
            own_sid: join.participant.map(|p| p.sid).unwrap_or_default(),
            made_up: join.sif_trailer.into(),
        };
        {
            let mut board = context.board();
            board.ports.extend(session.ports());
        }
        session.announce().await.map_err(|e| reason(&e))?;
        session.on_participants(join.other_participants, admitted_at);
        session.send_wishes(admitted_at).await.map_err(|e| reason(&e))?;
        Ok(session)
    }

    /// Why it has no media path yet, and what to do: of the first connection that is not up.
    fn no_media(&self, when: &str) -> String {
        let publishing = self.publisher.as_ref().map(|publisher| &publisher.transport);
        let down = publishing.into_iter().chain([&self.subscriber]).find(|transport| !transport.up);
        let why = down.map_or_else(|| "it came too late".to_owned(), Transport::trouble);
        format!("no media path {when}: {why}")
    }

    /// Of all its media sockets.
    fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        let publishing = self.publisher.iter().flat_map(|publisher| publisher.transport.ports());
        self.subscriber.ports().chain(publishing)
    }

    /// Takes part until `leave_at`; may be called again then. An error is the reason of a disconnect.
    pub(super) async fn run(&mut self, leave_at: Instant) -> Result<(), String> {
        let mut stop = self.context.stop.clone();
        let mut events = Vec::new();
        let mut mutes = Vec::new();
        loop {
            let now = Instant::now();
            if now >= leave_at {
                return Ok(());
            }
            if self.join.is_none() && self.refusals.is_empty() && now > self.start + JOIN_TIME {
                return Err(self.no_media(&format!("within {} s", JOIN_TIME.as_secs())));
            }
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.tick(now);
            }
            if now >= self.next_ping {
                self.next_ping = now + self.ping_every;
                let ping = proto::Ping { timestamp: unix_ms(), rtt: 0 };
                self.signal.send(Request::PingReq(ping)).await.map_err(|e| reason(&e))?;
            }
            let mut wake = leave_at.min(self.next_tick).min(self.next_ping);
            if let Some(publisher) = &mut self.publisher {
                let sent = publisher.frames;
                let due = publisher.send_due(now, &mut self.context.board(), &mut mutes);
                // Every datagram that comes in for the subscriber leads here, too.
                if publisher.frames > sent || publisher.transport.deadline() <= now {
                    publisher.transport.advance(now, &mut events).map_err(|e| media(&e))?;
                }
                if publisher.frames > sent {
                    let took = now.elapsed().as_micros() as u64;
                    self.context.board().now().sending.record(took);
                }
                wake = due.map_or(wake, |due| wake.min(due)).min(publisher.transport.deadline());
            }
            self.on_publisher_events(&mut events)?;
            for (sid, muted) in mutes.drain(..) {
                let request = proto::MuteTrackRequest { sid, muted };
                self.signal.send(Request::Mute(request)).await.map_err(|e| reason(&e))?;
            }
            if self.subscriber.deadline() <= now {
                self.subscriber.advance(now, &mut events).map_err(|e| media(&e))?;
                self.on_subscriber_events(&mut events, now)?;
            }
            wake = wake.min(self.subscriber.deadline());

            let publisher_readable = async {
                match &self.publisher {
                    Some(publisher) => publisher.transport.readable().await,
                    None => std::future::pending().await,
                }
            };
            let woken = tokio::select! {
                response = self.signal.next() => Wake::Signal(response),
                () = publisher_readable => Wake::Publisher,
                () = self.subscriber.readable() => Wake::Subscriber,
                () = sleep_until(wake.into()) => Wake::Timer,
                _ = stop.wait_for(|stop| *stop) => Wake::Stop,
            };
            match woken {
                Wake::Signal(response) => {
                    let response = response.map_err(|e| reason(&e))?;
                    self.on_response(response).await?;
                }
                Wake::Publisher => {
                    if let Some(publisher) = &mut self.publisher {
                        publisher.transport.receive(&mut events).map_err(|e| media(&e))?;
                    }
                    self.on_publisher_events(&mut events)?;
                }
                Wake::Subscriber => {
                    self.subscriber.receive(&mut events).map_err(|e| media(&e))?;
                    self.on_subscriber_events(&mut events, Instant::now())?;
                }
                Wake::Timer => {}
                Wake::Stop => return Ok(()),
            }
        }
    }

    fn on_publisher_events(&mut self, events: &mut Vec<Event>) -> Result<(), String> {
        for event in events.drain(..) {
            match &event {
                Event::Connected => self.check_joined(Instant::now()),
                Event::IceConnectionStateChange(IceConnectionState::Disconnected)
                    if self.publisher.as_ref().is_some_and(|p| p.transport.up) =>
                {
                    return Err("the publishing connection was lost".to_owned());
                }
                event => {
                    if let Some(publisher) = &mut self.publisher {
                        publisher.on_event(event, &mut self.context.board());
                    }
                }
            }
        }
        Ok(())
    }

    fn on_subscriber_events(&mut self, events: &mut Vec<Event>, now: Instant) -> Result<(), String> {
        for event in events.drain(..) {
            match event {
                Event::Connected => {
                    self.remotes.values_mut().for_each(|remote| remote.meter.can_flow(now));
                    self.check_joined(now);
                }
                Event::IceConnectionStateChange(IceConnectionState::Disconnected) if self.subscriber.up => {
                    return Err("the receiving connection was lost".to_owned());
                }
                Event::RtpPacket(packet) => self.on_packet(&packet),
                _ => {}
            }
        }
        Ok(())
    }

    /// All connections up: joined.
    fn check_joined(&mut self, now: Instant) {
        let publishing = self.publisher.as_ref().is_none_or(|p| p.transport.rtc.is_connected());
        if self.join.is_some() || !publishing || !self.subscriber.up {
            return;
        }
        self.join = Some(Join {
            outcome: JoinOutcome::Joined,
            connect_us: micros(self.start, self.connected_at),
            admit_us: micros(self.connected_at, self.admitted_at),
            transport_us: micros(self.admitted_at, now),
            first_media_us: None,
        });
        self.context.board().present += 1;
    }

    /// Puts what was measured on the board, and says goodbye.
    pub(super) async fn finish(mut self, disconnected: Option<String>) {
        let now = Instant::now();
        let tracks: Vec<String> = self.remotes.keys().cloned().collect();
        for track in tracks {
            self.drop_remote(&track, false, now);
        }
        {
            let mut board = self.context.board();
            board.tester.unsent += self.subscriber.unsent;
            if let Some(publisher) = &self.publisher {
                board.tester.unsent += publisher.transport.unsent;
            }
            for port in self.ports() {
                board.ports.remove(&port);
            }
            match (self.join.take(), &disconnected) {
                (Some(join), _) => {
                    board.present = board.present.saturating_sub(1);
                    board.joins.push(join);
                    if let Some(reason) = disconnected {
                        *board.disconnects.entry(reason).or_default() += 1;
                    }
                }
                (None, Some(reason)) => board.joins.push(Join {
                    outcome: JoinOutcome::Failed(reason.clone()),
                    connect_us: micros(self.start, self.connected_at),
                    admit_us: micros(self.connected_at, self.admitted_at),
                    transport_us: 0,
                    first_media_us: None,
                }),
                // It left on its own before the connections were up: nothing to say.
                (None, None) => {}
            }
        }
        // The server notices a goodbye that does not arrive by itself.
        let _ = timeout(Duration::from_secs(2), self.signal.leave()).await;
    }
}

fn no_answer() -> String {
    format!(
        "no answer from the server within {} s: is the address right, is a firewall in between, or does something else listen \
         there?",
        JOIN_TIME.as_secs()
    )
}

fn no_welcome() -> String {
    format!(
        "the server took the connection, but did not let the participant in within {} s: is its media relay up, and it not \
         overloaded?",
        JOIN_TIME.as_secs()
    )
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}

fn unix_ms() -> i64 {
    let unix = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    unix.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

fn reason(error: &SignalError) -> String {
    error.to_string()
}

fn media(error: &str0m::RtcError) -> String {
    format!("the media stack: {error}")
}
