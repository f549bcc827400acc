//! How long the stages take.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::model::{StageSummary, StageTimings};

const LOWEST_MICROS: u64 = 1;
const HIGHEST_MICROS: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// Distribution and sum of each stage.
#[derive(Debug)]
pub(super) struct Stages {
    histograms: [Histogram<u64>; StageTimings::STAGES],
    /// Sums.
    pub(super) total: StageTimings,
}

impl Stages {
    pub(super) fn new() -> Self {
        let histogram = |_| {
            Histogram::new_with_bounds(LOWEST_MICROS, HIGHEST_MICROS, DIGITS)
                .expect("the bounds are constants that are in range")
        };
        Self { histograms: std::array::from_fn(histogram), total: StageTimings::default() }
    }

    /// As new, in the same memory: the histograms are about 1.5 MB.
    pub(super) fn clear(&mut self) {
        self.histograms.iter_mut().for_each(Histogram::reset);
        self.total = StageTimings::default();
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    pub(super) fn add(&mut self, timings: &StageTimings) {
        for ((_, part), histogram) in timings.parts().into_iter().zip(&mut self.histograms) {
            let micros = (part * 1e6).round() as u64;
            histogram.saturating_record(micros.clamp(LOWEST_MICROS, HIGHEST_MICROS));
        }
        let total = &mut self.total;
        total.queue += timings.queue;
        total.preprocess += timings.preprocess;
        total.write += timings.write;
        total.wait += timings.wait;
        total.execute += timings.execute;
        total.cleanup += timings.cleanup;
        total.postprocess += timings.postprocess;
        total.net += timings.net;
    }

    #[expect(clippy::cast_precision_loss, reason = "microseconds of an hour are far below 2^53")]
    pub(super) fn summaries(&self) -> BTreeMap<String, StageSummary> {
        let summary = |histogram: &Histogram<u64>| {
            let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
            StageSummary { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
        };
        self.total
            .parts()
            .into_iter()
            .zip(&self.histograms)
            .filter(|(_, histogram)| !histogram.is_empty())
            .map(|((name, _), histogram)| (name.to_owned(), summary(histogram)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_clamping() {
        let mut stages = Stages::new();
        for millis in 1..=100 {
            stages.add(&StageTimings { execute: f64::from(millis) / 1e3, ..StageTimings::default() });
        }
        let execute = stages.summaries()["execute"];
        for (found, expected) in [(execute.p50, 0.050), (execute.p95, 0.095), (execute.p99, 0.099)] {
            assert!((found - expected).abs() < expected * 2e-3, "{found} {expected}");
        }
        assert!((stages.total.execute - 5.05).abs() < 1e-9);
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e12] {
            stages.add(&StageTimings { queue: odd, ..StageTimings::default() });
        }
        assert!(stages.summaries()["queue"].p99 >= 3_590.0);
    }

    #[test]
    fn nothing_has_no_distribution() {
        assert!(Stages::new().summaries().is_empty());
    }
}
