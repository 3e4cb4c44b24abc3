//! What was measured, and whether it is as good as it has to be.

use std::fmt;
use std::time::Duration;

/// How good a value has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Told for the reader; nothing is promised.
    None,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
            Bound::None => true,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(bound) => write!(f, "<= {bound}"),
            Bound::AtLeast(bound) => write!(f, ">= {bound}"),
            Bound::None => write!(f, "-"),
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Figure {
    pub case: String,
    pub figure: String,
    pub value: f64,
    pub bound: Bound,
}

impl Figure {
    pub fn holds(&self) -> bool {
        self.bound.holds(self.value)
    }

    /// One line of JSON. Names are ours and hold nothing to escape.
    pub fn json(&self) -> String {
        format!(
            r#"{{"case":"{}","figure":"{}","value":{},"bound":"{}","holds":{}}}"#,
            self.case,
            self.figure,
            self.value,
            self.bound,
            self.holds()
        )
    }
}

/// The figures of one case.
#[derive(Debug)]
pub struct Figures {
    case: String,
    pub all: Vec<Figure>,
}

impl Figures {
    pub fn of(case: impl Into<String>) -> Self {
        Self { case: case.into(), all: Vec::new() }
    }

    pub fn put(&mut self, figure: impl Into<String>, value: f64, bound: Bound) {
        let value = (value * 1000.0).round() / 1000.0;
        self.all.push(Figure { case: self.case.clone(), figure: figure.into(), value, bound });
    }

    pub fn at_most(&mut self, figure: impl Into<String>, value: f64, bound: f64) {
        self.put(figure, value, Bound::AtMost(bound));
    }

    pub fn at_least(&mut self, figure: impl Into<String>, value: f64, bound: f64) {
        self.put(figure, value, Bound::AtLeast(bound));
    }

    pub fn tell(&mut self, figure: impl Into<String>, value: f64) {
        self.put(figure, value, Bound::None);
    }
}

/// In milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
