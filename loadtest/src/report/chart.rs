//! Charts as SVG that takes its colours from the page around it.

use std::fmt::Write as _;

use super::junit::escape;
use super::text::figure;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 52.0;
/// Half of the last number stands to the right of its line.
const RIGHT: f64 = 24.0;
const BOTTOM: f64 = 42.0;
const TOP: f64 = 34.0;
/// Lines that can be told apart; the page has as many colours.
const COLOURS: usize = 4;

/// How a point is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// All objectives held.
    Good,
    /// One broke.
    Bad,
    /// Nothing can be said.
    Void,
}

/// Lines over a common axis.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Heading.
    pub title: String,
    /// What the axes are, with their units.
    pub x: String,
    /// See `x`.
    pub y: String,
    /// Names and points.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// Points with how they went, drawn over the first line.
    pub marks: Vec<(f64, f64, Mark)>,
    /// A limit on the vertical axis; shown where the axis reaches that far, as a logarithmic one always does.
    pub limit: Option<f64>,
    /// The vertical axis has a decade for each step.
    pub logarithmic: bool,
    /// The horizontal axis has.
    pub logarithmic_x: bool,
    /// A limit on the horizontal axis, in the same way.
    pub limit_x: Option<f64>,
    /// Points that do not follow each other: no lines between them.
    pub scattered: bool,
    /// The first line is a broad one, so that it shows where another lies on it.
    pub broad: bool,
}

impl Chart {
    /// Lines by their names, those without points left out.
    pub fn of(title: &str, x: &str, y: &str, lines: Vec<(&str, Vec<(f64, f64)>)>) -> Self {
        let lines = lines.into_iter().filter(|(_, line)| !line.is_empty());
        let lines = lines.map(|(name, line)| (name.to_owned(), line)).collect();
        Self { title: title.into(), x: x.into(), y: y.into(), lines, ..Self::default() }
    }

    /// Whether there is anything to be seen.
    pub fn is_empty(&self) -> bool {
        !self.lines.iter().any(|(_, line)| line.len() > 1) && self.marks.is_empty()
    }
}

/// An axis: where it begins and ends, and its numbers.
struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, logarithmic: bool) -> Self {
        let most = values.clone().filter(|v| v.is_finite()).fold(0.0, f64::max);
        if !logarithmic {
            return Self { from: 0.0, to: nice(most), logarithmic };
        }
        let least = values.filter(|v| v.is_finite() && *v > 0.0).fold(most.max(1.0), f64::min);
        let decade = |value: f64| value.log10();
        let from = 10f64.powf(decade(least).floor());
        let to = 10f64.powf(decade(most.max(from * 10.0)).ceil());
        Self { from, to, logarithmic }
    }

    /// Where a value stands, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        if !self.logarithmic {
            return value / self.to;
        }
        (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
    }

    fn numbers(&self) -> Vec<f64> {
        if !self.logarithmic {
            return (0..=4).map(|step| self.to * f64::from(step) / 4.0).collect();
        }
        let decades = (self.to / self.from).log10().round() as i32;
        (0..=decades).map(|step| self.from * 10f64.powi(step)).collect()
    }
}

