//! One GET of a small document, over HTTPS; over HTTP from this machine only.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use axum::body::Body;
use axum::http::uri::Scheme;
use axum::http::{Request, StatusCode, Uri, header};
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where the document is.
pub(crate) struct Url {
    host: String,
    port: u16,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Url {
    /// # Errors
    /// Not an `https` URL (nor `http` on loopback), or no trusted certificates on this machine.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse()?;
        let host = uri.host().context("it names no host")?.trim_matches(['[', ']']).to_owned();
        let loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        ensure!(
            secure || (loopback && uri.scheme() == Some(&Scheme::HTTP)),
            "it must be https: who can change the answer can make tokens"
        );
        let tls = if secure { Some((connector()?, ServerName::try_from(host.clone())?)) } else { None };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, path, tls })
    }

    /// Reads the document. Follows no redirect.
    ///
    /// # Errors
    /// Anything but a complete answer 200 of at most `limit` bytes.
    pub(crate) async fn get(&self, limit: usize) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.context("cannot connect")?;
        match &self.tls {
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.context("TLS")?;
                self.get_over(stream, limit).await
            }
            None => self.get_over(stream, limit).await,
        }
    }

    async fn get_over<S>(&self, stream: S, limit: usize) -> anyhow::Result<Bytes>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(&self.path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            ensure!(response.status() == StatusCode::OK, "answered {}", response.status());
            axum::body::to_bytes(Body::new(response.into_body()), limit)
                .await
                .context("the answer is too large")
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end once the answer is complete.
            ended = connection => {
                ended?;
                answer.await
            }
        }
    }
}

fn connector() -> anyhow::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()
        .context("the machine's trusted certificates cannot be used")?
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(tls)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn answer(text: &'static str, limit: usize) -> anyhow::Result<Bytes> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::new(&format!("http://{}/jwks?x=1", listener.local_addr().unwrap())).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /jwks?x=1 HTTP/1.1\r\n"));
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        tokio::join!(url.get(limit), server).0
    }

    #[tokio::test]
    async fn only_a_whole_answer_of_bounded_size_counts() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n1234";
        assert_eq!(answer(ok, 4).await.unwrap(), "1234");
        assert!(answer(ok, 3).await.is_err());
        assert!(answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1234", 10).await.is_err());
        assert!(
            answer("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 10)
                .await
                .is_err()
        );
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert!(Url::new("http://[::1]:8080/x").is_ok());
        assert!(Url::new("http://idp.example/x").is_err());
        assert!(Url::new("ftp://localhost/x").is_err());
        assert!(Url::new("/x").is_err());
    }
}
