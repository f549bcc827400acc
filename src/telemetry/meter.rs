//! How far something is: a bar on a terminal, lines in the log elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::drawn;

/// Time between two drawings.
pub const REDRAW: Duration = Duration::from_millis(100);
// No colours: there is nothing for NO_COLOR to turn off.
const WITH_TOTAL: &str = "[{bar:20}] {percent:>3}% eta {eta} | {wide_msg}";
const WITHOUT_TOTAL: &str = "{spinner} {elapsed} | {wide_msg}";

/// Whether to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressKind {
    /// A bar where standard error is a terminal, log lines elsewhere.
    Auto,
    /// Log lines.
    Log,
    /// Nothing.
    Off,
}

/// Counts one sort of thing, and shows the count with its rate.
#[derive(Debug)]
pub struct Meter {
    what: String,
    bar: Option<(ProgressBar, Instant)>,
    /// Things between two log lines; 0 is none.
    every: u64,
    started: Instant,
    count: u64,
}

impl Meter {
    /// Progress of things called `what` through `total` (bytes of input, say), where that is known; without
    /// a terminal a log line for each `every` things, and none for 0.
    #[must_use]
    pub fn new(kind: ProgressKind, what: impl Into<String>, total: Option<u64>, every: u64) -> Self {
        let (shown, every) = match kind {
            ProgressKind::Off => (None, 0),
            ProgressKind::Auto if stderr().is_terminal() => {
                let bar = bar(total, ProgressDrawTarget::stderr());
                bar.enable_steady_tick(REDRAW * 5);
                drawn(Some(bar.clone()));
                (Some((bar, Instant::now())), 0)
            }
            ProgressKind::Auto | ProgressKind::Log => (None, every),
        };
        Self { what: what.into(), bar: shown, every, started: Instant::now(), count: 0 }
    }

    /// Counts one more, when so much of the total is done.
    pub fn tick(&mut self, position: u64) {
        self.count += 1;
        let due = match &self.bar {
            Some((_, since)) => since.elapsed() >= REDRAW,
            None => self.every > 0 && self.count.is_multiple_of(self.every),
        };
        if !due {
            return;
        }
        let text = self.text();
        match &mut self.bar {
            Some((bar, since)) => {
                *since = Instant::now();
                bar.set_position(position);
                bar.set_message(text);
            }
            None => tracing::info!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some((bar, _)) = self.bar {
            drawn(None);
            bar.finish_and_clear();
        }
    }

    /// The count and its rate.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn text(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { self.count as f64 / seconds } else { 0.0 };
        format!("{} {} ({rate:.1}/s)", self.count, self.what)
    }
}

/// A bar, or a spinner where no total is known.
#[must_use]
pub fn bar(total: Option<u64>, target: ProgressDrawTarget) -> ProgressBar {
    let template = if total.is_some() { WITH_TOTAL } else { WITHOUT_TOTAL };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .tick_chars("|/-\\ ");
    ProgressBar::with_draw_target(total, target).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let mut meter = Meter::new(ProgressKind::Off, "published", None, 1);
        meter.tick(0);
        meter.tick(0);
        assert!(meter.text().starts_with("2 published ("), "{}", meter.text());
        meter.finish();
    }
}
