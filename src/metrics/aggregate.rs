//! Results that are there already, each counted once.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::bootstrap::Bootstrap;
use super::once::{Arrival, Once};
use super::samples::{Groups, PassAtK, Samples, is_sample};
use super::stages::Stages;
use super::summary::name_hash;
use crate::model::{Line, ResultHead, StageSummary, Verdict};
use crate::util::natural::natural_cmp;

/// The ks of a report that asks for none, as far as a task has so many samples.
const KS: [u64; 3] = [1, 10, 100];

/// What a report is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AggregateOptions {
    /// The ks of pass@k; none: 1, 10 and 100, as far as a task has so many samples.
    pub ks: Vec<u64>,
    /// How intervals are made.
    pub bootstrap: Bootstrap,
    /// A row for each task.
    pub per_task: bool,
}

/// Results by verdict.
#[derive(Debug, Clone, Copy, Default)]
struct Counts([u32; Verdict::ALL.len()]);

impl Counts {
    fn of(&mut self, verdict: Verdict) -> &mut u32 {
        // The verdicts stand in the order of `ALL`: a test holds it.
        &mut self.0[verdict as usize]
    }

    fn each(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL.into_iter().zip(self.0.map(u64::from))
    }

    fn samples(&self) -> Samples {
        let n = self.each().filter(|(verdict, _)| is_sample(*verdict)).map(|(_, count)| count).sum();
        Samples { n, c: u64::from(self.0[Verdict::Passed as usize]) }
    }

    fn present(&self) -> BTreeMap<Verdict, u64> {
        self.each().filter(|(_, count)| *count > 0).collect()
    }
}

/// The results of one run.
#[derive(Debug, Default)]
struct Run {
    tasks: HashMap<Box<str>, Counts>,
    without_task: Counts,
}

impl Run {
    fn counts(&mut self, task: Option<&str>) -> &mut Counts {
        match task {
            Some(task) => self.tasks.entry(task.into()).or_default(),
            None => &mut self.without_task,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Counts> {
        self.tasks.values().chain([&self.without_task])
    }
}

/// Takes lines of results in any order, and says what they come to.
///
/// - Results with the same `result_id` are copies: the first one stands, but an `infra_error` gives way
///   to a result that says what came of the program.
/// - Different results of one prediction id (its message was changed, or an id is used for several
///   samples) each count, and are told.
/// - Tasks of different runs are different tasks.
/// - `infra_error` and `filtered` are no samples, and `invalid` is one that does not pass.
#[derive(Debug)]
pub struct Aggregate {
    once: Once,
    ids: HashSet<u64>,
    ids_again: HashSet<u64>,
    runs: BTreeMap<Option<Box<str>>, Run>,
    stages: Stages,
    left_out: LeftOut,
}

/// Lines that are no further results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LeftOut {
    /// Copies of results that are counted.
    pub duplicates: u64,
    /// Those of them that have another verdict than the one that is counted.
    pub contradictions: u64,
    /// Notices, timings, and other messages that are no results.
    pub other_messages: u64,
    /// Lines that could not be read.
    pub bad_lines: u64,
}

/// What a set of results came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tally {
    /// Different results.
    pub results: u64,
    /// Results by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Results that name no task; where others do, they are in no pass@k.
    pub results_without_task: u64,
    /// Results that say something about the program.
    pub samples: u64,
    /// Tasks with a sample.
    pub tasks: u64,
    /// Tasks of which every result is `infra_error` or `filtered`: they are in no pass@k.
    pub tasks_without_sample: u64,
    /// pass@k by k, over tasks; where no result names a task, pass@1 over predictions.
    pub pass_at_k: BTreeMap<u64, PassAtK>,
}

/// The results of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRow {
    /// Its name; none: the results that name no run.
    pub run: Option<String>,
    /// What they came to.
    #[serde(flatten)]
    pub tally: Tally,
}

/// The results of one task in one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskRow {
    /// The run.
    pub run: Option<String>,
    /// The task.
    pub task: String,
    /// Results that say something about the program.
    pub samples: u64,
    /// Samples that passed.
    pub passed: u64,
    /// Results by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// pass@k by k, where there are so many samples.
    pub pass_at_k: BTreeMap<u64, f64>,
}

