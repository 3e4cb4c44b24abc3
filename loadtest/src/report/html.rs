//! One self-contained page with charts: no scripts, nothing loaded from anywhere.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::chart::{Chart, draw};
use super::junit::escape;
use super::text::{figure, human_rate, summary};
use super::{Objective, Report};
use crate::capacity::{Capacity, Verdict};
use crate::measure::{Dist, KindTotals, Quantiles, StreamResult};
use crate::run::grown;

/// Streams in the table of those that fared worst.
const WORST: usize = 10;
const STYLE: &str = include_str!("page.css");

/// The page of a run; where it is a step of a search for a relay's capacity, what was found comes first.
pub fn html(report: &Report, found: Option<&Capacity>) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report, found);
    out
}

fn write(out: &mut String, r: &Report, found: Option<&Capacity>) -> std::fmt::Result {
    let title = escape(&r.scenario);
    let what = if found.is_some() { "Capacity" } else { "Load test" };
    writeln!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{what}: {title}</title>\
         <style>{STYLE}</style></head><body><main><h1>{what}: {title}</h1>"
    )?;
    if let Some(found) = found {
        write_found(out, r, found)?;
        let which =
            if found.carries().is_some() { "The largest size that held" } else { "The last size tried" };
        writeln!(out, "<h2>{which}</h2>")?;
    }
    let (class, verdict) = match (r.is_valid(), r.holds()) {
        (false, _) => ("void", "not a valid run"),
        (true, true) => ("good", "all objectives hold"),
        (true, false) => ("bad", "objectives are broken"),
    };
    let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(r.started_unix));
    let began = began.filter(|_| r.started_unix > 0).map(httpdate::fmt_http_date).unwrap_or_default();
    writeln!(
        out,
        "<p><span class=\"badge {class}\">{verdict}</span> {} rooms, {} participants, {:.0} s measured. \
         <span class=\"dim\">{began}, loadtest {}</span></p>",
        r.rooms,
        r.participants,
        r.window_s,
        escape(&r.tool)
    )?;
    for doubt in &r.invalid {
        writeln!(out, "<p class=\"note void\">{}</p>", escape(doubt))?;
    }
    write_tiles(out, r)?;
    write_objectives(out, &r.objectives)?;
    writeln!(out, "<h2>Charts</h2><div class=\"charts\">")?;
    for chart in charts(r).iter().filter(|chart| !chart.is_empty()) {
        draw(out, chart)?;
    }
    writeln!(out, "</div>")?;
    write_joins(out, r)?;
    write_worst(out, &r.streams)?;
    writeln!(
        out,
        "<details><summary>Summary as text</summary><pre>{}</pre></details></main></body></html>",
        escape(summary(r).trim())
    )
}

fn write_found(out: &mut String, r: &Report, found: &Capacity) -> std::fmt::Result {
    let (class, answer) = found.answer();
    writeln!(out, "<p><span class=\"badge {class}\">{}</span></p>", escape(&answer))?;
    writeln!(out, "<p class=\"note\">Limit: {}</p>", escape(&found.reason()))?;
    for advice in found.advice() {
        writeln!(out, "<p class=\"note void\">{}</p>", escape(&advice))?;
    }
    for repeated in found.repeated() {
        writeln!(out, "<p class=\"note dim\">{}</p>", escape(&capital(&repeated)))?;
    }
    let limit = |name: &str| r.objectives.iter().find(|o| o.name.starts_with(name)).map(|o| o.limit);
    writeln!(out, "<div class=\"charts\">")?;
    for chart in found.charts(limit("delay p99"), limit("loss")) {
        draw(out, &chart)?;
    }
    writeln!(
        out,
        "</div><div class=\"wide\"><table><tr><th>size</th><th>participants</th><th>streams</th><th>packets/s</th>\
         <th>loss %</th><th>delay p99 ms</th><th>join p95 ms</th><th>relay %</th><th>tester %</th><th></th>\
         <th class=\"why\">why</th></tr>"
    )?;
    for s in &found.steps {
        let (class, word) = match (s.counts(), s.verdict()) {
            (false, _) => ("dim", "run again"),
            (true, Verdict::Holds) => ("good", "holds"),
            (true, Verdict::Broken) => ("bad", "broken"),
            (true, Verdict::Invalid) => ("void", "not valid"),
        };
        let relay = s.relay_shard.or(s.relay_cores).map_or("-".to_owned(), |c| format!("{:.0}", c * 100.0));
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.0}</td><td>{}</td><td>{:.1}</td><td>{:.0}</td><td>{relay}</td>\
             <td>{:.0}</td><td class=\"{class} word\">{word}</td><td class=\"why\">{}</td></tr>",
            s.size,
            s.participants,
            s.streams,
            s.packets_per_s,
            figure(s.loss_percent),
            s.delay_p99_ms,
            s.join_p95_ms,
            s.tester_cpu * 100.0,
            escape(&s.why())
        )?;
    }
    writeln!(out, "</table></div>")
}

