//! The executor over the worker pools.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::outcome::{carry, command_result, without_run};
use super::{Rules, StartRate};
use crate::model::{CommandResult, Executable, ExecutionResult, FileContent, Termination};
use crate::sandbox::{Shortage, Want};
use crate::worker::protocol::{BoxFile, Close, Closed, Ended, Open, Run, RunLimits, Tracked, Witness};
use crate::worker::{Lost, LostReason, OpenBox, OpenError, Phase, Pools};

/// How often an executable is tried where the failure is ours.
const MAX_TRIES: u32 = 4;

/// Pause before the first of those tries; each next one is longer by as much.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Longer outputs are not looked at on the runtime.
const INLINE_BYTES: usize = 64 << 10;

/// One executable to run.
#[derive(Debug)]
pub struct Job {
    /// `<prediction>.<executable>`.
    pub key: String,
    /// What is run.
    pub executable: Executable,
    /// Its rules, compiled.
    pub rules: Arc<Rules>,
    /// Limits of commands that name no timeout of their own. No CPU time: as much as the wall limit.
    pub limits: RunLimits,
    /// Its programs have the host's network.
    pub network: bool,
    /// Execution time that the prediction has left.
    pub budget: Duration,
}

/// What came of a [`Job`], with the stages that a result does not carry.
#[derive(Debug, Clone, Default)]
pub struct Executed {
    /// The result; `infra_error` is set where we failed.
    pub result: ExecutionResult,
    /// Waiting for a worker and for permits.
    pub wait: Duration,
    /// A wall limit was extended because the machine was busy.
    pub contended: bool,
}

/// Runs executables.
pub trait Execute: Send + Sync {
    /// Sees one executable to its end. Never fails: our own failure is data in the result.
    fn execute(&self, job: Job) -> impl Future<Output = Executed> + Send;
}

/// What the executor is told.
#[derive(Debug, Clone, Copy)]
pub struct ExecutorSettings {
    /// Boxes written at the same time.
    pub write_rate_limit: usize,
    /// Process starts a second; 0: no limit.
    pub max_starts_per_second: f64,
    /// Bytes of each stream that a result carries.
    pub carried_output_bytes: usize,
    /// Most bytes of one tracked file.
    pub tracked_file_bytes: u64,
    /// Most bytes of all tracked files of an executable.
    pub tracked_total_bytes: u64,
}

/// The executor over the worker pools.
#[derive(Debug, Clone)]
pub struct PoolExecutor {
    pools: Pools,
    settings: ExecutorSettings,
    writes: Arc<Semaphore>,
    starts: Arc<StartRate>,
    shortage: Arc<Shortage>,
}

/// Why a try came to nothing.
enum Trouble {
    /// Ours: try again, then `infra_error`.
    Ours(String),
    /// The worker was lost while a command ran.
    LostRunning { command: usize, reason: String },
}

impl From<Lost> for Trouble {
    fn from(lost: Lost) -> Self {
        Self::Ours(lost.to_string())
    }
}

impl PoolExecutor {
    /// An executor over `pools`.
    #[must_use]
    pub fn new(pools: Pools, settings: ExecutorSettings) -> Self {
        Self {
            pools,
            settings,
            writes: Arc::new(Semaphore::new(settings.write_rate_limit.max(1))),
            starts: Arc::new(StartRate::new(settings.max_starts_per_second)),
            shortage: Arc::new(Shortage::of_machine()),
        }
    }

    async fn attempt(&self, job: &Job, done: &mut Executed) -> Result<(), Trouble> {
        let queued = Instant::now();
        // Held for as long as the box is there.
        let (_turn, lease) =
            self.pools.lease(job.network).await.map_err(|error| Trouble::Ours(error.to_string()))?;
        let permit = self.writes.acquire().await.map_err(|error| Trouble::Ours(error.to_string()))?;
        let writing = Instant::now();
        done.wait += writing - queued;
        let files = job
            .executable
            .files
            .iter()
            .map(|(path, content)| BoxFile { path: path.as_str().to_owned(), content: content.0.clone() })
            .collect();
        let mut opened = lease.open(Open { files }).await.map_err(|error| match error {
            OpenError::Refused(reason) => Trouble::Ours(reason),
            OpenError::Lost(lost) => lost.into(),
        })?;
        drop(permit);
        done.result.writing_time = writing.elapsed().as_secs_f64();
        done.result.cwd = opened.path().to_owned();
        self.run_commands(job, &mut opened, done).await?;
        let closing = Instant::now();
        let tracked = job.executable.tracked_files.iter().map(|path| path.as_str().to_owned()).collect();
        let close = Close {
            tracked,
            max_file_bytes: self.settings.tracked_file_bytes,
            max_total_bytes: self.settings.tracked_total_bytes,
        };
        let closed = match opened.close(close).await {
            Ok(closed) => closed,
            // Every command has its result, and nothing is wanted of the box: the worker is replaced.
            Err(lost) if job.executable.tracked_files.is_empty() => {
                tracing::warn!(key = job.key, %lost, "a worker was lost after its last command");
                return Ok(());
            }
            Err(lost) => return Err(lost.into()),
        };
        done.result.cleanup_time = closing.elapsed().as_secs_f64();
        keep_tracked(job, closed, &mut done.result);
        Ok(())
    }

