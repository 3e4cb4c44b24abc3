//! Two builds of the server measured at the same time.
//!
//! One after the other, what else happens on a machine hides differences of ten percent. At the same time it happens to both: the
//! ratio of what a packet costs with the one and with the other tells three percent after a few rounds.

use std::path::Path;
use std::time::Duration;

use loadtest::scenario::Scenario;
use serde::Serialize;
use tokio::sync::watch;

use super::figures::Figures;
use super::{Args, measure};

/// The second one starts so much later: neither is always first to do something.
const APART: Duration = Duration::from_millis(200);

/// One round of a shape.
#[derive(Debug, Serialize)]
struct Round {
    shape: String,
    round: u32,
    cpu_us_per_packet: Option<f64>,
    against_us_per_packet: Option<f64>,
    /// The first over the second.
    ratio: Option<f64>,
    /// Sound: one packet, from the sender's socket to the receiver's.
    p99_us: f64,
    against_p99_us: f64,
    loss_pct: f64,
    against_loss_pct: f64,
    doubts: Vec<String>,
}

/// All rounds of a shape.
#[derive(Debug, Serialize)]
struct Rounds {
    shape: String,
    rounds: usize,
    /// Median of the ratios.
    ratio: f64,
    least: f64,
    most: f64,
}

pub(super) fn print_head() {
    println!(
        "{:<28} {:>10} {:>10} {:>7} {:>8} {:>8} {:>7} {:>7}",
        "shape", "us/packet", "against", "ratio", "p99 us", "against", "loss %", "against"
    );
}

/// Measures a shape with both servers for so many rounds.
pub(super) async fn run(
    args: &Args,
    against: &Path,
    scenario: &Scenario,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut ratios = Vec::new();
    for number in 1..=args.rounds {
        // Who starts first changes from round to round.
        let (ours, theirs) = if number % 2 == 1 { (Duration::ZERO, APART) } else { (APART, Duration::ZERO) };
        let one = async |program: &Path, wait| {
            tokio::time::sleep(wait).await;
            measure(args, program, scenario, stop).await
        };
        let (ours, theirs) = tokio::try_join!(one(&args.host, ours), one(against, theirs))?;
        if *stop.borrow() {
            return Ok(());
        }
        let round = Round::of(number, ours, theirs);
        ratios.extend(round.ratio);
        match args.json {
            true => println!("{}", serde_json::to_string(&round)?),
            false => round.print(),
        }
    }
    let Some(all) = Rounds::of(&scenario.name, ratios) else { return Ok(()) };
    match args.json {
        true => println!("{}", serde_json::to_string(&all)?),
        false => println!(
            "{:<28} median of {}: {:.3} ({:.3} to {:.3})",
            "", all.rounds, all.ratio, all.least, all.most
        ),
    }
    Ok(())
}

impl Round {
    fn of(round: u32, ours: Figures, theirs: Figures) -> Self {
        let (cpu_us_per_packet, against_us_per_packet) = (ours.cpu_us_per_packet, theirs.cpu_us_per_packet);
        let doubts = |of: &str, doubts: Vec<String>| {
            doubts.into_iter().map(|doubt| format!("{of}: {doubt}")).collect::<Vec<_>>()
        };
        Self {
            round,
            cpu_us_per_packet,
            against_us_per_packet,
            ratio: cpu_us_per_packet.zip(against_us_per_packet).map(|(ours, theirs)| ours / theirs),
            p99_us: ours.p99_us,
            against_p99_us: theirs.p99_us,
            loss_pct: ours.loss_pct,
            against_loss_pct: theirs.loss_pct,
            shape: ours.shape,
            doubts: [doubts("--host", ours.doubts), doubts("--against", theirs.doubts)].concat(),
        }
    }

    fn print(&self) {
        let some =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
        println!(
            "{:<28} {:>10} {:>10} {:>7} {:>8.0} {:>8.0} {:>7.3} {:>7.3}",
            self.shape,
            some(self.cpu_us_per_packet, 2),
            some(self.against_us_per_packet, 2),
            some(self.ratio, 3),
            self.p99_us,
            self.against_p99_us,
            self.loss_pct,
            self.against_loss_pct,
        );
        for doubt in &self.doubts {
            println!("  DOUBT {doubt}");
        }
    }
}

impl Rounds {
    /// `None` where nothing was measured.
    fn of(shape: &str, mut ratios: Vec<f64>) -> Option<Self> {
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (*ratios.first()?, *ratios.last()?);
        let (upper, lower) = (ratios.len() / 2, (ratios.len() - 1) / 2);
        let ratio = f64::midpoint(ratios[lower], ratios[upper]);
        Some(Self { shape: shape.to_owned(), rounds: ratios.len(), ratio, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_rounds_is_in_their_middle() {
        let of = |ratios: &[f64]| {
            Rounds::of("1:10", ratios.to_vec()).map(|all| (all.rounds, all.ratio, all.least, all.most))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0.9]), Some((1, 0.9, 0.9, 0.9)));
        assert_eq!(of(&[1.5, 0.5, 0.75, 1.0]), Some((4, 0.875, 0.5, 1.5)));
        assert_eq!(of(&[1.5, 0.5, 0.75]), Some((3, 0.75, 0.5, 1.5)));
    }
}
