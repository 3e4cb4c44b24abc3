//! The connection between coordinator and agent: lines of JSON over TLS 1.3, between two ends that know a secret.
//!
//! The agent's certificate is made for the occasion and names nobody. Instead, each end proves that it knows the secret,
//! and the proof covers a value that only the two ends of this TLS connection can compute (the channel binding
//! `tls-exporter` of [RFC 9266](https://www.rfc-editor.org/rfc/rfc9266)): somebody in between would have two connections
//! with two such values, and neither proof would fit.

use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Longest line before the other end has proved itself.
const MAX_HELLO: u64 = 4096;
/// Whoever poses as the other end gets a proof to try secrets on: one that can be guessed is none.
const SHORTEST_SECRET: usize = 16;
/// RFC 9266 section 3.
const BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// Version of what the two ends say to each other. A number is added when one would not understand the other.
const FORMAT: u32 = 2;
/// The agents' certificates are made for this name.
const NAME: &str = "loadtest-agent";

/// The secret that coordinator and agents share.
pub struct AgentSecret(hmac::Key);

impl AgentSecret {
    /// From what the operator chose.
    ///
    /// # Errors
    /// It is too short.
    pub fn new(secret: &str) -> anyhow::Result<Self> {
        ensure!(
            secret.len() >= SHORTEST_SECRET,
            "the agent secret has fewer than {SHORTEST_SECRET} characters: make one with `openssl rand -hex 16`"
        );
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }
}

impl std::fmt::Debug for AgentSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentSecret(..)")
    }
}

#[derive(Serialize, Deserialize)]
struct Challenge {
    nonce: String,
    /// See [`FORMAT`]; the first version said nothing.
    #[serde(default)]
    format: u32,
    #[serde(default)]
    tool: String,
}

#[derive(Serialize, Deserialize)]
struct Proof {
    proof: String,
}

/// Which end this is. The labels keep an answer from being given back as a question.
#[derive(Debug, Clone, Copy)]
enum End {
    Coordinator,
    Agent,
}

impl End {
    fn label(self) -> &'static str {
        match self {
            End::Coordinator => "coordinator",
            End::Agent => "agent",
        }
    }

    fn other(self) -> Self {
        match self {
            End::Coordinator => End::Agent,
            End::Agent => End::Coordinator,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The agent's end: takes connections.
pub(super) struct Door(TlsAcceptor);

impl Door {
    pub(super) fn new() -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).context("a certificate")?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|error| anyhow::anyhow!("a certificate's key: {error}"))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// A connection to a coordinator that has proved that it knows the secret.
    pub(super) async fn accept(&self, stream: TcpStream, secret: &AgentSecret) -> anyhow::Result<Line> {
        let stream = self.0.accept(prepared(stream)).await.context("the other end speaks no TLS")?;
        let mut binding = [0; 32];
        stream.get_ref().1.export_keying_material(&mut binding, BINDING_LABEL, None)?;
        let mut line = Line::new(stream.into());
        line.prove(secret, End::Agent, &binding).await?;
        Ok(line)
    }
}

/// A connection to an agent that has proved that it knows the secret.
pub(super) async fn connect(stream: TcpStream, secret: &AgentSecret) -> anyhow::Result<Line> {
    let provider = provider();
    let verifier = AnyCertificate(provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // see the module's comment: who it is, the proof says
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).context("a name for the agent")?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, prepared(stream))
        .await
        .context("it speaks no TLS: is it `loadtest agent` of the same version?")?;
    let mut binding = [0; 32];
    stream.get_ref().1.export_keying_material(&mut binding, BINDING_LABEL, None)?;
    let mut line = Line::new(stream.into());
    line.prove(secret, End::Coordinator, &binding).await?;
    Ok(line)
}

fn prepared(stream: TcpStream) -> TcpStream {
    // Where it cannot be set, comparing clocks is a little less exact.
    let _ = stream.set_nodelay(true);
    stream
}

/// An end of the connection.
pub(super) struct Line {
    reader: BufReader<ReadHalf<TlsStream<TcpStream>>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
}

