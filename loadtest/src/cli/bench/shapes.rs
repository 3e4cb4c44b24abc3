//! The shapes that are measured.

use loadtest::scenario::{Resolution, Role, Rooms, Scenario, Span, Steady};

/// What is measured, with what it shows.
pub(super) fn shapes() -> Vec<(&'static str, Scenario)> {
    // 260 packets of a picture and 50 of sound: 1140 bytes of payload are 1180 with header, extensions and tag.
    let steady = Some(Steady { packets: 260, payload: 1140 });
    let publisher =
        |count| Role { steady, muted: 0.0, ..Role::speaking(count, Some(Resolution::P720), true) };
    let camera = |count, bitrate| Role {
        simulcast: false,
        bitrate: Some(bitrate),
        muted: 0.0,
        ..Role::speaking(count, Some(Resolution::P720), true)
    };
    let watchers = |count| Role::speaking(count, None, false);
    let scenario = |count, roles| Scenario {
        ramp: Span::ms(4_000),
        settle: Span::ms(8_000),
        rooms: vec![Rooms { count, roles }],
        ..Scenario::simple(1, Vec::new())
    };
    let storm = |joining: u32| Scenario {
        // The storm breaks when the call has run for a while: its bots are the last of the ramp.
        ramp: Span::ms(0),
        settle: Span::ms(0),
        measure_joining: true,
        rooms: vec![
            Rooms { count: 1, roles: vec![publisher(1), watchers(10)] },
            Rooms { count: joining / 50, roles: vec![Role { join_after: Span::ms(10_000), ..watchers(50) }] },
        ],
        ..Scenario::simple(1, Vec::new())
    };
    vec![
        ("1:10", scenario(1, vec![publisher(1), watchers(10)])),
        ("1:25", scenario(1, vec![publisher(1), watchers(25)])),
        ("1:50", scenario(1, vec![publisher(1), watchers(50)])),
        ("4x4", scenario(4, vec![publisher(4)])),
        ("a: 2.5 Mbit/s + Opus to 50", scenario(1, vec![camera(1, 2_500_000), watchers(50)])),
        ("b: 25 rooms of 4", Scenario { ramp: Span::ms(10_000), ..scenario(25, vec![camera(4, 450_000)]) }),
        (
            "room of 1000",
            Scenario {
                ramp: Span::ms(25_000),
                ..scenario(1, vec![Role { steady: None, video: None, ..publisher(1) }, watchers(999)])
            },
        ),
        ("storm of 1000 beside 1:10", storm(1000)),
    ]
}
