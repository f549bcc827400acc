//! What one instance does in one window of time after another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::summary::Summary;
use crate::model::{StageTimings, TimingsMessage, Verdict};

/// Takes results, and gives a timings message for each window. Windows follow each other without a
/// gap: one ends where the next begins.
#[derive(Debug)]
pub struct Window {
    /// Without tasks: pass@k belongs to whoever sees every instance.
    summary: Summary,
    since: Instant,
    /// The pool's counts at the end of the last window.
    recycled: BTreeMap<String, u64>,
}

impl Window {
    /// The first window of `instance` begins now.
    pub fn new(instance: impl Into<String>) -> Self {
        Self { summary: Summary::new(instance), since: Instant::now(), recycled: BTreeMap::new() }
    }

    /// Takes one result.
    pub fn add_parts(&mut self, verdict: Verdict, timings: &StageTimings) {
        self.summary.add_parts(verdict, None, None, timings);
    }

    /// How many results the window has so far.
    #[must_use]
    pub fn results(&self) -> u64 {
        self.summary.results()
    }

    /// Ends the window, and begins the next one. `recycled` are the counts since the start of the
    /// pool, as it gives them; the message has what came since the last window.
    pub fn emit<'a>(
        &mut self,
        recycled: impl IntoIterator<Item = (&'a str, u64)>,
        busy_slots: u64,
    ) -> TimingsMessage {
        let now = Instant::now();
        let wall = now.duration_since(self.since);
        self.since = now;
        self.emit_after(wall, recycled, busy_slots)
    }

    fn emit_after<'a>(
        &mut self,
        wall: Duration,
        recycled: impl IntoIterator<Item = (&'a str, u64)>,
        busy_slots: u64,
    ) -> TimingsMessage {
        let mut message = TimingsMessage { busy_slots, ..self.summary.timings(wall) };
        self.summary.clear();
        for (reason, count) in recycled {
            let last = self.recycled.entry(reason.to_owned()).or_default();
            // Counts that went back are those of a new pool.
            let new = count.checked_sub(*last).unwrap_or(count);
            *last = count;
            if new > 0 {
                message.recycled.insert(reason.to_owned(), new);
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_what_came_in_it() {
        let mut window = Window::new("host:1");
        let timings = StageTimings { write: 1.0, execute: 2.0, net: 4.0, ..StageTimings::default() };
        window.add_parts(Verdict::Passed, &timings);
        window.add_parts(Verdict::TimedOut, &timings);
        assert_eq!(window.results(), 2);
        let first = window.emit_after(Duration::from_secs(4), [("age", 1), ("memory", 0)], 3);
        assert_eq!((first.instance.as_str(), first.num_results, first.busy_slots), ("host:1", 2, 3));
        let counts = [(Verdict::Passed, 1), (Verdict::TimedOut, 1)];
        assert_eq!(first.verdicts, BTreeMap::from(counts));
        let times = [first.net_time, first.pure_exec_time, first.execution_time, first.rate];
        assert_eq!(times, [4.0, 4.0, 6.0, 0.5]);
        assert!((first.stages["net"].p50 - 4.0).abs() < 0.01);
        assert_eq!(first.recycled, BTreeMap::from([("age".to_owned(), 1)]));
        assert_eq!(serde_json::to_value(&first).unwrap()["schema"], "timings.v1");

        window.add_parts(Verdict::Failed, &StageTimings { net: 8.0, ..StageTimings::default() });
        let second = window.emit_after(Duration::from_secs(1), [("age", 3), ("memory", 2)], 0);
        assert_eq!((second.num_results, second.pure_exec_time, second.busy_slots), (1, 0.0, 0));
        assert_eq!(second.verdicts, BTreeMap::from([(Verdict::Failed, 1)]));
        assert!((second.stages["net"].p50 - 8.0).abs() < 0.02);
        assert_eq!(second.recycled, BTreeMap::from([("age".to_owned(), 2), ("memory".to_owned(), 2)]));
    }

    #[test]
    fn an_empty_window_is_a_message_too() {
        let mut window = Window::new("host:1");
        window.emit_after(Duration::from_secs(1), [("age", 5)], 0);
        let empty = window.emit([("age", 2)], 0);
        assert_eq!((empty.num_results, empty.stages.len()), (0, 0));
        assert!(empty.net_time >= 0.0 && humantime::parse_rfc3339(&empty.timestamp).is_ok());
        assert_eq!(empty.recycled["age"], 2, "a new pool counts from zero");
    }
}