impl Line {
    fn new(stream: TlsStream<TcpStream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader: BufReader::new(reader), writer }
    }

    pub(super) async fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        self.writer.write_all(&text).await?;
        Ok(self.writer.flush().await?)
    }

    /// The next message of at most `most` bytes.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self, most: u64) -> anyhow::Result<T> {
        let mut text = Vec::new();
        let length = (&mut self.reader).take(most).read_until(b'\n', &mut text).await?;
        ensure!(length > 0, "the other end closed the connection: what it said on its own machine says why");
        ensure!(text.ends_with(b"\n"), "a line is too long or was cut");
        Ok(serde_json::from_slice(&text)?)
    }

    /// Adds what arrives to `text`; says whether a whole line is there. Dropping the future loses nothing.
    pub(super) async fn read_line(&mut self, text: &mut Vec<u8>) -> anyhow::Result<bool> {
        match self.reader.read_until(b'\n', text).await {
            Ok(1..) => {}
            // A process that ends does not say goodbye in TLS: that is an error, too.
            Ok(0) | Err(_) => bail!(
                "it closed the connection during the run: was it stopped? What it said on its own machine says more"
            ),
        }
        Ok(text.ends_with(b"\n"))
    }

    /// Completes when the other end says anything, or goes.
    pub(super) async fn anything(&mut self) {
        let _ = self.reader.read(&mut [0; 64]).await;
    }

    /// Both ends prove that they know the secret.
    async fn prove(&mut self, secret: &AgentSecret, own: End, binding: &[u8; 32]) -> anyhow::Result<()> {
        let said = |end: End, nonce: &str| format!("{} {nonce} {}", end.label(), STANDARD.encode(binding));
        let mut nonce = [0; 32];
        SystemRandom::new().fill(&mut nonce).map_err(|_| anyhow::anyhow!("no randomness"))?;
        let nonce = STANDARD.encode(nonce);
        let tool = env!("CARGO_PKG_VERSION").to_owned();
        self.send(&Challenge { nonce: nonce.clone(), format: FORMAT, tool }).await?;
        let asked: Challenge = self.receive(MAX_HELLO).await?;
        ensure!(
            asked.format == FORMAT,
            "the {} is another version of loadtest ({}, protocol {}; this is {}, protocol {FORMAT}): install the same one on all \
             machines",
            own.other().label(),
            if asked.tool.is_empty() { "an early one" } else { &asked.tool },
            asked.format,
            env!("CARGO_PKG_VERSION")
        );
        let answer = hmac::sign(&secret.0, said(own, &asked.nonce).as_bytes());
        self.send(&Proof { proof: STANDARD.encode(answer) }).await?;
        let given: Proof = self.receive(MAX_HELLO).await?;
        let given = STANDARD.decode(given.proof).context("the proof is damaged")?;
        if hmac::verify(&secret.0, said(own.other(), &nonce).as_bytes(), &given).is_err() {
            bail!("the other end has another agent secret, or somebody in between ends the connection");
        }
        Ok(())
    }
}

/// Takes any certificate whose key the other end has.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    fn secret(text: &str) -> AgentSecret {
        AgentSecret::new(text).unwrap()
    }

    #[tokio::test]
    async fn two_that_know_the_secret_meet_and_others_do_not() {
        for (agents, holds) in [("a secret of some length", true), ("another of some length", false)] {
            let (near, far) = pair().await;
            let (agents, ours) = (secret(agents), secret("a secret of some length"));
            let door = Door::new().unwrap();
            let (agent, coordinator) = tokio::join!(door.accept(far, &agents), connect(near, &ours));
            assert_eq!((agent.is_ok(), coordinator.is_ok()), (holds, holds));
            let (Ok(mut agent), Ok(mut coordinator)) = (agent, coordinator) else { continue };
            coordinator.send(&"a job").await.unwrap();
            assert_eq!(agent.receive::<String>(100).await.unwrap(), "a job");
            coordinator.send(&"x".repeat(200)).await.unwrap();
            assert!(agent.receive::<String>(100).await.is_err(), "too long");
        }
        assert!(AgentSecret::new("short").is_err());
    }

    #[tokio::test]
    async fn an_agent_of_another_version_is_named() {
        for (hello, said) in [
            ("{\"nonce\":\"AA==\"}", "(an early one, protocol 0; this is "),
            ("{\"nonce\":\"AA==\",\"format\":9,\"tool\":\"8.0.0\"}", "(8.0.0, protocol 9; this is "),
        ] {
            let (near, far) = pair().await;
            let (door, known) = (Door::new().unwrap(), secret("a secret of some length"));
            let agent = async {
                let mut stream = door.0.accept(far).await.unwrap();
                stream.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                // It goes when the other end does.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            };
            let coordinator = async {
                let error = connect(near, &known).await.err().unwrap().to_string();
                assert!(error.contains("the agent is another version of loadtest"), "{error}");
                assert!(error.contains(said) && error.contains("install the same one"), "{error}");
            };
            tokio::join!(agent, coordinator);
        }
    }

    /// Ends TLS on both sides with keys of its own and hands every byte on: proofs, too.
    async fn in_between(near: TcpStream, far: TcpStream) {
        let door = Door::new().unwrap();
        let verifier = AnyCertificate(provider().signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(NAME).unwrap();
        let (mut one, mut two) = tokio::try_join!(door.0.accept(near), connector.connect(name, far)).unwrap();
        let _ = tokio::io::copy_bidirectional(&mut one, &mut two).await;
    }

    #[tokio::test]
    async fn somebody_in_between_is_noticed_by_both() {
        let ((near, to_near), (to_far, far)) = (pair().await, pair().await);
        let known = secret("a secret of some length");
        let door = Door::new().unwrap();
        tokio::spawn(in_between(to_near, to_far));
        let (agent, coordinator) = tokio::join!(door.accept(far, &known), connect(near, &known));
        for error in [agent.err(), coordinator.err()] {
            assert!(error.unwrap().to_string().contains("in between"));
        }
    }
}
