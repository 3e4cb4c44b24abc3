//! A relay for tests: speaks the control protocol over real QUIC with mutual TLS, and does what a test tells it.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol::{self as proto, SignalRequest, SignalResponse, signal_response};
use prost::Message as _;
use sfu_control::messages::*;
use sfu_control::server::{self, Incoming, Requests, Responses};
use sfu_control::tls::{DEV_SERVER_NAME, DevPki};
use sfu_control::token::{Claims, Secret, Verifier, VideoGrants, sign};
use signaling::Server;
use signaling::config::{Config, Limits, MetricsConfig, Pem, RelayConfig};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub const KEY: &str = "devkey";
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const WAIT: Duration = Duration::from_secs(10);

pub type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The relay. Sessions and calls arrive in the channels.
pub struct Relay {
    pub address: SocketAddr,
    endpoint: quinn::Endpoint,
    pub sessions: mpsc::UnboundedReceiver<RelaySession>,
    pub feeds: mpsc::UnboundedReceiver<Responses<RoomEvent>>,
    pub calls: mpsc::UnboundedReceiver<AdminCall>,
    accepting: tokio::task::JoinHandle<()>,
}

/// An accepted session as the relay sees it.
pub struct RelaySession {
    pub open: SessionOpen,
    pub requests: Requests,
    pub responses: Responses<ToSignaling>,
}

impl RelaySession {
    pub async fn next(&mut self) -> Option<SignalRequest> {
        let next = tokio::time::timeout(WAIT, self.requests.next()).await.expect("a request in time");
        let Some(ToSfuKind::Signal(bytes)) = next.ok()??.kind else { return None };
        Some(SignalRequest::decode(bytes).unwrap())
    }
    pub async fn send(&mut self, message: signal_response::Message) {
        let bytes = SignalResponse { message: Some(message) }.encode_to_vec().into();
        self.responses.send(&ToSignaling { kind: Some(ToSignalingKind::Signal(bytes)) }).await.unwrap();
    }
}

