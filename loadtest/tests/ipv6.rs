//! Servers on IPv6: signalling, media, agents.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use loadtest::agent::{AgentSecret, run_together, serve};
use loadtest::report::{Objectives, Report};
use loadtest::run::{Local, Share, Target, local_towards};
use loadtest::scenario::{Resolution, Role, Scenario, Span};
use support::{Host, measure, measure_at, scenario};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Three who see and hear each other, and what they have to get.
fn three() -> Scenario {
    scenario(1, Role::speaking(3, Some(Resolution::P180), true), 2)
}

fn holds(report: &Report) {
    assert_eq!((report.joins.joined, report.joins.failed), (3, 0), "{:?}", report.joins.reasons);
    assert_eq!((report.video.streams, report.all.missing, report.all.failed), (6, 0, 0));
    assert!(
        report.video.frames > 0 && report.audio.frames > 0,
        "{} and {}",
        report.video.frames,
        report.audio.frames
    );
}

#[test]
fn a_server_that_is_on_ipv6_only_is_driven_with_agents_there() {
    let host = Host::start_at(V6, false, |media| media.bind = V6);
    assert!(host.url.starts_with("ws://[::1]:"), "{}", host.url);
    let target = Target { local: local_towards(&host.url).unwrap(), ..host.target() };
    assert_eq!((target.local.first(), target.local.other()), (V6, None));
    let secret = || AgentSecret::new("the agents' secret").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stop_agent, agent_stopped) = tokio::sync::watch::channel(false);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let scenario = three();
    let outcome = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((V6, 0)).await.unwrap();
        let agents = [listener.local_addr().unwrap().to_string()];
        assert!(agents[0].starts_with("[::1]:"), "{agents:?}");
        let agent = tokio::spawn(async move { serve(listener, &secret(), agent_stopped, |_| {}).await });
        let outcome = run_together(&target, &scenario, &agents, &secret(), stopped, |_| {}).await.unwrap();
        stop_agent.send(true).unwrap();
        agent.await.unwrap().unwrap();
        outcome
    });
    let report = Report::new(&scenario, outcome, &Objectives::default());
    assert_eq!(report.tester.threads, 2);
    holds(&report);
}

#[test]
fn a_relay_on_ipv6_behind_signalling_on_ipv4_is_reached_from_the_other_address() {
    let host = Host::start_with(false, |media| media.bind = V6);
    assert!(host.url.starts_with("ws://127.0.0.1:"), "{}", host.url);
    let target = Target { local: Local::asked(&[V4, V6]).unwrap(), ..host.target() };
    holds(&measure_at(&target, &three(), Share::whole(), |_| {}));
}
