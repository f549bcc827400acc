//! A processor's part of the stages: its code over untrusted text, kept apart from the runtime.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::processors::Program;
use super::{Decoded, LimitSettings};
use crate::executor::Rules;
use crate::model::{Executable, ExecutionResult};
use crate::processors::{Case, Judgement, Prepared, Processor, Task, Undecided, Unusable};
use crate::worker::protocol::RunLimits;

/// Most bytes of what a processor sees where it works on the runtime.
const INLINE_BYTES: usize = 64 << 10;

/// An executable that can be run as it stands, with its rules.
pub(super) type Ready = (Executable, Rules);

/// What is run of a prediction, and who judges it.
pub(super) struct Work {
    pub(super) tasks: Vec<Ready>,
    pub(super) limits: RunLimits,
    pub(super) judge: Judge,
}

/// Who judges a prediction.
#[derive(Clone)]
pub(super) enum Judge {
    Processor(Arc<dyn Processor>),
    Case(Arc<dyn Processor>, Arc<dyn Case>),
    Program(Program),
}

/// A preprocessed prediction.
pub(super) enum Stage {
    Run(Work),
    Filtered { detail: Option<String>, output: Map<String, Value> },
    Invalid(String),
    OurFault(String),
}

/// What follows once everything that was asked for has run.
pub(super) enum Next {
    Judged(Result<Judgement, Undecided>),
    /// Run these first.
    Further(Vec<Ready>),
}

impl Judge {
    /// Whether there may be something to run beside what was prepared.
    pub(super) fn may_follow_up(&self) -> bool {
        matches!(self, Self::Case(..))
    }

    /// Judges, or asks for more. Somebody's code that panics is an error in words.
    pub(super) async fn next(
        self,
        decoded: &Arc<Decoded>,
        executions: &Arc<Vec<ExecutionResult>>,
        limits: LimitSettings,
    ) -> Result<Next, String> {
        let bytes = decoded.raw.get().len() + executions.iter().map(output_bytes).sum::<usize>();
        let (decoded, executions) = (Arc::clone(decoded), Arc::clone(executions));
        let quick =
            |processor: &Arc<dyn Processor>| bytes <= INLINE_BYTES && processor.is_quick(&decoded.payload);
        match self {
            Self::Program(program) => {
                let judged = program.postprocess(&decoded, &executions).await;
                Ok(Next::Judged(judged.map_err(|error| Undecided::Fault(error.to_string()))))
            }
            Self::Processor(processor) => {
                apart(quick(&processor), move || {
                    Next::Judged(Ok(processor.postprocess(&decoded.payload, &executions)))
                })
                .await
            }
            Self::Case(processor, case) => {
                apart(quick(&processor), move || next(&*case, &executions, &limits)).await
            }
        }
    }

    /// Judges with what was asked for in addition.
    pub(super) async fn last(
        self,
        executions: &Arc<Vec<ExecutionResult>>,
        further: Vec<ExecutionResult>,
    ) -> Result<Result<Judgement, Undecided>, String> {
        let Self::Case(_, case) = self else { return Err("nobody asked for more".to_owned()) };
        let executions = Arc::clone(executions);
        apart(false, move || case.judge(&executions, &further)).await
    }
}

fn next(case: &dyn Case, executions: &[ExecutionResult], limits: &LimitSettings) -> Next {
    let tasks = case.follow_up(executions);
    if tasks.is_empty() {
        return Next::Judged(case.judge(executions, &[]));
    }
    match checked(tasks, limits) {
        Ok(tasks) => Next::Further(tasks),
        Err(reason) => {
            Next::Judged(Err(Undecided::Fault(format!("what judges the program cannot be run: {reason}"))))
        }
    }
}

/// Preprocesses on the runtime or apart from it; also the task that the payload names.
pub(super) async fn preprocess(
    processor: Arc<dyn Processor>,
    judge: Judge,
    decoded: Arc<Decoded>,
    settings: LimitSettings,
) -> Result<(Stage, Option<String>), String> {
    let quick = decoded.raw.get().len() <= INLINE_BYTES && processor.is_quick(&decoded.payload);
    apart(quick, move || {
        let task = processor.task(&decoded.payload);
        let prepared = processor.preprocess(&decoded.payload);
        (stage(prepared, judge, &decoded, &settings), task)
    })
    .await
}

