//! The task that owns one room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use livekit_protocol as proto;
use prost::Message;
use prost::bytes::Bytes;
use rand::Rng;
use sfu_control::messages::{Refusal, SessionAccepted, SessionOpen, ToSignalingKind};
use sfu_control::token::Claims;
use sfu_media::command::{ShardCommand, ShardEvent};
use sfu_media::ids::ShardId;
use sfu_media::relay::Spread;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::directory::Owned;
use super::{Node, RoomGone, RoomSnapshot, WeakNode, unix_now};
use crate::metrics;
use crate::room::{AdminRequest, CallId, Effect, Now, Room, RoomInput, SessionId};

/// Messages that may wait for a room before senders have to wait.
const INBOX: usize = 2048;

/// What a room's task takes.
#[derive(Debug)]
pub(super) enum RoomMessage {
    Join {
        session: SessionId,
        claims: Box<Claims>,
        open: Box<SessionOpen>,
        output: mpsc::Sender<ToSignalingKind>,
        /// Told once the room has the join; dropped when the room ends first.
        taken: oneshot::Sender<()>,
    },
    Signal {
        session: SessionId,
        request: Box<proto::SignalRequest>,
    },
    SessionClosed {
        session: SessionId,
    },
    Shard(ShardEvent),
    Admin {
        request: Box<AdminRequest>,
        reply: oneshot::Sender<Result<Bytes, Refusal>>,
    },
    Snapshot {
        reply: oneshot::Sender<RoomSnapshot>,
    },
}

/// The way to a room's task.
#[derive(Debug, Clone)]
pub(super) struct RoomHandle {
    inbox: mpsc::Sender<RoomMessage>,
}

impl RoomHandle {
    /// Waits for a place in the inbox.
    pub(super) async fn send(&self, message: RoomMessage) -> Result<(), RoomGone> {
        self.inbox.send(message).await.map_err(|_| RoomGone)
    }

    /// For messages that may be lost when the room is behind; returns whether it was taken.
    pub(super) fn try_send(&self, message: RoomMessage) -> bool {
        self.inbox.try_send(message).is_ok()
    }

    /// From where one cannot wait; the message is not lost.
    pub(super) fn send_later(&self, message: RoomMessage) {
        if let Err(mpsc::error::TrySendError::Full(message)) = self.inbox.try_send(message)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let inbox = self.inbox.clone();
            runtime.spawn(async move { inbox.send(message).await });
        }
    }

    /// Of no room.
    #[cfg(test)]
    pub(super) fn detached() -> Self {
        Self { inbox: mpsc::channel(1).0 }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }

    pub(super) fn is_same(&self, other: &RoomHandle) -> bool {
        self.inbox.same_channel(&other.inbox)
    }
}

/// Starts the task of a new room.
pub(super) fn spawn(node: &Arc<Node>, name: &str) -> RoomHandle {
    let (sender, inbox) = mpsc::channel(INBOX);
    let handle = RoomHandle { inbox: sender };
    let room = Room::new(
        name,
        node.room_config.clone(),
        Arc::clone(&node.hosts),
        Arc::clone(&node.ids),
        rand::rng().random(),
        now(),
    );
    let actor = Actor {
        name: name.to_owned(),
        owned: Owned::new(Arc::clone(&node.directory), handle.clone()),
        handle: handle.clone(),
        node: Arc::downgrade(node),
        feed: node.feed.clone(),
        room,
        sessions: HashMap::new(),
        calls: HashMap::new(),
        next_call: 0,
        spread: Spread::default(),
        commands: node.shards.iter().map(|_| Vec::new()).collect(),
        told: vec![0; node.shards.len()],
    };
    tokio::spawn(actor.run(inbox));
    handle
}

