//! `function_tests`: calls of Python functions, and the value that each should return.
//!
//! ```json
//! {"code": "def add(a, b):\n    return a + b\n",
//!  "tests": [{"call": "add(1, 2)", "expected": 3},
//!            {"call": "add((1,), ())", "expected_code": "(1,)"},
//!            ["add(0.1, 0.2)", "0.3", true]]}
//! ```
//!
//! Each test is a process of its own, all in one box: of what another has done it sees only files.
//! `expected` is a JSON value (a tuple then is a list), `expected_code` a Python expression; a test may
//! also be the list of call, expected expression and whether numbers may differ by 1e-6. With `entry_point`,
//! `args` may stand for `call`.
//!
//! What a call returns is written down as data and compared in another process, in a box of its own, where
//! the program never runs: it can forge a value, but does not know which. So nothing that the program
//! patches, no object that equals everything and no early exit passes. That holds for plain data: `None`,
//! numbers, texts, bytes, and lists, tuples, sets and dictionaries of them. Anything else fails, unless the
//! row says `"compare": "inside"`: then the expected expression is evaluated beside the program and compared
//! there, and a program that means to can pass.

mod payload;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::outcome::{Finding, Slots, TestOutcome, broken, judgement, runs};
use super::{Case, Hooks, Judgement, Prepared, Preprocessor, Task, Tolerance, Undecided, Unusable};
use crate::model::{
    BoxPath, Command, CommandResult, Executable, ExecutionResult, FileContent, Seconds, Stdin,
};

const CALL: &str = include_str!("function_tests/call.py");
const COMPARE: &str = include_str!("function_tests/compare.py");

/// Most bytes of a value as it is written down.
const MAX_VALUE_BYTES: usize = 4 << 20;

/// The processor for calls of functions.
#[derive(Debug, Clone, Copy, Default)]
pub struct FunctionTests;

/// One call and what it should return.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: Option<String>,
    /// What the caller in the box reads: JSON.
    pub(super) task: String,
    /// The call, where the row says it as code.
    source: Option<String>,
    pub(super) expected: Expected,
    tolerance: Tolerance,
}

/// What a call should return.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expected {
    /// A JSON value, as text.
    Json { text: String, rule: Rule },
    /// A Python expression.
    Code(String),
    /// Compared beside the program: the task says with what.
    Inside,
}

/// What counts as equal to a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// What JSON would make of the returned value.
    Plain,
    /// As APPS publishes it: the value, or the first item of a list; and numbers may be keys.
    Apps,
}

/// How the calls of a row are run.
#[derive(Debug, Clone, Default)]
pub(super) struct CallSettings {
    /// Statements before the program, and before expected expressions.
    pub(super) setup: String,
    pub(super) timeout: Option<Seconds>,
    pub(super) stop_at_first_failure: bool,
}

/// What a comparison beside the program says where it holds.
const INSIDE_EQUAL: &str = "{\"inside\": true}";

const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0, ignore_case: false };

impl Expected {
    pub(super) fn json(text: &str, rule: Rule) -> Self {
        Self::Json { text: text.to_owned(), rule }
    }
}

impl Call {
    /// A published test: a function (or a method of `Solution`) and its arguments, a JSON list.
    pub(super) fn of_function(function: &str, arguments: &str, expected: Expected) -> Self {
        let apps = matches!(expected, Expected::Json { rule: Rule::Apps, .. });
        let function = Value::from(function);
        let task = format!(
            "{{\"function\": {function}, \"prelude\": true, \"apps\": {apps}, \"arguments\": {arguments}}}"
        );
        Self { name: None, task, source: None, expected, tolerance: EXACT }
    }

    pub(super) fn named(self, name: String) -> Self {
        Self { name: Some(name), ..self }
    }
}

