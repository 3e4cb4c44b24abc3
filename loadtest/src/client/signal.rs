//! LiveKit's signal protocol over a WebSocket, version 0: two PeerConnections.

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub(crate) use proto::signal_request::Message as Request;
pub(crate) use proto::signal_response::Message as Response;

/// Why there is no signalling, or no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignalError {
    /// The service refused: the token does not grant it, or it is not there to grant it. The text is the service's.
    #[error("the service refused the connection with status {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The body.
        message: String,
    },
    /// The connection could not be made or broke.
    #[error("the connection to the service failed: {0}")]
    Connection(#[source] Box<tungstenite::Error>),
    /// The service closed the connection.
    #[error("the service closed the connection")]
    Closed,
    /// The service sent something that is not a signal message.
    #[error("the service sent something that is not a signal message")]
    Protocol(#[from] prost::DecodeError),
}

impl From<tungstenite::Error> for SignalError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => SignalError::Refused {
                status: response.status().as_u16(),
                message: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
            },
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => SignalError::Closed,
            other => SignalError::Connection(Box::new(other)),
        }
    }
}

/// One signalling connection.
pub(crate) struct SignalClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl SignalClient {
    /// Connects; the first message is the service's `JoinResponse`.
    pub(crate) async fn connect(url: &str, token: &str) -> Result<Self, SignalError> {
        let url = format!(
            "{}/rtc?access_token={token}&protocol=16&sdk=rust&version=0.1.0&auto_subscribe=1&adaptive_stream=0",
            url.trim_end_matches('/')
        );
        // Two providers of cryptography may be linked in; rustls then wants to be told. Who was first, stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (socket, _) = tokio_tungstenite::connect_async(url).await?;
        Ok(Self { socket })
    }

    /// Sends one request.
    pub(crate) async fn send(&mut self, message: Request) -> Result<(), SignalError> {
        let request = proto::SignalRequest { message: Some(message) };
        Ok(self.socket.send(Message::Binary(request.encode_to_vec().into())).await?)
    }

    /// The next response. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Response, SignalError> {
        loop {
            match self.socket.next().await.ok_or(SignalError::Closed)?? {
                Message::Binary(bytes) => {
                    if let Some(message) = proto::SignalResponse::decode(bytes)?.message {
                        return Ok(message);
                    }
                }
                Message::Close(_) => return Err(SignalError::Closed),
                _ => {}
            }
        }
    }

    /// Says goodbye and closes.
    pub(crate) async fn leave(&mut self) -> Result<(), SignalError> {
        let leave = proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated.into(),
            ..Default::default()
        };
        self.send(Request::Leave(leave)).await?;
        match self.socket.close(None).await {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
