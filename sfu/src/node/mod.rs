//! The node: its shards, its rooms, and who may reach them.
//!
//! A room is one task that owns one sans-IO [`Room`](crate::room::Room): inputs arrive on its bounded inbox, effects
//! leave as commands to the shards that its participants were placed on by their load, messages to sessions, and entries
//! of the event feed. Directories that many
//! tasks read (rooms by name; rooms by peer and track, to route what shards report) are concurrent maps; the packet
//! path sees none of them.

mod actor;
mod admin;
mod directory;
mod dispatch;
mod load;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use livekit_protocol as proto;
use rand::Rng;
use sfu_control::messages::{ErrorCode, Refusal, RoomEvent, SessionOpen, ToSignalingKind};
use sfu_control::token::{Claims, Verifier};
use sfu_media::shard::ShardConfig;
use sfu_media::transport::DtlsCertificate;
use sfu_udp::UdpSocketConfig;
use tokio::sync::{broadcast, mpsc, oneshot};

use self::actor::{RoomHandle, RoomMessage};
use self::directory::Directory;
pub(crate) use self::load::Budget;
use self::load::Loads;
use crate::config::MediaConfig;
use crate::crossbar::Crossbar;
use crate::room::{IdSource, MediaHost, RoomConfig, SessionId};
use crate::shard_thread::{ShardThread, ShardThreadConfig, TcpInlet};
use crate::tcp::{TcpLimits, TcpPort, ufrag_prefix};

/// Messages to one client that may wait; a client that falls behind further is disconnected and resumes.
const SESSION_BACKLOG: usize = 1024;
/// Events of shards that may wait for the node.
const EVENT_BACKLOG: usize = 8192;
/// Events that a reader of the feed may fall behind before it misses some.
const FEED_BACKLOG: usize = 4096;
/// How often a join is tried again when the room ended just as it arrived.
const JOIN_ATTEMPTS: usize = 3;

/// All of the relay's state: shards and rooms.
#[derive(Debug)]
pub struct Node {
    shards: Vec<ShardThread>,
    /// How each of them is announced.
    hosts: Arc<[MediaHost]>,
    loads: Loads,
    tcp: Option<TcpPort>,
    rooms: DashMap<String, RoomHandle>,
    directory: Arc<Directory>,
    verifier: Arc<Verifier>,
    room_config: RoomConfig,
    ids: Arc<IdSource>,
    next_id: AtomicU64,
    feed: broadcast::Sender<RoomEvent>,
}

/// A room as the visibility API shows it.
#[derive(Debug, Clone)]
pub struct RoomSnapshot {
    /// The room.
    pub room: proto::Room,
    /// Who is in it, hidden participants included.
    pub participants: Vec<proto::ParticipantInfo>,
}

/// A participant's signalling session, as the control link drives it.
#[derive(Debug)]
pub struct Session {
    /// Towards the room.
    pub input: SessionInput,
    /// From the room: first `Accepted` or `Refused`, then signal messages; the end means close the client's connection.
    pub output: mpsc::Receiver<ToSignalingKind>,
}

/// The way from a client to its room. Dropping it tells the room that the connection ended.
#[derive(Debug)]
pub struct SessionInput {
    id: SessionId,
    room: RoomHandle,
}

impl SessionInput {
    /// Hands a client's message to its room; waits while the room is behind.
    ///
    /// # Errors
    /// When the room is over.
    pub async fn signal(&self, request: proto::SignalRequest) -> Result<(), RoomGone> {
        self.room.send(RoomMessage::Signal { session: self.id, request: Box::new(request) }).await
    }
}

impl Drop for SessionInput {
    fn drop(&mut self) {
        self.room.send_later(RoomMessage::SessionClosed { session: self.id });
    }
}

/// The room ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the room is over")]
pub struct RoomGone;

