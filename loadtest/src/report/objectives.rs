//! What an operator demands of a relay.

use serde::{Deserialize, Serialize};

use super::Report;

/// Limits. What is above breaks an objective.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Objectives {
    /// Highest loss after recovery, in percent.
    #[arg(long, default_value_t = 0.5, value_name = "PERCENT")]
    pub max_loss: f64,
    /// Highest one-way delay at p99, in milliseconds.
    #[arg(long, default_value_t = 50.0, value_name = "MS")]
    pub max_delay_p99: f64,
    /// Highest share of the time watched that is frozen, in percent: sound or pictures, gaps over 200 ms.
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    pub max_freeze: f64,
    /// Highest join time at p95, in milliseconds.
    #[arg(long, default_value_t = 2000.0, value_name = "MS")]
    pub max_join_p95: f64,
}

impl Default for Objectives {
    fn default() -> Self {
        Self { max_loss: 0.5, max_delay_p99: 50.0, max_freeze: 1.0, max_join_p95: 2000.0 }
    }
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

impl Objectives {
    /// Holds a report against the limits.
    pub(super) fn judge(&self, report: &Report) -> Vec<Objective> {
        let most = |name: &str, unit: &str, limit: f64, value: f64| Objective {
            name: name.to_owned(),
            limit,
            value,
            unit: unit.to_owned(),
            holds: value <= limit,
        };
        let mut all = vec![
            most("loss after recovery", "%", self.max_loss, report.all.loss_percent),
            most("delay p99, sound", "ms", self.max_delay_p99, report.audio.delay_ms.p99),
            most("delay p99, pictures", "ms", self.max_delay_p99, report.video.delay_ms.p99),
            most("time frozen, sound", "%", self.max_freeze, report.audio.freeze_percent),
            most("time frozen, pictures", "%", self.max_freeze, report.video.freeze_percent),
            most("join time p95", "ms", self.max_join_p95, report.joins.total_ms.p95),
            most("joins that failed", "", 0.0, report.joins.failed as f64),
            most("disconnects", "", 0.0, report.disconnects.values().sum::<u64>() as f64),
            most("streams that never came", "", 0.0, report.all.missing as f64),
            most("frames that failed authentication", "", 0.0, (report.all.failed + report.all.clear) as f64),
        ];
        // A run in which nothing arrived breaks no limit above.
        all.push(Objective {
            name: "frames received".to_owned(),
            limit: 1.0,
            value: report.all.frames as f64,
            unit: String::new(),
            holds: report.all.frames > 0,
        });
        all
    }
}
