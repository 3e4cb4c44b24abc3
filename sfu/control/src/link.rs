//! The end of the control link in `signaling`: one QUIC connection to a relay, kept up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use rand::Rng as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::framing::{FrameError, FrameReader, write_message};
use crate::messages::{
    AdminCall, AdminOutcome, AdminReply, EventsOpen, Hello, Purpose, Refusal, RoomEvent, SessionAccepted,
    SessionOpen, ToSfu, ToSfuKind, ToSignaling, ToSignalingKind,
};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a relay may take to accept or refuse a session; LiveKit's SDKs wait 15 s for the upgrade.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(8);
const CERTIFICATE_VERDICT: Duration = Duration::from_millis(20);
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the relay is.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// `host:port` of the relay's control listener; resolved anew for each attempt.
    pub address: String,
    /// Name that the relay's certificate must carry.
    pub server_name: String,
    /// From [`crate::tls::client_config`].
    pub tls: quinn::ClientConfig,
}

/// Whether the relay can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// Not at the moment; attempts go on.
    Down,
    /// Yes.
    Up,
}

/// Why something could not be done over the link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no connection at the moment.
    #[error("the media relay cannot be reached")]
    Down,
    /// The connection broke.
    #[error("the connection to the media relay broke")]
    Lost(#[from] quinn::ConnectionError),
    /// The stream broke or carried something unexpected.
    #[error("the stream to the media relay broke")]
    Frame(#[from] FrameError),
    /// The relay did not answer in time.
    #[error("the media relay does not answer")]
    Timeout,
    /// The relay answered something else than the protocol says.
    #[error("the media relay broke the control protocol")]
    Protocol,
    /// The relay refused.
    #[error("refused by the media relay: {}", .0.message)]
    Refused(Refusal),
}

/// The link. Clones share it; when the last one goes, so does the connection.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: watch::Receiver<Option<Connection>>,
    state: watch::Receiver<LinkState>,
    task: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(connection) = self.connection.borrow().as_ref() {
            connection.close(VarInt::from_u32(0), b"");
        }
    }
}

impl Link {
    /// Starts to connect, on a task of the current tokio runtime, and keeps at it.
    pub fn start(config: LinkConfig) -> Self {
        let (connection_tx, connection) = watch::channel(None);
        let (state_tx, state) = watch::channel(LinkState::Down);
        let task = tokio::spawn(keep_up(config, connection_tx, state_tx)).abort_handle();
        Self(Arc::new(Inner { connection, state, task }))
    }

    /// Whether the relay can be reached now.
    pub fn state(&self) -> LinkState {
        *self.0.state.borrow()
    }

    /// Follows the state. Ends with the link.
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.0.state.clone()
    }

    /// Opens a participant's session and waits until the relay accepts it.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the relay says so, else whatever happened to the link.
    pub async fn open_session(&self, open: SessionOpen) -> Result<Session, LinkError> {
        let (tx, rx) = self.open(Purpose::Session(open)).await?;
        let mut rx = SessionReceiver(FrameReader::new(rx));
        let first = tokio::time::timeout(ACCEPT_TIMEOUT, rx.0.next::<ToSignaling>());
        match first.await.map_err(|_| LinkError::Timeout)??.and_then(|message| message.kind) {
            Some(ToSignalingKind::Accepted(accepted)) => Ok(Session { accepted, tx: SessionSender(tx), rx }),
            Some(ToSignalingKind::Refused(refusal)) => Err(LinkError::Refused(refusal)),
            Some(ToSignalingKind::Signal(_)) | None => Err(LinkError::Protocol),
        }
    }

    /// Makes one RoomService call; the answer is the encoded response message.
    ///
    /// # Errors
    /// As [`Link::open_session`].
    pub async fn admin(&self, call: AdminCall) -> Result<bytes::Bytes, LinkError> {
        let answer = async {
            let (mut tx, rx) = self.open(Purpose::Admin(call)).await?;
            // Fails only if the relay has closed the stream, which reading shows.
            let _ = tx.finish();
            Ok(FrameReader::new(rx).next::<AdminReply>().await?)
        };
        let reply: Result<_, LinkError> =
            tokio::time::timeout(ADMIN_TIMEOUT, answer).await.map_err(|_| LinkError::Timeout)?;
        match reply?.and_then(|reply| reply.outcome) {
            Some(AdminOutcome::Response(response)) => Ok(response),
            Some(AdminOutcome::Error(refusal)) => Err(LinkError::Refused(refusal)),
            None => Err(LinkError::Protocol),
        }
    }

    /// Opens the event feed. It ends with the connection; open it anew when the link is up again.
    ///
    /// # Errors
    /// As [`Link::open_session`].
    pub async fn events(&self) -> Result<EventFeed, LinkError> {
        let (tx, rx) = self.open(Purpose::Events(EventsOpen {})).await?;
        Ok(EventFeed { _tx: tx, rx: FrameReader::new(rx) })
    }

    async fn open(&self, purpose: Purpose) -> Result<(SendStream, RecvStream), LinkError> {
        let connection = self.0.connection.borrow().clone().ok_or(LinkError::Down)?;
        // Waits only if the relay grants no further stream.
        let opened = tokio::time::timeout(ACCEPT_TIMEOUT, connection.open_bi());
        let (mut tx, rx) = opened.await.map_err(|_| LinkError::Timeout)??;
        write_message(&mut tx, &Hello { purpose: Some(purpose) }).await?;
        Ok((tx, rx))
    }
}