struct Actor {
    name: String,
    owned: Owned,
    handle: RoomHandle,
    node: WeakNode,
    feed: broadcast::Sender<sfu_control::messages::RoomEvent>,
    room: Room,
    sessions: HashMap<SessionId, mpsc::Sender<ToSignalingKind>>,
    calls: HashMap<CallId, oneshot::Sender<Result<Bytes, Refusal>>>,
    next_call: u64,
    spread: Spread,
    /// For each shard.
    commands: Vec<Vec<ShardCommand>>,
    /// Participants on each shard that the node knows of.
    told: Vec<usize>,
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::Receiver<RoomMessage>) {
        let mut effects = Vec::new();
        loop {
            let deadline = self.room.poll_timeout();
            let message = tokio::select! {
                message = inbox.recv() => message,
                () = sleep_until(deadline) => {
                    self.room.handle(RoomInput::Timeout, now(), &mut effects);
                    None
                }
            };
            if let Some(message) = message
                && let Some(input) = self.input_of(message)
            {
                self.room.handle(input, now(), &mut effects);
            }
            let finished = self.carry_out(&mut effects);
            self.tell_load();
            if finished {
                break;
            }
        }
        // Whoever still waits in the inbox sees its reply or output dropped, and tries again or gives up.
        inbox.close();
        self.owned.release();
        if let Some(node) = self.node.upgrade() {
            for (shard, participants) in self.told.iter().enumerate() {
                node.loads.changed(shard, *participants, 0, Instant::now());
            }
            node.room_ended(&self.name, &self.handle);
        }
    }

    /// Shards have more or fewer participants now.
    fn tell_load(&mut self) {
        let participants = self.room.population();
        if participants == self.told {
            return;
        }
        if let Some(node) = self.node.upgrade() {
            for (shard, (before, after)) in self.told.iter().zip(&participants).enumerate() {
                if before != after {
                    node.loads.changed(shard, *before, *after, Instant::now());
                }
            }
        }
        self.told = participants;
    }

    /// The shard for whoever joins next.
    fn place(&self) -> ShardId {
        let shard = self.node.upgrade().map_or(0, |node| node.loads.place(&self.told, Instant::now()));
        ShardId(u16::try_from(shard).unwrap_or(0))
    }

    /// Keeps the ends of channels here and passes on what concerns the room.
    fn input_of(&mut self, message: RoomMessage) -> Option<RoomInput> {
        Some(match message {
            RoomMessage::Join { session, claims, open, output, taken } => {
                // Fails only if who asked has gone away; the session's end follows then.
                let _ = taken.send(());
                self.sessions.insert(session, output);
                RoomInput::Join { session, shard: self.place(), token: *claims, open: *open }
            }
            RoomMessage::Signal { session, request } => RoomInput::Signal { session, request: *request },
            RoomMessage::SessionClosed { session } => {
                // A session that the room closed itself is gone from the map, and the room knows.
                self.sessions.remove(&session)?;
                RoomInput::SessionClosed { session }
            }
            RoomMessage::Shard(event) => {
                if let ShardEvent::PeerClosed { peer, .. } = &event {
                    self.owned.peer_closed(*peer);
                    let Self { spread, commands, .. } = self;
                    spread.peer_closed(*peer, |shard, command| give(commands, shard, command));
                }
                RoomInput::Shard(event)
            }
            RoomMessage::Admin { request, reply } => {
                self.next_call += 1;
                let call = CallId(self.next_call);
                self.calls.insert(call, reply);
                RoomInput::Admin { call, request: *request }
            }
            RoomMessage::Snapshot { reply } => {
                let snapshot =
                    RoomSnapshot { room: self.room.info(), participants: self.room.participants() };
                // Who asked may have gone away.
                let _ = reply.send(snapshot);
                return None;
            }
        })
    }

    /// Returns whether the room is over. Commands of one step reach each shard together, before anything that clients
    /// are told: who hears of a mute can rely on it.
    fn carry_out(&mut self, effects: &mut Vec<Effect>) -> bool {
        let mut finished = false;
        let mut slow = Vec::new();
        for effect in effects.extract_if(.., |effect| matches!(effect, Effect::Shard(_))) {
            if let Effect::Shard(command) = effect {
                self.owned.note(&command);
                let Self { spread, commands, room, .. } = self;
                let place = |peer| room.shard_of(peer);
                spread.route(command, place, |shard, command| give(commands, shard, command));
            }
        }
        if let Some(node) = self.node.upgrade() {
            for (shard, commands) in node.shards.iter().zip(&mut self.commands) {
                shard.send(commands);
            }
        }
        for effect in effects.drain(..) {
            match effect {
                Effect::Shard(_) => {}
                Effect::Accept { session, participant_sid, room_sid } => {
                    let accepted = SessionAccepted { participant_sid, room_sid };
                    self.tell(session, ToSignalingKind::Accepted(accepted), &mut slow);
                }
                Effect::Refuse { session, refusal } => {
                    self.tell(session, ToSignalingKind::Refused(refusal), &mut slow);
                    self.sessions.remove(&session);
                }
                Effect::Signal { session, response } => {
                    let bytes = Bytes::from(response.encode_to_vec());
                    self.tell(session, ToSignalingKind::Signal(bytes), &mut slow);
                }
                Effect::Broadcast { sessions, response } => {
                    let bytes = Bytes::from(response.encode_to_vec());
                    for session in sessions {
                        self.tell(session, ToSignalingKind::Signal(bytes.clone()), &mut slow);
                    }
                }
                Effect::CloseSession { session } => {
                    self.sessions.remove(&session);
                }
                Effect::AdminReply { call, result } => {
                    if let Some(reply) = self.calls.remove(&call) {
                        let _ = reply.send(result);
                    }
                }
                Effect::Event(event) => {
                    metrics::room_event(&event.event);
                    // No subscriber is no error.
                    let _ = self.feed.send(event);
                }
                Effect::Finished => finished = true,
            }
        }
        for session in slow {
            if self.sessions.remove(&session).is_some() {
                metrics::slow_session();
                let mut more = Vec::new();
                self.room.handle(RoomInput::SessionClosed { session }, now(), &mut more);
                finished |= self.carry_out(&mut more);
            }
        }
        finished
    }

    fn tell(&mut self, session: SessionId, message: ToSignalingKind, slow: &mut Vec<SessionId>) {
        if let Some(output) = self.sessions.get(&session)
            && let Err(mpsc::error::TrySendError::Full(_)) = output.try_send(message)
            && !slow.contains(&session)
        {
            slow.push(session);
        }
    }
}

fn give(commands: &mut [Vec<ShardCommand>], shard: ShardId, command: ShardCommand) {
    if let Some(commands) = commands.get_mut(usize::from(shard.0)) {
        commands.push(command);
    }
}

fn now() -> Now {
    Now { instant: Instant::now(), unix: unix_now() }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
