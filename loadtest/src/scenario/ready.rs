//! Scenarios that come with the tool.

use super::{Layout, Resolution, Role, Rooms, Scenario, Span};
use crate::client::LinkSpec;
use crate::report::Objectives;

/// Names of the ready scenarios, and what they are.
pub const READY: &[(&str, &str)] = &[
    ("one-to-one", "ten visits of a clinician and a patient"),
    ("family", "five visits with an interpreter and family: four people, one of them without a camera"),
    ("case-conference", "two multidisciplinary case conferences of twelve, who speaks is large"),
    ("group-therapy", "one group of 25 that all see each other"),
    ("webinar", "one speaker to 1000 who watch (--participants sets how many)"),
    ("join-storm", "fifty visits that all begin within two seconds, measured from the first join on"),
    ("churn", "ten rooms of four in which people leave and come back every ten seconds or so"),
    (
        "flaky-links",
        "ten visits whose patient has 3 % loss, 60 ms of delay, 20 ms of jitter and short outages",
    ),
];

/// A ready scenario by its name.
pub fn ready(name: &str) -> Option<Scenario> {
    let camera = |count| Role::speaking(count, Some(Resolution::P720), true);
    let rooms = |count, roles| Scenario {
        name: name.to_owned(),
        rooms: vec![Rooms { count, roles }],
        ..Scenario::simple(1, Vec::new())
    };
    let scenario = match name {
        "one-to-one" => rooms(10, vec![camera(2)]),
        "family" => rooms(5, vec![camera(3), Role { muted: 0.0, ..Role::speaking(1, None, true) }]),
        "case-conference" => rooms(2, vec![Role { layout: Layout::Speaker, tiles: 12, ..camera(12) }]),
        "group-therapy" => rooms(1, vec![Role { muted: 0.5, ..camera(25) }]),
        "webinar" => Scenario {
            ramp: Span::ms(20_000),
            ..rooms(1, vec![Role { muted: 0.0, ..camera(1) }, Role::speaking(1000, None, false)])
        },
        "join-storm" => Scenario {
            ramp: Span::ms(2_000),
            settle: Span::ms(0),
            measure_joining: true,
            duration: Span::ms(30_000),
            ..rooms(50, vec![camera(2)])
        },
        "churn" => rooms(
            10,
            vec![camera(2), Role { stay: Some(Span::ms(10_000)), away: Span::ms(2_000), ..camera(2) }],
        ),
        "flaky-links" => {
            let link = LinkSpec {
                loss: 0.03,
                delay: Span::ms(60),
                jitter: Span::ms(20),
                outage_every: Span::ms(20_000),
                outage: Span::ms(400),
            };
            // What such links do by themselves is above the usual limits: nothing asks for sound again, and a picture that
            // waits for a packet waits for a round trip.
            let objectives = Objectives {
                max_loss: Some(2.0),
                max_delay_p99: Some(700.0),
                max_freeze: Some(35.0),
                max_join_p95: Some(3500.0),
            };
            Scenario { objectives, ..rooms(10, vec![camera(1), Role { link: Some(link), ..camera(1) }]) }
        }
        _ => return None,
    };
    Some(scenario)
}
