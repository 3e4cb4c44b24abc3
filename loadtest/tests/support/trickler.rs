//! A signalling server as LiveKit's is, made of ours: it takes the candidates out of descriptions and sends them one by one
//! afterwards (`TrickleRequest`), an IPv6 address and a TCP port before those that the bots can use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message as Response;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response as Upgrade};
use tokio_tungstenite::{accept_hdr_async, connect_async};

/// Time enough for a client to look at one candidate before the next.
const BETWEEN: Duration = Duration::from_millis(20);
/// What a server on a machine with IPv6 sends, too, and may send first.
const OF_NO_USE: [&str; 2] = [
    "a=candidate:3932658255 1 udp 2130706431 2001:db8::2 7882 typ host",
    "a=candidate:375738803 1 tcp 1671430143 127.0.0.1 7881 typ host tcptype passive",
];

pub struct Trickler {
    pub address: SocketAddr,
    sent: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Trickler {
    /// Stands before `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(hand_on(stream, upstream, counted.clone()));
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, sent, stop: Some(stop), thread: Some(thread) }
    }

    /// Candidates sent one by one so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Trickler {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn hand_on(stream: TcpStream, upstream: SocketAddr, sent: Arc<AtomicUsize>) {
    let mut path = String::new();
    #[allow(clippy::result_large_err)] // the library's
    let keep = |request: &Request, upgrade: Upgrade| {
        path = request.uri().to_string();
        Ok(upgrade)
    };
    let mut near = accept_hdr_async(stream, keep).await.unwrap();
    let (mut far, _) = connect_async(format!("ws://{upstream}{path}")).await.unwrap();
    loop {
        tokio::select! {
            message = near.next() => match message {
                Some(Ok(message)) => {
                    if far.send(message).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            message = far.next() => match message {
                Some(Ok(message)) => {
                    for (index, message) in apart(message, &sent).into_iter().enumerate() {
                        if index > 0 {
                            tokio::time::sleep(BETWEEN).await;
                        }
                        if near.send(message).await.is_err() {
                            return;
                        }
                    }
                }
                _ => return,
            },
        }
    }
}

fn apart(message: Message, sent: &AtomicUsize) -> Vec<Message> {
    let Message::Binary(bytes) = &message else { return vec![message] };
    let response = proto::SignalResponse::decode(&bytes[..]).unwrap().message;
    let (mut description, target, wrap): (_, _, fn(_) -> Response) = match response {
        Some(Response::Offer(offer)) => (offer, proto::SignalTarget::Subscriber, Response::Offer),
        Some(Response::Answer(answer)) => (answer, proto::SignalTarget::Publisher, Response::Answer),
        _ => return vec![message],
    };
    let is_candidate = |line: &&str| line.starts_with("a=candidate:") || *line == "a=end-of-candidates";
    let (candidates, rest): (Vec<&str>, Vec<&str>) = description.sdp.lines().partition(is_candidate);
    let trickle = |line: &&str| {
        let candidate = line.strip_prefix("a=")?;
        let init = serde_json::json!({"candidate": candidate, "sdpMid": "", "sdpMLineIndex": 0, "usernameFragment": null});
        Some(Response::Trickle(proto::TrickleRequest {
            candidate_init: init.to_string(),
            target: target.into(),
            ..Default::default()
        }))
    };
    let own = candidates.iter().filter(|line| line.contains("candidate:"));
    let trickled: Vec<_> = OF_NO_USE.iter().chain(own).filter_map(trickle).collect();
    sent.fetch_add(trickled.len(), Ordering::Relaxed);
    description.sdp = rest.join("\r\n") + "\r\n";
    let encode = |message| {
        let response = proto::SignalResponse { message: Some(message) };
        Message::Binary(response.encode_to_vec().into())
    };
    std::iter::once(wrap(description)).chain(trickled).map(encode).collect()
}