/// Draws a chart with its heading and the names of its lines.
pub(super) fn draw(out: &mut String, chart: &Chart) -> std::fmt::Result {
    let marked = chart.marks.iter().map(|(x, y, _)| (*x, *y));
    let points = chart.lines.iter().flat_map(|(_, line)| line.iter().copied()).chain(marked);
    let along = match chart.logarithmic_x {
        true => Axis::over(points.clone().map(|(x, _)| x).chain(chart.limit_x), true),
        false => {
            let most = points.clone().map(|(x, _)| x).filter(|x| x.is_finite()).fold(0.0, f64::max);
            Axis { from: 0.0, to: if most > 0.0 { most } else { 1.0 }, logarithmic: false }
        }
    };
    // Where there is room for it, how far the limit is shows, too.
    let limit = chart.limit.filter(|_| chart.logarithmic);
    let axis = Axis::over(points.map(|(_, y)| y).chain(limit), chart.logarithmic);
    let x = |v: f64| LEFT + along.share(v) * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| HEIGHT - BOTTOM - axis.share(v) * (HEIGHT - BOTTOM - TOP);
    let title = escape(&chart.title);
    writeln!(
        out,
        "<figure><h3>{title}</h3><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    )?;
    for number in axis.numbers() {
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(number) + 4.0,
            short(number),
            y = y(number)
        )?;
    }
    let numbers = match chart.logarithmic_x {
        true => along.numbers(),
        false => {
            let step = round(along.to / 6.0, &[1.0, 2.0, 5.0, 10.0]);
            let steps = (0..=6).map(|count| step * f64::from(count));
            steps.filter(|value| *value <= along.to * 1.001).collect()
        }
    };
    for value in numbers {
        let (x, y) = (x(value), HEIGHT - BOTTOM + 17.0);
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", short(value))?;
    }
    writeln!(
        out,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" x=\"2\" y=\"{:.1}\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        escape(&chart.x),
        TOP - 19.0,
        escape(&chart.y)
    )?;
    let limit = chart.limit.filter(|limit| (0.0..=1.0).contains(&axis.share(*limit)));
    if let Some(limit) = limit {
        let (y, end) = (y(limit), WIDTH - RIGHT);
        writeln!(out, "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{end:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>")?;
    }
    let limit_x = chart.limit_x.filter(|limit| (0.0..=1.0).contains(&along.share(*limit)));
    if let Some(limit) = limit_x {
        let (x, end) = (x(limit), HEIGHT - BOTTOM);
        writeln!(out, "<line class=\"limit\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{end:.1}\"/>")?;
    }
    for (index, (_, line)) in chart.lines.iter().enumerate() {
        let colour = index % COLOURS;
        if chart.scattered {
            for (px, py) in line {
                let (x, y) = (x(*px), y(*py));
                writeln!(out, "<circle class=\"c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>")?;
            }
            continue;
        }
        let broad = if chart.broad && index == 0 { " broad" } else { "" };
        let path: Vec<String> = line.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
        writeln!(out, "<polyline class=\"c{colour}{broad}\" points=\"{}\"/>", path.join(" "))?;
    }
    for (px, py, mark) in &chart.marks {
        let class = match mark {
            Mark::Good => "good",
            Mark::Bad => "bad",
            Mark::Void => "void",
        };
        writeln!(out, "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"/>", x(*px), y(*py))?;
    }
    write!(out, "</svg><figcaption>")?;
    for (index, (name, _)) in chart.lines.iter().enumerate() {
        write!(out, "<span class=\"c{}\">{}</span>", index % COLOURS, escape(name))?;
    }
    for (mark, class, name) in
        [(Mark::Good, "good", "holds"), (Mark::Bad, "bad", "broken"), (Mark::Void, "void", "not valid")]
    {
        if chart.marks.iter().any(|(.., of)| *of == mark) {
            write!(out, "<span class=\"dot {class}\">{name}</span>")?;
        }
    }
    if let Some(limit) = limit.or(limit_x) {
        write!(out, "<span class=\"limit\">limit {}</span>", figure(limit))?;
    }
    writeln!(out, "</figcaption></figure>")
}

/// A number of an axis, without digits that say nothing.
fn short(value: f64) -> String {
    let text = match value {
        v if v >= 1000.0 => {
            let text = format!("{:.2}", v / 1000.0);
            return format!("{} k", text.trim_end_matches('0').trim_end_matches('.'));
        }
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The end of an axis, of which a quarter is a round number, too.
fn nice(max: f64) -> f64 {
    round(max, &[1.0, 2.0, 4.0, 5.0, 8.0, 10.0])
}

/// The next of these, times a power of ten.
fn round(value: f64, to: &[f64]) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    to.iter().map(|m| m * power).find(|end| *end >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [(0.0, 1.0), (3.0, 4.0), (99.0, 100.0), (101.0, 200.0), (0.03, 0.04)] {
            assert!((nice(value) - end).abs() < 1e-9, "{value}");
        }
        let said = [0.0, 0.0125, 0.5, 2.5, 12.5, 100.0, 1500.0, 20_000.0].map(short);
        assert_eq!(said, ["0", "0.0125", "0.5", "2.5", "12.5", "100", "1.5 k", "20 k"]);
    }

    #[test]
    fn a_decade_takes_the_same_room_as_the_next() {
        let axis = Axis::over([12.0, 1700.0].into_iter(), true);
        assert_eq!((axis.from, axis.to), (10.0, 10_000.0));
        assert!((axis.share(100.0) - 1.0 / 3.0).abs() < 1e-9 && axis.share(0.0).abs() < 1e-9);
        assert_eq!(axis.numbers(), [10.0, 100.0, 1000.0, 10_000.0]);
        // Nothing, or only zeros.
        for values in [&[][..], &[0.0, 0.0]] {
            let axis = Axis::over(values.iter().copied(), true);
            assert!(axis.from > 0.0 && axis.to > axis.from && axis.share(0.0).is_finite());
        }
    }

    #[test]
    fn names_are_escaped_and_a_limit_shows_where_the_axis_reaches_it() {
        let mut chart = Chart {
            title: "<delay>".into(),
            lines: vec![("a & b".into(), vec![(0.0, 1.0), (1.0, 3.0)])],
            marks: vec![(1.0, 3.0, Mark::Bad)],
            limit: Some(2.0),
            ..Chart::default()
        };
        let mut out = String::new();
        draw(&mut out, &chart).unwrap();
        assert!(
            out.contains("&lt;delay&gt;") && out.contains("a &amp; b") && out.contains("limit 2.00"),
            "{out}"
        );
        assert!(out.contains("dot bad") && !out.contains("dot good") && !out.contains("NaN"), "{out}");
        chart.limit = Some(50.0);
        out.clear();
        draw(&mut out, &chart).unwrap();
        assert!(!out.contains("limit"), "{out}");
        (chart.limit_x, chart.logarithmic_x, chart.scattered) = (Some(0.5), true, true);
        out.clear();
        draw(&mut out, &chart).unwrap();
        assert!(out.contains("limit 0.50") && !out.contains("polyline"), "{out}");
        assert_eq!((out.matches("<circle class=\"c0\"").count(), out.contains("NaN")), (2, false), "{out}");
    }
}
