//! A relay that takes the tokens of an identity provider.

#![allow(clippy::unwrap_used)]

#[path = "../control/src/jwks_source/test_signer.rs"]
mod test_signer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use sfu::config::SfuConfig;
use sfu::{ControlTls, Relay};
use sfu_control::tls::DevPki;
use test_signer::{Signer, key_set};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A relay on free ports with these settings under `[auth]`.
async fn start(auth: &str) -> anyhow::Result<Relay> {
    let text = format!(
        "media = {{ udp_port = 0, shards = 1, pin = false }}\ncontrol = {{ listen = \"127.0.0.1:0\" }}\n\
         http = {{ listen = \"127.0.0.1:0\" }}\n[auth]\n{auth}"
    );
    let config = SfuConfig::from_toml(&text)?;
    let pki = DevPki::generate(SystemTime::now(), Duration::from_secs(3600))?;
    let control = ControlTls { identity: pki.sfu.identity()?, authority: pki.authority.into() };
    Relay::start(config, control, PrometheusBuilder::new().build_recorder().handle()).await
}

fn token(signer: &Signer) -> String {
    let exp = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 600;
    signer.token(&json!({"iss": "idp", "sub": "backend", "exp": exp, "video": {"roomList": true}}))
}

/// The status of `GET /rooms` with this token.
async fn rooms(relay: SocketAddr, token: &str) -> u16 {
    let mut stream = TcpStream::connect(relay).await.unwrap();
    let request = format!(
        "GET /rooms HTTP/1.1\r\nhost: {relay}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

struct KeyFile(PathBuf);

impl KeyFile {
    fn new(signer: &Signer) -> Self {
        let name = format!("curtain-sfu-jwks-{:016x}", rand::random::<u64>());
        let file = Self(std::env::temp_dir().join(name));
        std::fs::write(&file.0, key_set(&[signer])).unwrap();
        file
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_key_sets_tokens_open_the_relay_and_follow_its_rotation() {
    let (old, new) = (Signer::ed25519("old"), Signer::p256("new"));
    let file = KeyFile::new(&old);
    let relay = start(&format!("jwks = {{ file = {:?}, issuer = \"idp\" }}", file.0)).await.unwrap();
    let address = relay.http_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async { drop(stopped.await) }));

    assert_eq!(rooms(address, &token(&old)).await, 200);
    assert_eq!(rooms(address, &token(&Signer::ed25519("old"))).await, 401, "the same kid, another key");

    // As a whole, so that the relay never reads half a set.
    std::fs::rename(KeyFile::new(&new).0.as_path(), &file.0).unwrap();
    assert_eq!(rooms(address, &token(&old)).await, 200, "nothing has asked for the new set yet");
    let rotated = async {
        while rooms(address, &token(&new)).await != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), rotated).await.expect("rotation in time");
    assert_eq!(rooms(address, &token(&old)).await, 401);

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_relay_that_could_let_nobody_in_does_not_start() {
    let missing = format!("jwks = {{ file = {:?} }}", Path::new("/nonexistent/jwks.json"));
    let text = async |auth: &str| format!("{:#}", start(auth).await.expect_err("refused"));
    assert!(text("").await.contains("neither auth.keys nor auth.jwks"));
    assert!(text(&missing).await.contains("/nonexistent/jwks.json"));
    assert!(text("jwks = { url = \"http://idp.example/\" }").await.contains("must be https"));
    assert!(text("jwks = { url = \"https://localhost/\", refresh_seconds = 1 }").await.contains("below 10"));
    assert!(text("jwks_file = \"jwks.json\"").await.contains("jwks_file"));
    // An identity provider that is away does not keep the holders of API keys out.
    let keys = "keys = { devkey = \"0123456789abcdef0123456789abcdef\" }";
    start(&format!("{keys}\n{missing}")).await.unwrap();
}
