//! A row's own program that says whether an output is right, as `testlib` has it.
//!
//! It is run in a box of its own, after the program, with three files: `CHECKER input output expected`. Its
//! exit code tells: 0 right; 1, 2, 4, 7 and 8 (wrong, badly formed, left-overs, points, too short) not right;
//! anything else is the checker's own failure, and says nothing about the program. (A Python checker that dies of
//! an exception ends with 1: what it cannot read is not right.)

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::rows::Test;
use crate::config::Languages;
use crate::model::{
    BoxPath, CommandResult, Executable, ExecutionResult, FileContent, MAX_BOX_FILES, Seconds, Termination,
};
use crate::processors::compare::excerpt;
use crate::processors::fields::{required, seconds, shown, text, value, wrong};
use crate::processors::outcome::{Finding, broken, runs};
use crate::processors::program::Toolchain;
use crate::processors::{Hooks, Task, Undecided, Unusable};

/// Exit codes that say that an output is not right.
const NOT_RIGHT: [i32; 5] = [1, 2, 4, 7, 8];
/// Files of each test.
const PARTS: [&str; 3] = ["input", "output", "expected"];

/// What checkers have found, by test.
pub(super) type Checked = BTreeMap<usize, Finding>;

/// A checker, ready to be built.
#[derive(Debug)]
pub(super) struct Checker {
    toolchain: Toolchain,
    /// The program and its files, nothing run yet.
    program: Executable,
    timeout: Option<Seconds>,
    /// The tests that were given to it, in this order.
    given: std::sync::Mutex<Vec<usize>>,
}

impl Checker {
    /// The checker of a row: its program as text, or an object with `code`, `language`, `files`, `timeout`.
    pub(super) fn read(
        payload: &Value,
        languages: &Languages,
        of_program: &Toolchain,
        tests: usize,
    ) -> Result<Option<Self>, Unusable> {
        let Some(given) = value(payload, "checker") else { return Ok(None) };
        let inside = |error: Unusable| Unusable(format!("checker.{error}"));
        let (code, toolchain) = match given {
            Value::String(code) => (code.as_str(), of_program.clone()),
            Value::Object(_) => {
                let toolchain = match text(given, "language").map_err(inside)? {
                    Some(name) => Toolchain::named(languages, "checker.language", name)?,
                    None => of_program.clone(),
                };
                (required(given, "code").map_err(inside)?, toolchain)
            }
            other => return Err(wrong("checker", other, "a program as text, or an object with code")),
        };
        // A Python that is none would end as one that says "wrong".
        let toolchain = toolchain.looked_at();
        let mut program = toolchain.executable(code)?;
        for (name, content) in files(given)? {
            let name = BoxPath::new(&name).map_err(|error| Unusable(format!("checker.files: {error}")))?;
            program.files.insert(name, content);
        }
        let room = MAX_BOX_FILES.saturating_sub(program.files.len()) / PARTS.len();
        if tests > room {
            return Err(Unusable(format!("{tests} tests: with a checker at most {room} are allowed")));
        }
        let timeout = seconds(given, "timeout").map_err(inside)?;
        Ok(Some(Self { toolchain, program, timeout, given: std::sync::Mutex::default() }))
    }

    /// The checker over these outputs; `None`: there is none to check.
    pub(super) fn task(&self, tests: &[Test], outputs: Vec<(usize, String)>, stop: bool) -> Option<Task> {
        if outputs.is_empty() {
            return None;
        }
        let mut executable = self.program.clone();
        let mut given = Vec::with_capacity(outputs.len());
        for (index, output) in outputs {
            let test = tests.get(index)?;
            let names = PARTS.map(|part| format!("tests/{index}/{part}"));
            let contents = [&test.input, &output, &test.expected];
            for (name, content) in names.iter().zip(contents) {
                executable.files.insert(BoxPath::new(name).ok()?, FileContent::from(content.as_str()));
            }
            let mut run = self.toolchain.run(self.timeout);
            run.command.extend(names);
            executable.commands.push(run);
            given.push(index);
        }
        *self.given.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = given;
        let builds = self.toolchain.builds();
        let early_stop = Some(Arc::new(move |index: usize, result: &CommandResult| {
            // Without a build there is nothing to run; behind the first failure, nothing of interest.
            result.had_error && (index < builds || stop)
        }) as _);
        Some(Task { executable, hooks: Hooks { early_stop, stdout: None } })
    }