/// The program, run once for each call.
pub(super) fn prepared(code: &str, calls: Vec<Call>, settings: CallSettings) -> Result<Prepared, Unusable> {
    let path = |name| BoxPath::new(name).map_err(|error| Unusable(error.to_string()));
    let files = [("call.py", CALL), ("solution.py", code)];
    let files = files.map(|(name, text)| Ok((path(name)?, FileContent::from(text))));
    let files = files.into_iter().collect::<Result<_, Unusable>>()?;
    let command = |call: &Call| Command {
        stdin: Stdin::Text(call.task.clone()),
        timeout: settings.timeout,
        ..Command::new(["python3", "call.py"])
    };
    let executable = Executable::new(files, calls.iter().map(command).collect());
    let case = Arc::new(FunctionCase {
        findings: Slots::new(calls.len()),
        values: Slots::new(calls.len()),
        told: Arc::new(Slots::new(1)),
        calls,
        stop_at_first_failure: settings.stop_at_first_failure,
        setup: settings.setup,
    });
    let seen = Arc::clone(&case);
    let early_stop = Some(Arc::new(move |index, result: &CommandResult| seen.see(index, result)) as _);
    Ok(Prepared::Case(vec![Task { executable, hooks: Hooks { early_stop, stdout: None } }], case))
}

struct FunctionCase {
    calls: Vec<Call>,
    /// What is known of a call without a comparison.
    findings: Slots<Finding>,
    /// What the others have returned, as they have written it down.
    values: Slots<String>,
    /// What the comparison says.
    told: Arc<Slots<String>>,
    stop_at_first_failure: bool,
    setup: String,
}

/// A line of the comparison.
#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Wrong { wrong: String, index: usize },
    Compared { equal: bool, detail: String },
    Expected { index: usize },
}

/// What the comparison came to: of each call that it came to, `None` where it came to no end.
#[derive(Default)]
struct Compared {
    findings: BTreeMap<usize, Option<Finding>>,
    wrong: Option<(usize, String)>,
}

impl Compared {
    fn read(told: &str) -> Self {
        let mut compared = Self::default();
        let mut last = 0;
        for line in told.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            match line {
                Told::Wrong { wrong, index } => compared.wrong = Some((index, wrong)),
                Told::Expected { index } => {
                    last = index;
                    compared.findings.insert(index, None);
                }
                Told::Compared { equal: true, .. } => {
                    compared.findings.insert(last, Some(Finding::Passed));
                }
                Told::Compared { detail, .. } => {
                    compared.findings.insert(last, Some(Finding::Failed("wrong_value", Some(detail))));
                }
            }
        }
        compared
    }
}

impl FunctionCase {
    /// Looks at what a call has returned; whether the others are left out.
    fn see(&self, index: usize, result: &CommandResult) -> bool {
        let failed = |reason, detail: &str| Some(Finding::Failed(reason, Some(detail.to_owned())));
        self.findings.forget(index);
        self.values.forget(index);
        let value = result.stdout.trim();
        let inside = self.calls.get(index).is_some_and(|call| call.expected == Expected::Inside);
        let finding = if broken(result).is_some() {
            failed("broken", "")
        } else if value.is_empty() {
            failed("no_value", "the process ended before the call returned")
        } else if value.len() > MAX_VALUE_BYTES {
            failed("value_too_long", "the value takes more than 4 MiB to write down")
        } else if inside {
            match value == INSIDE_EQUAL {
                true => Some(Finding::Passed),
                false => failed("wrong_value", "it is not equal to the expected value"),
            }
        } else if !self.values.keep(index, value) {
            failed("value_not_kept", "the values of all calls together take more than 32 MiB to write down")
        } else {
            None
        };
        let stop = self.stop_at_first_failure && matches!(finding, Some(Finding::Failed(..)));
        if let Some(finding) = finding {
            self.findings.set(index, finding);
        }
        stop
    }

    /// What the comparison is told of a call; `None`: there is nothing to compare or to check.
    fn item(&self, index: usize) -> Option<Value> {
        let call = self.calls.get(index)?;
        let value = self.values.take(index);
        if value.is_none() && call.source.is_none() {
            return None;
        }
        let Tolerance { absolute, relative, .. } = call.tolerance;
        let mut item = json!({"index": index, "absolute": absolute, "relative": relative});
        if let Some(source) = &call.source {
            item["call"] = json!(source);
        }
        if let Some(value) = value {
            item["value"] = json!(value);
        }
        match &call.expected {
            Expected::Json { text, rule } => {
                item["json"] = json!(text);
                item["apps"] = json!(*rule == Rule::Apps);
            }
            Expected::Code(code) => item["code"] = json!(code),
            Expected::Inside => {}
        }
        Some(item)
    }

