//! Two runs side by side.

use std::fmt::Write as _;

use super::Report;
use super::text::figure;

struct Row {
    name: &'static str,
    unit: &'static str,
    values: [Option<f64>; 2],
}

/// A table of what two runs measured, and the change from the first to the second.
pub fn compare(names: [&str; 2], reports: [&Report; 2]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, names, reports);
    out
}

fn write(out: &mut String, names: [&str; 2], reports: [&Report; 2]) -> std::fmt::Result {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(14);
    writeln!(out, "{:<34} {:>width$} {:>width$} {:>10}", "", names[0], names[1], "change")?;
    let text = |out: &mut String, name: &str, values: [String; 2]| {
        let same = if values[0] == values[1] { "" } else { "differs" };
        writeln!(out, "{name:<34} {:>width$} {:>width$} {same:>10}", values[0], values[1])
    };
    text(out, "scenario", reports.map(|r| r.scenario.clone()))?;
    text(out, "participants", reports.map(|r| r.participants.to_string()))?;
    text(out, "valid", reports.map(|r| if r.is_valid() { "yes" } else { "NO" }.to_owned()))?;
    text(out, "objectives hold", reports.map(|r| if r.holds() { "yes" } else { "NO" }.to_owned()))?;
    for row in rows(reports) {
        let show = |value: Option<f64>| value.map_or("-".to_owned(), figure);
        let change = match row.values {
            [Some(a), Some(b)] if a != 0.0 => format!("{:+.1} %", (b / a - 1.0) * 100.0),
            [Some(a), Some(b)] if a == b => "=".to_owned(),
            _ => String::new(),
        };
        let name = format!("{} {}", row.name, row.unit);
        let [a, b] = row.values.map(show);
        writeln!(out, "{name:<34} {a:>width$} {b:>width$} {change:>10}")?;
    }
    Ok(())
}

fn rows(reports: [&Report; 2]) -> Vec<Row> {
    let row = |name, unit, of: fn(&Report) -> Option<f64>| Row { name, unit, values: reports.map(of) };
    vec![
        row("join p50", "(ms)", |r| Some(r.joins.total_ms.p50)),
        row("join p95", "(ms)", |r| Some(r.joins.total_ms.p95)),
        row("join p99", "(ms)", |r| Some(r.joins.total_ms.p99)),
        row("first frame p95", "(ms)", |r| Some(r.joins.first_media_ms.p95)),
        row("failed joins", "", |r| Some(r.joins.failed as f64)),
        row("disconnects", "", |r| Some(r.disconnects.values().sum::<u64>() as f64)),
        row("loss after recovery", "(%)", |r| Some(r.all.loss_percent)),
        row("sound: delay p50", "(ms)", |r| Some(r.audio.delay_ms.p50)),
        row("sound: delay p99", "(ms)", |r| Some(r.audio.delay_ms.p99)),
        row("sound: time frozen", "(%)", |r| Some(r.audio.freeze_percent)),
        row("pictures: delay p50", "(ms)", |r| Some(r.video.delay_ms.p50)),
        row("pictures: delay p99", "(ms)", |r| Some(r.video.delay_ms.p99)),
        row("pictures: jitter", "(ms)", |r| Some(r.video.jitter_mean_ms)),
        row("pictures: time frozen", "(%)", |r| Some(r.video.freeze_percent)),
        row("pictures: bitrate a stream", "(bit/s)", |r| Some(r.video.bitrate_bps)),
        row("pictures: of layer asked for", "(%)", |r| Some(r.video.on_layer_percent)),
        row("key-frame wait p95", "(ms)", |r| Some(r.key_wait_ms.p95)),
        row("received", "(packets/s)", |r| Some(r.packets_per_s)),
        row("relay: process CPU", "(cores)", |r| r.relay.as_ref()?.cpu_cores),
        row("relay: busiest thread", "(of a core)", |r| r.relay.as_ref()?.shard_cpu),
        row("relay: memory", "(bytes)", |r| r.relay.as_ref()?.memory),
        row("tester: busiest thread", "(of a core)", |r| Some(r.tester.busiest_cpu)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_stand_beside_the_figures() {
        let mut a = Report { scenario: "one".into(), ..Report::default() };
        a.joins.total_ms.p95 = 100.0;
        let mut b = a.clone();
        b.joins.total_ms.p95 = 150.0;
        let table = compare(["a.json", "b.json"], [&a, &b]);
        let line = table.lines().find(|l| l.starts_with("join p95")).unwrap();
        assert!(line.contains("100") && line.contains("150") && line.contains("+50.0 %"), "{line}");
        assert!(table.lines().any(|l| l.starts_with("relay: process CPU") && l.contains(" - ")), "{table}");
    }
}
