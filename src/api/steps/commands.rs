//! Commands in boxes, without a pipeline around them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _};
use thiserror::Error;

use super::files::{WritingFailure, read_all};
use super::processing::ExecutionKey;
use crate::api::Engine;
use crate::model::{
    BoxPath, Command, CommandResult, EarlyStop, Executable, ExecutionResult, Seconds, SecondsError, Stdin,
};
use crate::processors::{EarlyStopFn, Hooks, StdoutFn, Task};

/// Most bytes of the files of a working directory that go into a box.
const DIRECTORY_BYTES: u64 = 128 << 20;

/// Commands, and the directory whose files they find in their box.
#[derive(Debug, Clone)]
pub struct CommandsToRun {
    /// A directory of this machine; it is copied into the box, and stays as it is.
    pub cwd: PathBuf,
    /// Run one after another.
    pub commands: Vec<Command>,
    /// Files of the box that come back.
    pub tracked_files: Vec<BoxPath>,
    /// When to leave out the remaining commands.
    pub early_stop: EarlyStop,
    /// The same, and what is done to standard output, as closures.
    pub hooks: Hooks,
}

impl CommandsToRun {
    /// These commands with the default rule.
    #[must_use]
    pub fn new(cwd: impl Into<PathBuf>, commands: Vec<Command>) -> Self {
        Self {
            cwd: cwd.into(),
            commands,
            tracked_files: Vec::new(),
            early_stop: EarlyStop::default(),
            hooks: Hooks::default(),
        }
    }
}

