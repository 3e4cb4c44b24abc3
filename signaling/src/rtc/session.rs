//! One participant's session: its WebSocket on one side, its QUIC stream to the relay on the other.
//!
//! ```text
//!             read_client                        SessionSender
//!  WebSocket ─────────────> (limits, codec) ──────────────────> relay
//!            <───────────── (codec, timeout) <──────────────────
//!             write_client                      SessionReceiver
//! ```
//!
//! Pings are answered here: they ask about the connection between client and edge. What happens to the link shows by
//! the WebSocket being closed with a code other than 1000, at which SDKs resume; media flows on meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol::{Pong, SignalResponse, signal_request, signal_response};
use prost::Message as _;
use sfu_control::link::{Session, SessionReceiver, SessionSender};
use sfu_control::token::Claims;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite;

use super::codec;
use super::limit::Bucket;
use crate::app::App;
use crate::{auth, metrics};

/// As LiveKit's server.
const WEBSOCKET_PING: Duration = Duration::from_secs(10);
const TOKEN_REFRESH: Duration = Duration::from_secs(5 * 60);
/// How long a closed WebSocket is still read, so that its last frame reaches the client before a TCP reset does.
const LINGER: Duration = Duration::from_secs(1);
/// Answers to pings that wait to be written.
const LOCAL_QUEUE: usize = 16;

/// Why a session ended; each is a close code, a text for the client and a label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ClientGone,
    RelayEnded,
    LinkLost,
    ShuttingDown,
    Idle,
    TooSlow,
    TooLarge,
    Malformed,
    TooMany,
    Protocol,
}

impl End {
    const fn describe(self) -> (u16, &'static str, &'static str) {
        match self {
            End::ClientGone => (close_code::NORMAL, "", "client_gone"),
            End::RelayEnded => (close_code::NORMAL, "", "relay_ended"),
            End::LinkLost => (close_code::RESTART, "connection to the media relay lost; resume", "link_lost"),
            End::ShuttingDown => (close_code::RESTART, "signaling is restarting; resume", "shutting_down"),
            End::Idle => (close_code::AWAY, "nothing received within the idle timeout", "idle"),
            End::TooSlow => (close_code::POLICY, "messages are not taken in time", "too_slow"),
            End::TooLarge => (close_code::SIZE, "message too large", "too_large"),
            End::Malformed => (close_code::INVALID, "messages cannot be understood", "malformed"),
            End::TooMany => (close_code::POLICY, "too many messages", "too_many"),
            End::Protocol => (close_code::PROTOCOL, "websocket protocol error", "protocol"),
        }
    }
}

/// What the reading half asks the writing half to send.
enum Local {
    /// An encoded `SignalResponse`.
    Response(Bytes),
    End(End),
}

/// Carries the session until it ends.
pub(super) async fn run(app: App, socket: WebSocket, session: Session, claims: Claims) {
    let _open = app.enter_session();
    let (sink, stream) = socket.split();
    let (local_tx, local_rx) = mpsc::channel(LOCAL_QUEUE);
    let json = AtomicBool::new(false);
    let reader = read_client(&app, stream, session.tx, local_tx, &json);
    let writer = write_client(&app, sink, session.rx, local_rx, &json, claims);
    let ((), end) = tokio::join!(reader, writer);
    let (code, _, reason) = end.describe();
    ::metrics::counter!(metrics::CLOSES, "reason" => reason).increment(1);
    tracing::debug!(reason, code, "session ended");
}

/// Client to relay, until either is gone. Tells the writing half how it ended.
async fn read_client(
    app: &App,
    mut stream: SplitStream<WebSocket>,
    mut relay: SessionSender,
    local: mpsc::Sender<Local>,
    json: &AtomicBool,
) {
    let end = tokio::select! {
        end = read_until_end(app, &mut stream, &mut relay, &local, json) => end,
        // The writing half has ended the session.
        () = local.closed() => End::RelayEnded,
    };
    // Dropping the sender tells the relay at once; the WebSocket may linger.
    drop(relay);
    // Fails only if the writing half is gone already.
    let _ = local.send(Local::End(end)).await;
    local.closed().await;
    // Also answers the client's close frame, which the WebSocket layer does when it is read on.
    let _ = tokio::time::timeout(LINGER, drain(stream, end)).await;
}

async fn drain(mut stream: SplitStream<WebSocket>, end: End) {
    while let Some(Ok(_)) = stream.next().await {}
    if matches!(end, End::TooLarge | End::Protocol) {
        // The WebSocket cannot be read past such a frame, but its bytes are on their way: a socket that is closed with
        // unread bytes is reset, and the client would miss why.
        tokio::time::sleep(LINGER).await;
    }
}

