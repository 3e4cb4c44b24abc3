//! The relay's end of the control link: QUIC streams of `signaling` to sessions, calls and the event feed.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use prost::Message;
use quinn::{Connection, Endpoint};
use sfu_control::messages::{
    AdminCall, AdminOutcome, AdminReply, RoomEvent, SessionOpen, ToSfuKind, ToSignaling, ToSignalingKind,
};
use sfu_control::server::{self, Incoming, Requests, Responses};
use tokio::sync::broadcast::error::RecvError;

use crate::metrics;
use crate::node::{Node, Session};

/// Messages that are not a signal request, after which a session ends.
const MAX_JUNK: u32 = 16;

/// Accepts connections until the endpoint is closed.
pub(crate) async fn serve(endpoint: Endpoint, node: Arc<Node>) {
    while let Some(incoming) = endpoint.accept().await {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            match incoming.await {
                Ok(connection) => {
                    tracing::info!("signaling connected");
                    let ended = serve_connection(&connection, node).await;
                    tracing::info!(reason = %ended, "signaling disconnected");
                }
                // A scanner, or a certificate that another authority signed.
                Err(error) => tracing::warn!(%error, "a control connection failed its handshake"),
            }
        });
    }
}

async fn serve_connection(connection: &Connection, node: Arc<Node>) -> quinn::ConnectionError {
    loop {
        let streams = match server::accept(connection).await {
            Ok(streams) => streams,
            Err(ended) => return ended,
        };
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            match server::read_hello(streams).await {
                Ok(Incoming::Session(open, requests, responses)) => {
                    session(&node, *open, requests, responses).await;
                }
                Ok(Incoming::Admin(call, responses)) => admin(&node, *call, responses).await,
                Ok(Incoming::Events(responses)) => events(&node, responses).await,
                Err(error) => tracing::debug!(%error, "a control stream was dropped"),
            }
        });
    }
}

/// One participant's session: client to room and room to client, until either ends.
async fn session(
    node: &Arc<Node>,
    open: SessionOpen,
    mut requests: Requests,
    mut responses: Responses<ToSignaling>,
) {
    let Session { input, mut output } = match node.join(open).await {
        Ok(session) => session,
        Err(refusal) => {
            metrics::session("refused");
            // When it cannot be sent there is nobody left to tell.
            let _ = responses.refuse(refusal).await;
            return;
        }
    };
    let upward = async {
        let mut junk = 0;
        loop {
            match requests.next().await {
                Ok(Some(message)) => {
                    let Some(ToSfuKind::Signal(bytes)) = message.kind else { continue };
                    match proto::SignalRequest::decode(bytes) {
                        Ok(request) => {
                            if input.signal(request).await.is_err() {
                                return;
                            }
                        }
                        Err(_) => {
                            junk += 1;
                            if junk > MAX_JUNK {
                                return;
                            }
                        }
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    };
    let downward = async {
        while let Some(kind) = output.recv().await {
            match &kind {
                ToSignalingKind::Accepted(_) => metrics::session("accepted"),
                ToSignalingKind::Refused(_) => metrics::session("refused"),
                ToSignalingKind::Signal(_) => {}
            }
            if responses.send(&ToSignaling { kind: Some(kind) }).await.is_err() {
                return false;
            }
        }
        true
    };
    let finished = tokio::select! {
        finished = downward => finished,
        () = upward => false,
    };
    if finished {
        responses.finish();
    }
}

async fn admin(node: &Arc<Node>, call: AdminCall, mut responses: Responses<AdminReply>) {
    let outcome = match node.admin(call).await {
        Ok(bytes) => AdminOutcome::Response(bytes),
        Err(refusal) => AdminOutcome::Error(refusal),
    };
    if responses.send(&AdminReply { outcome: Some(outcome) }).await.is_ok() {
        responses.finish();
    }
}

async fn events(node: &Arc<Node>, mut responses: Responses<RoomEvent>) {
    let mut feed = node.events();
    loop {
        match feed.recv().await {
            Ok(event) => {
                if responses.send(&event).await.is_err() {
                    return;
                }
            }
            // The reader would take a gap for the truth: end the feed, so that it knows and asks anew.
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "a reader of the event feed fell behind");
                return;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Closes the endpoint and waits, for a short time, until its peers know.
pub(crate) async fn close(endpoint: &Endpoint) {
    endpoint.close(server::CODE_GONE, b"shutting down");
    let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
}
