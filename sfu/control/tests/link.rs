//! How soon `signaling` learns that its relay is another one than before.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use sfu_control::link::{Link, LinkConfig, LinkState};
use sfu_control::server;
use sfu_control::tls::{self, DEV_SERVER_NAME, DevPki, IDLE_TIMEOUT};

/// A relay that takes connections, in a runtime of its own: it can go away as a killed process does, without a word.
struct Relay {
    address: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

impl Relay {
    fn start(pki: &DevPki, address: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoint = {
            let _entered = runtime.enter();
            server::listen(address, pki.sfu.identity().unwrap(), pki.authority.as_bytes()).unwrap()
        };
        let address = endpoint.local_addr().unwrap();
        runtime.spawn(async move {
            let mut connections = Vec::new();
            while let Some(incoming) = endpoint.accept().await {
                connections.extend(incoming.await.ok());
            }
        });
        Self { address, runtime }
    }

    fn kill(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

#[test]
fn a_relay_that_was_killed_and_is_back_is_reached_before_the_idle_timeout() {
    let pki = DevPki::generate(SystemTime::now(), Duration::from_secs(3600)).unwrap();
    let relay = Relay::start(&pki, ([127, 0, 0, 1], 0).into());
    let address = relay.address;
    let clients = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    clients.block_on(async {
        let link = Link::start(LinkConfig {
            address: address.to_string(),
            server_name: DEV_SERVER_NAME.to_owned(),
            tls: tls::client_config(pki.signaling.identity().unwrap(), pki.authority.as_bytes()).unwrap(),
        });
        let mut state = link.watch();
        state.wait_for(|state| *state == LinkState::Up).await.unwrap();

        tokio::task::block_in_place(|| relay.kill());
        assert_eq!(link.state(), LinkState::Up, "a killed process says nothing");
        let back = Instant::now();
        let relay = Relay::start(&pki, address);

        state.wait_for(|state| *state == LinkState::Down).await.unwrap();
        state.wait_for(|state| *state == LinkState::Up).await.unwrap();
        let took = back.elapsed();
        // A keep-alive is due every 2 s; the answer to it is the reset.
        assert!(took < IDLE_TIMEOUT / 2, "took {took:?}");
        tokio::task::block_in_place(|| relay.kill());
    });
}