async fn read_until_end(
    app: &App,
    stream: &mut SplitStream<WebSocket>,
    relay: &mut SessionSender,
    local: &mpsc::Sender<Local>,
    json: &AtomicBool,
) -> End {
    let limits = &app.limits;
    let idle = Duration::from_secs(limits.idle_seconds);
    let now = Instant::now();
    let mut messages =
        Bucket::new(limits.messages_per_second, limits.messages_per_second.saturating_mul(5), now);
    let mut bytes = Bucket::new(limits.bytes_per_second, limits.bytes_per_second.saturating_mul(4), now);
    let mut malformed = 0;
    loop {
        let frame = match tokio::time::timeout(idle, stream.next()).await {
            Err(_) => return End::Idle,
            Ok(None) => return End::ClientGone,
            Ok(Some(Err(error))) => return end_of(error),
            Ok(Some(Ok(frame))) => frame,
        };
        let size = u32::try_from(size_of_frame(&frame)).unwrap_or(u32::MAX);
        let now = Instant::now();
        if !messages.take(1, now) || !bytes.take(size, now) {
            return End::TooMany;
        }
        let request = match frame {
            Frame::Binary(payload) => {
                json.store(false, Ordering::Relaxed);
                codec::decode_binary(payload)
            }
            Frame::Text(text) => {
                json.store(true, Ordering::Relaxed);
                codec::decode_text(&text)
            }
            Frame::Close(_) => return End::ClientGone,
            Frame::Ping(_) | Frame::Pong(_) => continue,
        };
        let Ok(request) = request else {
            ::metrics::counter!(metrics::MALFORMED).increment(1);
            malformed += 1;
            if malformed >= limits.malformed_messages {
                return End::Malformed;
            }
            continue;
        };
        ::metrics::counter!(metrics::MESSAGES, "direction" => "to_relay").increment(1);
        let answer = match request.value.message {
            // Of a later protocol; the relay could do nothing with it.
            None => continue,
            Some(signal_request::Message::Ping(_)) => signal_response::Message::Pong(unix_ms()),
            Some(signal_request::Message::PingReq(ping)) => signal_response::Message::PongResp(Pong {
                last_ping_timestamp: ping.timestamp,
                timestamp: unix_ms(),
            }),
            Some(_) => {
                let sent = tokio::time::timeout(idle, relay.send(request.encoded)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return End::LinkLost;
                }
                continue;
            }
        };
        if local.send(Local::Response(encoded(answer))).await.is_err() {
            return End::RelayEnded;
        }
    }
}

/// Relay to client, until either is gone; closes the WebSocket.
async fn write_client(
    app: &App,
    mut sink: SplitSink<WebSocket, Frame>,
    mut relay: SessionReceiver,
    mut local: mpsc::Receiver<Local>,
    json: &AtomicBool,
    claims: Claims,
) -> End {
    let patience = Duration::from_secs(app.limits.write_seconds);
    let mut stopping = app.stopping();
    let mut websocket_ping = tokio::time::interval(WEBSOCKET_PING);
    websocket_ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    websocket_ping.reset();
    let mut refresh = tokio::time::interval(TOKEN_REFRESH);
    // SDKs take the first message for the answer to their join: nothing goes before it.
    let mut answered = false;
    let end = loop {
        let frame = tokio::select! {
            // What the client did comes first, so that nothing keeps a closed session alive.
            biased;
            message = local.recv() => match message {
                Some(Local::Response(response)) => codec::encode(response, json.load(Ordering::Relaxed)),
                Some(Local::End(end)) => break end,
                None => break End::ClientGone,
            },
            _ = stopping.wait_for(|stop| *stop) => break End::ShuttingDown,
            response = relay.next() => match response {
                Ok(Some(response)) => {
                    answered = true;
                    codec::encode(response, json.load(Ordering::Relaxed))
                }
                Ok(None) => break End::RelayEnded,
                Err(_) => break End::LinkLost,
            },
            _ = refresh.tick(), if answered => {
                let Some(token) = app.verifier.refresh(&claims, auth::unix_now().as_secs()) else { continue };
                codec::encode(
                    encoded(signal_response::Message::RefreshToken(token)),
                    json.load(Ordering::Relaxed),
                )
            }
            _ = websocket_ping.tick() => Ok(Frame::Ping(Bytes::new())),
        };
        // The relay speaks protobuf; what does not decode is its fault, and JSON clients go without it.
        let Ok(frame) = frame else {
            ::metrics::counter!(metrics::MALFORMED).increment(1);
            continue;
        };
        ::metrics::counter!(metrics::MESSAGES, "direction" => "to_client").increment(1);
        match tokio::time::timeout(patience, sink.send(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break End::ClientGone,
            Err(_) => break End::TooSlow,
        }
    };
    // A client that is too slow, or gone, does not get it; nothing is lost then.
    if end != End::ClientGone && end != End::TooSlow {
        let (code, reason, _) = end.describe();
        let close = Frame::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = tokio::time::timeout(patience, sink.send(close)).await;
    }
    end
}

fn encoded(message: signal_response::Message) -> Bytes {
    SignalResponse { message: Some(message) }.encode_to_vec().into()
}

/// What an error of the WebSocket layer means.
fn end_of(error: axum::Error) -> End {
    use tungstenite::Error;
    match error.into_inner().downcast_ref::<Error>() {
        Some(Error::Capacity(_)) => End::TooLarge,
        Some(Error::Utf8(_)) => End::Malformed,
        Some(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
            End::ClientGone
        }
        Some(Error::Protocol(_)) => End::Protocol,
        _ => End::ClientGone,
    }
}

fn size_of_frame(frame: &Frame) -> usize {
    match frame {
        Frame::Binary(payload) | Frame::Ping(payload) | Frame::Pong(payload) => payload.len(),
        Frame::Text(text) => text.len(),
        Frame::Close(_) => 0,
    }
}

fn unix_ms() -> i64 {
    auth::unix_now().as_millis().try_into().unwrap_or(i64::MAX)
}