    fn outcome(&self, index: usize, result: &CommandResult, finding: Finding) -> TestOutcome {
        let (reason, detail) = match (broken(result), finding) {
            (Some(broken), _) => broken,
            (None, Finding::Passed) => ("passed".to_owned(), None),
            (None, Finding::Failed(reason, detail)) => (reason.to_owned(), detail),
        };
        let name = self.calls.get(index).and_then(|call| call.name.clone());
        TestOutcome { index, name, passed: reason == "passed", reason, runtime: result.runtime, detail }
    }
}

impl Case for FunctionCase {
    fn follow_up(&self, executions: &[ExecutionResult]) -> Vec<Task> {
        let Some(execution) = executions.first() else { return Vec::new() };
        let items: Vec<_> = runs(execution, 0).filter_map(|(index, _)| self.item(index)).collect();
        let Ok(path) = BoxPath::new("compare.py") else { return Vec::new() };
        if items.is_empty() {
            return Vec::new();
        }
        let stdin = Stdin::Text(json!({"setup": self.setup, "items": items}).to_string());
        let files = BTreeMap::from([(path, FileContent::from(COMPARE))]);
        let command = Command { stdin, ..Command::new(["python3", "compare.py"]) };
        let told = Arc::clone(&self.told);
        let early_stop = Some(Arc::new(move |_: usize, result: &CommandResult| {
            told.set(0, result.stdout.clone());
            false
        }) as _);
        let hooks = Hooks { early_stop, stdout: None };
        vec![Task { executable: Executable::new(files, vec![command]), hooks }]
    }

    fn judge(
        &self,
        executions: &[ExecutionResult],
        further: &[ExecutionResult],
    ) -> Result<Judgement, Undecided> {
        if let Some(reason) = further.iter().find_map(|execution| execution.infra_error.as_ref()) {
            return Err(Undecided::Fault(format!("the comparison of values: {reason}")));
        }
        let mut compared = Compared::read(&self.told.take(0).unwrap_or_default());
        if let Some((index, wrong)) = compared.wrong {
            return Err(Unusable(format!("tests[{index}]: {wrong}")).into());
        }
        let mut outcomes = Vec::new();
        for (index, result) in executions.iter().flat_map(|execution| runs(execution, 0)) {
            let known = self.findings.take(index).or_else(|| broken(result).map(|_| Finding::Passed));
            let finding = match (known, compared.findings.remove(&index)) {
                (Some(finding), _) | (None, Some(Some(finding))) => finding,
                // Its expected value was there: what it returned is what kept the comparison from its end.
                (None, Some(None)) => {
                    let detail = Some("what came cannot be compared".to_owned());
                    Finding::Failed("wrong_value", detail)
                }
                (None, None) if outcomes.iter().any(|outcome: &TestOutcome| !outcome.passed) => {
                    Finding::Failed("not_compared", None)
                }
                (None, None) => return Err(Undecided::Fault(ended_early(further))),
            };
            let outcome = self.outcome(index, result, finding);
            let stop = self.stop_at_first_failure && !outcome.passed;
            outcomes.push(outcome);
            if stop {
                break;
            }
        }
        Ok(judgement(&outcomes, self.calls.len()))
    }
}

/// Why there is no comparison.
fn ended_early(further: &[ExecutionResult]) -> String {
    let command = further.iter().find_map(ExecutionResult::last_command);
    let why = command.and_then(broken).and_then(|(reason, detail)| detail.or(Some(reason)));
    format!("the comparison of values did not come to its end: {}", why.unwrap_or_default())
}

impl Preprocessor for FunctionTests {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        let (code, calls, settings) = payload::read(payload)?;
        prepared(code, calls, settings)
    }

    fn task(&self, payload: &Value) -> Option<String> {
        payload.get("task_id").and_then(Value::as_str).map(str::to_owned)
    }
}