impl Node {
    /// Opens the sockets and starts the shards.
    ///
    /// # Errors
    /// When a port is in use (the error names it) or the configuration offers clients no address.
    pub fn start(
        media: &MediaConfig,
        room: RoomConfig,
        verifier: Arc<Verifier>,
    ) -> anyhow::Result<Arc<Self>> {
        let certificate = Arc::new(DtlsCertificate::generate().context("making the DTLS certificate")?);
        let addresses = media.candidates()?;
        let (events, from_shards) = mpsc::channel(EVENT_BACKLOG);
        let (mut shards, mut hosts) = (Vec::new(), Vec::new());
        let crossbars = Crossbar::build(media.shard_count()).context("making the links between shards")?;
        for (index, crossbar) in crossbars.into_iter().enumerate() {
            let port = match media.udp_port {
                0 => 0,
                first => u16::try_from(index)
                    .ok()
                    .and_then(|i| first.checked_add(i))
                    .context("media.udp_port leaves no room for a port per shard below 65536")?,
            };
            let bind = SocketAddr::new(media.bind, port);
            let config = ShardThreadConfig {
                index,
                socket: UdpSocketConfig {
                    offload: media.offload,
                    sorted: true,
                    ..UdpSocketConfig::new(bind)
                },
                pin: media.pin,
                shard: ShardConfig::new(Arc::clone(&certificate)),
                seed: rand::rng().random(),
                crossbar,
            };
            let thread = ShardThread::spawn(config, events.clone())
                .with_context(|| format!("media: cannot open UDP port {port} on {}", media.bind))?;
            let port = thread.local_addr().port();
            hosts.push(MediaHost {
                ufrag_prefix: ufrag_prefix(index).into(),
                fingerprint: certificate.fingerprint(),
                candidates: addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
                tcp_candidates: Vec::new(),
            });
            shards.push(thread);
        }
        let tcp = open_tcp(media, &shards)?;
        if let Some(tcp) = &tcp {
            let port = tcp.local_addr().port();
            for host in &mut hosts {
                host.tcp_candidates = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            }
        }
        let node = Arc::new(Self {
            loads: Loads::new(shards.len(), media.budget()?),
            shards,
            hosts: hosts.into(),
            tcp,
            rooms: DashMap::new(),
            directory: Arc::default(),
            verifier,
            room_config: room,
            ids: Arc::new(IdSource::new()),
            next_id: AtomicU64::new(1),
            feed: broadcast::channel(FEED_BACKLOG).0,
        });
        tokio::spawn(dispatch::run(Arc::downgrade(&node), from_shards));
        Ok(node)
    }

    /// UDP port of each shard.
    pub fn media_ports(&self) -> Vec<u16> {
        self.shards.iter().map(|shard| shard.local_addr().port()).collect()
    }

    /// The TCP port for media, where there is one.
    pub fn media_tcp_port(&self) -> Option<u16> {
        self.tcp.as_ref().map(|tcp| tcp.local_addr().port())
    }

    /// Whether every shard runs.
    pub fn is_ready(&self) -> bool {
        self.shards.iter().all(ShardThread::is_alive)
    }

    /// Verifies a token against the clock.
    ///
    /// # Errors
    /// With the reason, in words that may be shown to the token's holder.
    pub fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        self.verifier
            .verify(token, unix_now().as_secs())
            .map_err(|error| refusal(ErrorCode::Unauthenticated, error.to_string()))
    }

    /// Opens a session: verifies the token, finds or makes the room, and asks it.
    ///
    /// # Errors
    /// When the token does not let its holder join a room. The room itself may still refuse, on [`Session::output`].
    pub async fn join(self: &Arc<Self>, open: SessionOpen) -> Result<Session, Refusal> {
        let claims = self.verify(&open.token)?;
        let name = claims
            .join_room()
            .map_err(|error| refusal(ErrorCode::PermissionDenied, error.to_string()))?
            .to_owned();
        for _ in 0..JOIN_ATTEMPTS {
            let room = self.room_or_new(&name);
            let id = SessionId(self.next_id());
            let (sender, output) = mpsc::channel(SESSION_BACKLOG);
            let (taken, is_taken) = oneshot::channel();
            let message = RoomMessage::Join {
                session: id,
                claims: Box::new(claims.clone()),
                open: Box::new(open.clone()),
                output: sender,
                taken,
            };
            let sent = room.send(message).await;
            let input = SessionInput { id, room };
            // A join that waits in the inbox of a room that ends goes to the next room of the name.
            if sent.is_ok() && is_taken.await.is_ok() {
                return Ok(Session { input, output });
            }
        }
        Err(refusal(ErrorCode::Unavailable, "the room is closing; try again"))
    }

    /// What happens in rooms from now on.
    pub fn events(&self) -> broadcast::Receiver<RoomEvent> {
        self.feed.subscribe()
    }

    /// Every room with its participants.
    pub async fn snapshots(&self) -> Vec<RoomSnapshot> {
        let rooms: Vec<RoomHandle> = self.rooms.iter().map(|entry| entry.value().clone()).collect();
        let mut snapshots = Vec::with_capacity(rooms.len());
        for room in rooms {
            snapshots.extend(ask(&room).await);
        }
        snapshots.sort_by(|a, b| a.room.name.cmp(&b.room.name));
        snapshots
    }

    /// One room with its participants.
    pub async fn snapshot(&self, name: &str) -> Option<RoomSnapshot> {
        let room = self.rooms.get(name)?.value().clone();
        ask(&room).await
    }

    fn room_or_new(self: &Arc<Self>, name: &str) -> RoomHandle {
        match self.rooms.entry(name.to_owned()) {
            Entry::Occupied(entry) if !entry.get().is_closed() => entry.get().clone(),
            Entry::Occupied(mut entry) => {
                let room = actor::spawn(self, name);
                entry.insert(room.clone());
                room
            }
            Entry::Vacant(entry) => {
                let room = actor::spawn(self, name);
                entry.insert(room.clone());
                room
            }
        }
    }

    fn room_ended(&self, name: &str, room: &RoomHandle) {
        self.rooms.remove_if(name, |_, have| have.is_same(room));
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

fn open_tcp(media: &MediaConfig, shards: &[ShardThread]) -> anyhow::Result<Option<TcpPort>> {
    if !media.tcp {
        return Ok(None);
    }
    let port = if media.tcp_port == 0 { media.udp_port } else { media.tcp_port };
    let limits = TcpLimits { total: media.tcp_connections, per_address: media.tcp_connections_per_address };
    let inlets: Arc<[TcpInlet]> = shards.iter().map(ShardThread::tcp_inlet).collect();
    let open = TcpPort::open(SocketAddr::new(media.bind, port), limits, inlets);
    open.map(Some).with_context(|| format!("media: cannot open TCP port {port} on {}", media.bind))
}

async fn ask(room: &RoomHandle) -> Option<RoomSnapshot> {
    let (reply, answer) = oneshot::channel();
    room.send(RoomMessage::Snapshot { reply }).await.ok()?;
    answer.await.ok()
}

/// Time since the Unix epoch.
pub(crate) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub(crate) fn refusal(code: ErrorCode, message: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), message: message.into() }
}