/// A sentence from what may stand in the middle of one.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn write_tiles(out: &mut String, r: &Report) -> std::fmt::Result {
    let of = r.joins.joined + r.joins.failed;
    let delay = |kind: &KindTotals| match kind.delay_ms.count {
        0 => "-".to_owned(),
        _ => format!("{:.1} ms", kind.delay_ms.p99),
    };
    let mut tiles = vec![
        ("joined", format!("{} of {of}", r.joins.joined)),
        ("join p95", format!("{:.0} ms", r.joins.total_ms.p95)),
        ("loss after recovery", format!("{} %", figure(r.all.loss_percent))),
        ("delay p99, sound", delay(&r.audio)),
        ("delay p99, pictures", delay(&r.video)),
        ("packets received", format!("{:.0} a second", r.packets_per_s)),
        ("bits received", human_rate(r.bits_per_s)),
    ];
    if let Some(relay) = &r.relay {
        let percent = |value: f64| format!("{:.0} % of a core", value * 100.0);
        tiles.extend(relay.cpu_cores.map(|v| ("relay", percent(v))));
        tiles.extend(relay.shard_cpu.map(|v| ("busiest media thread", percent(v))));
        tiles.extend(relay.memory.map(|v| ("relay's memory", format!("{:.0} MiB", v / 1_048_576.0))));
    }
    tiles.push(("tester's busiest thread", format!("{:.0} % of its core", r.tester.busiest_cpu * 100.0)));
    tiles.push(("tester's timers late, p99", format!("{:.1} ms", r.tester.loop_delay_ms.p99)));
    writeln!(out, "<dl class=\"tiles\">")?;
    for (name, value) in tiles {
        writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value))?;
    }
    writeln!(out, "</dl>")
}

fn write_objectives(out: &mut String, objectives: &[Objective]) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Objectives</h2><div class=\"wide\"><table class=\"named\"><tr><th></th><th>measured</th><th>limit</th><th></th></tr>"
    )?;
    for o in objectives {
        let (class, word) = if o.holds { ("good", "holds") } else { ("bad", "broken") };
        writeln!(
            out,
            "<tr><td>{}</td><td>{} {unit}</td><td>{} {} {unit}</td><td class=\"{class}\">{word}</td></tr>",
            escape(&o.name),
            o.figure(o.value),
            o.than(),
            o.figure(o.limit),
            unit = escape(&o.unit)
        )?;
    }
    writeln!(out, "</table></div>")
}

fn write_joins(out: &mut String, r: &Report) -> std::fmt::Result {
    let rows = [
        ("join, in all", &r.joins.total_ms),
        ("connect", &r.joins.connect_ms),
        ("admit", &r.joins.admit_ms),
        ("media path", &r.joins.transport_ms),
        ("first frame", &r.joins.first_media_ms),
        ("key-frame wait", &r.key_wait_ms),
        ("layer wait", &r.layer_wait_ms),
        ("freezes over 200 ms", &r.freeze_ms),
    ];
    writeln!(
        out,
        "<h2>Joining, waiting, freezes</h2><div class=\"wide\"><table class=\"named\"><tr><th>ms</th><th>number</th>\
         <th>p50</th><th>p95</th><th>p99</th><th>max</th></tr>"
    )?;
    for (name, Quantiles { count, p50, p95, p99, max }) in rows {
        writeln!(
            out,
            "<tr><td>{name}</td><td>{count}</td><td>{p50:.1}</td><td>{p95:.1}</td><td>{p99:.1}</td><td>{max:.1}</td></tr>"
        )?;
    }
    writeln!(out, "</table></div>")?;
    let counted = [("failed to join", &r.joins.reasons), ("disconnected", &r.disconnects)];
    for (what, reasons) in counted {
        for (reason, count) in reasons {
            writeln!(out, "<p class=\"note bad\">{count} {what}: {}</p>", escape(reason))?;
        }
    }
    Ok(())
}

