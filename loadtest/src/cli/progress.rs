//! The live view: one line that is drawn anew on a terminal, a line every five seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use loadtest::report::human_rate;
use loadtest::run::Progress;

const BAR: usize = 20;
const PLAIN_EVERY: u64 = 5;

pub(crate) struct View {
    terminal: bool,
    quiet: bool,
    drawn: bool,
    lost: u64,
    freezes: u64,
    shown_at: Option<u64>,
}

impl View {
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, quiet, drawn: false, lost: 0, freezes: 0, shown_at: None }
    }

    /// Shows a second.
    pub(crate) fn show(&mut self, p: &Progress) {
        self.lost += p.second.lost;
        self.freezes += p.second.freezes;
        let second = p.elapsed.as_secs();
        let due = self.shown_at.is_none_or(|last| second >= last + PLAIN_EVERY);
        if self.quiet || (!self.terminal && !due) {
            return;
        }
        self.shown_at = Some(second);
        let line = self.line(p);
        let mut err = std::io::stderr().lock();
        // Nobody is there to be told that the view cannot be drawn.
        let _ = match self.terminal {
            true => write!(err, "\r\x1b[2K{} {line}", bar(p.elapsed, p.total)).and_then(|()| err.flush()),
            false => writeln!(err, "{:>4}/{} s {line}", second, p.total.as_secs()),
        };
        self.drawn = true;
    }

    fn line(&self, p: &Progress) -> String {
        let mut delay = p.second.audio.clone();
        delay.merge(&p.second.video);
        let joins = match p.failed_joins {
            0 => String::new(),
            failed => format!(", {failed} joins failed"),
        };
        if !p.measuring {
            return format!("{}/{} in their rooms{joins}", p.present, p.planned);
        }
        format!(
            "{}/{} in their rooms{joins}, {} packets/s, {}, delay p99 {:.1} ms, lost {}, freezes {}",
            p.present,
            p.planned,
            p.second.packets,
            human_rate(p.second.bytes as f64 * 8.0),
            delay.ms(0.99),
            self.lost,
            self.freezes
        )
    }

    /// Leaves the line behind.
    pub(crate) fn end(&self) {
        if self.terminal && self.drawn {
            eprintln!();
        }
    }
}

fn bar(elapsed: Duration, total: Duration) -> String {
    let share = elapsed.as_secs_f64() / total.as_secs_f64().max(0.001);
    let full = ((share * BAR as f64) as usize).min(BAR);
    format!("[{}{}] {:>3.0} %", "#".repeat(full), ".".repeat(BAR - full), (share * 100.0).min(100.0))
}