impl Relay {
    /// Listens on `address` (port 0: any).
    pub fn start(pki: &DevPki, address: SocketAddr) -> Self {
        let endpoint =
            server::listen(address, pki.sfu.identity().unwrap(), pki.authority.as_bytes()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (session_tx, sessions) = mpsc::unbounded_channel();
        let (feed_tx, feeds) = mpsc::unbounded_channel();
        let (call_tx, calls) = mpsc::unbounded_channel();
        let accepting = tokio::spawn({
            let endpoint = endpoint.clone();
            async move {
                while let Some(incoming) = endpoint.accept().await {
                    let Ok(connection) = incoming.await else { continue };
                    let (session_tx, feed_tx, call_tx) =
                        (session_tx.clone(), feed_tx.clone(), call_tx.clone());
                    tokio::spawn(async move {
                        while let Ok(stream) = server::accept(&connection).await {
                            let (session_tx, feed_tx, call_tx) =
                                (session_tx.clone(), feed_tx.clone(), call_tx.clone());
                            tokio::spawn(async move {
                                match server::read_hello(stream).await {
                                    Ok(Incoming::Session(open, requests, responses)) => {
                                        session(*open, requests, responses, &session_tx).await;
                                    }
                                    Ok(Incoming::Admin(call, responses)) => {
                                        let _ = call_tx.send((*call).clone());
                                        admin(*call, responses).await;
                                    }
                                    Ok(Incoming::Events(responses)) => drop(feed_tx.send(responses)),
                                    Err(error) => panic!("hello: {error}"),
                                }
                            });
                        }
                    });
                }
            }
        });
        Self { address, endpoint, sessions, feeds, calls, accepting }
    }

    pub async fn session(&mut self) -> RelaySession {
        tokio::time::timeout(WAIT, self.sessions.recv()).await.expect("a session in time").unwrap()
    }

    /// Goes away like a process that is stopped: connections are closed and the port is free again.
    pub async fn stop(self) {
        self.endpoint.close(0u32.into(), b"");
        self.accepting.await.unwrap();
        self.endpoint.wait_idle().await;
    }
}

async fn session(
    open: SessionOpen,
    requests: Requests,
    mut responses: Responses<ToSignaling>,
    sessions: &mpsc::UnboundedSender<RelaySession>,
) {
    let verifier = Verifier::new([(KEY.to_owned(), Secret::new(SECRET))]).unwrap();
    let claims =
        verifier.verify(&open.token, unix_now()).expect("the relay gets the participant's own token");
    if claims.video.room == "missing" {
        let message = "requested room does not exist".to_owned();
        responses.refuse(Refusal { code: ErrorCode::NotFound as i32, message }).await.unwrap();
        return;
    }
    if claims.video.room == "mute" {
        // Accepts nothing, refuses nothing, until the other end gives up.
        responses.closed().await;
        return;
    }
    let accepted = SessionAccepted { participant_sid: "PA_1".to_owned(), room_sid: "RM_1".to_owned() };
    responses.send(&ToSignaling { kind: Some(ToSignalingKind::Accepted(accepted)) }).await.unwrap();
    let mut session = RelaySession { open, requests, responses };
    let first = if session.open.reconnect {
        signal_response::Message::Reconnect(proto::ReconnectResponse::default())
    } else {
        signal_response::Message::Join(proto::JoinResponse {
            ping_interval: 5,
            ping_timeout: 15,
            server_version: "test".to_owned(),
            ..Default::default()
        })
    };
    session.send(first).await;
    let _ = sessions.send(session);
}

async fn admin(call: AdminCall, mut responses: Responses<AdminReply>) {
    let refuse = |code: ErrorCode, message: &str| {
        AdminOutcome::Error(Refusal { code: code as i32, message: message.to_owned() })
    };
    let outcome = match call.method.as_str() {
        "ListRooms" => {
            let request = proto::ListRoomsRequest::decode(call.request).unwrap();
            let room =
                |name| proto::Room { name, num_participants: 2, creation_time: 7, ..Default::default() };
            let response = proto::ListRoomsResponse { rooms: request.names.into_iter().map(room).collect() };
            AdminOutcome::Response(response.encode_to_vec().into())
        }
        "CreateRoom" => {
            let request = proto::CreateRoomRequest::decode(call.request).unwrap();
            let room = proto::Room {
                name: request.name,
                empty_timeout: request.empty_timeout,
                metadata: request.metadata,
                ..Default::default()
            };
            AdminOutcome::Response(room.encode_to_vec().into())
        }
        "DeleteRoom" => refuse(ErrorCode::NotFound, "requested room does not exist"),
        _ => AdminOutcome::Response(Bytes::new()),
    };
    responses.send(&AdminReply { outcome: Some(outcome) }).await.unwrap();
    responses.finish();
}

/// A service with its relay.
pub struct World {
    pub pki: DevPki,
    pub relay: Relay,
    pub server: Server,
    pub folder: Folder,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// With a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config, &Folder)) -> Self {
        let pki = pki();
        let relay = Relay::start(&pki, ([127, 0, 0, 1], 0).into());
        let mut config = config(&pki, relay.address);
        let folder = Folder::new();
        change(&mut config, &folder);
        let server = Server::start(config, None).await.unwrap();
        let world = Self { pki, relay, server, folder };
        world.link_up().await;
        world
    }

    pub async fn link_up(&self) {
        let mut state = self.server.watch_link();
        let up = state.wait_for(|state| *state == sfu_control::link::LinkState::Up);
        tokio::time::timeout(WAIT, up).await.expect("the link in time").unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    pub fn ws_url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.server.address())
    }

    /// Joins by `/rtc` and takes the first answer.
    pub async fn join(&mut self) -> (WebSocket, RelaySession) {
        let url = self.ws_url(&format!("/rtc?access_token={}&protocol=15&sdk=js", token("jane", "visit")));
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        assert!(matches!(next(&mut socket).await, signal_response::Message::Join(_)));
        (socket, self.relay.session().await)
    }
}

