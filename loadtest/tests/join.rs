//! `loadtest join`: what one participant says of what it receives.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use std::net::Ipv4Addr;

use loadtest::client::{Visit, VisitReport, join};
use loadtest::measure::Kind;
use support::Host;

#[test]
fn a_visit_opens_frames_of_its_own_key_and_is_told_what_is_refused() {
    let host = Host::start(false);
    let visit = |identity: &str, passphrase: Option<&str>| Visit {
        url: host.url.clone(),
        trust: None,
        token: host.token("visit", identity),
        passphrase: passphrase.map(str::to_owned),
        video: true,
        audio: true,
        local: Ipv4Addr::LOCALHOST,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let watch = async |identity, passphrase| {
        let (mut seconds, mut last) = (0, VisitReport::default());
        let keep = |report: &VisitReport| {
            (seconds, last) = (seconds + 1, report.clone());
            Ok(())
        };
        join(visit(identity, passphrase), 5, keep).await.unwrap();
        assert_eq!(seconds, 5, "a report a second");
        last
    };
    let (first, second, stranger, plain) = runtime.block_on(async {
        tokio::join!(
            watch("first", Some("one key")),
            watch("second", Some("one key")),
            watch("stranger", Some("another key")),
            watch("plain", None)
        )
    });
    for report in [&first, &second] {
        assert!(
            report.publisher_connected && report.subscriber_connected && report.frames_sent > 100,
            "{report:?}"
        );
        // The other's two tracks open; the stranger's two do not; the one in clear publishes nothing.
        let of = |kind| report.streams.values().filter(move |s| s.kind == kind);
        for (kind, enough) in [(Kind::Audio, 100), (Kind::Video, 30)] {
            let opened: Vec<_> =
                of(kind).filter(|s| s.opened > enough && s.failed == 0 && s.clear == 0).collect();
            let failed: Vec<_> =
                of(kind).filter(|s| s.opened == 0 && s.failed > enough && s.clear == 0).collect();
            assert_eq!((opened.len(), failed.len(), of(kind).count()), (1, 1, 2), "{report:?}");
        }
    }
    assert_eq!(stranger.streams.len(), 4, "{stranger:?}");
    assert!(stranger.streams.values().all(|s| s.opened == 0 && s.failed > 30), "{stranger:?}");
    assert_eq!((plain.frames_sent, plain.refusals.len()), (0, 2), "{plain:?}");
    assert!(plain.refusals.iter().all(|text| text.contains("encryption")), "{:?}", plain.refusals);
    assert!(plain.streams.values().all(|s| s.opened == 0 && s.clear == s.frames), "{plain:?}");
}

#[test]
fn a_token_that_is_refused_is_an_error_that_says_so() {
    let host = Host::start(false);
    let visit = Visit {
        url: host.url.clone(),
        trust: None,
        token: "no-token".to_owned(),
        passphrase: None,
        video: false,
        audio: false,
        local: Ipv4Addr::LOCALHOST,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(join(visit, 1, |_| Ok(()))).unwrap_err();
    assert!(error.to_string().contains("refused the token (401)"), "{error}");
}
