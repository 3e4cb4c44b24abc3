//! Every metric, label and label value in the alert rules, in their unit tests and in the dashboard is exported by the
//! services; every metric that the services have is described; every alert has a test and its place in the runbook.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use deploy_check::{Selector, selectors};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusBuilder;
use sfu::config::SfuConfig;
use sfu::{ControlTls, Relay};
use sfu_control::messages::ErrorCode;
use sfu_control::process::ProcessMetrics;
use sfu_control::tls::{DEV_SERVER_NAME, DevPki};
use sfu_media::drop_reason::DropReason;
use signaling::Config;
use signaling::config::Pem;

const RULES: &str = include_str!("../../prometheus/curtain.rules.yml");
const RULES_TEST: &str = include_str!("../../prometheus/curtain.rules.test.yml");
const DASHBOARD: &str = include_str!("../../grafana/curtain.json");
const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

/// What the services told the recorder.
#[derive(Debug, Default, Clone)]
struct Exported {
    /// Name and kind.
    described: BTreeMap<String, &'static str>,
    /// Label names and values by metric.
    registered: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Exported>>);

impl Collector {
    fn describe(&self, key: &KeyName, kind: &'static str) {
        self.0.lock().unwrap().described.insert(key.as_str().to_owned(), kind);
    }

    fn register(&self, key: &Key) {
        let mut exported = self.0.lock().unwrap();
        let labels = exported.registered.entry(key.name().to_owned()).or_default();
        for label in key.labels() {
            labels.entry(label.key().to_owned()).or_default().insert(label.value().to_owned());
        }
    }
}

impl Recorder for Collector {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&key, "counter");
    }
    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&key, "gauge");
    }
    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&key, "histogram");
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.register(key);
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.register(key);
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.register(key);
        Histogram::noop()
    }
}

/// Runs both services, idle, until the relay's shards have reported.
fn exported() -> Exported {
    let collector = Collector::default();
    metrics::set_global_recorder(collector.clone()).unwrap_or_else(|_| panic!("one recorder a process"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pki = DevPki::generate(SystemTime::now(), Duration::from_secs(3600)).unwrap();
        let handle = PrometheusBuilder::new().build_recorder().handle();
        let mut relay = SfuConfig::default();
        relay.media.udp_port = 0;
        relay.media.shards = 1;
        relay.control.listen = "127.0.0.1:0".parse().unwrap();
        relay.http.listen = "127.0.0.1:0".parse().unwrap();
        relay.auth.keys.insert("key".to_owned(), "k".repeat(32));
        let tls = ControlTls {
            identity: pki.sfu.identity().unwrap(),
            authority: pki.authority.clone().into_bytes(),
        };
        let relay = Relay::start(relay, tls, handle).await.unwrap();
        let control = relay.control_addr().unwrap();
        tokio::spawn(relay.run(std::future::pending()));

        let text = format!(
            "bind = \"127.0.0.1:0\"\n[keys]\nkey = \"{}\"\n[relay]\naddress = \"{control}\"\nserver_name = \
             \"{DEV_SERVER_NAME}\"\ncertificate = \"\"\nkey = \"\"\nauthority = \"\"\n",
            "k".repeat(32)
        );
        let mut edge = Config::from_toml(&text).unwrap();
        edge.relay.certificate = Pem::Text(pki.signaling.certificate.clone());
        edge.relay.key = Pem::Text(pki.signaling.key.clone());
        edge.relay.authority = Pem::Text(pki.authority.clone());
        let edge = signaling::Server::start(edge, None).await.unwrap();
        let shards_reported =
            || collector.0.lock().unwrap().registered.contains_key("curtain_shard_cpu_seconds");
        for _ in 0..100 {
            if shards_reported() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(shards_reported(), "the shard reported nothing in ten seconds");
        edge.stop().await;
    });
    runtime.shutdown_background();
    let mut exported = collector.0.lock().unwrap().clone();
    // These come from the system, not through the recorder; both services write them in the same way.
    let process = ProcessMetrics::new().render();
    let types = process.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    exported.described.extend(
        types.map(|(name, kind)| (name.to_owned(), if kind == "counter" { "counter" } else { "gauge" })),
    );
    exported
}

/// Why a selector can match nothing that the services export.
fn fault(selector: &Selector, exported: &Exported) -> Option<String> {
    let Selector { name, labels } = selector;
    // A histogram without buckets is exported as a summary: quantiles under its own name, and two counters.
    let bare = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count"));
    let histogram = |name: &str| exported.described.get(name) == Some(&"histogram");
    let summary_part = bare.is_some_and(histogram);
    if !exported.described.contains_key(name) && !summary_part {
        return Some(format!("{name} is not exported"));
    }
    let known = exported.registered.get(name);
    for (label, values) in labels {
        // Given by Prometheus, or chosen in the dashboard.
        if matches!(label.as_str(), "instance" | "job") {
            continue;
        }
        if label == "quantile" && histogram(name) {
            let wrong = values
                .iter()
                .find(|v| !["0", "0.5", "0.9", "0.95", "0.99", "0.999", "1"].contains(&v.as_str()));
            if let Some(wrong) = wrong {
                return Some(format!("{name} has no quantile {wrong}"));
            }
            continue;
        }
        let Some(known) = known.filter(|known| !known.is_empty()) else {
            return Some(format!("{name} is not known to have a label {label}"));
        };
        let Some(known) = known.get(label) else { return Some(format!("{name} has no label {label}")) };
        // Numbers of shards are the machine's.
        if let Some(wrong) = values.iter().find(|v| label != "shard" && !known.contains(*v)) {
            return Some(format!("{name} has no {label} {wrong:?}"));
        }
    }
    None
}

fn dashboard_expressions() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    let mut expressions = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{} shows nothing", panel["title"]);
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            assert!(!selectors(expression).is_empty(), "{expression} names no metric");
            expressions.push(expression.to_owned());
        }
    }
    expressions
}

