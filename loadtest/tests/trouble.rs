//! What keeps participants out is named, with what to do about it.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use std::net::Ipv6Addr;
use std::time::Duration;

use loadtest::agent::{AgentSecret, run_together, serve};
use loadtest::client::Trust;
use loadtest::run::{Outcome, Share, Target, run};
use loadtest::scenario::{Role, Scenario, Span};
use loadtest::token::{ApiKey, Entry};
use support::{Fake, Harm, Host, KEY, Proxy, TlsFront};

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
        error.contains(
            "nobody could join: the server refused the token (401): are the API key and secret the server's"
        ),
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
    target.url = format!("{}/rtc/v1", host.url);
    let error = refused(&target);
    assert!(error.contains("refused (404)") && error.contains("does --url end before /rtc?"), "{error}");
    target.relay.metrics = Some("http://127.0.0.1:9/metrics".to_owned());
    let error = refused(&target);
    assert!(error.contains("cannot be read: name the relay's own page of metrics"), "{error}");
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
        error.contains("no media path by the end of the visit: nothing came back from 127.0.0.2")
            && error.contains("is the relay's UDP port open from here")
            && error.contains("advertise"),
        "{error}"
    );
    // ICE gets through, DTLS does not.
    let _proxy = Proxy::start(host.named, host.media, Harm { drop_dtls: true, ..Harm::default() });
    let error = refused(&host.target());
    assert!(error.contains("ICE found a path, but DTLS came to no end"), "{error}");
}

#[test]
fn a_relay_of_another_address_family_is_named() {
    let host = Host::start_with(false, |media| media.bind = Ipv6Addr::LOCALHOST.into());
    let error = refused(&host.target());
    assert!(
        error.contains("the server takes media at ::1 only") && error.contains("name one with --local"),
        "{error}"
    );
}

#[test]
fn what_answers_and_is_no_signalling_service_is_named() {
    let host = Host::start(false);
    let at = |fake: &Fake| refused(&Target { url: fake.url(), ..host.target() });
    let old = "Date: Wed, 01 Jan 2020 00:00:00 GMT\r\n";
    for (fake, cause, remedy) in [
        (
            Fake::page("200 OK", ""),
            "answers as a web server (200)",
            "does a proxy in between pass `Upgrade` on?",
        ),
        (Fake::page("404 Not Found", ""), "refused (404) the address", "LiveKit's protocol"),
        (Fake::page("503 Service Unavailable", ""), "refused (503) the connection", "is its media relay up"),
        (
            Fake::page("301 Moved", "Location: https://a.example/\r\n"),
            "sends clients elsewhere (301)",
            "wss://",
        ),
        (Fake::page("403 Forbidden", ""), "refused (403) what the token asks for", "may the API key grant"),
        (Fake::page("401 Unauthorized", old), "refused the token (401), and its clock is", "set both clocks"),
        (
            Fake::start("SSH-2.0-OpenSSH_9.2\r\n"),
            "cannot reach the server",
            "does something else than signalling",
        ),
        (Fake::start(" "), "cannot reach the server", "does something else than signalling"),
    ] {
        let error = at(&fake);
        assert!(error.contains(cause) && error.contains(remedy), "{cause}: {error}");
    }
    let error = at(&Fake::start(""));
    assert!(error.contains("no answer from the server within 15 s") && error.contains("firewall"), "{error}");
}

/// A coordinator's error with an agent at `address`.
fn with_agent(target: &Target, address: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let (agents, secret) = ([address.to_owned()], AgentSecret::new("the agents' secret").unwrap());
    let scenario = Scenario { duration: Span::ms(30_000), ..scenario(4) };
    let run = run_together(target, &scenario, &agents, &secret, stopped, |_| {});
    format!("{:#}", runtime.block_on(run).unwrap_err())
}

#[test]
fn agents_that_are_away_busy_or_something_else_are_named() {
    let host = Host::start(false);
    let target = host.target();
    let error = with_agent(&target, "127.0.0.1:9");
    assert!(error.contains("does `loadtest agent --listen 127.0.0.1:9` run there?"), "{error}");
    for address in ["127.0.0.1", "::1:7990", "host:port"] {
        let error = with_agent(&target, address);
        assert!(error.contains("is no HOST:PORT; an IPv6 address goes in brackets"), "{error}");
    }
    let error = with_agent(&target, &Fake::page("400 Bad Request", "").address.to_string());
    assert!(error.contains("it speaks no TLS: is it `loadtest agent` of the same version?"), "{error}");
    let error = with_agent(&target, &Fake::start("").address.to_string());
    assert!(error.contains("it says nothing: is it busy with another run"), "{error}");
}

#[test]
fn an_agent_that_goes_during_the_run_is_named() {
    let host = Host::start(false);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let agent = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let secret = AgentSecret::new("the agents' secret").unwrap();
            // Longer than it takes to begin, shorter than the run.
            let serving = serve(listener, &secret, stopped, |_| {});
            assert!(tokio::time::timeout(Duration::from_secs(4), serving).await.is_err());
        });
    });
    let error = with_agent(&host.target(), &address);
    assert!(
        error.contains(&format!("agent {address}: it closed the connection during the run: was it stopped?")),
        "{error}"
    );
    agent.join().unwrap();
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
