//! How far publishing is: a bar on a terminal, lines in the log elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::progress::{ProgressKind, REDRAW, bar};
use crate::telemetry::drawn;

/// Counts one sort of thing, and shows the count with its rate.
#[derive(Debug)]
pub(super) struct Meter {
    what: &'static str,
    bar: Option<(ProgressBar, Instant)>,
    /// Things between two log lines; 0 is none.
    every: u64,
    started: Instant,
    count: u64,
}

impl Meter {
    /// Progress through `total_bytes` of input, where that is known.
    pub(super) fn new(kind: ProgressKind, what: &'static str, total_bytes: Option<u64>, every: u64) -> Self {
        let (shown, every) = match kind {
            ProgressKind::Off => (None, 0),
            ProgressKind::Auto if stderr().is_terminal() => {
                let bar = bar(total_bytes, ProgressDrawTarget::stderr());
                bar.enable_steady_tick(REDRAW * 5);
                drawn(Some(bar.clone()));
                (Some((bar, Instant::now())), 0)
            }
            ProgressKind::Auto => (None, every),
        };
        Self { what, bar: shown, every, started: Instant::now(), count: 0 }
    }

    /// Counts one, when so many bytes of the input are read.
    pub(super) fn tick(&mut self, read: u64) {
        self.count += 1;
        let text = self.text();
        match &mut self.bar {
            Some((bar, since)) if since.elapsed() >= REDRAW => {
                *since = Instant::now();
                bar.set_position(read);
                bar.set_message(text);
            }
            None if self.every > 0 && self.count.is_multiple_of(self.every) => tracing::info!("{text}"),
            Some(_) | None => {}
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(self) {
        if let Some((bar, _)) = self.bar {
            drawn(None);
            bar.finish_and_clear();
        }
    }

    /// The count and its rate.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn text(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { self.count as f64 / seconds } else { 0.0 };
        format!("{} {} ({rate:.1}/s)", self.count, self.what)
    }
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
