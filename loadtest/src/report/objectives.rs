//! What an operator demands of a relay.

use serde::{Deserialize, Serialize};

use super::Report;
use super::text::figure;

/// The only one of which there has to be more than the limit.
const RECEIVED: &str = "frames received";

/// Limits; what is above breaks an objective. Where nothing is said, the scenario's hold, and then the usual ones.
#[derive(Debug, Clone, Copy, PartialEq, Default, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Objectives")]
pub struct Objectives {
    /// Highest loss after recovery, in percent [default: the scenario's, or 0.5].
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<f64>,
    /// Highest one-way delay at p99, in milliseconds [default: the scenario's, or 50].
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay_p99: Option<f64>,
    /// Highest share of the time watched that is frozen, in percent: sound or pictures, gaps over 200 ms [default: the
    /// scenario's, or 1].
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_freeze: Option<f64>,
    /// Highest join time at p95, in milliseconds [default: the scenario's, or 2000].
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_join_p95: Option<f64>,
}

/// One objective and how it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// What it is about.
    pub name: String,
    /// Its limit.
    pub limit: f64,
    /// What was measured.
    pub value: f64,
    /// Of both.
    pub unit: String,
    /// Whether it holds.
    pub holds: bool,
}

impl Objective {
    /// Its limit or its value for people: what is counted has no decimals.
    pub(super) fn figure(&self, value: f64) -> String {
        if self.unit.is_empty() { format!("{value:.0}") } else { figure(value) }
    }

    /// On which side of its limit it holds.
    pub(super) fn than(&self) -> &'static str {
        if self.name == RECEIVED { "at least" } else { "at most" }
    }
}

impl Objectives {
    /// Whether nothing is said.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// These, and where nothing is said the others.
    pub fn or(&self, others: &Self) -> Self {
        Self {
            max_loss: self.max_loss.or(others.max_loss),
            max_delay_p99: self.max_delay_p99.or(others.max_delay_p99),
            max_freeze: self.max_freeze.or(others.max_freeze),
            max_join_p95: self.max_join_p95.or(others.max_join_p95),
        }
    }

    /// Holds a report against the limits.
    pub(super) fn judge(&self, report: &Report) -> Vec<Objective> {
        let max_loss = self.max_loss.unwrap_or(0.5);
        let max_delay = self.max_delay_p99.unwrap_or(50.0);
        let max_freeze = self.max_freeze.unwrap_or(1.0);
        let max_join = self.max_join_p95.unwrap_or(2000.0);
        let most = |name: &str, unit: &str, limit: f64, value: f64| Objective {
            name: name.to_owned(),
            limit,
            value,
            unit: unit.to_owned(),
            holds: value <= limit,
        };
        let mut all = vec![
            most("loss after recovery", "%", max_loss, report.all.loss_percent),
            most("delay p99, sound", "ms", max_delay, report.audio.delay_ms.p99),
            most("delay p99, pictures", "ms", max_delay, report.video.delay_ms.p99),
            most("time frozen, sound", "%", max_freeze, report.audio.freeze_percent),
            most("time frozen, pictures", "%", max_freeze, report.video.freeze_percent),
            most("join time p95", "ms", max_join, report.joins.total_ms.p95),
            most("joins that failed", "", 0.0, report.joins.failed as f64),
            most("disconnects", "", 0.0, report.disconnects.values().sum::<u64>() as f64),
            most("streams that never came", "", 0.0, report.all.missing as f64),
            most("frames that failed authentication", "", 0.0, (report.all.failed + report.all.clear) as f64),
        ];
        // A run in which nothing arrived breaks no limit above.
        all.push(Objective {
            name: RECEIVED.to_owned(),
            limit: 1.0,
            value: report.all.frames as f64,
            unit: String::new(),
            holds: report.all.frames > 0,
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_scenario_and_that_before_the_usual() {
        let flags = Objectives { max_loss: Some(0.1), ..Objectives::default() };
        let scenario = Objectives { max_loss: Some(9.0), max_freeze: Some(30.0), ..Objectives::default() };
        let judged = flags.or(&scenario).judge(&Report::default());
        let limit = |name: &str| judged.iter().find(|o| o.name.starts_with(name)).unwrap().limit;
        let limits = ["loss", "time frozen", "delay p99", "join time"].map(limit);
        assert_eq!(limits, [0.1, 30.0, 50.0, 2000.0]);
        assert!(!judged.last().unwrap().holds, "nothing was received");
    }
}