    async fn run_commands(
        &self,
        job: &Job,
        opened: &mut OpenBox,
        done: &mut Executed,
    ) -> Result<(), Trouble> {
        let mut spent = Duration::ZERO;
        for (index, command) in job.executable.commands.iter().enumerate() {
            let wall = command.timeout.map_or(job.limits.wall, Duration::from);
            let stdin = command.stdin.to_bytes();
            let mut runtimes = Vec::new();
            let mut result = None;
            for _ in 0..command.num_times {
                let Some(left) = job.budget.checked_sub(spent).filter(|left| !left.is_zero()) else {
                    let detail = "the prediction's execution time is used up (limits.max_prediction_time)";
                    result = Some(without_run(command, Termination::WallLimit, detail.to_owned()));
                    break;
                };
                let wall = wall.min(left);
                let report_bytes = job.executable.report_bytes;
                let witness = job.executable.witness.then(|| Witness { nonce: nonce(), report_bytes });
                let waiting = Instant::now();
                self.starts.turn().await;
                done.wait += waiting.elapsed();
                let cpu = if job.limits.cpu.is_zero() { wall } else { job.limits.cpu };
                let limits = RunLimits { wall, cpu, ..job.limits };
                let run = Run { argv: command.command.clone(), stdin: stdin.clone(), witness, limits };
                let ran = opened.run(run).await.map_err(|lost| match lost.phase {
                    // Only what the program can bring about may count as its doing.
                    Phase::Running if matches!(lost.reason, LostReason::Ended | LostReason::Timeout(_)) => {
                        Trouble::LostRunning { command: index, reason: lost.to_string() }
                    }
                    Phase::Running | Phase::Opening | Phase::Closing => lost.into(),
                })?;
                if let Ended::Failed(reason) = &ran.ended {
                    return Err(Trouble::Ours(format!("commands[{index}]: {reason}")));
                }
                // Extra time that a busy machine cost is not the prediction's.
                spent += if ran.contended { ran.elapsed.min(wall) } else { ran.elapsed };
                done.contended |= ran.contended;
                runtimes.push(ran.elapsed.as_secs_f64());
                let next = command_result(command, &job.rules, ran, runtimes.clone());
                let stop = next.had_error;
                result = Some(next);
                if stop {
                    break;
                }
            }
            let Some(result) = result else { continue };
            let (stop, mut result) = stops(&job.rules, index, result).await?;
            carry(&mut result, self.settings.carried_output_bytes);
            done.result.command_results.push(result);
            if stop {
                break;
            }
        }
        done.result.elapsed = spent.as_secs_f64();
        Ok(())
    }
}

/// Whether the commands after this one are left out; also the result, given back.
async fn stops(
    rules: &Arc<Rules>,
    index: usize,
    result: CommandResult,
) -> Result<(bool, CommandResult), Trouble> {
    if result.stdout.len() + result.stderr.len() <= INLINE_BYTES {
        return Ok((rules.stops(index, &result), result));
    }
    let rules = Arc::clone(rules);
    let looked = move || (rules.stops(index, &result), result);
    match tokio::task::spawn_blocking(looked).await {
        Ok(done) => Ok(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Trouble::Ours(error.to_string())),
        },
    }
}

impl Execute for PoolExecutor {
    async fn execute(&self, job: Job) -> Executed {
        let fresh = || ExecutionResult {
            key: job.key.clone(),
            expected_num_commands: job.executable.commands.len(),
            ..ExecutionResult::default()
        };
        let mut done = Executed { result: fresh(), ..Executed::default() };
        // What the machine said when the worker was lost for the first time.
        let mut lost_running = None;
        for tries in 1.. {
            let trouble = match self.attempt(&job, &mut done).await {
                Ok(()) => break,
                Err(trouble) => trouble,
            };
            let trouble = match trouble {
                // Killed by the kernel for want of memory, it is not the program's doing.
                Trouble::LostRunning { reason, .. }
                    if lost_running.and_then(|seen| self.shortage.since(seen)).is_some() =>
                {
                    Trouble::Ours(format!("{reason}; {}", Want::Memory))
                }
                trouble => trouble,
            };
            match trouble {
                // Lost twice in the same phase: the program's doing.
                Trouble::LostRunning { command, reason } if lost_running.is_some() => {
                    tracing::warn!(
                        key = job.key,
                        command,
                        reason,
                        "a worker was lost again: it counts as a crash"
                    );
                    let command = &job.executable.commands[command];
                    let result = without_run(command, Termination::WorkerLost, reason);
                    done.result.command_results.push(result);
                    break;
                }
                Trouble::LostRunning { command, reason } => {
                    tracing::warn!(
                        key = job.key,
                        command,
                        reason,
                        "a worker was lost: running the executable again"
                    );
                    lost_running = Some(self.shortage.now());
                }
                Trouble::Ours(reason) if tries >= MAX_TRIES => {
                    tracing::error!(key = job.key, reason, tries, "given up: infra_error");
                    done.result = ExecutionResult { infra_error: Some(reason), ..fresh() };
                    break;
                }
                Trouble::Ours(reason) => {
                    tracing::warn!(key = job.key, reason, tries, "trying again");
                    // What fills a disk or a process table may be gone in a moment.
                    tokio::time::sleep(RETRY_AFTER * tries).await;
                }
            }
            done.result = fresh();
        }
        let commands = &done.result.command_results;
        done.result.timed_out = commands.iter().any(|command| command.timed_out);
        done.result.had_error = commands.is_empty() || commands.iter().any(|command| command.had_error);
        done
    }
}

fn nonce() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn keep_tracked(job: &Job, closed: Closed, result: &mut ExecutionResult) {
    for (path, tracked) in job.executable.tracked_files.iter().zip(closed.tracked) {
        let content = match tracked {
            Tracked::Content(bytes) => Some(FileContent(bytes)),
            Tracked::Absent => None,
            Tracked::Refused(reason) => {
                result.tracked_errors.insert(path.clone(), reason);
                None
            }
        };
        result.tracked_files.insert(path.clone(), content);
    }
}