/// Checks: what comes out of here can be run as it stands.
pub(super) fn stage(
    prepared: Result<Prepared, Unusable>,
    judge: Judge,
    decoded: &Decoded,
    settings: &LimitSettings,
) -> Stage {
    let limits = match settings.for_prediction(&decoded.limits) {
        Ok(limits) => limits,
        // Whatever else is said of it.
        Err(reason) => return Stage::Invalid(reason),
    };
    let ready = |tasks, judge| Ok(Stage::Run(Work { tasks: checked(tasks, settings)?, limits, judge }));
    let staged = match (prepared, judge) {
        (Err(unusable), _) => Err(unusable.to_string()),
        (Ok(Prepared::Filtered { detail, output }), _) => Ok(Stage::Filtered { detail, output }),
        (Ok(Prepared::Run(tasks)), judge) => ready(tasks, judge),
        (Ok(Prepared::Case(tasks, case)), Judge::Processor(processor)) => {
            ready(tasks, Judge::Case(processor, case))
        }
        (Ok(Prepared::Case(tasks, _)), judge) => ready(tasks, judge),
    };
    staged.unwrap_or_else(Stage::Invalid)
}

pub(super) fn checked(tasks: Vec<Task>, settings: &LimitSettings) -> Result<Vec<Ready>, String> {
    if tasks.is_empty() || tasks.len() > settings.max_executables {
        let most = settings.max_executables;
        return Err(format!("{} executables; limits.max_executables allows 1 to {most}", tasks.len()));
    }
    let many = tasks.len() > 1;
    let mut ready = Vec::with_capacity(tasks.len());
    for (index, Task { executable, hooks }) in tasks.into_iter().enumerate() {
        let checked = executable.validate().map_err(|error| error.to_string());
        let checked = checked.and_then(|()| settings.check(&executable));
        let compiled = checked.and_then(|()| {
            let stdout = executable.stdout_postprocessor.as_ref();
            Rules::new(executable.early_stop.clone(), stdout, hooks).map_err(|error| error.to_string())
        });
        let rules = compiled
            .map_err(|reason| if many { format!("executables[{index}]: {reason}") } else { reason })?;
        ready.push((executable, rules));
    }
    Ok(ready)
}

/// Runs a processor's code, which may panic: what is quick here, the rest off the runtime.
pub(super) async fn apart<T: Send + 'static>(
    quick: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let caught = move || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            format!("it panicked: {}", text.unwrap_or_default())
        })
    };
    if quick {
        return caught();
    }
    tokio::task::spawn_blocking(caught).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Everything that a postprocessor may want to read.
fn output_bytes(execution: &ExecutionResult) -> usize {
    let streams = execution.command_results.iter().map(|command| command.stdout.len() + command.stderr.len());
    let files = execution.tracked_files.values().flatten().map(|content| content.0.len());
    streams.chain(files).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rstest::rstest;

    use super::*;
    use crate::pipeline::limits::tests::settings;
    use crate::pipeline::{Framing, Incoming, decode};
    use crate::processors::ExecutableProcessor;

    #[rstest]
    #[tokio::test]
    async fn a_panic_is_told_alike_wherever_it_was(#[values(true, false)] quick: bool) {
        assert_eq!(apart(quick, || 1).await, Ok(1));
        let text = apart(quick, || panic!("no {}", "code")).await;
        assert_eq!(text, Err::<(), _>("it panicked: no code".to_owned()));
    }

    #[test]
    fn limits_that_are_not_allowed_are_said_first() {
        let said = |prepared, limits: &str| {
            let incoming = Incoming {
                sequence: 0,
                fallback_id: None,
                body: Ok(format!(r#"{{"id": "a", "prediction": {{}}, "limits": {limits}}}"#).into_bytes()),
                arrived: Instant::now(),
                attempt: 1,
                redelivered: false,
            };
            let decoded = decode(&incoming, &Framing::Message).unwrap();
            stage(prepared, Judge::Processor(Arc::new(ExecutableProcessor)), &decoded, &settings())
        };
        let filtered = || Ok(Prepared::Filtered { detail: None, output: Map::new() });
        let unusable = || Err(Unusable("no code".to_owned()));
        for prepared in [filtered(), unusable()] {
            let Stage::Invalid(reason) = said(prepared, r#"{"memory_mb": 5000}"#) else { panic!("it is") };
            assert_eq!(reason, "limits.memory_mb is 5000; the configuration allows 1 to 4096");
        }
        assert!(matches!(said(filtered(), "{}"), Stage::Filtered { .. }));
        assert!(matches!(said(unusable(), "{}"), Stage::Invalid(reason) if reason == "no code"));
    }
}