/// An accepted session of a participant.
#[derive(Debug)]
pub struct Session {
    /// What the relay said.
    pub accepted: SessionAccepted,
    /// Towards the relay.
    pub tx: SessionSender,
    /// From the relay.
    pub rx: SessionReceiver,
}

/// The direction of a session towards the relay. Dropping it ends the session.
#[derive(Debug)]
pub struct SessionSender(SendStream);

impl SessionSender {
    /// Passes on an encoded `livekit.SignalRequest`. Waits while the relay does not take it; the future is not to be
    /// dropped unless the session ends with it.
    ///
    /// # Errors
    /// [`LinkError::Frame`].
    pub async fn send(&mut self, request: bytes::Bytes) -> Result<(), LinkError> {
        let message = ToSfu { kind: Some(ToSfuKind::Signal(request)) };
        Ok(write_message(&mut self.0, &message).await?)
    }
}

/// The direction of a session from the relay.
#[derive(Debug)]
pub struct SessionReceiver(FrameReader<RecvStream>);

impl SessionReceiver {
    /// The next encoded `livekit.SignalResponse`; `None` when the relay ended the session on purpose. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// The link broke: the client should resume.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, LinkError> {
        match self.0.next::<ToSignaling>().await? {
            None => Ok(None),
            Some(ToSignaling { kind: Some(ToSignalingKind::Signal(response)) }) => Ok(Some(response)),
            Some(_) => Err(LinkError::Protocol),
        }
    }
}

/// The event feed of a relay.
#[derive(Debug)]
pub struct EventFeed {
    /// Held open: the relay ends the feed when this direction ends.
    _tx: SendStream,
    rx: FrameReader<RecvStream>,
}

impl EventFeed {
    /// The next event; `None` when the relay ended the feed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The link broke.
    pub async fn next(&mut self) -> Result<Option<RoomEvent>, LinkError> {
        Ok(self.rx.next().await?)
    }
}

async fn keep_up(
    config: LinkConfig,
    current: watch::Sender<Option<Connection>>,
    state: watch::Sender<LinkState>,
) {
    let mut delay = FIRST_DELAY;
    loop {
        match tokio::time::timeout(CONNECT_TIMEOUT, connect(&config)).await {
            Ok(Ok((_endpoint, connection))) => {
                // In TLS 1.3 the client is done before the server has looked at its certificate.
                let verdict = connection.rtt() * 2 + CERTIFICATE_VERDICT;
                if let Ok(reason) = tokio::time::timeout(verdict, connection.closed()).await {
                    tracing::warn!(%reason, "the media relay closed the connection at once");
                } else {
                    delay = FIRST_DELAY;
                    tracing::info!("connected to the media relay");
                    current.send_replace(Some(connection.clone()));
                    state.send_replace(LinkState::Up);
                    let reason = connection.closed().await;
                    current.send_replace(None);
                    state.send_replace(LinkState::Down);
                    tracing::warn!(%reason, "lost the connection to the media relay");
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "the media relay cannot be reached"),
            Err(_) => tracing::debug!("the media relay does not answer"),
        }
        // Half fixed, half random, so that many edges do not come back in step.
        let wait = delay.mul_f64(rand::rng().random_range(0.5..1.0));
        tokio::time::sleep(wait).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the address cannot be resolved")]
    Resolve(#[source] std::io::Error),
    #[error("the address names no host")]
    NoAddress,
    #[error("no local socket: {0}")]
    Socket(#[source] std::io::Error),
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    #[error(transparent)]
    Handshake(#[from] quinn::ConnectionError),
}

async fn connect(config: &LinkConfig) -> Result<(Endpoint, Connection), ConnectError> {
    let address = tokio::net::lookup_host(&config.address).await.map_err(ConnectError::Resolve)?.next();
    let address = address.ok_or(ConnectError::NoAddress)?;
    let local: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let endpoint = Endpoint::client(local).map_err(ConnectError::Socket)?;
    let connection = endpoint.connect_with(config.tls.clone(), address, &config.server_name)?.await?;
    Ok((endpoint, connection))
}