/// What a viewer would complain of first: time frozen and lost packets, in that order.
fn write_worst(out: &mut String, streams: &[StreamResult]) -> std::fmt::Result {
    let bad = |s: &&StreamResult| s.missing || s.freezes > 0 || s.lost > 0 || s.failed + s.clear > 0;
    let mut worst: Vec<&StreamResult> = streams.iter().filter(bad).collect();
    worst.sort_by(|a, b| {
        (b.missing, b.frozen, b.lost)
            .partial_cmp(&(a.missing, a.frozen, a.lost))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    if worst.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Streams that fared worst</h2><p class=\"dim\">{} of {} streams lost packets, froze or did not come. All of them \
         are in the JSON report.</p><div class=\"wide\"><table class=\"named\"><tr><th>viewer</th><th></th><th>lost</th>\
         <th>frozen ms</th><th>gaps</th><th>longest ms</th><th>delay p99 ms</th><th>jitter ms</th><th>bitrate of expected</th></tr>",
        worst.len(),
        streams.len()
    )?;
    for s in worst.into_iter().take(WORST) {
        let kind = match s.kind {
            crate::measure::Kind::Audio => "sound",
            crate::measure::Kind::Video => "picture",
        };
        let share = match s.expected_bytes {
            0 => "-".to_owned(),
            expected => format!("{:.0} %", 100.0 * s.shown_bytes as f64 / expected as f64),
        };
        writeln!(
            out,
            "<tr><td>{}</td><td>{kind}{}</td><td>{}</td><td>{:.0}</td><td>{}</td><td>{:.0}</td><td>{:.0}</td><td>{:.1}</td>\
             <td>{share}</td></tr>",
            escape(&s.viewer),
            if s.missing { ", never came" } else { "" },
            s.lost,
            s.frozen.as_secs_f64() * 1e3,
            s.freezes,
            s.longest_freeze.as_secs_f64() * 1e3,
            s.delay.ms(0.99),
            s.jitter_mean_us as f64 / 1e3
        )?;
    }
    writeln!(out, "</table></div>")
}

fn charts(r: &Report) -> Vec<Chart> {
    let over_time = |of: &dyn Fn(&super::Point) -> f64| -> Vec<(f64, f64)> {
        r.seconds.iter().enumerate().map(|(i, p)| (i as f64 + 1.0, of(p))).collect()
    };
    let limit = |name: &str| r.objectives.iter().find(|o| o.name.starts_with(name)).map(|o| o.limit);
    let seconds = "seconds measured";
    let mut charts = vec![
        Chart {
            logarithmic_x: true,
            limit_x: limit("delay p99"),
            ..Chart::of(
                "Delay distribution",
                "one-way delay, ms",
                "% of frames not later",
                vec![("sound", shares(&r.audio_delay)), ("pictures", shares(&r.video_delay))],
            )
        },
        Chart {
            limit: limit("delay p99"),
            ..Chart::of(
                "Delay over time",
                seconds,
                "ms",
                vec![("p50", over_time(&|p| p.delay_p50_ms)), ("p99", over_time(&|p| p.delay_p99_ms))],
            )
        },
        Chart {
            limit: limit("loss"),
            ..Chart::of(
                "Loss after recovery over time",
                seconds,
                "% of packets",
                vec![("lost", over_time(&|p| 100.0 * p.lost as f64 / ((p.packets + p.lost).max(1)) as f64))],
            )
        },
        Chart {
            broad: true,
            ..Chart::of(
                "Bitrate over time",
                seconds,
                "Mbit/s of all streams",
                vec![
                    ("expected", over_time(&|p| p.expected_bits / 1e6)),
                    ("shown", over_time(&|p| p.shown_bits / 1e6)),
                ],
            )
        },
    ];
    if r.seconds.iter().any(|second| second.freezes > 0) {
        charts.push(Chart::of(
            "Freezes over time",
            seconds,
            "gaps over 200 ms that ended, in all streams",
            vec![("freezes", over_time(&|p| p.freezes as f64))],
        ));
    }
    let joining = over_time(&|p| p.present as f64);
    if joining.windows(2).any(|pair| matches!(pair, [a, b] if (a.1 - b.1).abs() > 0.5)) {
        charts.push(Chart::of(
            "Participants over time",
            seconds,
            "in their rooms",
            vec![("present", joining)],
        ));
    }
    let use_of = |of: fn(&crate::run::RelaySample) -> Option<f64>| -> Vec<(f64, f64, f64)> {
        let first = r.relay_samples.first().map_or(0.0, |s| s.at_s);
        let pairs = r.relay_samples.windows(2);
        pairs
            .filter_map(|w| match w {
                [a, b] if b.at_s > a.at_s => {
                    let time = b.at_s - a.at_s;
                    let packets = grown(a, b, |s| s.packets_out)? / time;
                    Some((b.at_s - first, 100.0 * grown(a, b, of)? / time, packets))
                }
                _ => None,
            })
            .collect()
    };
    let (process, thread) = (use_of(|s| s.cpu_s), use_of(|s| s.shard_cpu_s));
    let over =
        |line: &[(f64, f64, f64)]| -> Vec<(f64, f64)> { line.iter().map(|(x, y, _)| (*x, *y)).collect() };
    let against = |line: &[(f64, f64, f64)]| -> Vec<(f64, f64)> {
        let mut line: Vec<_> = line.iter().map(|(_, y, load)| (*load, *y)).collect();
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        line
    };
    let names = ["relay's process", "its busiest media thread"];
    charts.push(Chart::of(
        "CPU over time",
        seconds,
        "% of a core",
        vec![(names[0], over(&process)), (names[1], over(&thread))],
    ));
    // One load says nothing of how CPU goes with it.
    let loads = process.iter().chain(&thread).map(|(.., load)| *load);
    if loads.clone().fold(0.0, f64::max) > 1.5 * loads.fold(f64::INFINITY, f64::min) {
        charts.push(Chart {
            scattered: true,
            ..Chart::of(
                "CPU against load",
                "packets/s sent by the relay, each second",
                "% of a core",
                vec![(names[0], against(&process)), (names[1], against(&thread))],
            )
        });
    }
    charts
}

/// Share of the values up to each, in percent, without the first and the last thousandth: they would squeeze the rest.
fn shares(dist: &Dist) -> Vec<(f64, f64)> {
    let (total, mut sum) = (dist.count() as f64, 0);
    let mut line = Vec::new();
    for (value, count) in dist.values() {
        sum += count;
        let share = 100.0 * sum as f64 / total;
        // A few that were quick would only make room for themselves.
        if share < 0.1 {
            continue;
        }
        line.push((value as f64 / 1e3, share));
        if share > 99.9 {
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Step;
    use crate::measure::Kind;
    use crate::report::Point;

    #[test]
    fn the_page_stands_alone_and_shows_what_was_measured() {
        let mut report = Report { scenario: "<visits>".into(), window_s: 3.0, ..Report::default() };
        for value in [1_000, 2_000, 30_000] {
            report.video_delay.record_n(value, 10);
        }
        report.seconds = (0..3).map(|i| Point { delay_p99_ms: f64::from(i), ..Point::default() }).collect();
        let step =
            |size: u32| Step { size, participants: u64::from(size) * 2, holds: size < 20, ..Step::default() };
        let found = Capacity { steps: vec![step(10), step(20)], ..Capacity::default() };
        let page = html(&report, Some(&found));
        assert!(page.contains("carries 20 participants") && page.contains("The largest size that held"));
        assert!(!html(&report, None).contains("carries"));
        assert!(page.contains("&lt;visits&gt;") && !page.contains("<visits>"));
        for foreign in ["http:", "https:", "<script", "<link", "src=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for title in ["Capacity: delay p99", "Delay distribution", "Delay over time"] {
            assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
        }
        assert!(!page.contains("CPU over time"), "nothing is known of it");
        assert!(!page.contains("NaN") && !page.contains("inf\""), "{page}");
    }

    #[test]
    fn streams_that_fared_badly_are_named_the_worst_first() {
        let stream = |viewer: &str, freezes, frozen, lost| StreamResult {
            viewer: viewer.into(),
            kind: Kind::Video,
            freezes,
            frozen: Duration::from_millis(frozen),
            lost,
            ..StreamResult::default()
        };
        let streams = vec![stream("good", 0, 0, 0), stream("lossy", 0, 0, 9), stream("frozen", 2, 700, 0)];
        let page = html(&Report { streams, ..Report::default() }, None);
        let at = |viewer: &str| page.find(&format!("<td>{viewer}</td>"));
        assert!(at("frozen").unwrap() < at("lossy").unwrap() && at("good").is_none(), "{page}");
        assert!(page.contains("2 of 3 streams"));
    }
}
