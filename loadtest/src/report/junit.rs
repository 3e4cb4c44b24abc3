//! The objectives as JUnit's XML, for pipelines.

use std::fmt::Write as _;

use super::Report;
use super::text::figure;

/// One test case for each objective, and one for whether the run is valid.
pub fn junit(report: &Report) -> String {
    let failures = report.objectives.iter().filter(|o| !o.holds).count();
    let errors = usize::from(!report.is_valid());
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let suite = format!("loadtest.{}", escape(&report.scenario));
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<testsuites><testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{:.3}\">",
        report.objectives.len() + 1,
        report.window_s
    );
    for o in &report.objectives {
        let name = escape(&o.name);
        let _ = write!(out, "  <testcase classname=\"{suite}\" name=\"{name}\">");
        if !o.holds {
            let text = format!("{} {} where the limit is {}", figure(o.value), o.unit, figure(o.limit));
            let _ = write!(out, "<failure message=\"{}\"/>", escape(&text));
        }
        out.push_str("</testcase>\n");
    }
    let _ = write!(out, "  <testcase classname=\"{suite}\" name=\"the run is valid\">");
    if !report.is_valid() {
        let _ = write!(out, "<error message=\"{}\"/>", escape(&report.invalid.join("; ")));
    }
    out.push_str("</testcase>\n</testsuite></testsuites>\n");
    out
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML 1.0 has no place for them.
            c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Objective;

    #[test]
    fn what_breaks_is_a_failure_and_names_are_escaped() {
        let objective = |name: &str, holds| Objective {
            name: name.into(),
            limit: 1.0,
            value: 2.0,
            unit: "ms".into(),
            holds,
        };
        let mut report = Report {
            scenario: "a<b>&\"c\"".into(),
            objectives: vec![objective("one", true), objective("two", false)],
            ..Report::default()
        };
        let xml = junit(&report);
        assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"0\""), "{xml}");
        assert!(xml.contains("loadtest.a&lt;b&gt;&amp;&quot;c&quot;"), "{xml}");
        assert!(xml.contains("name=\"two\"><failure message=\"2.00 ms where the limit is 1.00\"/>"), "{xml}");
        report.invalid.push("late".into());
        assert!(junit(&report).contains("<error message=\"late\"/>"));
    }
}
