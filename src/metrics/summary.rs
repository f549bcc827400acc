//! The summary of a run or of a window.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::samples::{Groups, Samples, is_sample};
use super::stages::Stages;
use crate::model::{ResultMessage, StageTimings, TimingsMessage, Verdict};

/// What a run came to: a timings message, and the passes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Counts and times.
    #[serde(flatten)]
    pub timings: TimingsMessage,
    /// How many tasks have a sample that counts.
    pub tasks: u64,
    /// pass@k by k, the mean over tasks; without tasks, the share of passed predictions as pass@1.
    pub pass_at_k: BTreeMap<u64, f64>,
}

/// Takes results, and says at any time what they come to.
///
/// It keeps two numbers for each task, by a hash of its run and name, and nothing for a result.
#[derive(Debug)]
pub struct Summary {
    instance: String,
    verdicts: BTreeMap<Verdict, u64>,
    tasks: HashMap<u64, Samples>,
    stages: Stages,
    recycled: BTreeMap<String, u64>,
}

impl Default for Summary {
    fn default() -> Self {
        Self::new("")
    }
}

impl Summary {
    /// An empty summary of `instance`'s results.
    pub fn new(instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            verdicts: BTreeMap::new(),
            tasks: HashMap::new(),
            stages: Stages::new(),
            recycled: BTreeMap::new(),
        }
    }

    /// Takes one result.
    pub fn add(&mut self, result: &ResultMessage) {
        self.add_parts(result.verdict, result.task.as_deref(), result.run.as_deref(), &result.timings);
    }

    /// Takes the parts of one result that matter here.
    ///
    /// Everything with a task is a sample of it, passed or not, but for what says nothing about the
    /// program: `infra_error` and `filtered`.
    pub fn add_parts(
        &mut self,
        verdict: Verdict,
        task: Option<&str>,
        run: Option<&str>,
        timings: &StageTimings,
    ) {
        *self.verdicts.entry(verdict).or_default() += 1;
        self.stages.add(timings);
        if let Some(task) = task
            && is_sample(verdict)
        {
            self.tasks.entry(name_hash(run, task)).or_default().add(verdict);
        }
    }

    /// Counts a worker that was replaced.
    pub fn add_recycled(&mut self, reason: &str) {
        match self.recycled.get_mut(reason) {
            Some(count) => *count += 1,
            None => drop(self.recycled.insert(reason.to_owned(), 1)),
        }
    }

    /// How many results there are with this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }

    /// How many results there are.
    #[must_use]
    pub fn results(&self) -> u64 {
        self.verdicts.values().sum()
    }

    /// The report after `wall` of time.
    #[must_use]
    pub fn report(&self, wall: Duration) -> RunReport {
        RunReport { timings: self.timings(wall), tasks: self.tasks.len() as u64, pass_at_k: self.pass_at_k() }
    }

    /// Counts and times after `wall` of time.
    #[expect(clippy::cast_precision_loss, reason = "numbers of results are far below 2^53")]
    pub(super) fn timings(&self, wall: Duration) -> TimingsMessage {
        let total = &self.stages.total;
        let num_results = self.results();
        let net_time = wall.as_secs_f64();
        TimingsMessage {
            instance: self.instance.clone(),
            timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            num_results,
            verdicts: self.verdicts.clone(),
            net_time,
            pure_exec_time: total.execute,
            execution_time: total.wait + total.write + total.execute + total.cleanup,
            writing_time: total.write,
            preprocessing_time: total.preprocess,
            postprocessing_time: total.postprocess,
            stages: self.stages.summaries(),
            recycled: self.recycled.clone(),
            rate: if net_time > 0.0 { num_results as f64 / net_time } else { 0.0 },
            ..TimingsMessage::default()
        }
    }

    /// As new, for the same instance.
    pub(super) fn clear(&mut self) {
        self.verdicts.clear();
        self.tasks.clear();
        self.stages.clear();
        self.recycled.clear();
    }

    fn pass_at_k(&self) -> BTreeMap<u64, f64> {
        let groups = if self.tasks.is_empty() {
            let samples = self.verdicts.iter().filter(|(verdict, _)| is_sample(**verdict));
            let samples = samples.map(|(_, count)| count).sum();
            Groups::of_predictions(samples, self.count(Verdict::Passed))
        } else {
            self.tasks.values().copied().collect()
        };
        let fewest = groups.range().map_or(0, |(fewest, _)| fewest);
        ks().take_while(|&k| k <= fewest)
            .filter_map(|k| Some((k, groups.pass_at_k(k, None).value?)))
            .collect()
    }
}

