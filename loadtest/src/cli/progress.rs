//! The live view: one line that is drawn anew on a terminal, a line every five seconds elsewhere.
//!
//! The line is as long as it needs to be; the terminal cuts off what does not fit, for one that went on below could not be
//! drawn over.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use loadtest::report::human_rate;
use loadtest::run::Progress;

const BAR: usize = 20;
/// Back to the start of the line, erase it, and do not go on in the next one (DECAWM off); and the end of that.
const ANEW: &str = "\r\x1b[2K\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
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
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = std::io::stderr().is_terminal() && !dumb;
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
            true => write!(err, "{ANEW}{} {line}{WRAP}", bar(p.elapsed, p.total)).and_then(|()| err.flush()),
            false => writeln!(err, "{:>4}/{} s {line}", second, p.total.as_secs()),
        };
        self.drawn = true;
    }

    fn line(&self, p: &Progress) -> String {
        let mut delay = p.second.audio.clone();
        delay.merge(&p.second.video);
        let joins = match p.failed_joins {
            0 => String::new(),
            1 => ", 1 join failed".to_owned(),
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

    /// Takes the line away: what comes next says it all.
    pub(crate) fn end(&self) {
        if self.terminal && self.drawn {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[2K").and_then(|()| err.flush());
        }
    }
}

fn bar(elapsed: Duration, total: Duration) -> String {
    let share = elapsed.as_secs_f64() / total.as_secs_f64().max(0.001);
    let full = ((share * BAR as f64) as usize).min(BAR);
    format!("[{}{}] {:>3.0} %", "#".repeat(full), ".".repeat(BAR - full), (share * 100.0).min(100.0))
}
