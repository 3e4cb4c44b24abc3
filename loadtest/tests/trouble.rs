//! What keeps participants out is named, with what to do about it.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use loadtest::client::Trust;
use loadtest::run::{Outcome, Share, Target, run};
use loadtest::scenario::{Role, Scenario, Span};
use loadtest::token::{ApiKey, Entry};
use support::{Host, KEY, TlsFront};

fn scenario(participants: u32) -> Scenario {
    Scenario {
        duration: Span::ms(1000),
        ramp: Span::ms(0),
        settle: Span::ms(500),
        ..Scenario::simple(1, vec![Role { muted: 0.0, ..Role::speaking(participants, None, true) }])
    }
}

fn try_run(target: &Target, participants: u32) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let scenario = scenario(participants);
    runtime.block_on(run(target, &scenario, Share::whole(), 0, stopped, |_| {}))
}

fn refused(target: &Target) -> String {
    format!("{:#}", try_run(target, 1).unwrap_err())
}

#[test]
fn a_server_away_or_with_another_key_is_named() {
    let host = Host::start(false);
    let mut target = host.target();
    target.entry = Entry::Key(ApiKey { name: KEY.to_owned(), secret: "another secret".to_owned() });
    let error = refused(&target);
    assert!(
        error.contains("nobody could join: the server refused the token (401): are the API key"),
        "{error}"
    );
    // Nobody listens on the discard port.
    target.url = "ws://127.0.0.1:9".to_owned();
    let error = refused(&target);
    assert!(error.contains("cannot reach the server: nobody listens there"), "{error}");
    // Something else listens there.
    target.url = host.metrics.replace("http://", "ws://").replace("/metrics", "");
    let error = refused(&target);
    assert!(error.contains("refused (404) the address: is it a server of LiveKit's protocol"), "{error}");
    target.relay.metrics = Some("http://127.0.0.1:9/metrics".to_owned());
    let error = refused(&target);
    assert!(error.contains("metrics") && error.contains("cannot be read"), "{error}");
    target.relay.metrics = Some(host.metrics.replace("/metrics", "/healthz"));
    let error = refused(&target);
    assert!(error.contains("none of the metrics that this tool knows"), "{error}");
}

#[test]
fn a_relay_whose_media_port_cannot_be_reached_is_named() {
    // The relay names an address at which nobody is: as with a firewall, or a wrong `advertise`.
    let host = Host::start(true);
    let error = refused(&host.target());
    assert!(
        error.contains("no media path by the end of the visit: is the relay's UDP port open from here"),
        "{error}"
    );
}

#[test]
fn tls_is_spoken_and_what_is_wrong_with_it_named() {
    let host = Host::start(false);
    let upstream = host.url.strip_prefix("ws://").unwrap().parse().unwrap();
    let (front, old) = (TlsFront::start(upstream, false), TlsFront::start(upstream, true));
    let system = || Trust::new(None).unwrap();
    let trusting = |authority: &str| Trust::new(Some(authority.to_owned())).unwrap();
    let target = |url: String, trust| Target { url, trust: Some(trust), ..host.target() };
    let local = |port: u16| format!("wss://localhost:{port}");

    let outcome = try_run(&target(local(front.port), trusting(&front.authority)), 2).unwrap();
    assert_eq!(outcome.tally.joins.len(), 2);
    assert!(outcome.tally.streams.iter().any(|stream| stream.shown > 10), "{:?}", outcome.tally.streams);

    let error = refused(&target(local(front.port), system()));
    assert!(
        error.contains("no TLS with the server: nobody whom this machine trusts signed")
            && error.contains("--ca"),
        "{error}"
    );
    let error = refused(&target(local(front.port), trusting(&old.authority)));
    assert!(error.contains("--ca"), "{error}");
    let error = refused(&target(format!("wss://127.0.0.1:{}", front.port), trusting(&front.authority)));
    assert!(error.contains("its certificate is for another name"), "{error}");
    let error = refused(&target(local(old.port), trusting(&old.authority)));
    assert!(error.contains("its certificate has expired"), "{error}");
    let error = refused(&target(host.url.replace("ws://", "wss://"), trusting(&front.authority)));
    assert!(error.contains("it does not speak TLS there. Try ws://"), "{error}");
    let error = refused(&Target { url: format!("ws://127.0.0.1:{}", front.port), ..host.target() });
    assert!(error.contains("wss://"), "{error}");
    assert!(Trust::new(Some("no PEM".to_owned())).is_err());
}
