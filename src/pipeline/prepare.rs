//! A processor's part of the stages: its code over untrusted text, kept apart from the runtime.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Decoded, LimitSettings};
use crate::executor::Rules;
use crate::model::{Executable, ExecutionResult};
use crate::processors::{Case, Judgement, Prepared, Processor, Task, Undecided};
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
pub(super) struct Judge {
    processor: Arc<dyn Processor>,
    /// `None`: the postprocessor does.
    case: Option<Arc<dyn Case>>,
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
        self.case.is_some()
    }

    /// Whether this is done sooner than handed to another thread.
    pub(super) fn is_quick(&self, decoded: &Decoded, executions: &[ExecutionResult]) -> bool {
        let bytes: usize = executions.iter().map(output_bytes).sum();
        bytes + decoded.raw.get().len() <= INLINE_BYTES && self.processor.is_quick(&decoded.payload)
    }

    /// Judges, or asks for more.
    pub(super) fn next(
        &self,
        decoded: &Decoded,
        executions: &[ExecutionResult],
        limits: &LimitSettings,
    ) -> Next {
        let Some(case) = &self.case else {
            return Next::Judged(Ok(self.processor.postprocess(&decoded.payload, executions)));
        };
        let tasks = case.follow_up(executions);
        if tasks.is_empty() {
            return Next::Judged(case.judge(executions, &[]));
        }
        match checked(tasks, limits) {
            Ok(tasks) => Next::Further(tasks),
            Err(reason) => Next::Judged(Err(Undecided::Fault(format!(
                "what judges the program cannot be run: {reason}"
            )))),
        }
    }

    /// Judges what was asked for in addition.
    pub(super) fn last(
        &self,
        decoded: &Decoded,
        executions: &[ExecutionResult],
        further: &[ExecutionResult],
    ) -> Result<Judgement, Undecided> {
        match &self.case {
            Some(case) => case.judge(executions, further),
            None => Ok(self.processor.postprocess(&decoded.payload, executions)),
        }
    }
}

/// Preprocesses on the runtime or apart from it; also the task that the payload names.
pub(super) async fn preprocess(
    processor: Arc<dyn Processor>,
    decoded: Arc<Decoded>,
    settings: LimitSettings,
) -> Result<(Stage, Option<String>), String> {
    let quick = decoded.raw.get().len() <= INLINE_BYTES && processor.is_quick(&decoded.payload);
    apart(quick, move || {
        let task = processor.task(&decoded.payload);
        (prepare(processor, &decoded, &settings).unwrap_or_else(Stage::Invalid), task)
    })
    .await
}

/// Preprocesses and checks: what comes out of here can be run as it stands.
fn prepare(
    processor: Arc<dyn Processor>,
    decoded: &Decoded,
    settings: &LimitSettings,
) -> Result<Stage, String> {
    let limits = settings.for_prediction(&decoded.limits)?;
    let (tasks, case) = match processor.preprocess(&decoded.payload).map_err(|error| error.to_string())? {
        Prepared::Run(tasks) => (tasks, None),
        Prepared::Case(tasks, case) => (tasks, Some(case)),
        Prepared::Filtered { detail, output } => return Ok(Stage::Filtered { detail, output }),
    };
    Ok(Stage::Run(Work { tasks: checked(tasks, settings)?, limits, judge: Judge { processor, case } }))
}

fn checked(tasks: Vec<Task>, settings: &LimitSettings) -> Result<Vec<Ready>, String> {
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
    if !quick {
        return tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string());
    }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("it panicked: {}", text.unwrap_or_default())
    })
}

/// Everything that a postprocessor may want to read.
fn output_bytes(execution: &ExecutionResult) -> usize {
    let streams = execution.command_results.iter().map(|command| command.stdout.len() + command.stderr.len());
    let files = execution.tracked_files.values().flatten().map(|content| content.0.len());
    streams.chain(files).sum()
}
