//! The end of the control link in `sfu`: from a QUIC stream to what it is for. What happens behind it is `sfu`'s.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TokioRuntime, VarInt};

use crate::framing::{FrameError, FrameReader, write_message};
use crate::messages::{
    AdminCall, AdminReply, Hello, Purpose, Refusal, RoomEvent, SessionOpen, ToSfu, ToSignaling,
    ToSignalingKind,
};
use crate::tls::{self, Identity, TlsError};

/// A stream that does not say within this time what it is for is closed.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Error code of a stream that is dropped for a protocol violation.
pub const CODE_PROTOCOL: VarInt = VarInt::from_u32(1);

/// Error code of a stream that is dropped because its process goes away or gave up on it.
pub const CODE_GONE: VarInt = VarInt::from_u32(2);

/// Why the control link cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Certificate, key or authority cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The UDP address cannot be opened.
    #[error("cannot open UDP address {0}")]
    Socket(SocketAddr, #[source] std::io::Error),
}

/// Opens `address` for clients that `authority` (PEM) certified.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(address: SocketAddr, identity: Identity, authority: &[u8]) -> Result<Endpoint, ListenError> {
    let endpoint = tls::endpoint_config(&identity);
    let server = tls::server_config(identity, authority)?;
    let socket = UdpSocket::bind(address).map_err(|error| ListenError::Socket(address, error))?;
    Endpoint::new(endpoint, Some(server), socket, Arc::new(TokioRuntime))
        .map_err(|error| ListenError::Socket(address, error))
}

/// Why a new stream was dropped.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// Nothing came within [`HELLO_TIMEOUT`].
    #[error("no hello in time")]
    Timeout,
    /// The stream ended before it said what it is for, or named no purpose that is known here.
    #[error("no purpose")]
    NoPurpose,
    /// Not a frame with a hello.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A stream of known purpose.
#[derive(Debug)]
pub enum Incoming {
    /// A participant's session.
    Session(Box<SessionOpen>, Requests, Responses<ToSignaling>),
    /// One RoomService call.
    Admin(Box<AdminCall>, Responses<AdminReply>),
    /// The event feed.
    Events(Responses<RoomEvent>),
}

/// What the client of a session sends.
#[derive(Debug)]
pub struct Requests(FrameReader<RecvStream>);

impl Requests {
    /// The next message; `None` when `signaling` ended the session. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`FrameError`]; the session is over then.
    pub async fn next(&mut self) -> Result<Option<ToSfu>, FrameError> {
        self.0.next().await
    }
}

/// The direction towards `signaling`. Dropping it without [`Responses::finish`] resets the stream, which `signaling`
/// takes for a lost link: the client is told to resume.
#[derive(Debug)]
pub struct Responses<M> {
    stream: Option<SendStream>,
    kind: std::marker::PhantomData<fn(M)>,
}

impl<M: Message> Responses<M> {
    fn new(stream: SendStream) -> Self {
        Self { stream: Some(stream), kind: std::marker::PhantomData }
    }

    /// Sends one message. Waits while `signaling` does not take it; the future is not to be dropped half way.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn send(&mut self, message: &M) -> Result<(), FrameError> {
        match &mut self.stream {
            Some(stream) => write_message(stream, message).await,
            None => Err(FrameError::Truncated),
        }
    }

    /// Waits until `signaling` no longer wants to read.
    pub async fn closed(&mut self) {
        if let Some(stream) = &mut self.stream {
            // Whatever the outcome: nobody reads any more.
            let _ = stream.stopped().await;
        }
    }

    /// Ends the direction after all that was sent.
    pub fn finish(mut self) {
        if let Some(mut stream) = self.stream.take() {
            // Fails only if the stream is closed already.
            let _ = stream.finish();
        }
    }
}

impl Responses<ToSignaling> {
    /// Refuses the session and ends it.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn refuse(mut self, refusal: Refusal) -> Result<(), FrameError> {
        self.send(&ToSignaling { kind: Some(ToSignalingKind::Refused(refusal)) }).await?;
        self.finish();
        Ok(())
    }
}

impl<M> Drop for Responses<M> {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            // Fails only if the stream is closed already.
            let _ = stream.reset(CODE_GONE);
        }
    }
}

/// Waits for the next stream of `connection`; follow with [`read_hello`] on a task of its own, so that one silent
/// stream does not hold back the others.
///
/// # Errors
/// The connection is closed.
pub async fn accept(connection: &Connection) -> Result<(SendStream, RecvStream), quinn::ConnectionError> {
    connection.accept_bi().await
}

/// Learns what a stream is for. On an error both directions are reset with [`CODE_PROTOCOL`].
///
/// # Errors
/// See [`HelloError`].
pub async fn read_hello((mut send, recv): (SendStream, RecvStream)) -> Result<Incoming, HelloError> {
    let mut requests = FrameReader::new(recv);
    let purpose = match tokio::time::timeout(HELLO_TIMEOUT, requests.next::<Hello>()).await {
        Ok(Ok(Some(Hello { purpose: Some(purpose) }))) => Ok(purpose),
        Ok(Ok(_)) => Err(HelloError::NoPurpose),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(HelloError::Timeout),
    };
    match purpose {
        Ok(Purpose::Session(open)) => {
            Ok(Incoming::Session(Box::new(open), Requests(requests), Responses::new(send)))
        }
        Ok(Purpose::Admin(call)) => Ok(Incoming::Admin(Box::new(call), Responses::new(send))),
        Ok(Purpose::Events(_)) => Ok(Incoming::Events(Responses::new(send))),
        Err(error) => {
            // Both fail only if the stream is closed already.
            let _ = send.reset(CODE_PROTOCOL);
            let _ = requests.stream_mut().stop(CODE_PROTOCOL);
            Err(error)
        }
    }
}