fn alerts(text: &str, key: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.trim().strip_prefix(key)).map(|name| name.trim().to_owned()).collect()
}

#[test]
fn rules_and_dashboard_name_what_is_exported() {
    let mut exported = exported();
    // Answers of the relay to a join, which signaling counts as outcomes (sfu_control::messages::ErrorCode::twirp).
    let outcomes =
        exported.registered.get_mut("curtain_signaling_joins_total").unwrap().get_mut("outcome").unwrap();
    for code in (0..64).filter_map(|code| ErrorCode::try_from(code).ok()) {
        outcomes.insert(code.twirp().to_owned());
    }

    let undescribed: Vec<_> =
        exported.registered.keys().filter(|name| !exported.described.contains_key(*name)).collect();
    assert!(undescribed.is_empty(), "not described: {undescribed:?}");
    let reasons = &exported.registered["curtain_drops_total"]["reason"];
    assert_eq!(reasons.len(), DropReason::ALL.len());

    let rules = selectors(RULES);
    assert!(rules.len() > 20, "{}", rules.len());
    let tests = selectors(RULES_TEST);
    let dashboard: Vec<_> = dashboard_expressions().iter().flat_map(|e| selectors(e)).collect();
    assert!(dashboard.len() > 40, "{}", dashboard.len());
    let faults: BTreeSet<_> = [("rules", &rules), ("rule tests", &tests), ("dashboard", &dashboard)]
        .iter()
        .flat_map(|(place, all)| {
            all.iter().filter_map(|s| fault(s, &exported)).map(move |f| format!("{place}: {f}"))
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");

    // The other way round: a metric that nobody can see is of no use to an operator.
    let shown: BTreeSet<_> = dashboard.iter().map(|s| s.name.as_str()).collect();
    let hidden: Vec<_> = exported.described.keys().filter(|name| !shown.contains(name.as_str())).collect();
    assert!(hidden.iter().all(|name| *name == "curtain_padding_bytes_total"), "on no panel: {hidden:?}");

    // So that the search cannot pass for want of sight.
    for wrong in
        ["curtain_roms", "curtain_drops_total{reason=\"not_encripted\"}", "curtain_rooms{shard=\"0\"}"]
    {
        assert!(fault(&selectors(wrong)[0], &exported).is_some(), "{wrong}");
    }
}

#[test]
fn every_alert_is_tested_and_explained() {
    let names = alerts(RULES, "- alert:");
    assert!(names.len() > 15, "{names:?}");
    let links = alerts(RULES, "runbook:");
    let tested: BTreeSet<_> = alerts(RULES_TEST, "alertname:").into_iter().collect();
    for (name, link) in names.iter().zip(&links) {
        assert_eq!(*link, format!("docs/runbook.md#{}", name.to_lowercase()));
        assert!(tested.contains(name), "{name} has no unit test");
        let cases =
            RULES_TEST.split("alertname:").filter(|case| case.trim_start().starts_with(name.as_str()));
        let quiet =
            cases.clone().filter(|case| case.lines().nth(1).is_some_and(|l| l.contains("exp_alerts: []")));
        assert!(quiet.clone().count() > 0, "{name} is not tested to stay quiet");
        assert!(cases.count() > quiet.count(), "{name} is not tested to fire");
        assert!(RUNBOOK.lines().any(|line| line == format!("### {name}")), "{name} is not in the runbook");
    }
    assert_eq!(names.len(), links.len());
    assert_eq!(names.len(), tested.len(), "a test of an alert that does not exist");
    let explained = RUNBOOK.lines().filter(|line| line.starts_with("### Curtain")).count();
    assert_eq!(explained, names.len(), "the runbook explains an alert that does not exist");
}