    /// What it has found.
    ///
    /// # Errors
    /// It was not built, or failed itself.
    pub(super) fn findings(&self, execution: &ExecutionResult) -> Result<Checked, Undecided> {
        if let Some(reason) = &execution.infra_error {
            return Err(Undecided::Fault(format!("the checker: {reason}")));
        }
        self.toolchain.missing(execution)?;
        let builds = self.toolchain.builds();
        if let Some(said) = self.toolchain.not_built(execution) {
            let ended =
                execution.last_command().is_some_and(|build| build.termination == Termination::Exited);
            let said = format!("checker: {said}");
            return Err(if ended { Unusable(said).into() } else { Undecided::Fault(said) });
        }
        let given = self.given.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut found = Checked::new();
        for ((_, result), index) in runs(execution, builds).zip(given.iter()) {
            let said = said(result).map(|line| excerpt(line.trim(), 200));
            let finding = match (result.termination, result.return_code) {
                (Termination::Exited, Some(0)) => Finding::Passed,
                (Termination::Exited, Some(code)) if NOT_RIGHT.contains(&code) => Finding::Failed(
                    "checker",
                    said.or_else(|| Some(format!("the checker's exit code is {code}"))),
                ),
                _ => {
                    let how = broken(result).and_then(|(reason, detail)| detail.or(Some(reason)));
                    let how = how.unwrap_or_default();
                    return Err(Undecided::Fault(format!("the checker failed at test {index}: {how}")));
                }
            };
            found.insert(*index, finding);
        }
        Ok(found)
    }
}

/// Its first line; of an exception in Python, which begins with the way there, the last.
fn said(result: &CommandResult) -> Option<&str> {
    let mut lines = result.stderr.lines().chain(result.stdout.lines()).filter(|line| !line.trim().is_empty());
    let first = lines.next()?;
    if first == "Traceback (most recent call last):" {
        return result.stderr.lines().rfind(|line| !line.trim().is_empty());
    }
    Some(first)
}

/// Files beside the checker's program.
fn files(given: &Value) -> Result<Vec<(String, FileContent)>, Unusable> {
    let Some(files) = value(given, "files") else { return Ok(Vec::new()) };
    let Value::Object(files) = files else {
        return Err(wrong("checker.files", files, "an object of names and contents"));
    };
    let file = |(name, content): (&String, &Value)| {
        let content = serde_json::from_value(content.clone())
            .map_err(|error| Unusable(format!("checker.files.{name} is {}: {error}", shown(content))))?;
        Ok((name.clone(), content))
    };
    files.iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn read(checker: Value, tests: usize) -> Result<Option<Checker>, Unusable> {
        let languages = Languages::default();
        let python = Toolchain::named(&languages, "language", "python").unwrap();
        Checker::read(&json!({"checker": checker}), &languages, &python, tests)
    }

    #[rstest]
    #[case(json!(1), 1, "checker is 1: it must be a program as text, or an object with code")]
    #[case(json!({}), 1, "checker.code is missing")]
    #[case(json!({"code": "", "language": "cobol"}), 1, "checker.language is \"cobol\"")]
    #[case(json!({"code": "", "files": []}), 1, "checker.files is a list of 0")]
    #[case(json!({"code": "", "files": {"a": 1}}), 1, "checker.files.a is 1: a file's content is")]
    #[case(json!({"code": "", "files": {"../a": ""}}), 1, "checker.files: the file name \"../a\" contains")]
    #[case(json!({"code": "", "timeout": 0}), 1, "checker.timeout: 0 is no time limit")]
    #[case(json!(""), 1667, "1667 tests: with a checker at most 1666 are allowed")]
    fn unusable(#[case] checker: Value, #[case] tests: usize, #[case] says: &str) {
        let error = read(checker, tests).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    fn judged(code: i32, stderr: &str) -> Result<Option<Finding>, String> {
        let checker = read(json!("pass"), 1).unwrap().unwrap();
        let test = Test { name: None, input: "i".into(), expected: "e".into() };
        let task = checker.task(&[test], vec![(0, "o".into())], true).unwrap();
        assert_eq!(
            task.executable.commands[1].command[2..],
            ["tests/0/input", "tests/0/output", "tests/0/expected"]
        );
        let mut result = CommandResult::without_run(Termination::Exited);
        (result.return_code, result.stderr) = (Some(code), stderr.to_owned());
        let built = CommandResult { had_error: false, return_code: Some(0), ..result.clone() };
        let execution =
            ExecutionResult { command_results: vec![built, result], ..ExecutionResult::default() };
        checker.findings(&execution).map(|mut found| found.remove(&0)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_exit_code_tells() {
        let failed = |said: &str| Ok(Some(Finding::Failed("checker", Some(said.to_owned()))));
        assert_eq!(judged(0, "\nso it is\n"), Ok(Some(Finding::Passed)));
        for code in NOT_RIGHT {
            assert_eq!(judged(code, "\nso it is\nor not\n"), failed("so it is"));
        }
        let traceback = "Traceback (most recent call last):\n  File \"main.py\", line 1\nKeyError: 1\n\n";
        assert_eq!(judged(1, traceback), failed("KeyError: 1"));
        assert_eq!(judged(3, "so it is").unwrap_err(), "the checker failed at test 0: exit code 3: so it is");
    }
}