/// What all results came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultsReport {
    /// All of them.
    #[serde(flatten)]
    pub all: Tally,
    /// Predictions that are parked and have no result.
    pub parked: u64,
    /// Prediction ids that have several different results in one run.
    pub ids_with_several_results: u64,
    /// What is not counted.
    pub left_out: LeftOut,
    /// The intervals: `low` and `high` hold the middle 95 % of the resampled means.
    pub bootstrap: Bootstrap,
    /// Each stage's distribution in seconds, by its name in a result's `timings`.
    pub stages: BTreeMap<String, StageSummary>,
    /// One for each run.
    pub runs: Vec<RunRow>,
    /// One for each task of each run, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_of_runs: Option<Vec<TaskRow>>,
}

impl Default for Aggregate {
    fn default() -> Self {
        Self {
            once: Once::default(),
            ids: HashSet::new(),
            ids_again: HashSet::new(),
            runs: BTreeMap::new(),
            stages: Stages::new(),
            left_out: LeftOut::default(),
        }
    }
}

impl Aggregate {
    /// Takes one line that was read.
    pub fn add(&mut self, line: &Line) {
        match line {
            Line::Result(head) => self.add_result(head),
            Line::Parked { result_id, .. } => {
                self.once.notice(result_id);
                self.left_out.other_messages += 1;
            }
            Line::Other(_) => self.left_out.other_messages += 1,
        }
    }

    /// Counts a line that could not be read.
    pub fn add_bad(&mut self) {
        self.left_out.bad_lines += 1;
    }

    /// Different results so far.
    #[must_use]
    pub fn results(&self) -> u64 {
        self.once.results()
    }

    fn add_result(&mut self, head: &ResultHead) {
        let (run, task) = (head.run.as_deref(), head.task.as_deref());
        match self.once.result(&head.result_id, head.verdict) {
            Arrival::First => {}
            Arrival::InPlaceOfInfraError => {
                self.left_out.duplicates += 1;
                let counts = self.run(run).counts(task).of(Verdict::InfraError);
                // A copy that names another run or task is a forgery: it takes nothing away there.
                *counts = counts.saturating_sub(1);
                *self.run(run).counts(task).of(head.verdict) += 1;
                return;
            }
            Arrival::Again(before) => {
                self.left_out.duplicates += 1;
                self.left_out.contradictions += u64::from(before != head.verdict);
                return;
            }
        }
        let id = name_hash(run, &head.id);
        if !self.ids.insert(id) {
            self.ids_again.insert(id);
        }
        if let Some(timings) = &head.timings {
            self.stages.add(timings);
        }
        *self.run(run).counts(task).of(head.verdict) += 1;
    }

    fn run(&mut self, name: Option<&str>) -> &mut Run {
        self.runs.entry(name.map(Into::into)).or_default()
    }

    /// What they came to.
    #[must_use]
    pub fn report(&self, options: &AggregateOptions) -> ResultsReport {
        let most = self.groups(self.runs.values()).range().map_or(1, |(_, most)| most);
        let ks = match options.ks.as_slice() {
            [] => KS.into_iter().filter(|&k| k <= most).collect(),
            chosen => chosen.to_vec(),
        };
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by(|(left, _), (right, _)| match (left, right) {
            (Some(left), Some(right)) => natural_cmp(left, right),
            (left, right) => left.cmp(right),
        });
        let row = |(name, run): &(&Option<Box<str>>, &Run)| RunRow {
            run: name.as_deref().map(str::to_owned),
            tally: self.tally([*run].into_iter(), &ks, &options.bootstrap),
        };
        ResultsReport {
            all: self.tally(self.runs.values(), &ks, &options.bootstrap),
            parked: self.once.parked(),
            ids_with_several_results: self.ids_again.len() as u64,
            left_out: self.left_out,
            bootstrap: options.bootstrap.clone(),
            stages: self.stages.summaries(),
            runs: runs.iter().map(row).collect(),
            tasks_of_runs: options
                .per_task
                .then(|| runs.iter().flat_map(|(name, run)| task_rows(name.as_deref(), run, &ks)).collect()),
        }
    }

