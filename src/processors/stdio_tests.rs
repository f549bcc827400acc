//! `stdio_tests`: a program in any configured language, and many tests of standard input → standard output.
//!
//! ```json
//! {"code": "print(sum(map(int, input().split())))", "language": "python",
//!  "tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "-1 1\n", "output": "0\n"}],
//!  "comparator": "tokens"}
//! ```
//!
//! The tests of a row may also stand in it as they are published by APPS (`input_output`; with `fn_name` the
//! program is a Python function, see [`FunctionTests`](super::FunctionTests)), CodeContests (`public_tests`,
//! `private_tests`, `generated_tests`, `time_limit`) or LiveCodeBench (`public_test_cases`,
//! `private_test_cases`, `metadata`).
//!
//! The program is built once. Each test is a process of its own, all in one box. A test passes where the
//! program ends with exit code 0 and the [`Comparator`] finds no difference, decided here after each test:
//! what is expected never enters the program's box. With a `checker`, a program of the row's, the outputs are
//! judged in a box of its own once all tests have run.
//!
//! The prediction passes where all tests do. With `stop_at_first_failure` (the default) the rest is not run, and
//! counts as not passed.

mod checker;
mod rows;

use std::sync::Arc;

use serde_json::{Value, json};

use super::fields::{code, comparator, flag, seconds, text, value};
use super::function_tests::{CallSettings, prepared};
use super::outcome::{Finding, Slots, TestOutcome, broken, judgement, runs};
use super::program::Toolchain;
use super::{
    Case, Comparator, Difference, Hooks, Judgement, Prepared, Preprocessor, Task, Undecided, Unusable,
};
use crate::config::Languages;
use crate::model::{Command, CommandResult, ExecutionResult, Stdin, StreamEncoding};

use checker::{Checked, Checker};
use rows::{Row, Test, Tests};

/// The processor for programs that read and write.
#[derive(Debug, Clone, Default)]
pub struct StdioTests {
    languages: Languages,
}

impl StdioTests {
    /// For programs in these languages.
    #[must_use]
    pub fn new(languages: Languages) -> Self {
        Self { languages }
    }
}

impl Preprocessor for StdioTests {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        let code = code(payload)?;
        let language = text(payload, "language")?.unwrap_or("python");
        let toolchain = Toolchain::named(&self.languages, "language", language)?;
        let Row { tests, comparator: usual, timeout } = rows::read(payload)?;
        let timeout = seconds(payload, "timeout")?.or(timeout);
        let stop_at_first_failure = flag(payload, "stop_at_first_failure")?.unwrap_or(true);
        let comparator = comparator(payload, usual)?;
        let tests = match tests {
            Tests::Streams(tests) => tests,
            Tests::Calls(calls) if toolchain.name() == "python" && value(payload, "checker").is_none() => {
                let settings = CallSettings { timeout, stop_at_first_failure, ..CallSettings::default() };
                return prepared(code, calls, settings);
            }
            Tests::Calls(_) => {
                let rule = "the tests call a function: then language is \"python\", and there is no checker";
                return Err(Unusable(rule.to_owned()));
            }
        };
        let checker = Checker::read(payload, &self.languages, &toolchain, tests.len())?;
        let mut executable = toolchain.executable(code)?;
        executable.commands.extend(
            tests
                .iter()
                .map(|test| Command { stdin: Stdin::Text(test.input.clone()), ..toolchain.run(timeout) }),
        );
        let case = Arc::new(StdioCase {
            seen: Slots::new(tests.len()),
            outputs: Slots::new(tests.len()),
            tests,
            toolchain,
            comparator,
            checker,
            stop_at_first_failure,
        });
        let seen = Arc::clone(&case);
        let early_stop = Some(Arc::new(move |index, result: &CommandResult| seen.see(index, result)) as _);
        Ok(Prepared::Case(vec![Task { executable, hooks: Hooks { early_stop, stdout: None } }], case))
    }

    fn task(&self, payload: &Value) -> Option<String> {
        let name = ["task_id", "question_id", "name"].iter().find_map(|field| payload.get(field)?.as_str());
        name.map(str::to_owned)
    }
}

struct StdioCase {
    tests: Vec<Test>,
    toolchain: Toolchain,
    comparator: Comparator,
    checker: Option<Checker>,
    /// What is known of a test once the program has ended, …
    seen: Slots<Seen>,
    /// … and what is to be checked.
    outputs: Slots<String>,
    stop_at_first_failure: bool,
}

type Seen = (Finding, Option<Difference>);