/// Commands that could not be run. What they do is never an error: it is a result.
#[derive(Debug, Error)]
pub enum CommandsError {
    /// They cannot be run as they stand.
    #[error("{0}")]
    Invalid(String),
    /// The working directory cannot be copied into a box.
    #[error(transparent)]
    Directory(#[from] WritingFailure),
    /// A time that is none.
    #[error("timeout: {0}")]
    Timeout(#[from] SecondsError),
    /// Our own failure, after every retry.
    #[error("{0}")]
    Infra(String),
    /// A closure or a task of ours panicked.
    #[error("a closure panicked: {0}")]
    Panicked(String),
}

/// What many executables came to.
#[derive(Debug, Clone, Default)]
pub struct ExecutedCommands {
    /// Seconds of commands, summed up.
    pub pure_exec_time: f64,
    /// Seconds from the first one's start to the last one's end.
    pub elapsed: f64,
    /// In the order of what was given.
    pub results: Vec<(ExecutionKey, ExecutionResult)>,
}

/// Runs one command `num_times`, until it has an error; `runtime` is the mean.
///
/// # Errors
/// It cannot be run: its own outcome is no error.
pub async fn safe_execute(
    engine: &Engine,
    command_to_run: &[&str],
    working_dir: &Path,
    timeout: Option<f64>,
    num_times: u32,
    stdin: Option<&str>,
    stdout_postprocessor: Option<std::sync::Arc<StdoutFn>>,
) -> Result<CommandResult, CommandsError> {
    let command = Command {
        timeout: timeout.map(Seconds::new).transpose()?,
        num_times,
        stdin: stdin.map_or_else(Stdin::default, |text| Stdin::Text(text.to_owned())),
        ..Command::new(command_to_run.iter().copied())
    };
    let hooks = Hooks { stdout: stdout_postprocessor, ..Hooks::default() };
    let sample = CommandsToRun { hooks, ..CommandsToRun::new(working_dir, vec![command]) };
    let mut result = serial_execute_code(engine, (0, 0), sample).await?;
    result.command_results.pop().ok_or_else(|| CommandsError::Infra("it was not run".to_owned()))
}

/// Runs commands in order, with early stop, then reads the tracked files back (absent: `None`).
///
/// # Errors
/// They cannot be run, or we failed.
pub async fn serial_execute_code(
    engine: &Engine,
    key: ExecutionKey,
    sample: CommandsToRun,
) -> Result<ExecutionResult, CommandsError> {
    let CommandsToRun { cwd, commands, tracked_files, early_stop, hooks } = sample;
    let files = tokio::task::spawn_blocking(move || read_all(&cwd, DIRECTORY_BYTES));
    let files = files.await.map_err(|error| CommandsError::Panicked(error.to_string()))??;
    let executable = Executable { tracked_files, early_stop, ..Executable::new(files, commands) };
    execute(engine, key, Task { executable, hooks }).await
}

async fn execute(engine: &Engine, key: ExecutionKey, task: Task) -> Result<ExecutionResult, CommandsError> {
    let result = engine.execute(format!("{}.{}", key.0, key.1), task).await?;
    match result.infra_error {
        Some(reason) => Err(CommandsError::Infra(reason)),
        None => Ok(result),
    }
}

/// [`serial_execute_code`] of one, with its key.
///
/// # Errors
/// As there.
pub async fn execute_single(
    engine: &Engine,
    key: ExecutionKey,
    sample: CommandsToRun,
) -> Result<(ExecutionKey, ExecutionResult), CommandsError> {
    Ok((key, serial_execute_code(engine, key, sample).await?))
}

/// [`execute_single`] of many, one after another.
///
/// # Errors
/// One of them cannot be run, or we failed.
pub async fn batched_execute_code(
    engine: &Engine,
    to_run: Vec<(ExecutionKey, CommandsToRun)>,
) -> Result<Vec<(ExecutionKey, ExecutionResult)>, CommandsError> {
    threaded_execution(to_run, |(key, sample)| execute_single(engine, key, sample), 1).await
}

/// Runs `execution_fn` on each, at most `max_threads` (at least one) at a time; the results are in the order of `to_run`.
/// No thread is needed: what is waited for are workers, and their number bounds what runs.
///
/// # Errors
/// The first error ends it.
pub async fn threaded_execution<T, R, F>(
    to_run: Vec<T>,
    execution_fn: impl Fn(T) -> F,
    max_threads: usize,
) -> Result<Vec<R>, CommandsError>
where
    F: Future<Output = Result<R, CommandsError>>,
{
    let all = to_run.into_iter().map(execution_fn);
    futures::stream::iter(all).buffered(max_threads.max(1)).try_collect().await
}

/// Runs what [`preprocess_commands`](super::preprocess_commands) has prepared, as many at a time as there are workers.
///
/// # Errors
/// One of them cannot be run, or we failed.
pub async fn execute_commands(
    engine: &Engine,
    predictions: Vec<(ExecutionKey, Task)>,
) -> Result<ExecutedCommands, CommandsError> {
    let started = Instant::now();
    let one = |(key, task)| async move { Ok((key, execute(engine, key, task).await?)) };
    let results = threaded_execution(predictions, one, engine.num_workers() + 1).await?;
    let pure_exec_time = results.iter().map(|(_, result)| result.elapsed).sum();
    let elapsed = started.elapsed().as_secs_f64();
    Ok(ExecutedCommands { pure_exec_time, elapsed, results })
}

/// The default rule as a function: stop after a timeout (if so asked), an unexpected error, or another exit code than the
/// expected one (`None`: any will do).
#[must_use]
pub fn default_should_early_stop(
    _cmd_idx: usize,
    res: &CommandResult,
    expected_rtr_code: Option<i32>,
    stop_for_timeout: bool,
) -> bool {
    let rule =
        EarlyStop { expected_return_code: expected_rtr_code, stop_for_timeout, ..EarlyStop::default() };
    rule.stops(res)
}

/// A rule of one's own, as [`Hooks`] takes it.
pub fn early_stop(
    rule: impl Fn(usize, &CommandResult) -> bool + Send + Sync + 'static,
) -> std::sync::Arc<EarlyStopFn> {
    std::sync::Arc::new(rule)
}
