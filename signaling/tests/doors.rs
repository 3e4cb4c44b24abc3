//! Listeners, certificates, the page and the metrics.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, SystemTime};

use common::*;
use metrics_exporter_prometheus::PrometheusBuilder;
use sfu_control::link::{Link, LinkConfig, LinkState};
use sfu_control::messages::SessionOpen;
use sfu_control::tls::{self, DEV_SERVER_NAME, DevPki, PemPair};
use signaling::Server;
use signaling::config::{Pem, TlsConfig};

#[tokio::test]
async fn the_page_is_served_with_strict_headers() {
    let world = World::with(|config, folder| {
        folder.write("page/index.html", "<!doctype html>visit");
        folder.write("page/assets/app-1a2b.js", "1");
        folder.write("page/e2ee.wasm", "1");
        folder.write("secret.txt", "secret");
        config.page = Some(folder.0.join("page"));
    })
    .await;
    let http = reqwest::Client::new();
    let get = async |path: &str| http.get(world.url(path)).send().await.unwrap();

    let index = get("/").await;
    assert_eq!(index.status(), 200);
    let header =
        |response: &reqwest::Response, name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert!(header(&index, "content-type").starts_with("text/html"));
    assert_eq!(header(&index, "cache-control"), "no-cache");
    assert_eq!(header(&index, "referrer-policy"), "no-referrer");
    assert_eq!(header(&index, "x-content-type-options"), "nosniff");
    let policy = header(&index, "content-security-policy");
    for part in
        ["default-src 'none'", "script-src 'self'", "worker-src 'self' blob:", "connect-src 'self' ws: wss:"]
    {
        assert!(policy.contains(part), "{part}");
    }
    assert!(
        header(&index, "permissions-policy")
            .contains("camera=(self), microphone=(self), display-capture=(self)")
    );
    assert_eq!(index.text().await.unwrap(), "<!doctype html>visit");

    let script = get("/assets/app-1a2b.js").await;
    assert_eq!(header(&script, "content-type"), "text/javascript");
    assert!(header(&script, "cache-control").contains("immutable"));
    assert_eq!(header(&get("/e2ee.wasm").await, "content-type"), "application/wasm");
    for path in ["/nothing", "/assets/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt"] {
        let response = get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_ne!(response.text().await.unwrap(), "secret");
    }
    // The page does not hide the other doors.
    assert_eq!(get("/healthz").await.text().await.unwrap(), "ok");
    assert_eq!(get("/rtc/validate").await.status(), 401);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::new().await;
    let mut config = config(&world.pki, world.relay.address);
    config.bind = world.server.address();
    let error = Server::start(config.clone(), None).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains(&world.server.address().to_string()) && text.contains("in use"), "{text}");

    config.bind = ([127, 0, 0, 1], 0).into();
    config.metrics.bind = Some(world.server.address());
    let text = format!("{:#}", Server::start(config, None).await.unwrap_err());
    assert!(
        text.contains("metrics listener") && text.contains(&world.server.address().to_string()),
        "{text}"
    );
}

#[tokio::test]
async fn plain_http_stays_on_loopback() {
    let pki = pki();
    let mut config = config(&pki, ([127, 0, 0, 1], 9).into());
    config.bind = ([0, 0, 0, 0], 0).into();
    let text = format!("{:#}", Server::start(config, None).await.unwrap_err());
    assert!(text.contains("[tls]"), "{text}");
}