impl StdioCase {
    /// Looks at a command's full output; whether the others are left out.
    fn see(&self, index: usize, result: &CommandResult) -> bool {
        let Some(index) = index.checked_sub(self.toolchain.builds()) else { return result.had_error };
        let Some(test) = self.tests.get(index) else { return true };
        self.seen.forget(index);
        self.outputs.forget(index);
        let seen = match (broken(result), &self.checker) {
            (Some(_), _) => (Finding::Failed("broken", None), None),
            (None, Some(_)) if self.outputs.keep(index, &result.stdout) => return false,
            (None, Some(_)) => {
                let detail =
                    "the outputs of all tests together are more than the 32 MiB that are kept for a checker";
                (Finding::Failed("output_not_kept", Some(detail.to_owned())), None)
            }
            (None, None) => self.compare(test, result),
        };
        let stop = self.stop_at_first_failure && seen.0 != Finding::Passed;
        self.seen.set(index, seen);
        stop
    }

    fn compare(&self, test: &Test, result: &CommandResult) -> Seen {
        // Bytes that are no text stand as a character that the expected output might have.
        let lossy = result.stdout_encoding == Some(StreamEncoding::Lossy);
        if lossy && test.expected.contains(char::REPLACEMENT_CHARACTER) {
            let detail = Some("the output is not UTF-8".to_owned());
            return (Finding::Failed("wrong_output", detail), None);
        }
        match self.comparator.difference(&test.expected, &result.stdout) {
            None => (Finding::Passed, None),
            Some(difference) => {
                (Finding::Failed("wrong_output", Some(difference.to_string())), Some(difference))
            }
        }
    }
}

impl Case for StdioCase {
    fn follow_up(&self, executions: &[ExecutionResult]) -> Vec<Task> {
        let Some(checker) = &self.checker else { return Vec::new() };
        let runs = executions.iter().flat_map(|execution| runs(execution, self.toolchain.builds()));
        let outputs = runs.filter_map(|(index, _)| Some((index, self.outputs.take(index)?))).collect();
        checker.task(&self.tests, outputs, self.stop_at_first_failure).into_iter().collect()
    }

    fn judge(
        &self,
        executions: &[ExecutionResult],
        further: &[ExecutionResult],
    ) -> Result<Judgement, Undecided> {
        let mut checked = match (&self.checker, further.first()) {
            (Some(checker), Some(execution)) => checker.findings(execution)?,
            _ => Checked::default(),
        };
        let (mut outcomes, mut first_failure) = (Vec::new(), None);
        for execution in executions {
            self.toolchain.missing(execution)?;
            for (index, result) in runs(execution, self.toolchain.builds()) {
                let (finding, difference) = match (broken(result), self.seen.take(index)) {
                    (Some((reason, detail)), _) => (Err((reason, detail)), None),
                    (None, Some((finding, difference))) => (Ok(finding), difference),
                    (None, None) => match checked.remove(&index) {
                        Some(finding) => (Ok(finding), None),
                        // Left out behind the first that failed.
                        None => break,
                    },
                };
                let (reason, detail) = match finding {
                    Ok(Finding::Passed) => ("passed".to_owned(), None),
                    Ok(Finding::Failed(reason, detail)) => (reason.to_owned(), detail),
                    Err(broken) => broken,
                };
                let passed = reason == "passed";
                let name = self.tests.get(index).and_then(|test| test.name.clone());
                if !passed && first_failure.is_none() {
                    first_failure = Some(self.told(index, difference, &result.stdout));
                }
                outcomes.push(TestOutcome { index, name, passed, reason, runtime: result.runtime, detail });
                if !passed && self.stop_at_first_failure {
                    break;
                }
            }
        }
        let mut judged = judgement(&outcomes, self.tests.len());
        let not_built = executions.first().and_then(|execution| self.toolchain.not_built(execution));
        judged.detail = judged.detail.or(not_built);
        if let Some(first_failure) = first_failure {
            judged.output.insert("first_failure".to_owned(), first_failure);
        }
        Ok(judged)
    }
}

/// Most characters of a stream that are shown of the first test that failed.
const SHOWN_CHARS: usize = 500;

impl StdioCase {
    /// The first test that failed, for people.
    fn told(&self, index: usize, difference: Option<Difference>, got: &str) -> Value {
        let test = self.tests.get(index);
        let cut = |text: &str| super::compare::excerpt(text, SHOWN_CHARS);
        let mut told = json!({
            "index": index,
            "input": test.map(|test| cut(&test.input)),
            "expected": test.map(|test| cut(&test.expected)),
            "got": cut(got),
        });
        if let Some(difference) = difference {
            told["difference"] = json!({
                "unit": difference.unit,
                "number": difference.number,
                "expected": difference.expected,
                "got": difference.got,
            });
        }
        told
    }
}
