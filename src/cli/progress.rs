//! How far a run is: a bar on a terminal, lines in the log elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, stderr};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::model::Verdict;
use crate::telemetry::{ProgressKind, REDRAW, bar, drawn};

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    shown: Shown,
    started: Instant,
    counts: Counts,
}

#[derive(Debug)]
enum Shown {
    Bar { bar: ProgressBar, since: Instant },
    Log { every: u64 },
    Nothing,
}

#[derive(Debug, Default)]
struct Counts([u64; Verdict::ALL.len()]);

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        for (count, of) in self.0.iter_mut().zip(Verdict::ALL) {
            *count += u64::from(of == verdict);
        }
    }

    fn of(&self, verdict: Verdict) -> u64 {
        self.0.iter().zip(Verdict::ALL).find(|(_, of)| *of == verdict).map_or(0, |(count, _)| *count)
    }

    fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    fn short(&self, rate: f64) -> String {
        let (all, passed, failed) = (self.all(), self.of(Verdict::Passed), self.of(Verdict::Failed));
        let other = all - passed - failed;
        format!("{all} ({rate:.1}/s): {passed} passed, {failed} failed, {other} other")
    }

    fn by_verdict(&self) -> String {
        let mut text = String::new();
        for (count, verdict) in self.0.iter().zip(Verdict::ALL).filter(|(count, _)| **count > 0) {
            let space = if text.is_empty() { "" } else { " " };
            // A string takes everything.
            let _ = write!(text, "{space}{verdict}={count}");
        }
        text
    }
}

impl Progress {
    /// Progress through `total_bytes` of input, where that is known; without a terminal, one log line
    /// for each `log_freq` results, and none for 0.
    #[must_use]
    pub fn new(kind: ProgressKind, total_bytes: Option<u64>, log_freq: u64) -> Self {
        let shown = match kind {
            ProgressKind::Off => Shown::Nothing,
            ProgressKind::Auto if stderr().is_terminal() => {
                let bar = bar(total_bytes, ProgressDrawTarget::stderr());
                bar.enable_steady_tick(REDRAW * 5);
                drawn(Some(bar.clone()));
                Shown::Bar { bar, since: Instant::now() }
            }
            ProgressKind::Auto | ProgressKind::Log => Shown::Log { every: log_freq },
        };
        Self { shown, started: Instant::now(), counts: Counts::default() }
    }

    /// Counts one result.
    pub fn tick(&mut self, verdict: Verdict) {
        self.counts.add(verdict);
        let rate = self.rate();
        match &mut self.shown {
            Shown::Bar { bar, since } if since.elapsed() >= REDRAW => {
                *since = Instant::now();
                bar.set_message(self.counts.short(rate));
            }
            Shown::Log { every } if *every > 0 && self.counts.all().is_multiple_of(*every) => self.log(),
            Shown::Bar { .. } | Shown::Log { .. } | Shown::Nothing => {}
        }
    }

    /// How many bytes of the input are read.
    pub fn set_read(&mut self, bytes: u64) {
        if let Shown::Bar { bar, .. } = &self.shown {
            bar.set_position(bytes);
        }
    }

    /// Takes the bar away; without one, logs the last results.
    pub fn finish(self) {
        match &self.shown {
            Shown::Bar { bar, .. } => {
                drawn(None);
                bar.finish_and_clear();
            }
            Shown::Log { every } if *every > 0 && !self.counts.all().is_multiple_of(*every) => self.log(),
            Shown::Log { .. } | Shown::Nothing => {}
        }
    }

    fn log(&self) {
        let rate = (self.rate() * 10.0).round() / 10.0;
        tracing::info!(results = self.counts.all(), rate, verdicts = self.counts.by_verdict(), "progress");
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of results are far below 2^53")]
    fn rate(&self) -> f64 {
        let elapsed = self.started.elapsed().as_secs_f64();
        if elapsed > 0.0 { self.counts.all() as f64 / elapsed } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Recorder(Arc<Mutex<String>>);

    impl TermLike for Recorder {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counts() -> Counts {
        let mut counts = Counts::default();
        for verdict in [Verdict::Failed, Verdict::Passed, Verdict::Failed, Verdict::Crashed] {
            counts.add(verdict);
        }
        counts
    }

    #[test]
    fn texts() {
        assert_eq!(counts().short(2.0), "4 (2.0/s): 1 passed, 2 failed, 1 other");
        assert_eq!(counts().by_verdict(), "passed=1 failed=2 crashed=1");
        assert_eq!(Counts::default().by_verdict(), "");
    }

    #[test]
    fn the_bar_fits_and_has_no_colours() {
        for (total, expected) in [(Some(200), "[==========>         ]  50% eta "), (None, " 0s | 4")] {
            let terminal = Recorder::default();
            let bar = bar(total, ProgressDrawTarget::term_like(Box::new(terminal.clone())));
            bar.set_message(counts().short(2.0));
            bar.set_position(100);
            terminal.0.lock().unwrap().clear();
            bar.force_draw();
            let shown = terminal.0.lock().unwrap().trim_end().to_owned();
            assert!(shown.contains(expected) && shown.ends_with("1 other"), "{shown:?}");
            assert!(shown.len() <= 80 && !shown.contains('\u{1b}'));
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_drawn() {
        for (kind, every) in [(ProgressKind::Off, 1), (ProgressKind::Auto, 0), (ProgressKind::Auto, 2)] {
            let mut progress = Progress { shown: Shown::Nothing, ..Progress::new(kind, Some(1), every) };
            progress.tick(Verdict::Passed);
            progress.set_read(1);
            progress.finish();
        }
    }
}
