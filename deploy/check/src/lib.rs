//! What the tests of `deploy/` share: reading commented example configurations, and finding metrics in PromQL.

use toml::{Table, Value};

/// A key that no configuration has.
const BOGUS: &str = "no-such-setting";

/// An example with every commented-out setting and section switched on: lines of the form `# key = value` and `# [section]`.
pub fn switched_on(example: &str) -> String {
    let lines = example.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with('[') || is_setting(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

/// Settings without a comment: one begins each block of settings, after an empty line, a section or a comment.
pub fn without_comment(example: &str) -> Vec<String> {
    let mut explained = false;
    let mut missing = Vec::new();
    for line in example.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if is_setting(bare) {
            if !explained {
                missing.push(line.to_owned());
            }
        } else if !bare.starts_with('[') {
            explained = line.starts_with('#');
        }
    }
    missing
}

/// Settings that a configuration type has and `example` (all switched on) has not, as `section.key`.
///
/// `parse` is the type's own reader. It refuses an unknown setting with a list of those that it knows: so this asks it, section
/// by section. A section that takes any key, such as one of API keys, ends the search there.
///
/// # Panics
/// When the example is not TOML.
pub fn missing<E: std::fmt::Display>(example: &str, parse: impl Fn(&str) -> Result<(), E>) -> Vec<String> {
    let table: Table = example.parse().expect("the example is TOML");
    let mut missing = Vec::new();
    let mut sections = vec![Vec::<String>::new()];
    while let Some(section) = sections.pop() {
        let mut asked = table.clone();
        let here = section_mut(&mut asked, &section);
        let present: Vec<_> = here.iter().map(|(key, value)| (key.clone(), value.is_table())).collect();
        here.insert(BOGUS.to_owned(), Value::Boolean(true));
        for known in known_settings(parse(&asked.to_string())) {
            if !present.iter().any(|(key, _)| *key == known) {
                missing.push([section.clone(), vec![known]].concat().join("."));
            }
        }
        sections.extend(present.into_iter().filter(|(_, is_table)| *is_table).map(|(key, _)| {
            let mut path = section.clone();
            path.push(key);
            path
        }));
    }
    missing
}

/// All settings in an example (all switched on) that are no sections, as paths.
///
/// # Panics
/// When the example is not TOML.
pub fn settings(example: &str) -> Vec<Vec<String>> {
    let table: Table = example.parse().expect("the example is TOML");
    let mut found = Vec::new();
    let mut sections = vec![(Vec::new(), &table)];
    while let Some((path, table)) = sections.pop() {
        for (key, value) in table {
            let mut path: Vec<String> = path.clone();
            path.push(key.clone());
            match value {
                Value::Table(table) => sections.push((path, table)),
                _ => found.push(path),
            }
        }
    }
    found
}

/// The example without one setting.
///
/// # Panics
/// When the example is not TOML or has no such section.
pub fn without(example: &str, path: &[String]) -> String {
    let mut table: Table = example.parse().expect("the example is TOML");
    if let Some((key, section)) = path.split_last() {
        section_mut(&mut table, section).remove(key);
    }
    table.to_string()
}

fn section_mut<'a>(table: &'a mut Table, path: &[String]) -> &'a mut Table {
    path.iter().fold(table, |table, key| {
        table.get_mut(key).and_then(Value::as_table_mut).expect("the section was found before")
    })
}

/// What serde lists: "unknown field `x`, expected one of `a`, `b`".
fn known_settings<E: std::fmt::Display>(answer: Result<(), E>) -> Vec<String> {
    let Err(error) = answer else { return Vec::new() };
    let text = format!("{error:#}");
    let list = text.split_once(&format!("`{BOGUS}`")).and_then(|(_, rest)| rest.split_once("expected"));
    let Some((_, list)) = list else { return Vec::new() };
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A metric in a PromQL expression, with the values that it asks for by label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Its name.
    pub name: String,
    /// Labels and the values they are compared with; alternatives of a regular expression one by one.
    pub labels: Vec<(String, Vec<String>)>,
}

/// The metrics of Curtain, and those that every process has, in a PromQL expression.
pub fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = ["curtain_", "process_"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        rest = &rest[start..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        rest = &rest[end..];
        let mut labels = Vec::new();
        if let Some((inside, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            labels = inside.split("\",").filter_map(matcher).collect();
            rest = after;
        }
        found.push(Selector { name, labels });
    }
    found
}

fn matcher(text: &str) -> Option<(String, Vec<String>)> {
    let (label, value) = text.trim().trim_end_matches('"').split_once('"')?;
    let label = label.trim_end_matches(['=', '~', '!']).trim();
    Some((label.to_owned(), value.split('|').map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_with_their_labels() {
        let found =
            selectors(r#"sum(rate(curtain_a_total{reason=~"x|y", shard="0"}[5m])) / curtain_b > process_c"#);
        let label = |name: &str, values: &[&str]| {
            (name.to_owned(), values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            found,
            [
                Selector {
                    name: "curtain_a_total".to_owned(),
                    labels: vec![label("reason", &["x", "y"]), label("shard", &["0"])]
                },
                Selector { name: "curtain_b".to_owned(), labels: vec![] },
                Selector { name: "process_c".to_owned(), labels: vec![] },
            ]
        );
    }

    #[test]
    fn settings_without_a_comment_show() {
        let example = "# What a is.\na = 1\nb = 2\n\nc = 3\n[s]\n# d = 4\n# Off by default.\n# e = 5\n";
        assert_eq!(without_comment(example), ["c = 3", "# d = 4"]);
        assert!(switched_on(example).contains("\ne = 5"));
    }
}
