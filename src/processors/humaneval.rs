//! `humaneval`: a function's signature, a model's body, and a `check` that asserts.
//!
//! ```json
//! {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "completion": "    return x\n",
//!  "test": "def check(candidate):\n    assert candidate(1) == 1\n", "entry_point": "f"}
//! ```
//!
//! `canonical_solution` stands in for an absent `completion`. With a problems file, a row needs only
//! `task_id` and `completion`.
//!
//! Exit code 0 is not enough to pass: the last line of the program, behind the call of `check`, reads
//! a nonce and writes it back, so a solution that ends the process early has not passed. A solution
//! that opens a string swallows the test, and then nothing calls `check` and the line behind it. Code
//! that forges the nonce on purpose is not excluded: nor is an object that equals everything, for as
//! long as a test shares a process with what it tests.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::fields::text;
use super::{Judgement, Postprocessor, Prepared, Preprocessor, Unusable};
use crate::model::{BoxPath, Command, Executable, ExecutionResult, FileContent};

const MAIN: &str = "main.py";

/// Descriptor 3 is the witness. No name that the program may have redefined is used.
const WITNESS: &str = "import os as _evalmill; _evalmill.write(3, _evalmill.read(3, 256))\n";

/// The processor for HumanEval and everything of its form.
#[derive(Debug, Default)]
pub struct HumanEval {
    problems: HashMap<String, Problem>,
}

#[derive(Debug, Clone, Deserialize)]
struct Problem {
    task_id: String,
    prompt: String,
    test: String,
    entry_point: String,
}

/// The problems file cannot be used.
#[derive(Debug, Error)]
pub enum ProblemsError {
    /// It cannot be read.
    #[error("problems file {file}: {source}")]
    Read {
        /// Its name.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of it is no problem.
    #[error(
        "problems file {file}:{line}: {reason}; each line is an object with task_id, prompt, test and entry_point"
    )]
    Line {
        /// Its name.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl HumanEval {
    /// Reads the problems (JSONL, gzip by name), where there are any.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is no problem.
    pub fn new(problems: Option<&Path>) -> Result<Self, ProblemsError> {
        let mut all = HashMap::new();
        if let Some(path) = problems {
            let name = path.display().to_string();
            let read = |source| ProblemsError::Read { file: name.clone(), source };
            let file = File::open(path).map_err(read)?;
            let reader: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
                Box::new(MultiGzDecoder::new(file))
            } else {
                Box::new(file)
            };
            for (index, line) in BufReader::new(reader).lines().enumerate() {
                let line = line.map_err(read)?;
                if line.trim().is_empty() {
                    continue;
                }
                let problem: Problem = serde_json::from_str(&line).map_err(|error| ProblemsError::Line {
                    file: name.clone(),
                    line: index + 1,
                    reason: error.to_string(),
                })?;
                all.insert(problem.task_id.clone(), problem);
            }
        }
        Ok(Self { problems: all })
    }

    fn problem<'a>(&'a self, payload: &'a Value) -> Option<&'a Problem> {
        self.problems.get(payload.get("task_id")?.as_str()?)
    }
}

impl Preprocessor for HumanEval {
    fn is_quick(&self, _: &Value) -> bool {
        true
    }

    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        let problem = self.problem(payload);
        let missing = |field: &str| {
            let task = payload.get("task_id").map_or("none".to_owned(), ToString::to_string);
            let way_out = if self.problems.is_empty() {
                "give the field, or a problems file to take it from (--problems)".to_owned()
            } else {
                format!("the problems file has no task_id {task} either")
            };
            Unusable(format!("{field} is missing: {way_out}"))
        };
        let field = |name: &str, joined: Option<&'_ String>| -> Result<String, Unusable> {
            match (text(payload, name)?, joined) {
                (Some(own), _) => Ok(own.to_owned()),
                (None, Some(joined)) => Ok(joined.clone()),
                (None, None) => Err(missing(name)),
            }
        };
        let prompt = field("prompt", problem.map(|problem| &problem.prompt))?;
        let test = field("test", problem.map(|problem| &problem.test))?;
        let entry_point = field("entry_point", problem.map(|problem| &problem.entry_point))?;
        let completion = match text(payload, "completion")? {
            Some(completion) => completion,
            None => text(payload, "canonical_solution")?
                .ok_or_else(|| Unusable("completion is missing, and so is canonical_solution".to_owned()))?,
        };
        let is_name = !entry_point.is_empty()
            && entry_point.chars().all(|c| c == '_' || c == '.' || c.is_alphanumeric())
            && !entry_point.starts_with(|c: char| c.is_numeric());
        if !is_name {
            return Err(Unusable(format!("entry_point is {entry_point:?}: it must be a Python name")));
        }
        let source = format!("{prompt}{completion}\n{test}\n\ncheck({entry_point})\n{WITNESS}");
        let path = BoxPath::new(MAIN).map_err(|error| Unusable(error.to_string()))?;
        let files = BTreeMap::from([(path, FileContent::from(source))]);
        let mut executable = Executable::new(files, vec![Command::new(["python3", MAIN])]);
        executable.witness = true;
        Ok(Prepared::Run(vec![executable.into()]))
    }

    fn task(&self, payload: &Value) -> Option<String> {
        payload.get("task_id").and_then(Value::as_str).map(str::to_owned)
    }
}

impl Postprocessor for HumanEval {
    fn postprocess(&self, _: &Value, executions: &[ExecutionResult]) -> Judgement {
        let command = executions.first().and_then(ExecutionResult::last_command);
        let (code, witnessed) =
            command.map_or((None, false), |command| (command.return_code, command.witnessed == Some(true)));
        let detail = match (code, witnessed) {
            (Some(0), true) => None,
            (Some(0), false) => Some("exit code 0, but `check` did not run to its end".to_owned()),
            _ => command
                .and_then(|command| command.stderr.lines().rfind(|line| !line.trim().is_empty()))
                .map(str::to_owned),
        };
        let mut output = Map::new();
        output.insert("check_completed".to_owned(), json!(witnessed));
        Judgement { passed: code == Some(0) && witnessed, detail, output }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rstest::rstest;

    use super::*;

    fn whole() -> Value {
        json!({"task_id": "t", "prompt": "def f():\n", "completion": "    return 1\n", "test": "def check(c):\n    pass\n", "entry_point": "f"})
    }

    #[rstest]
    #[case("prompt", Value::Null, "prompt is missing")]
    #[case("test", Value::Null, "test is missing")]
    #[case("completion", Value::Null, "completion is missing")]
    #[case("completion", json!(3), "completion is 3: it must be a string")]
    #[case("entry_point", json!("f); evil("), "must be a Python name")]
    #[case("entry_point", json!(""), "must be a Python name")]
    fn unusable(#[case] field: &str, #[case] value: Value, #[case] says: &str) {
        let mut payload = whole();
        payload[field] = value;
        let error = HumanEval::default().preprocess(&payload).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn samples_are_joined_to_problems() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{}\n", whole()).unwrap();
        let processor = HumanEval::new(Some(file.path())).unwrap();
        assert!(processor.preprocess(&json!({"task_id": "t", "completion": "    pass\n"})).is_ok());
        let error = processor.preprocess(&json!({"task_id": "u", "completion": ""})).unwrap_err();
        assert!(error.to_string().contains("has no task_id \"u\""), "{error}");
    }

    #[test]
    fn a_bad_problems_file_is_named_with_its_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{}\n{{}}", whole()).unwrap();
        let error = HumanEval::new(Some(file.path())).unwrap_err().to_string();
        assert!(error.contains(":2: missing field `task_id`"), "{error}");
    }
}
