//! `sfu` and `signaling` in this process, over the same control link as in production.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use loadtest::run::{RelaySource, Target};
use loadtest::token::{ApiKey, Entry};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sfu::config::{MediaConfig, SfuConfig};
use sfu::{ControlTls, Relay};
use sfu_control::link::LinkState;
use sfu_control::tls::{DEV_SERVER_NAME, DevPki};
use sfu_control::token::Secret;
use signaling::Server;
use signaling::config::{Config, Limits, MetricsConfig, Pem, RelayConfig};

pub const KEY: &str = "testkey";
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The relay names this address, on which a proxy listens, where one is asked for.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub struct Host {
    pub url: String,
    pub metrics: String,
    /// Where the relay takes media, and where it says that it does.
    pub media: SocketAddr,
    pub named: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap()).clone()
}

impl Host {
    /// Starts both; with `proxied`, clients are sent to an address where the relay is not.
    pub fn start(proxied: bool) -> Self {
        Self::start_with(proxied, |_| {})
    }

    /// The same with other settings of the relay's media.
    pub fn start_with(proxied: bool, set: impl FnOnce(&mut MediaConfig) + Send + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), proxied, set)
    }

    /// The same with signalling at another address.
    pub fn start_at(
        address: IpAddr,
        proxied: bool,
        set: impl FnOnce(&mut MediaConfig) + Send + 'static,
    ) -> Self {
        let (ready, started) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let pki = DevPki::generate(SystemTime::now(), Duration::from_secs(3600)).unwrap();
                let mut config = SfuConfig::default();
                let local = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
                config.media.bind = Ipv4Addr::LOCALHOST.into();
                config.media.udp_port = 0;
                config.media.tcp = false;
                config.media.shards = 1;
                if proxied {
                    config.media.advertise = vec![IpAddr::V4(PROXY)];
                }
                set(&mut config.media);
                let bound = config.media.bind;
                config.control.listen = local(0);
                config.http.listen = local(0);
                config.auth.keys = HashMap::from([(KEY.to_owned(), SECRET.to_owned())]);
                let tls = ControlTls {
                    identity: pki.sfu.identity().unwrap(),
                    authority: pki.authority.clone().into_bytes(),
                };
                let relay = Relay::start(config, tls, recorder()).await.unwrap();
                let control = local(relay.control_addr().unwrap().port());
                let metrics = format!("http://{}/metrics", relay.http_addr().unwrap());
                let port = relay.media_ports()[0];
                let (stop_relay, relay_stopped) = tokio::sync::oneshot::channel::<()>();
                let relay = tokio::spawn(relay.run(async {
                    let _ = relay_stopped.await;
                }));
                let service = Server::start(
                    Config {
                        bind: SocketAddr::new(address, 0),
                        tls: None,
                        keys: [(KEY.to_owned(), Secret::new(SECRET.to_owned()))].into(),
                        jwks: None,
                        relay: RelayConfig {
                            address: control.to_string(),
                            server_name: DEV_SERVER_NAME.to_owned(),
                            certificate: Pem::Text(pki.signaling.certificate.clone()),
                            key: Pem::Text(pki.signaling.key.clone()),
                            authority: Pem::Text(pki.authority.clone()),
                        },
                        page: None,
                        metrics: MetricsConfig::default(),
                        audit: None,
                        limits: Limits::default(),
                    },
                    None,
                )
                .await
                .unwrap();
                let mut link = service.watch_link();
                link.wait_for(|state| *state == LinkState::Up).await.unwrap();
                let named = if proxied { PROXY.into() } else { bound };
                let url = format!("ws://{}", service.address());
                let media = SocketAddr::new(bound, port);
                ready.send((url, metrics, media, SocketAddr::new(named, port))).unwrap();
                let _ = stopped.await;
                service.stop().await;
                let _ = stop_relay.send(());
                relay.await.unwrap().unwrap();
            });
        });
        let (url, metrics, media, named) = started.recv_timeout(Duration::from_secs(20)).unwrap();
        Self { url, metrics, media, named, stop: Some(stop), thread: Some(thread) }
    }

    /// A token for a room.
    pub fn token(&self, room: &str, identity: &str) -> String {
        let key = ApiKey { name: KEY.into(), secret: SECRET.into() };
        key.token(room, identity, Duration::from_secs(60))
    }

    pub fn target(&self) -> Target {
        Target {
            url: self.url.clone(),
            trust: None,
            entry: Entry::Key(ApiKey { name: KEY.into(), secret: SECRET.into() }),
            local: Ipv4Addr::LOCALHOST.into(),
            threads: 1,
            relay: RelaySource { metrics: Some(self.metrics.clone()), pid: None, at_ends: false },
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
