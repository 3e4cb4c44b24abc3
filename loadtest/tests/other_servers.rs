//! What other servers of LiveKit's protocol do differently from ours.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use loadtest::run::{RelaySource, Share, Target};
use loadtest::scenario::{Resolution, Role};
use support::{Host, Machine, Trickler, measure_at, near, scenario};

#[test]
fn a_server_that_sends_its_candidates_one_by_one_and_has_no_metrics_is_driven() {
    let host = Host::start(false);
    let front = Trickler::start(host.url.strip_prefix("ws://").unwrap().parse().unwrap());
    let url = format!("ws://{}", front.address);
    let target = Target { url, relay: RelaySource::default(), ..host.target() };
    let role = Role::speaking(3, Some(Resolution::P360), true);
    let machine = Machine::watch();
    let report = measure_at(&target, &scenario(1, role, 3), Share::whole(), |_| {});
    assert_eq!((report.joins.joined, report.joins.failed), (3, 0), "{:?}", report.joins.reasons);
    assert!(front.sent() >= 18, "{} candidates for two connections each", front.sent());
    assert_eq!((report.video.streams, report.all.missing, report.relay), (6, 0, None));
    // Testers without a core make no frames, and what is allotted grows for a while.
    let error = 0.4 + machine.away().within(report.window_s).share();
    near("frames against those planned", report.video.frames as f64 / (6.0 * 20.0 * 3.0), 1.0, error);
}