pub fn pki() -> DevPki {
    DevPki::generate(SystemTime::now(), Duration::from_secs(3600)).unwrap()
}

pub fn config(pki: &DevPki, relay: SocketAddr) -> Config {
    Config {
        bind: ([127, 0, 0, 1], 0).into(),
        tls: None,
        keys: [(KEY.to_owned(), Secret::new(SECRET))].into(),
        jwks: None,
        relay: RelayConfig {
            address: relay.to_string(),
            server_name: DEV_SERVER_NAME.to_owned(),
            certificate: Pem::Text(pki.signaling.certificate.clone()),
            key: Pem::Text(pki.signaling.key.clone()),
            authority: Pem::Text(pki.authority.clone()),
        },
        page: None,
        metrics: MetricsConfig::default(),
        audit: None,
        limits: Limits::default(),
    }
}

pub fn unix_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

pub fn claims(identity: &str, room: &str) -> Claims {
    Claims {
        identity: identity.to_owned(),
        video: VideoGrants { room_join: true, room: room.to_owned(), ..Default::default() },
        api_key: KEY.to_owned(),
        expires_at: unix_now() + 3600,
        ..Default::default()
    }
}

pub fn token(identity: &str, room: &str) -> String {
    sign(&claims(identity, room), &Secret::new(SECRET))
}

pub fn signed(claims: &Claims) -> String {
    sign(claims, &Secret::new(SECRET))
}

/// The next signal message in a binary frame.
pub async fn next(socket: &mut WebSocket) -> signal_response::Message {
    loop {
        let frame = tokio::time::timeout(WAIT, socket.next()).await.expect("a frame in time");
        match frame.expect("an open socket").unwrap() {
            Frame::Binary(bytes) => return SignalResponse::decode(bytes).unwrap().message.unwrap(),
            Frame::Ping(_) | Frame::Pong(_) => {}
            other => panic!("unexpected frame {other:?}"),
        }
    }
}

/// The next text frame.
pub async fn next_text(socket: &mut WebSocket) -> serde_json::Value {
    loop {
        let frame = tokio::time::timeout(WAIT, socket.next()).await.expect("a frame in time");
        match frame.expect("an open socket").unwrap() {
            Frame::Text(text) => return serde_json::from_str(&text).unwrap(),
            Frame::Ping(_) | Frame::Pong(_) => {}
            other => panic!("unexpected frame {other:?}"),
        }
    }
}

/// Waits for the close frame: its code and reason.
pub async fn close_of(socket: &mut WebSocket) -> (u16, String) {
    loop {
        let frame = tokio::time::timeout(WAIT, socket.next()).await.expect("a close in time");
        match frame.expect("a close frame before the end").unwrap() {
            Frame::Close(Some(close)) => return (close.code.into(), close.reason.to_string()),
            Frame::Close(None) => return (1005, String::new()),
            _ => {}
        }
    }
}

pub async fn send(socket: &mut WebSocket, message: proto::signal_request::Message) {
    let bytes = SignalRequest { message: Some(message) }.encode_to_vec();
    socket.send(Frame::Binary(bytes.into())).await.unwrap();
}

/// The HTTP status and text with which a WebSocket is refused.
pub async fn refusal(url: String) -> (u16, String) {
    match tokio_tungstenite::connect_async(url).await {
        Err(tungstenite::Error::Http(response)) => {
            let text = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8(text).unwrap())
        }
        Ok(_) => panic!("the WebSocket was accepted"),
        Err(error) => panic!("not refused by HTTP: {error}"),
    }
}

pub fn trickle(text: &str) -> proto::signal_request::Message {
    proto::signal_request::Message::Trickle(proto::TrickleRequest {
        candidate_init: text.to_owned(),
        ..Default::default()
    })
}

pub fn leave() -> proto::signal_request::Message {
    proto::signal_request::Message::Leave(proto::LeaveRequest::default())
}

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("curtain-signaling-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
