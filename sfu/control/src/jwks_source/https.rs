//! One GET of a small document, over HTTPS; over HTTP from this machine only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::http::uri::{InvalidUri, Scheme};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a whole answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The text is not a URL.
    #[error("{0}")]
    Url(#[from] InvalidUri),
    /// The URL has no host, or one that no certificate can name.
    #[error("the URL names no usable host")]
    Host,
    /// The URL is neither `https`, nor `http` on loopback.
    #[error("the URL must be https: who can change the answer can make tokens")]
    Insecure,
    /// The machine's trusted certificates cannot be used.
    #[error("the machine's trusted certificates cannot be used: {0}")]
    Trust(#[from] rustls::Error),
    /// No TCP connection.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// No TLS connection, above all because the certificate is not trusted.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// The connection broke, or the answer is not HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// Another status than 200. Redirects are not followed.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// The answer is longer than the caller allows, in bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer ended early.
    #[error("the answer is incomplete")]
    Incomplete,
    /// No whole answer within ten seconds.
    #[error("no answer in time")]
    Timeout,
}

impl From<InvalidDnsNameError> for FetchError {
    fn from(_: InvalidDnsNameError) -> Self {
        Self::Host
    }
}

/// Where the document is.
pub(super) struct Url {
    host: String,
    port: u16,
    /// What the request's `Host` says.
    authority: String,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Url {
    /// # Errors
    /// Not an `https` URL (nor `http` on loopback), or no trusted certificates on this machine.
    pub(super) fn new(url: &str) -> Result<Self, FetchError> {
        let uri: Uri = url.parse()?;
        // An IPv6 address stands in brackets in the URL and in `Host`, and without for everyone else.
        let bracketed = uri.host().ok_or(FetchError::Host)?;
        let host = bracketed.trim_matches(['[', ']']).to_owned();
        let loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let local = loopback && uri.scheme() == Some(&Scheme::HTTP);
        if !secure && !local {
            return Err(FetchError::Insecure);
        }
        let tls = if secure { Some((connector()?, ServerName::try_from(host.clone())?)) } else { None };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let authority = format!("{bracketed}:{port}");
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, authority, path, tls })
    }

    /// Reads the document. Follows no redirect.
    ///
    /// # Errors
    /// Anything but a complete answer 200 of at most `limit` bytes, in time.
    pub(super) async fn get(&self, limit: usize) -> Result<Bytes, FetchError> {
        let answer = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
            let stream = stream.map_err(FetchError::Connect)?;
            match &self.tls {
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream).await.map_err(FetchError::Tls)?;
                    self.get_over(stream, limit).await
                }
                None => self.get_over(stream, limit).await,
            }
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn get_over<S>(&self, stream: S, limit: usize) -> Result<Bytes, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = Uri::try_from(self.path.as_str())?;
        let host = header::HeaderValue::from_str(&self.authority).map_err(|_| FetchError::Host)?;
        request.headers_mut().insert(header::HOST, host);
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::ACCEPT, json);
        let answer = async {
            let response = sender.send_request(request).await?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            match Limited::new(response.into_body(), limit).collect().await {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLong(limit)),
                Err(_) => Err(FetchError::Incomplete),
            }
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

fn connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(tls)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn answer(text: &'static str, limit: usize) -> Result<Bytes, FetchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = Url::new(&format!("http://{address}/jwks?x=1")).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            let request = std::str::from_utf8(&request[..length]).unwrap();
            assert!(request.starts_with("GET /jwks?x=1 HTTP/1.1\r\n"));
            assert!(request.contains(&format!("host: {address}\r\n")), "{request}");
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        tokio::join!(url.get(limit), server).0
    }

    #[tokio::test]
    async fn only_a_whole_answer_of_bounded_size_counts() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n1234";
        assert_eq!(answer(ok, 4).await.unwrap(), "1234");
        assert!(matches!(answer(ok, 3).await, Err(FetchError::TooLong(3))));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n1234\r\n0\r\n\r\n";
        assert_eq!(answer(chunked, 4).await.unwrap(), "1234");
        assert!(matches!(answer(chunked, 3).await, Err(FetchError::TooLong(3))));
        assert!(answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1234", 10).await.is_err());
        assert!(matches!(answer("not http\r\n\r\n", 10).await, Err(FetchError::Http(_))));
        let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(answer(moved, 10).await, Err(FetchError::Status(StatusCode::FOUND))));
    }

    #[tokio::test]
    async fn a_certificate_that_the_machine_does_not_trust_is_refused() {
        let pki =
            crate::tls::DevPki::generate(std::time::SystemTime::now(), Duration::from_secs(60)).unwrap();
        let (chain, key) = pki.sfu.identity().unwrap().into_parts();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::new(&format!("https://localhost:{}/", listener.local_addr().unwrap().port())).unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            assert!(tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_err());
        };
        assert!(matches!(tokio::join!(url.get(10), server).0, Err(FetchError::Tls(_))));
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert_eq!(Url::new("http://[::1]:8080/x").unwrap().authority, "[::1]:8080");
        assert!(matches!(Url::new("http://idp.example/x"), Err(FetchError::Insecure)));
        assert!(matches!(Url::new("ftp://localhost/x"), Err(FetchError::Insecure)));
        assert!(matches!(Url::new("/x"), Err(FetchError::Host)));
        assert!(matches!(Url::new("http://a b/"), Err(FetchError::Url(_))));
    }
}
