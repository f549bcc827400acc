//! The configured interpreter, asked about sources in a worker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::Pipeline;
use crate::code_trees::{OracleError, SourceOracle};
use crate::executor::Execute;
use crate::model::{BoxPath, Command, Executable, FileContent, Termination};
use crate::processors::Task;

/// What is asked; it compiles, and runs nothing of what it is given.
const PROGRAM: &str = include_str!("oracle.py");

/// Why there was no answer.
#[derive(Debug, Error)]
#[error("{0}")]
struct NoAnswer(String);

fn unavailable(reason: impl ToString) -> OracleError {
    OracleError::Unavailable(Box::new(NoAnswer(reason.to_string())))
}

#[derive(Deserialize)]
struct Answer {
    answer: Option<Value>,
    #[serde(default)]
    exhausted: bool,
}

impl<E: Execute> Pipeline<E> {
    async fn asked(&self, request: Value) -> Result<Option<Value>, OracleError> {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let file = |name: &str, text: String| BoxPath::new(name).map(|path| (path, FileContent::from(text)));
        let files = [("oracle.py", PROGRAM.to_owned()), ("request.json", request.to_string())];
        let files = files.into_iter().map(|(name, text)| file(name, text));
        let files = files.collect::<Result<BTreeMap<_, _>, _>>().map_err(unavailable)?;
        // -I: nothing of the box is imported.
        let executable = Executable::new(files, vec![Command::new(["python3", "-I", "oracle.py"])]);
        let key = format!("oracle.{}", ASKED.fetch_add(1, Ordering::Relaxed));
        let result = self.run(key, Task::from(executable)).await.map_err(unavailable)?;
        if let Some(reason) = result.infra_error {
            return Err(unavailable(reason));
        }
        let Some(command) = result.command_results.last() else { return Err(unavailable("it was not run")) };
        match command.termination {
            Termination::Exited if command.return_code == Some(0) && !command.stdout_truncated => {}
            Termination::Exited => return Err(unavailable(&command.stderr)),
            Termination::NotStarted => {
                return Err(unavailable(command.detail.as_deref().unwrap_or("not started")));
            }
            // A limit, or the interpreter's own stack.
            _ => return Err(OracleError::Exhausted),
        }
        let answer: Answer = serde_json::from_str(&command.stdout).map_err(unavailable)?;
        if answer.exhausted { Err(OracleError::Exhausted) } else { Ok(answer.answer) }
    }

    async fn text(&self, request: Value) -> Result<Option<String>, OracleError> {
        let answer = self.asked(request).await?;
        Ok(answer.and_then(|answer| answer.as_str().map(str::to_owned)))
    }
}

impl<E: Execute> SourceOracle for Pipeline<E> {
    fn is_valid<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<bool, OracleError>> {
        let asked = self.asked(json!({"ask": "is_valid", "code": code}));
        async move { Ok(asked.await? == Some(Value::Bool(true))) }.boxed()
    }

    fn normalize<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<Option<String>, OracleError>> {
        self.text(json!({"ask": "normalize", "code": code})).boxed()
    }

    fn convert_call_to_assert<'a>(
        &'a self,
        call: &'a str,
        expected: &'a str,
        requires_float: bool,
    ) -> BoxFuture<'a, Result<Option<String>, OracleError>> {
        self.text(json!({
            "ask": "convert_call_to_assert", "call": call, "expected": expected, "requires_float": requires_float,
        }))
        .boxed()
    }
}