type WeakNode = Weak<Node>;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sfu_control::messages::AdminCall;
    use sfu_control::token::{Secret, VideoGrants, sign};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn token(video: VideoGrants) -> String {
        let claims = Claims {
            identity: "someone".into(),
            api_key: "key".into(),
            expires_at: unix_now().as_secs() + 60,
            video,
            ..Default::default()
        };
        sign(&claims, &Secret::new(SECRET))
    }

    fn node() -> Arc<Node> {
        node_of(1)
    }

    fn node_of(shards: usize) -> Arc<Node> {
        let media = MediaConfig { udp_port: 0, shards, pin: false, offload: false, ..Default::default() };
        let verifier = Verifier::new([("key".to_owned(), Secret::new(SECRET))]).unwrap();
        Node::start(&media, RoomConfig::default(), Arc::new(verifier)).unwrap()
    }

    fn call(method: &str, request: &impl prost::Message) -> AdminCall {
        AdminCall {
            token: token(VideoGrants { room_create: true, ..Default::default() }),
            method: method.to_owned(),
            request: request.encode_to_vec().into(),
        }
    }

    // One thread: the room's task runs only once both requests wait in its inbox.
    #[tokio::test]
    async fn a_join_that_meets_the_end_of_its_room_gets_a_new_one() {
        let node = node();
        let create = proto::CreateRoomRequest { name: "visit".into(), ..Default::default() };
        node.admin(call("CreateRoom", &create)).await.unwrap();
        let delete = call("DeleteRoom", &proto::DeleteRoomRequest { room: "visit".into() });
        let open = SessionOpen {
            token: token(VideoGrants { room_join: true, room: "visit".into(), ..Default::default() }),
            ..Default::default()
        };
        let (deleted, joined) = tokio::join!(node.admin(delete), node.join(open));
        deleted.unwrap();
        let mut session = joined.unwrap();
        let first = session.output.recv().await;
        assert!(matches!(first, Some(ToSignalingKind::Accepted(_))));
        let snapshot = node.snapshot("visit").await.unwrap();
        assert_eq!(snapshot.participants.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_new_avoids_a_shard_that_works() {
        let node = node_of(2);
        assert_eq!(node.loads.place(&[0, 0], Instant::now()), 0, "both are idle");
        let busy = SocketAddr::from(([127, 0, 0, 1], node.media_ports()[0]));
        let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        // Nobody's media: the shard has to look at each datagram all the same.
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let flood = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A full socket is busy enough.
                let _ = noise.send_to(&[0x80; 200], busy);
            }
        });
        let until = Instant::now() + Duration::from_secs(20);
        while node.loads.place(&[0, 0], Instant::now()) == 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let place = node.loads.place(&[0, 0], Instant::now());
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        assert_eq!(place, 1, "the threads report what CPU time they take");
    }
}