    /// Tasks by their samples; where there are none, predictions.
    fn groups<'a>(&self, runs: impl Iterator<Item = &'a Run> + Clone) -> Groups {
        if runs.clone().all(|run| run.tasks.is_empty()) {
            let samples: Vec<_> = runs.map(|run| run.without_task.samples()).collect();
            let (n, c) = samples.iter().fold((0, 0), |(n, c), one| (n + one.n, c + one.c));
            return Groups::of_predictions(n, c);
        }
        runs.flat_map(|run| run.tasks.values().map(Counts::samples)).collect()
    }

    fn tally<'a>(
        &self,
        runs: impl Iterator<Item = &'a Run> + Clone,
        ks: &[u64],
        bootstrap: &Bootstrap,
    ) -> Tally {
        let mut verdicts = BTreeMap::new();
        for (verdict, count) in runs.clone().flat_map(Run::all).flat_map(Counts::each) {
            *verdicts.entry(verdict).or_insert(0) += count;
        }
        verdicts.retain(|_, count| *count > 0);
        let groups = self.groups(runs.clone());
        let named: u64 = runs.clone().map(|run| run.tasks.len() as u64).sum();
        let tasks = if named == 0 { 0 } else { groups.tasks() };
        let of_tasks = |k: &u64| named > 0 || *k == 1;
        Tally {
            results: verdicts.values().sum(),
            samples: verdicts.iter().filter(|(verdict, _)| is_sample(**verdict)).map(|(_, n)| n).sum(),
            verdicts,
            results_without_task: runs.flat_map(|run| run.without_task.each()).map(|(_, count)| count).sum(),
            tasks,
            tasks_without_sample: named - tasks,
            pass_at_k: ks
                .iter()
                .copied()
                .filter(|k| of_tasks(k) && groups.tasks() > 0)
                .map(|k| (k, groups.pass_at_k(k, Some(bootstrap))))
                .collect(),
        }
    }
}