#[tokio::test]
async fn tls_is_spoken_where_a_certificate_is() {
    let web = DevPki::generate(SystemTime::now(), Duration::from_secs(60)).unwrap();
    let world = World::with(|config, folder| {
        folder.write("page/index.html", "visit");
        config.page = Some(folder.0.join("page"));
        config.tls = Some(TlsConfig {
            certificate: Pem::Text(web.sfu.certificate.clone()),
            key: Pem::Text(web.sfu.key.clone()),
        });
    })
    .await;
    let connector = connector(&web);
    let stream = tokio::net::TcpStream::connect(world.server.address()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(DEV_SERVER_NAME).unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The peer may end TCP without TLS's own goodbye.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("visit"), "{answer}");
    assert!(answer.contains("strict-transport-security"));
    // Plain HTTP on the same port gets nothing, and harms nobody.
    assert!(reqwest::get(world.url("/")).await.is_err());
}

fn connector(pki: &DevPki) -> tokio_rustls::TlsConnector {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pki.authority.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    std::sync::Arc::new(config).into()
}

/// Whether a link with this identity and authority comes up, and stays down if not.
async fn comes_up(relay: &Relay, identity: &PemPair, authority: &str, name: &str) -> bool {
    let tls = tls::client_config(identity.identity().unwrap(), authority.as_bytes()).unwrap();
    let link =
        Link::start(LinkConfig { address: relay.address.to_string(), server_name: name.to_owned(), tls });
    let mut state = link.watch();
    let up = state.wait_for(|state| *state == LinkState::Up);
    let up = tokio::time::timeout(Duration::from_secs(1), up).await.is_ok();
    assert_eq!(
        link.open_session(SessionOpen { token: token("jane", "visit"), ..Default::default() }).await.is_ok(),
        up
    );
    up
}

#[tokio::test]
async fn only_certified_signaling_may_speak_on_the_link() {
    let ours = pki();
    let relay = Relay::start(&ours, ([127, 0, 0, 1], 0).into());
    assert!(comes_up(&relay, &ours.signaling, &ours.authority, DEV_SERVER_NAME).await);

    let theirs = pki();
    assert!(
        !comes_up(&relay, &theirs.signaling, &ours.authority, DEV_SERVER_NAME).await,
        "another authority"
    );
    assert!(!comes_up(&relay, &ours.sfu, &ours.authority, DEV_SERVER_NAME).await, "another role");
    assert!(!comes_up(&relay, &ours.signaling, &theirs.authority, DEV_SERVER_NAME).await, "an unknown relay");
    assert!(
        !comes_up(&relay, &ours.signaling, &ours.authority, "other.curtain.internal").await,
        "another relay"
    );
}

#[tokio::test]
async fn expired_certificates_are_refused() {
    let old =
        DevPki::generate(SystemTime::now() - Duration::from_secs(7200), Duration::from_secs(3600)).unwrap();
    let relay = Relay::start(&old, ([127, 0, 0, 1], 0).into());
    assert!(!comes_up(&relay, &old.signaling, &old.authority, DEV_SERVER_NAME).await);
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let handle = PrometheusBuilder::new().install_recorder().unwrap();
    let pki = pki();
    let mut relay = Relay::start(&pki, ([127, 0, 0, 1], 0).into());
    let mut config = config(&pki, relay.address);
    config.metrics.bind = Some(([127, 0, 0, 1], 0).into());
    let server = Server::start(config, Some(handle)).await.unwrap();
    server.watch_link().wait_for(|state| *state == LinkState::Up).await.unwrap();
    let (_socket, _) = tokio_tungstenite::connect_async(format!(
        "ws://{}/rtc?access_token={}",
        server.address(),
        token("jane", "visit")
    ))
    .await
    .unwrap();
    relay.session().await;
    assert_eq!(refusal(format!("ws://{}/rtc?access_token=x", server.address())).await.0, 401);

    let url = format!("http://{}/metrics", server.metrics_address().unwrap());
    let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
    for line in [
        "curtain_signaling_sessions 1",
        "curtain_signaling_relay_link_up 1",
        "curtain_signaling_joins_total{outcome=\"accepted\"} 1",
        "curtain_signaling_joins_total{outcome=\"unauthenticated\"} 1",
        "# TYPE process_cpu_seconds_total counter",
        "# TYPE process_resident_memory_bytes gauge",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    // With a listener of their own they are not on the main one.
    let main = reqwest::get(format!("http://{}/metrics", server.address())).await.unwrap();
    assert_eq!(main.status(), 404);
}
