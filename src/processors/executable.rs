//! `executable`: files and commands as data; one object, or `{"executables": [ … ]}`.
//!
//! ```json
//! {"files": {"main.py": "print(input())"},
//!  "commands": [{"command": ["python3", "main.py"], "stdin": ["hello"]}]}
//! ```
//!
//! It passes when, in every executable, the last command that ran has the expected exit code.

use serde_json::{Map, Value, json};

use super::{Judgement, Postprocessor, Prepared, Preprocessor, Unusable};
use crate::model::{Executable, ExecutionResult};

/// The processor for executables that are data.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecutableProcessor;

impl Preprocessor for ExecutableProcessor {
    fn is_quick(&self, payload: &Value) -> bool {
        // An expression takes its time to compile.
        payload.get("executables").is_none() && payload.get("stdout_postprocessor").is_none_or(Value::is_null)
    }

    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        let rows: Vec<(String, &Value)> = match payload.get("executables") {
            Some(Value::Array(rows)) => {
                rows.iter().enumerate().map(|(index, row)| (format!("executables[{index}]."), row)).collect()
            }
            Some(_) => return Err(Unusable("executables is not a list of executables".to_owned())),
            None => vec![(String::new(), payload)],
        };
        if rows.is_empty() {
            return Err(Unusable("executables is empty: there is nothing to run".to_owned()));
        }
        let mut tasks = Vec::with_capacity(rows.len());
        for (at, row) in rows {
            let executable: Executable = serde_path_to_error::deserialize(row).map_err(|error| {
                let path = error.path().to_string();
                let path = if path == "." { "the executable".to_owned() } else { path };
                Unusable(format!("{at}{path}: {}", error.into_inner()))
            })?;
            tasks.push(executable.into());
        }
        Ok(Prepared::Run(tasks))
    }
}

impl Postprocessor for ExecutableProcessor {
    fn postprocess(&self, payload: &Value, executions: &[ExecutionResult]) -> Judgement {
        let expected = |index: usize| {
            let row = match payload.get("executables") {
                Some(rows) => rows.get(index),
                None => Some(payload),
            };
            let rule = row
                .and_then(|row| row.get("early_stop"))
                .and_then(|rule| rule.get("expected_return_code").or_else(|| rule.get("expected_rtr_code")));
            // Absent means 0; null means that any code will do.
            rule.map_or(Some(0), Value::as_i64)
        };
        let mut output = Map::new();
        let mut detail = None;
        for (index, execution) in executions.iter().enumerate() {
            let code = execution.last_command().and_then(|command| command.return_code);
            let wanted = expected(index);
            let right = match wanted {
                Some(wanted) => code.map(i64::from) == Some(wanted),
                None => code.is_some(),
            };
            if !right && detail.is_none() {
                let got = code.map_or("none".to_owned(), |code| code.to_string());
                let wanted = wanted.map_or("any".to_owned(), |code| code.to_string());
                detail = Some(format!(
                    "executable {index}: the last command's exit code is {got}, expected {wanted}"
                ));
            }
        }
        if executions.len() > 1 {
            output.insert("num_executables".to_owned(), json!(executions.len()));
        }
        Judgement { passed: detail.is_none(), detail, output }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::{CommandResult, Termination};

    #[rstest]
    #[case(json!({}), "missing field `commands`")]
    #[case(json!({"commands": 1}), "commands")]
    #[case(json!({"commands": [{"command": "ls"}]}), "commands[0].command")]
    #[case(json!({"executables": []}), "nothing to run")]
    #[case(json!({"executables": [{"commands": [{"command": [1]}]}]}), "executables[0].commands[0].command[0]")]
    #[case(json!({"files": {"/a": ""}, "commands": []}), "absolute")]
    fn unusable(#[case] payload: Value, #[case] says: &str) {
        let error = ExecutableProcessor.preprocess(&payload).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[rstest]
    #[case(json!({"expected_return_code": 3}), 3, true)]
    #[case(json!({"expected_rtr_code": 3}), 3, true)]
    #[case(json!({"expected_rtr_code": 3}), 0, false)]
    #[case(json!({"expected_return_code": null}), 5, true)]
    #[case(json!({}), 0, true)]
    fn the_expected_code(#[case] rule: Value, #[case] code: i32, #[case] passed: bool) {
        let payload = json!({"commands": [{"command": ["x"]}], "early_stop": rule});
        assert!(ExecutableProcessor.preprocess(&payload).is_ok());
        let command =
            CommandResult { return_code: Some(code), ..CommandResult::without_run(Termination::Exited) };
        let execution = ExecutionResult { command_results: vec![command], ..ExecutionResult::default() };
        assert_eq!(ExecutableProcessor.postprocess(&payload, &[execution]).passed, passed);
    }

    #[test]
    fn a_list_is_many() {
        let one = json!({"commands": [{"command": ["true"]}]});
        let Prepared::Run(tasks) =
            ExecutableProcessor.preprocess(&json!({"executables": [one, one]})).unwrap()
        else {
            panic!("it is run")
        };
        assert_eq!(tasks.len(), 2);
    }
}
