//! One self-contained page with charts: no scripts, nothing loaded from anywhere.

use std::fmt::Write as _;

use super::Report;
use super::junit::escape;
use super::text::{figure, human_rate, summary};
use crate::capacity::Capacity;
use crate::measure::Dist;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
/// Half of the last number stands to the right of its line.
const RIGHT: f64 = 28.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 12.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#c2410c", "#15803d", "#7e22ce"];

/// Lines over a common axis.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Heading.
    pub title: String,
    /// What the axes are.
    pub x: String,
    /// See `x`.
    pub y: String,
    /// Names and points.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// The page of a run; where it is a step of a search for a relay's capacity, what was found comes first.
pub fn html(report: &Report, found: Option<&Capacity>) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report, found);
    out
}

fn write(out: &mut String, r: &Report, found: Option<&Capacity>) -> std::fmt::Result {
    let verdict = match (r.is_valid(), r.holds()) {
        (false, _) => "not a valid run",
        (true, true) => "all objectives hold",
        (true, false) => "objectives are broken",
    };
    let title = escape(&r.scenario);
    writeln!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Load test: {title}</title><style>\
         body{{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem;color:#1f2328}}\
         table{{border-collapse:collapse;margin:1rem 0}}td,th{{padding:.2rem .8rem .2rem 0;text-align:left}}\
         td.n{{text-align:right;font-variant-numeric:tabular-nums}}.bad{{color:#b91c1c;font-weight:600}}\
         svg{{width:100%;height:auto}}pre{{background:#f6f8fa;padding:1rem;overflow:auto}}h2{{margin-top:2rem}}\
         </style></head><body><h1>Load test: {title}</h1>"
    )?;
    if let Some(found) = found {
        writeln!(out, "<h2>Capacity</h2><pre>{}</pre>", escape(found.summary().trim()))?;
        for chart in found.charts() {
            draw(out, &chart)?;
        }
        let which =
            if found.carries().is_some() { "The largest size that held" } else { "The last size tried" };
        writeln!(out, "<h2>{which}</h2>")?;
    }
    let class = if r.is_valid() && r.holds() { "" } else { " class=\"bad\"" };
    writeln!(
        out,
        "<p{class}>{verdict}</p><p>{} rooms, {} participants, {:.0} s measured, {} received.</p>",
        r.rooms,
        r.participants,
        r.window_s,
        human_rate(r.bits_per_s)
    )?;
    for doubt in &r.invalid {
        writeln!(out, "<p class=\"bad\">{}</p>", escape(doubt))?;
    }
    writeln!(out, "<table><tr><th>objective</th><th>measured</th><th>limit</th><th></th></tr>")?;
    for o in &r.objectives {
        let (class, word) = if o.holds { ("", "holds") } else { (" class=\"bad\"", "broken") };
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{} {unit}</td><td class=\"n\">{} {unit}</td><td{class}>{word}</td></tr>",
            escape(&o.name),
            figure(o.value),
            figure(o.limit),
            unit = escape(&o.unit)
        )?;
    }
    writeln!(out, "</table>")?;
    for chart in &charts(r) {
        draw(out, chart)?;
    }
    writeln!(out, "<h2>Summary</h2><pre>{}</pre></body></html>", escape(&summary(r)))
}

fn charts(r: &Report) -> Vec<Chart> {
    let over_time = |of: &dyn Fn(&super::Point) -> f64| -> Vec<(f64, f64)> {
        r.seconds.iter().enumerate().map(|(i, p)| (i as f64, of(p))).collect()
    };
    let chart = |title: &str, x: &str, y: &str, lines: Vec<(&str, Vec<(f64, f64)>)>| Chart {
        title: title.into(),
        x: x.into(),
        y: y.into(),
        lines: lines.into_iter().map(|(name, line)| (name.to_owned(), line)).collect(),
    };
    let mut charts = vec![
        chart(
            "Delay distribution",
            "ms",
            "% of frames not later",
            vec![("sound", shares(&r.audio_delay)), ("pictures", shares(&r.video_delay))],
        ),
        chart(
            "Delay over time",
            "s",
            "ms",
            vec![("p50", over_time(&|p| p.delay_p50_ms)), ("p99", over_time(&|p| p.delay_p99_ms))],
        ),
        chart(
            "Loss after recovery over time",
            "s",
            "%",
            vec![("lost", over_time(&|p| 100.0 * p.lost as f64 / ((p.packets + p.lost).max(1)) as f64))],
        ),
        chart(
            "Bitrate over time",
            "s",
            "Mbit/s",
            vec![
                ("shown", over_time(&|p| p.shown_bits / 1e6)),
                ("expected", over_time(&|p| p.expected_bits / 1e6)),
            ],
        ),
    ];
    let rate = |of: fn(&crate::run::RelaySample) -> Option<f64>| -> Vec<(f64, f64)> {
        let pairs = r.relay_samples.windows(2);
        pairs
            .filter_map(|w| match w {
                [a, b] if b.at_s > a.at_s => Some((b.at_s, (of(b)? - of(a)?) / (b.at_s - a.at_s))),
                _ => None,
            })
            .collect()
    };
    let percent = |line: Vec<(f64, f64)>| line.into_iter().map(|(x, y)| (x, y * 100.0)).collect();
    let lines = vec![
        ("process", percent(rate(|s| s.cpu_s))),
        ("busiest media thread", percent(rate(|s| s.shard_cpu_s))),
    ];
    charts.push(chart("The relay's CPU over time", "s", "% of a core", lines));
    charts.retain(|chart| chart.lines.iter().any(|(_, line)| line.len() > 1));
    charts
}

/// Share of the values up to each, in percent, up to p99.9: the last thousandth would squeeze the rest.
fn shares(dist: &Dist) -> Vec<(f64, f64)> {
    let (total, mut sum) = (dist.count() as f64, 0);
    let mut line = Vec::new();
    for (value, count) in dist.values() {
        sum += count;
        let share = 100.0 * sum as f64 / total;
        line.push((value as f64 / 1e3, share));
        if share > 99.9 {
            break;
        }
    }
    line
}

fn draw(out: &mut String, chart: &Chart) -> std::fmt::Result {
    let points = || chart.lines.iter().flat_map(|(_, line)| line.iter().copied());
    let max_x = nice(points().map(|(x, _)| x).fold(0.0, f64::max));
    let max_y = nice(points().map(|(_, y)| y).fold(0.0, f64::max));
    let x = |v: f64| LEFT + v / max_x * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| HEIGHT - BOTTOM - v / max_y * (HEIGHT - BOTTOM - TOP);
    writeln!(
        out,
        "<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" font-size=\"12\">",
        escape(&chart.title),
        escape(&chart.title)
    )?;
    for step in 0..=4 {
        let (vx, vy) = (max_x * f64::from(step) / 4.0, max_y * f64::from(step) / 4.0);
        writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#d0d7de\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            y(vy),
            y(vy),
            LEFT - 6.0,
            y(vy) + 4.0,
            figure(vy),
            x(vx),
            HEIGHT - BOTTOM + 16.0,
            figure(vx)
        )?;
    }
    for ((name, line), (index, colour)) in chart.lines.iter().zip(COLOURS.iter().enumerate()) {
        let path: Vec<String> = line.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
        writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            path.join(" "),
            LEFT + 165.0 * index as f64,
            HEIGHT - 6.0,
            escape(name)
        )?;
    }
    writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"{:.1}\" y=\"{:.1}\">{}</text></svg>",
        WIDTH - RIGHT,
        HEIGHT - 6.0,
        escape(&chart.x),
        LEFT + 4.0,
        TOP,
        escape(&chart.y)
    )
}

/// The end of an axis: 1, 2, 4, 5 or 8 times a power of ten.
fn nice(max: f64) -> f64 {
    if max <= 0.0 || !max.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(max.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].iter().map(|m| m * power).find(|end| *end >= max).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Step;
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
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("<script"));
        for title in
            ["Capacity", "Capacity: delay against participants", "Delay distribution", "Delay over time"]
        {
            assert!(page.contains(&format!("<h2>{title}</h2>")), "{title}");
        }
        assert!(!page.contains("The relay's CPU"), "nothing is known of it");
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
        for (value, end) in [(0.0, 1.0), (3.0, 4.0), (99.0, 100.0), (101.0, 200.0), (0.03, 0.04)] {
            assert!((nice(value) - end).abs() < 1e-9, "{value}");
        }
    }
}
