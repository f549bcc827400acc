//! Samples of tasks, and pass@k over them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bootstrap::Bootstrap;
use super::pass_at_k::pass_at_k;
use crate::model::Verdict;

/// How many samples of one task there are, and how many of them pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Samples {
    pub(super) n: u64,
    pub(super) c: u64,
}

impl Samples {
    pub(super) fn add(&mut self, verdict: Verdict) {
        self.n += 1;
        self.c += u64::from(verdict == Verdict::Passed);
    }
}

/// Whether a result is a sample, passed or not. What was deliberately not run and what failed for
/// reasons of ours says nothing about the program.
pub(super) fn is_sample(verdict: Verdict) -> bool {
    !matches!(verdict, Verdict::InfraError | Verdict::Filtered)
}

/// pass@k over tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PassAtK {
    /// The mean over the tasks that have `k` samples or more; none where no task has.
    pub value: Option<f64>,
    /// The bounds of the interval, where there is one: it takes two tasks.
    #[serde(flatten)]
    pub interval: Option<Interval>,
    /// Tasks in the mean.
    pub tasks: u64,
    /// Tasks that have samples, and fewer than `k` of them.
    pub tasks_with_fewer: u64,
}

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Tasks by what their samples came to: however many tasks there are, there are few such groups.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<Samples, u64>);

impl FromIterator<Samples> for Groups {
    /// Tasks without a sample are left out.
    fn from_iter<I: IntoIterator<Item = Samples>>(samples: I) -> Self {
        let mut groups = Self::default();
        samples.into_iter().for_each(|of_task| groups.add(of_task, 1));
        groups
    }
}

impl Groups {
    /// Predictions without tasks, each as a task of its own: only pass@1 can be said of them.
    pub(super) fn of_predictions(samples: u64, passed: u64) -> Self {
        let mut groups = Self::default();
        groups.add(Samples { n: 1, c: 1 }, passed);
        groups.add(Samples { n: 1, c: 0 }, samples - passed);
        groups
    }

    fn add(&mut self, samples: Samples, tasks: u64) {
        if samples.n > 0 && tasks > 0 {
            *self.0.entry(samples).or_default() += tasks;
        }
    }

    /// How many tasks have a sample.
    pub(super) fn tasks(&self) -> u64 {
        self.0.values().sum()
    }

    /// The fewest and the most samples of a task.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        let (first, last) = (self.0.keys().next()?, self.0.keys().next_back()?);
        Some((first.n, last.n))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of tasks are far below 2^53")]
    pub(super) fn pass_at_k(&self, k: u64, bootstrap: Option<&Bootstrap>) -> PassAtK {
        let values: Vec<(f64, u64)> = self
            .0
            .range(Samples { n: k, c: 0 }..)
            .map(|(samples, &tasks)| (pass_at_k(samples.n, samples.c, k), tasks))
            .collect();
        let tasks: u64 = values.iter().map(|(_, tasks)| tasks).sum();
        let sum: f64 = values.iter().map(|&(value, tasks)| value * tasks as f64).sum();
        PassAtK {
            value: (tasks > 0).then(|| sum / tasks as f64),
            interval: bootstrap.and_then(|bootstrap| bootstrap.interval(&values)),
            tasks,
            tasks_with_fewer: self.tasks() - tasks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_with_fewer_samples_are_told() {
        let groups: Groups =
            [(2, 1), (2, 1), (1, 0), (0, 0)].into_iter().map(|(n, c)| Samples { n, c }).collect();
        assert_eq!((groups.tasks(), groups.range()), (3, Some((1, 2))));
        let of = |k| {
            let found = groups.pass_at_k(k, None);
            (found.value, found.tasks, found.tasks_with_fewer)
        };
        assert_eq!(of(1), (Some(1.0 / 3.0), 3, 0));
        assert_eq!(of(2), (Some(1.0), 2, 1));
        assert_eq!(of(3), (None, 0, 3));
        assert_eq!(Groups::default().range(), None);
    }
}
