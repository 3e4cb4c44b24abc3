//! `loadtest join`: what one participant says of what it receives.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use loadtest::client::{Visit, VisitReport, join};
use loadtest::measure::Kind;
use support::Host;

/// Frames of a stream.
const ENOUGH: [(Kind, u64); 2] = [(Kind::Audio, 100), (Kind::Video, 30)];

/// Both streams of the two who publish brought that many, or, of the one whom nobody hears, it was refused what it asked for.
fn enough(report: &VisitReport) -> bool {
    let came = |(kind, enough)| {
        let of = report.streams.values().filter(|s| s.kind == kind && s.opened + s.failed + s.clear > enough);
        of.count() >= 2
    };
    ENOUGH.into_iter().all(came) && (report.frames_sent > 100 || report.refusals.len() == 2)
}

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
        local: Ipv4Addr::LOCALHOST.into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Everybody stays until all have seen enough: how long joining takes is the machine's.
    let content = Cell::new(0);
    let watch = async |identity, passphrase| {
        let (mut seconds, mut last, mut had) = (0u64, VisitReport::default(), false);
        let start = Instant::now();
        let keep = |report: &VisitReport| {
            (seconds, last) = (seconds + 1, report.clone());
            if !had && enough(report) {
                had = true;
                content.set(content.get() + 1);
            }
            ensure!(content.get() < 4, "all have seen enough");
            Ok(())
        };
        let ended = join(visit(identity, passphrase), 60, keep).await.unwrap_err();
        assert_eq!(ended.to_string(), "all have seen enough", "{last:?}");
        assert!(seconds >= 1 && start.elapsed() >= Duration::from_secs(seconds), "a report a second");
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
        for (kind, enough) in ENOUGH {
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
        local: Ipv4Addr::LOCALHOST.into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(join(visit, 1, |_| Ok(()))).unwrap_err();
    assert!(error.to_string().contains("refused the token (401)"), "{error}");
}
