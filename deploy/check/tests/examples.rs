//! The example configurations load, have every setting with a comment, and say the defaults; what `new-site.sh` makes of
//! them loads too.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

use deploy_check::{missing, settings, switched_on, without, without_comment};
use sfu::ControlTls;
use sfu::config::SfuConfig;
use signaling::Config;

const SFU: &str = include_str!("../../examples/sfu.toml");
const SIGNALING: &str = include_str!("../../examples/signaling.toml");

fn sfu(text: &str) -> anyhow::Result<SfuConfig> {
    let config = SfuConfig::from_toml(text)?;
    config.media.candidates()?;
    if let Some(jwks) = &config.auth.jwks {
        jwks.check()?;
    }
    config.turn.clone().map(|turn| turn.into_config()).transpose()?;
    Ok(config)
}

/// With everything on, a key set has two places; the services take one.
fn with_everything(example: &str) -> String {
    switched_on(&example.replace("# file = \"jwks.json\"\n", ""))
}

#[test]
fn examples_load_as_they_are_and_with_everything_on() {
    sfu(SFU).unwrap();
    let all = sfu(&with_everything(SFU)).unwrap();
    assert!(all.turn.is_some() && all.auth.jwks.is_some());
    Config::from_toml(SIGNALING).unwrap();
    let all = Config::from_toml(&with_everything(SIGNALING)).unwrap();
    assert!(all.tls.is_some() && all.jwks.is_some() && all.metrics.bind.is_some());
}

#[test]
fn no_setting_is_missing_or_without_a_comment() {
    let none: [String; 0] = [];
    let parse_sfu = |text: &str| SfuConfig::from_toml(text).map(|_| ());
    let parse_signaling = |text: &str| Config::from_toml(text).map(|_| ());
    assert_eq!(missing(&switched_on(SFU), parse_sfu), none);
    assert_eq!(missing(&switched_on(SIGNALING), parse_signaling), none);
    assert_eq!(without_comment(SFU), none);
    assert_eq!(without_comment(SIGNALING), none);
}

/// So that the test above cannot pass for want of an answer.
#[test]
fn a_setting_that_is_taken_out_of_an_example_is_missed() {
    let parse_sfu = |text: &str| SfuConfig::from_toml(text).map(|_| ());
    let parse_signaling = |text: &str| Config::from_toml(text).map(|_| ());
    // Without these nothing can be parsed at all: an error of another kind.
    let needed = ["turn.urls", "turn.secret", "relay.", "tls.", "audit."];
    let mut asked = 0;
    for path in settings(&switched_on(SFU)) {
        let name = path.join(".");
        if !needed.iter().any(|n| name.starts_with(n)) && !name.starts_with("auth.keys") {
            assert_eq!(missing(&without(&switched_on(SFU), &path), parse_sfu), [name]);
            asked += 1;
        }
    }
    for path in settings(&switched_on(SIGNALING)) {
        let name = path.join(".");
        if !needed.iter().any(|n| name.starts_with(n)) && !name.starts_with("keys") {
            assert_eq!(missing(&without(&switched_on(SIGNALING), &path), parse_signaling), [name]);
            asked += 1;
        }
    }
    assert!(asked > 35, "{asked}");
}

#[test]
fn values_are_the_defaults() {
    // Settings that have no default: without them something is off, or nothing can be parsed.
    let own_sfu =
        ["auth.keys.", "auth.jwks.url", "auth.jwks.issuer", "auth.jwks.audience", "turn.urls", "turn.secret"];
    let own_signaling = [
        "keys.",
        "jwks.url",
        "jwks.issuer",
        "jwks.audience",
        "relay.",
        "tls.",
        "audit.",
        "metrics.bind",
        "page",
    ];
    let sfu_text = with_everything(SFU);
    let signaling_text = with_everything(SIGNALING);
    let sfu_default = format!("{:?}", sfu(&sfu_text).unwrap());
    let signaling_default = format!("{:?}", Config::from_toml(&signaling_text).unwrap());
    for path in settings(&sfu_text) {
        let name = path.join(".");
        if !own_sfu.iter().any(|own| name.starts_with(own)) {
            assert_eq!(format!("{:?}", sfu(&without(&sfu_text, &path)).unwrap()), sfu_default, "{name}");
        }
    }
    for path in settings(&signaling_text) {
        let name = path.join(".");
        if !own_signaling.iter().any(|own| name.starts_with(own)) {
            let config = Config::from_toml(&without(&signaling_text, &path)).unwrap();
            assert_eq!(format!("{config:?}"), signaling_default, "{name}");
        }
    }
}

#[test]
fn a_new_site_loads() {
    new_site_loads("systemd", &[]);
}

#[test]
fn a_new_site_for_containers_loads() {
    new_site_loads("containers", &["--containers"]);
}

fn new_site_loads(kind: &str, more: &[&str]) {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("site-{kind}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../new-site.sh"))
        .args([
            "--host",
            "visit.curtain.test",
            "--address",
            "203.0.113.10",
            "--local",
            "10.0.0.5",
            "--self-signed",
        ])
        .args(more)
        .arg(&folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let mut relay = sfu(&std::fs::read_to_string(folder.join("sfu.toml")).unwrap()).unwrap();
    assert_eq!(relay.media.candidates().unwrap(), ["203.0.113.10".parse::<std::net::IpAddr>().unwrap()]);
    let control = &mut relay.control;
    for path in [&mut control.ca, &mut control.cert, &mut control.key] {
        *path = folder.join(&*path);
    }
    ControlTls::from_files(control).unwrap();

    let edge = Config::from_file(&folder.join("signaling.toml")).unwrap();
    let tls = edge.tls.as_ref().unwrap();
    for pem in [&edge.relay.certificate, &edge.relay.key, &edge.relay.authority, &tls.certificate, &tls.key] {
        pem.read().unwrap();
    }
    let names: Vec<_> = edge.keys.keys().cloned().collect();
    assert_eq!(names, relay.auth.keys.keys().cloned().collect::<Vec<_>>());
    assert_eq!(edge.keys[&names[0]].expose(), relay.auth.keys[&names[0]]);

    let turn = std::fs::read_to_string(folder.join("turnserver.conf")).unwrap();
    let secret = relay.turn.unwrap().secret;
    assert!(turn.lines().any(|line| line == format!("static-auth-secret={}", secret.expose())));
    assert!(turn.lines().any(|line| line == "external-ip=203.0.113.10/10.0.0.5"));
    let all = turn
        + &std::fs::read_to_string(folder.join("sfu.toml")).unwrap()
        + &std::fs::read_to_string(folder.join("signaling.toml")).unwrap();
    let settings = all.lines().filter(|line| !line.starts_with('#'));
    for line in settings {
        assert!(!line.contains("replace-this") && !line.contains("example"), "left as it was: {line}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
