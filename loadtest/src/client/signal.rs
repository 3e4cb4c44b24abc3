//! LiveKit's signal protocol over a WebSocket, version 0: two PeerConnections.

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::trouble::SignalError;
use super::trust::Trust;

pub(crate) use proto::signal_request::Message as Request;
pub(crate) use proto::signal_response::Message as Response;

/// Most messages are shorter. The library fills so much with zeros each time that a bot looks for a message, which is at every
/// packet of media, and keeps it for each connection; its default is 128 KiB.
const READ_BUFFER: usize = 4096;

/// One signalling connection.
pub(crate) struct SignalClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl SignalClient {
    /// Connects; the first message is the service's `JoinResponse`.
    pub(crate) async fn connect(url: &str, token: &str, trust: Option<&Trust>) -> Result<Self, SignalError> {
        let url = format!(
            "{}/rtc?access_token={token}&protocol=16&sdk=rust&version=0.1.0&auto_subscribe=1&adaptive_stream=0",
            url.trim_end_matches('/')
        );
        let connector = trust.map_or(Connector::Plain, |trust| Connector::Rustls(trust.config()));
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
        let (socket, _) = connect_async_tls_with_config(url, Some(config), true, Some(connector)).await?;
        Ok(Self { socket })
    }

    /// Sends one request.
    pub(crate) async fn send(&mut self, message: Request) -> Result<(), SignalError> {
        let request = proto::SignalRequest { message: Some(message) };
        self.socket.send(Message::Binary(request.encode_to_vec().into())).await.map_err(SignalError::later)
    }

    /// The next response. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Response, SignalError> {
        loop {
            let message = self.socket.next().await.ok_or(SignalError::Closed)?;
            match message.map_err(SignalError::later)? {
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