/// 1, 2, 5, 10, 20, 50, …
fn ks() -> impl Iterator<Item = u64> {
    (0..19).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)))
}

/// Of a name within a run.
pub(super) fn name_hash(run: Option<&str>, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    // The length keeps run and name apart; an absent run is no empty one.
    hasher.update(&run.map_or(u64::MAX, |run| run.len() as u64).to_le_bytes());
    hasher.update(run.unwrap_or_default().as_bytes()).update(name.as_bytes());
    let mut half = [0; 8];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    use Verdict as V;

    fn summary(results: &[(Verdict, Option<&str>, Option<&str>)]) -> Summary {
        let mut summary = Summary::default();
        for &(verdict, run, task) in results {
            summary.add_parts(verdict, task, run, &StageTimings::default());
        }
        summary
    }

    #[rstest]
    #[case::nothing(&[], 0, &[])]
    #[case::no_tasks(&[(V::Passed, None, None), (V::Invalid, None, None), (V::Filtered, None, None), (V::InfraError, None, None)], 0, &[(1, 0.5)])]
    #[case::only_ours(&[(V::InfraError, None, None)], 0, &[])]
    #[case::two_tasks(&[(V::Passed, None, Some("a")), (V::Failed, None, Some("a")), (V::Failed, None, Some("b"))], 2, &[(1, 0.25)])]
    #[case::fewest_decides(&[(V::Passed, None, Some("a")), (V::TimedOut, None, Some("a")), (V::Failed, None, Some("b")), (V::Failed, None, Some("b")), (V::Failed, None, Some("b"))], 2, &[(1, 0.25), (2, 0.5)])]
    #[case::ours_does_not_count(&[(V::Passed, None, Some("a")), (V::InfraError, None, Some("a")), (V::InfraError, None, Some("b"))], 1, &[(1, 1.0)])]
    #[case::invalid_counts(&[(V::Passed, None, Some("a")), (V::Invalid, None, Some("a"))], 1, &[(1, 0.5), (2, 1.0)])]
    #[case::runs_are_apart(&[(V::Passed, Some("r"), Some("a")), (V::Failed, Some("s"), Some("a")), (V::Failed, Some("ra"), Some("")), (V::Failed, None, Some("a"))], 4, &[(1, 0.25)])]
    fn passes(
        #[case] results: &[(Verdict, Option<&str>, Option<&str>)],
        #[case] tasks: u64,
        #[case] expected: &[(u64, f64)],
    ) {
        let report = summary(results).report(Duration::from_secs(1));
        assert_eq!(report.tasks, tasks);
        assert_eq!(report.pass_at_k, expected.iter().copied().collect());
    }

    #[test]
    fn a_report_is_a_timings_message_and_more() {
        let mut summary = Summary::new("host");
        let timings = StageTimings {
            preprocess: 0.5,
            write: 1.0,
            wait: 2.0,
            execute: 4.0,
            cleanup: 8.0,
            postprocess: 0.25,
            ..StageTimings::default()
        };
        summary.add_parts(V::Passed, None, None, &timings);
        summary.add_parts(V::Failed, None, None, &timings);
        summary.add_recycled("memory");
        summary.add_recycled("memory");
        let report = summary.report(Duration::from_secs(4));
        let timings = &report.timings;
        assert_eq!((timings.num_results, timings.verdicts[&V::Passed]), (2, 1));
        let times = [
            timings.net_time,
            timings.pure_exec_time,
            timings.execution_time,
            timings.writing_time,
            timings.preprocessing_time,
            timings.postprocessing_time,
            timings.rate,
        ];
        assert_eq!(times, [4.0, 8.0, 30.0, 2.0, 1.0, 0.5, 0.5]);
        assert_eq!(timings.recycled["memory"], 2);
        assert!(humantime::parse_rfc3339(&timings.timestamp).is_ok());
        let wire = serde_json::to_value(&report).unwrap();
        assert_eq!((&wire["schema"], &wire["pass_at_k"]["1"]), (&"timings.v1".into(), &0.5.into()));
    }

    #[test]
    fn the_ks() {
        assert_eq!(ks().take(8).collect::<Vec<_>>(), [1, 2, 5, 10, 20, 50, 100, 200]);
        assert_eq!(ks().count(), 57);
    }
}
