//! The summary on the terminal.

use std::fmt::Write as _;

use super::Report;
use crate::measure::{KindTotals, Quantiles};

/// Bits a second as people say it.
pub fn human_rate(bits: f64) -> String {
    match bits {
        b if b >= 1e9 => format!("{:.2} Gbit/s", b / 1e9),
        b if b >= 1e6 => format!("{:.2} Mbit/s", b / 1e6),
        b => format!("{:.1} kbit/s", b / 1e3),
    }
}

/// A report for people.
pub fn summary(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, r: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "\n{}: {} rooms, {} participants, {:.0} s measured",
        r.scenario, r.rooms, r.participants, r.window_s
    )?;
    let failed = match r.joins.failed {
        0 => String::new(),
        failed => format!(", {failed} FAILED"),
    };
    writeln!(out, "\njoins       {}{failed}", r.joins.joined)?;
    for (reason, count) in &r.joins.reasons {
        writeln!(out, "  {count} x {reason}")?;
    }
    writeln!(out, "            {:>9} {:>9} {:>9} {:>9}", "p50", "p95", "p99", "max")?;
    quantiles(out, "  in all", &r.joins.total_ms)?;
    quantiles(out, "  connect", &r.joins.connect_ms)?;
    quantiles(out, "  admit", &r.joins.admit_ms)?;
    quantiles(out, "  media path", &r.joins.transport_ms)?;
    quantiles(out, "  first frame", &r.joins.first_media_ms)?;
    for (name, kind) in [("sound", &r.audio), ("pictures", &r.video)] {
        if kind.streams > 0 {
            write_kind(out, name, kind)?;
        }
    }
    if r.key_wait_ms.count > 0 {
        writeln!(out, "\nwaiting     {:>9} {:>9} {:>9} {:>9}", "p50", "p95", "p99", "max")?;
        quantiles(out, "  key frame", &r.key_wait_ms)?;
        if r.layer_wait_ms.count > 0 {
            quantiles(out, "  layer", &r.layer_wait_ms)?;
        }
    }
    for (reason, count) in &r.disconnects {
        writeln!(out, "disconnect  {count} x {reason}")?;
    }
    writeln!(
        out,
        "\ntraffic     {:.0} packets/s received, {:.0} packets/s sent, {} received",
        r.packets_per_s,
        r.sent_packets_per_s,
        human_rate(r.bits_per_s)
    )?;
    if let Some(relay) = &r.relay {
        let mut parts = Vec::new();
        let mut add = |value: Option<f64>, form: &dyn Fn(f64) -> String| parts.extend(value.map(form));
        add(relay.cpu_cores, &|v| format!("{:.1} % of a core", v * 100.0));
        add(relay.shard_cpu, &|v| format!("busiest media thread {:.1} %", v * 100.0));
        add(relay.memory, &|v| format!("{:.0} MiB", v / 1048576.0));
        add(relay.packets_out, &|v| format!("{v:.0} packets/s out"));
        add(relay.packets_in, &|v| format!("{v:.0} packets/s in"));
        add(relay.overflow, &|v| format!("{v:.0} not taken by the kernel"));
        writeln!(out, "relay       {}", parts.join(", "))?;
    }
    let t = &r.tester;
    writeln!(
        out,
        "tester      {} threads, busiest {:.0} % of its core, timers late p99 {:.1} ms, max {:.1} ms",
        t.threads,
        t.busiest_cpu * 100.0,
        t.loop_delay_ms.p99,
        t.loop_delay_ms.max
    )?;
    writeln!(out)?;
    for o in &r.objectives {
        let word = if o.holds { "holds" } else { "BROKEN" };
        let (value, limit) = (o.figure(o.value), o.figure(o.limit));
        writeln!(out, "{word:<7} {}: {value} {} ({} {limit})", o.name, o.unit, o.than())?;
    }
    for doubt in &r.invalid {
        writeln!(out, "INVALID {doubt}")?;
    }
    Ok(())
}

fn write_kind(out: &mut String, name: &str, k: &KindTotals) -> std::fmt::Result {
    writeln!(out, "\n{name:<11} {} streams, {} frames", k.streams, k.frames)?;
    if k.missing > 0 {
        writeln!(out, "  NOTHING came of {} streams", k.missing)?;
    }
    writeln!(
        out,
        "  loss after recovery {} % ({} of {})",
        figure(k.loss_percent),
        k.lost,
        k.packets + k.lost
    )?;
    let d = &k.delay_ms;
    writeln!(out, "  delay       p50 {:.1}, p95 {:.1}, p99 {:.1}, max {:.1} ms", d.p50, d.p95, d.p99, d.max)?;
    writeln!(out, "  jitter      mean {:.1}, highest {:.1} ms", k.jitter_mean_ms, k.jitter_max_ms)?;
    writeln!(
        out,
        "  frozen      {} gaps over 200 ms ({} %), {} over 500 ms ({} %), longest {:.0} ms",
        k.freezes,
        figure(k.freeze_percent),
        k.long_freezes,
        figure(k.long_freeze_percent),
        k.longest_freeze_ms
    )?;
    writeln!(
        out,
        "  bitrate     {} a stream of {} expected; {:.1} % of frames of the layer asked for",
        human_rate(k.bitrate_bps),
        human_rate(k.expected_bps),
        k.on_layer_percent
    )?;
    if k.failed + k.clear > 0 {
        writeln!(out, "  NOT AUTHENTIC {} frames, not encrypted {}", k.failed, k.clear)?;
    }
    Ok(())
}

fn quantiles(out: &mut String, name: &str, q: &Quantiles) -> std::fmt::Result {
    writeln!(out, "{name:<13} {:>7.1} {:>9.1} {:>9.1} {:>9.1} ms", q.p50, q.p95, q.p99, q.max)
}

/// Three digits that matter.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
