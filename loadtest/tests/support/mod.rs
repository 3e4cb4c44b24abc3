//! What the tests run against: relay and signalling in this process, and a network in between that does known harm.

mod fake;
mod front;
mod host;
mod machine;
mod proxy;
mod trickler;
mod wire;

use loadtest::report::{Objectives, Report};
use loadtest::run::{Progress, Share, Target, run};
use loadtest::scenario::{Role, Scenario, Span};

pub use fake::Fake;
pub use front::TlsFront;
pub use host::{Host, KEY, SECRET};
pub use machine::{Away, Machine, Way, waits_ms};
pub use proxy::{Harm, Holds, Proxy};
pub use trickler::Trickler;
pub use wire::Wire;

pub fn scenario(rooms: u32, role: Role, seconds: u64) -> Scenario {
    Scenario {
        duration: Span::ms(seconds * 1000),
        ramp: Span::ms(500),
        settle: Span::ms(1500),
        seed: 5,
        ..Scenario::simple(rooms, vec![role])
    }
}

pub fn measure(host: &Host, scenario: &Scenario, progress: impl FnMut(&Progress)) -> Report {
    measure_at(&host.target(), scenario, Share::whole(), progress)
}

pub fn measure_at(
    target: &Target,
    scenario: &Scenario,
    share: Share,
    progress: impl FnMut(&Progress),
) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let outcome = runtime.block_on(run(target, scenario, share, 0, stopped, progress)).unwrap();
    Report::new(scenario, outcome, &Objectives::default())
}

pub fn near(what: &str, value: f64, expected: f64, error: f64) {
    assert!((value - expected).abs() <= error, "{what}: {value}, put in {expected}, stated error {error}");
}
