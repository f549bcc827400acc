//! What the tests of one program came to, and how a result tells it.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Judgement;
use crate::model::{CommandResult, ExecutionResult, Termination};

/// Most bytes of outputs that are kept for what judges them later, over all tests of a program.
pub(super) const KEPT_BYTES: usize = 32 << 20;

/// One test that was run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct TestOutcome {
    /// Which, from 0.
    pub(super) index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) passed: bool,
    /// `passed`, or in a word why not.
    pub(super) reason: String,
    /// Seconds.
    pub(super) runtime: f64,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

/// Whether a test passed, and if not, why: in a word, and for people.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    Passed,
    Failed(&'static str, Option<String>),
}

/// Why a run by itself has failed its test, whatever it printed.
pub(super) fn broken(result: &CommandResult) -> Option<(String, Option<String>)> {
    if result.termination != Termination::Exited {
        let name = serde_json::to_value(result.termination).unwrap_or_default();
        let detail = result.detail.clone().or_else(|| Some(format!("it was {}", result.termination)));
        return Some((name.as_str().unwrap_or_default().to_owned(), detail));
    }
    let code = result.return_code.filter(|code| *code != 0)?;
    let said = result.stderr.lines().rfind(|line| !line.trim().is_empty());
    let said = said.map_or(String::new(), |line| format!(": {}", super::compare::excerpt(line.trim(), 200)));
    Some(("exit_code".to_owned(), Some(format!("exit code {code}{said}"))))
}

/// The runs behind the builds: which test, and what came of it.
pub(super) fn runs(
    execution: &ExecutionResult,
    builds: usize,
) -> impl Iterator<Item = (usize, &CommandResult)> {
    execution.command_results.iter().skip(builds).enumerate()
}

/// One for each test, set while the program runs; a second try of the program begins anew.
#[derive(Debug)]
pub(super) struct Slots<T>(Mutex<Vec<Option<T>>>);

impl<T> Slots<T> {
    pub(super) fn new(count: usize) -> Self {
        Self(Mutex::new((0..count).map(|_| None).collect()))
    }

    /// Forgets what an earlier try has left from here on.
    pub(super) fn forget(&self, from: usize) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter_mut().skip(from).for_each(|slot| *slot = None);
    }

    pub(super) fn set(&self, index: usize, value: T) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(index) {
            *slot = Some(value);
        }
    }

    /// Takes one out.
    pub(super) fn take(&self, index: usize) -> Option<T> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get_mut(index).and_then(Option::take)
    }
}

impl Slots<String> {
    /// Keeps a text; false: with the others it is more than is kept.
    pub(super) fn keep(&self, index: usize, text: &str) -> bool {
        let kept: usize = {
            let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slots.iter().flatten().map(String::len).sum()
        };
        let fits = kept + text.len() <= KEPT_BYTES;
        if fits {
            self.set(index, text.to_owned());
        }
        fits
    }
}

/// The judgement over all tests; those that were not run have not passed.
pub(super) fn judgement(outcomes: &[TestOutcome], num_tests: usize) -> Judgement {
    let num_passed = outcomes.iter().filter(|outcome| outcome.passed).count();
    let first = outcomes.iter().find(|outcome| !outcome.passed);
    let detail = first.map(|outcome| {
        let name = outcome.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
        let detail = outcome.detail.as_ref().unwrap_or(&outcome.reason);
        format!("test {}{name}: {detail}", outcome.index)
    });
    let mut output = Map::new();
    output.insert("num_tests".to_owned(), json!(num_tests));
    output.insert("num_run".to_owned(), json!(outcomes.len()));
    output.insert("num_passed".to_owned(), json!(num_passed));
    output.insert("share_passed".to_owned(), json!(num_passed as f64 / num_tests.max(1) as f64));
    output.insert("tests".to_owned(), serde_json::to_value(outcomes).unwrap_or(Value::Null));
    Judgement { passed: num_tests > 0 && num_passed == num_tests, detail, output }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(index: usize, passed: bool) -> TestOutcome {
        let reason = if passed { "passed" } else { "wrong_output" }.to_owned();
        TestOutcome { index, name: None, passed, reason, runtime: 0.5, detail: None }
    }

    #[test]
    fn what_was_not_run_has_not_passed() {
        let judged = judgement(&[outcome(0, true)], 2);
        assert!(!judged.passed);
        assert_eq!(judged.output["share_passed"], 0.5);
        assert!(judgement(&[outcome(0, true), outcome(1, true)], 2).passed);
        assert!(!judgement(&[], 0).passed);
        assert_eq!(judgement(&[outcome(0, false)], 1).detail.unwrap(), "test 0: wrong_output");
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_second_try_begins_anew() {
        let slots = Slots::new(3);
        let half = "x".repeat(KEPT_BYTES / 2);
        assert!(slots.keep(0, &half) && slots.keep(1, &half) && !slots.keep(2, "x"));
        slots.forget(0);
        assert!(slots.keep(0, "x"));
        assert_eq!((slots.take(0).as_deref(), slots.take(1), slots.take(0)), (Some("x"), None, None));
    }
}
