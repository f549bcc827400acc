//! Confidence intervals by the bootstrap.

use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Binomial, Distribution as _};
use serde::Serialize;

use super::samples::Interval;

/// The percentile bootstrap over tasks: as many tasks are drawn with replacement as there are, again
/// and again, and the interval holds the middle 95 % of the means. A task's samples stay together.
///
/// The same seed gives the same interval for the same results, in whatever order they come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    /// How often tasks are drawn.
    pub resamples: u32,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0 }
    }
}

impl Bootstrap {
    /// The part of the means that the interval holds.
    pub const CONFIDENCE: f64 = 0.95;

    /// The interval of the mean of `values`, each of which so many tasks have; none for fewer than two
    /// tasks.
    #[expect(clippy::cast_precision_loss, reason = "numbers of tasks are far below 2^53")]
    pub(super) fn interval(&self, values: &[(f64, u64)]) -> Option<Interval> {
        let tasks: u64 = values.iter().map(|(_, count)| count).sum();
        if tasks < 2 || self.resamples == 0 {
            return None;
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut means: Vec<f64> =
            (0..self.resamples).map(|_| resample(values, tasks, &mut random) / tasks as f64).collect();
        means.sort_unstable_by(f64::total_cmp);
        let outside = (1.0 - Self::CONFIDENCE) / 2.0;
        Some(Interval { low: quantile(&means, outside), high: quantile(&means, 1.0 - outside) })
    }
}

/// The sum of so many values, drawn with replacement: how often each group comes is multinomial, which
/// is one binomial number after the other. That takes as long as there are groups, not tasks.
#[expect(clippy::cast_precision_loss, reason = "numbers of tasks are far below 2^53")]
fn resample(values: &[(f64, u64)], tasks: u64, random: &mut ChaCha8Rng) -> f64 {
    let (mut draws, mut left, mut sum) = (tasks, tasks, 0.0);
    for &(value, count) in values {
        let drawn = if count == left {
            draws
        } else {
            let share = count as f64 / left as f64;
            // A share of a whole is a probability.
            Binomial::new(draws, share).map_or(0, |binomial| binomial.sample(random))
        };
        sum += value * drawn as f64;
        draws -= drawn;
        left -= count;
    }
    sum
}

/// With a straight line between neighbours.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the place is between 0 and the length"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let part = place - below as f64;
    sorted[below] * (1.0 - part) + sorted[above] * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_interval_of_a_share() {
        // 300 of 1,000 tasks: the mean's standard error is sqrt(0.3 · 0.7 / 1000) = 0.01449.
        let values = [(0.0, 700), (1.0, 300)];
        let Interval { low, high } = Bootstrap { resamples: 20_000, seed: 7 }.interval(&values).unwrap();
        assert!((low - (0.3 - 1.96 * 0.01449)).abs() < 0.002, "{low}");
        assert!((high - (0.3 + 1.96 * 0.01449)).abs() < 0.002, "{high}");
    }

    #[test]
    fn several_groups_are_drawn_by_their_size() {
        // Mean 0.5, variance of one task 0.125: half are 0.5, a quarter each 0 and 1.
        let values = [(0.0, 250), (0.5, 500), (1.0, 250)];
        let Interval { low, high } = Bootstrap { resamples: 20_000, seed: 7 }.interval(&values).unwrap();
        let half = 1.96 * (0.125_f64 / 1000.0).sqrt();
        assert!((low - (0.5 - half)).abs() < 0.002 && (high - (0.5 + half)).abs() < 0.002, "{low} {high}");
    }

    #[test]
    fn seeds_decide_and_nothing_else() {
        let values = [(0.0, 70), (1.0, 30)];
        let of = |seed| Bootstrap { resamples: 500, seed }.interval(&values);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn one_task_has_no_interval_and_equal_ones_a_point() {
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.interval(&[(0.5, 1)]), None);
        assert_eq!(bootstrap.interval(&[]), None);
        assert_eq!(bootstrap.interval(&[(0.5, 9)]), Some(Interval { low: 0.5, high: 0.5 }));
        assert_eq!(Bootstrap { resamples: 0, seed: 0 }.interval(&[(0.5, 9)]), None);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert!((quantile(&[1.0, 2.0, 3.0], 0.25) - 1.5).abs() < 1e-12);
        assert!((quantile(&[4.0], 0.975) - 4.0).abs() < 1e-12);
    }
}