fn task_rows(name: Option<&str>, run: &Run, ks: &[u64]) -> Vec<TaskRow> {
    let mut tasks: Vec<(&str, &Counts)> = run.tasks.iter().map(|(task, counts)| (&**task, counts)).collect();
    tasks.sort_unstable_by(|(left, _), (right, _)| natural_cmp(left, right));
    let row = |(task, counts): (&str, &Counts)| {
        let Samples { n, c } = counts.samples();
        TaskRow {
            run: name.map(str::to_owned),
            task: task.to_owned(),
            samples: n,
            passed: c,
            verdicts: counts.present(),
            pass_at_k: ks.iter().filter(|&&k| k <= n).map(|&k| (k, super::pass_at_k(n, c, k))).collect(),
        }
    };
    tasks.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::StageTimings;

    use Verdict as V;

    fn line(result_id: &str, id: &str, run: Option<&str>, task: Option<&str>, verdict: Verdict) -> Line {
        Line::Result(ResultHead {
            result_id: result_id.to_owned(),
            id: id.to_owned(),
            run: run.map(str::to_owned),
            task: task.map(str::to_owned),
            verdict,
            timings: Some(StageTimings { execute: 0.5, ..StageTimings::default() }),
        })
    }

    /// Results of ids of their own.
    fn lines(results: &[(Option<&str>, Option<&str>, Verdict)]) -> Vec<Line> {
        let numbered = results.iter().enumerate();
        numbered
            .map(|(i, &(run, task, verdict))| line(&i.to_string(), &i.to_string(), run, task, verdict))
            .collect()
    }

    fn report(lines: &[Line], options: &AggregateOptions) -> ResultsReport {
        let mut aggregate = Aggregate::default();
        lines.iter().for_each(|line| aggregate.add(line));
        aggregate.report(options)
    }

    fn of(ks: &[u64]) -> AggregateOptions {
        AggregateOptions { ks: ks.to_vec(), per_task: true, ..AggregateOptions::default() }
    }

    #[test]
    fn verdicts_stand_in_their_order() {
        for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, index);
        }
    }

    #[test]
    fn what_says_nothing_about_the_program_is_told_and_not_counted() {
        let found = report(
            &lines(&[
                (None, Some("a"), V::Passed),
                (None, Some("a"), V::Invalid),
                (None, Some("a"), V::InfraError),
                (None, Some("b"), V::Passed),
                (None, Some("b"), V::Filtered),
                (None, Some("c"), V::InfraError),
                (None, None, V::Failed),
            ]),
            &of(&[1, 2]),
        );
        let all = &found.all;
        assert_eq!(
            (all.results, all.tasks, all.tasks_without_sample, all.results_without_task),
            (7, 2, 1, 1)
        );
        assert_eq!((all.verdicts[&V::InfraError], all.verdicts[&V::Filtered]), (2, 1));
        let pass = |k| (all.pass_at_k[&k].value, all.pass_at_k[&k].tasks, all.pass_at_k[&k].tasks_with_fewer);
        assert_eq!((pass(1), pass(2)), ((Some(0.75), 2, 0), (Some(1.0), 1, 1)));
        assert!((found.stages["execute"].p50 - 0.5).abs() < 1e-3);
        let rows = found.tasks_of_runs.unwrap();
        let row =
            |i: usize| (rows[i].task.as_str(), rows[i].samples, rows[i].passed, rows[i].pass_at_k.get(&2));
        assert_eq!([row(0), row(1), row(2)], [("a", 2, 1, Some(&1.0)), ("b", 1, 1, None), ("c", 0, 0, None)]);
    }

    #[test]
    fn copies_count_once_and_ids_with_several_results_are_told() {
        let found = report(
            &[
                line("1", "x", None, Some("a"), V::InfraError),
                line("1", "x", None, Some("a"), V::Passed),
                line("1", "x", None, Some("a"), V::Passed),
                line("2", "x", None, Some("a"), V::Failed),
                line("2", "x", None, Some("a"), V::TimedOut),
                line("3", "x", Some("other"), Some("a"), V::Failed),
                Line::Parked { result_id: "3".to_owned(), id: "x".to_owned() },
                Line::Parked { result_id: "4".to_owned(), id: "y".to_owned() },
                Line::Other("timings.v1".to_owned()),
            ],
            &of(&[]),
        );
        assert_eq!(found.all.verdicts, [(V::Passed, 1), (V::Failed, 2)].into());
        let left_out = LeftOut { duplicates: 3, contradictions: 1, other_messages: 3, bad_lines: 0 };
        assert_eq!((found.left_out, found.parked, found.ids_with_several_results), (left_out, 1, 1));
        assert_eq!(found.all.pass_at_k[&1].value, Some(0.25));
    }

    #[test]
    fn runs_are_apart_and_in_order() {
        let found = report(
            &lines(&[
                (Some("r10"), Some("a"), V::Passed),
                (Some("r2"), Some("a"), V::Failed),
                (None, None, V::Passed),
                (Some("r2"), Some("b"), V::Passed),
            ]),
            &of(&[1]),
        );
        let runs: Vec<_> = found
            .runs
            .iter()
            .map(|row| (row.run.as_deref(), row.tally.tasks, row.tally.pass_at_k[&1].value))
            .collect();
        assert_eq!(runs, [(None, 0, Some(1.0)), (Some("r2"), 2, Some(0.5)), (Some("r10"), 1, Some(1.0))]);
        assert_eq!((found.all.tasks, found.all.pass_at_k[&1].value), (3, Some(2.0 / 3.0)));
    }

    #[test]
    fn the_ks() {
        let samples = |count| vec![(None, Some("a"), V::Passed); count];
        let keys = |count, ks| {
            report(&lines(&samples(count)), &of(ks)).all.pass_at_k.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(keys(9, &[]), [1]);
        assert_eq!(keys(100, &[]), [1, 10, 100]);
        assert_eq!(keys(3, &[2, 7]), [2, 7]);
        let seven = report(&lines(&samples(3)), &of(&[7])).all.pass_at_k[&7];
        assert_eq!((seven.value, seven.tasks, seven.tasks_with_fewer), (None, 0, 1));
    }

    #[test]
    fn without_tasks_it_is_the_share_of_predictions() {
        let found = report(
            &lines(&[(None, None, V::Passed), (None, None, V::Failed), (None, None, V::InfraError)]),
            &of(&[1, 2]),
        );
        assert_eq!(found.all.pass_at_k.keys().collect::<Vec<_>>(), [&1]);
        let pass = found.all.pass_at_k[&1];
        assert_eq!((pass.value, pass.tasks, found.all.tasks), (Some(0.5), 2, 0));
        assert!(pass.interval.is_some());
        let nothing = report(&[], &of(&[1]));
        assert_eq!((nothing.all.results, nothing.all.pass_at_k.len(), nothing.runs.len()), (0, 0, 0));
    }

    proptest! {
        /// The order of lines and copies of them change nothing but the number of copies.
        #[test]
        fn order_and_copies_do_not_matter(
            picked in proptest::collection::vec((0..3_usize, 0..4_usize, 0..10_usize), 0..40),
            shuffled in any::<proptest::sample::Index>(),
        ) {
            let results: Vec<_> = picked
                .iter()
                .map(|&(run, task, verdict)| {
                    ([None, Some("r"), Some("s")][run], [None, Some("a"), Some("b"), Some("c")][task], Verdict::ALL[verdict])
                })
                .collect();
            let lines = lines(&results);
            let mut other = lines.clone();
            if !other.is_empty() {
                other.rotate_left(shuffled.index(lines.len()));
                other.reverse();
                other.extend(lines.clone());
            }
            let (first, mut second) = (report(&lines, &of(&[1, 2])), report(&other, &of(&[1, 2])));
            prop_assert_eq!(second.left_out.duplicates, lines.len() as u64);
            second.left_out.duplicates = 0;
            prop_assert_eq!(first, second);
        }
    }
}
