//! From settings to running workers and a pipeline over them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::networks::Networks;
use super::programs;
use super::steps::CommandsError;
use thiserror::Error;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::{self, Settings, Tier};
use crate::executor::{ExecutorSettings, PoolExecutor};
use crate::model::ExecutionResult;
use crate::pipeline::external::ExternalError;
use crate::pipeline::{Framing, Keep, LimitSettings, Pipeline, PipelineSettings};
use crate::processors::{ProblemsError, ProcessorSettings, Registry, Task, UnknownProcessor};
use crate::sandbox::{self, Missing, Policy, TierError};
use crate::service::FlowSettings;
use crate::util::ceiling::Ceiling;
use crate::worker::protocol::{RunLimits, WorkerPolicy};
use crate::worker::{PoolSettings, PoolStats, Pools, Scratch, WorkerError, WorkerPool};

const MIB: u64 = 1 << 20;

/// What `run` and library calls start with at least, where `sandbox.require` leaves it open: a first try
/// must work on a laptop and in a plain container.
pub const RUN_REQUIRES: Tier = Tier::Process;
/// The same of `serve`, which runs what anybody may publish.
pub const SERVE_REQUIRES: Tier = Tier::Namespaces;

/// What the settings leave open.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// What the bytes of a message are.
    pub framing: Framing,
    /// What has not begun so long after it came is given back.
    pub max_wait: Option<Duration>,
    /// Most bytes of a result.
    pub max_result_bytes: Option<Ceiling>,
    /// The weakest isolation to start with, where `sandbox.require` leaves it open.
    pub require: Tier,
}

impl EngineOptions {
    /// For an input that waits as long as it takes, and a sink that takes any result: what a person
    /// starts on a machine of their own, with what isolation a plain container gives.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self { framing, max_wait: None, max_result_bytes: None, require: RUN_REQUIRES }
    }
}

/// The engine cannot start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No interpreter.
    #[error(transparent)]
    Interpreter(#[from] config::Problem),
    /// A setting is for nothing that there is.
    #[error(transparent)]
    Setting(#[from] config::Problems),
    /// The scratch directory cannot be made.
    #[error(
        "no scratch directory can be made in {dir}: {source}; set worker.scratch_dir or EXEC_TMP_DIR to a directory that can be written"
    )]
    Scratch {
        /// Where it was tried.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The debug or error directory cannot be made.
    #[error("the debug or error directory cannot be written: {0}")]
    Keep(std::io::Error),
    /// The problems file cannot be used.
    #[error(transparent)]
    Problems(#[from] ProblemsError),
    /// A program of the operator's does not work.
    #[error(transparent)]
    Program(#[from] ExternalError),
    /// A program of the operator's leaves something to a processor that is not there.
    #[error(transparent)]
    Processor(#[from] UnknownProcessor),
    /// The isolation asked for cannot be had.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// Programs could not have the processes that they are allowed.
    #[error(
        "the user's limit of processes (ulimit -u) leaves {most} for the programs of each of {workers} workers, and limits.processes allows {allowed}: raise it, or lower limits.processes or worker.num_workers"
    )]
    Processes {
        /// What there is.
        most: u64,
        /// For how many workers.
        workers: usize,
        /// What is allowed.
        allowed: u32,
    },
    /// Workers cannot be started.
    #[error(transparent)]
    Workers(#[from] WorkerError),
}

/// Running workers, and the pipeline over them.
#[derive(Debug)]
pub struct Engine {
    pools: Pools,
    tracker: TaskTracker,
    pipeline: Arc<Pipeline<PoolExecutor>>,
    tier: Tier,
    missing: Vec<Missing>,
    notice: String,
    scratch: Vec<Scratch>,
    num_workers: usize,
    /// Ends the operator's programs.
    programs: DropGuard,
}

impl Engine {
    /// Starts workers as `settings` say.
    ///
    /// # Errors
    /// Something that is needed cannot be had; nothing is left running.
    pub async fn start(settings: &Settings, options: EngineOptions) -> Result<Self, EngineError> {
        let humaneval = settings.processors.get("humaneval");
        let humaneval_problems = humaneval.and_then(|humaneval| directory(&humaneval.problems));
        let registry =
            Registry::builtin(&ProcessorSettings { humaneval_problems, languages: settings.languages() })?;
        Self::start_with(settings, options, registry).await
    }

    /// Starts workers as `settings` say, with these processors.
    ///
    /// # Errors
    /// Something that is needed cannot be had; nothing is left running.
    pub async fn start_with(
        settings: &Settings,
        options: EngineOptions,
        registry: Registry,
    ) -> Result<Self, EngineError> {
        let wanted = sandbox::wanted(&settings.sandbox, &settings.scratch_dir(), options.require)?;
        let interpreter = settings.interpreter()?;
        let processes = processes(settings, wanted.is_some())?;
        let keep = Keep::new(directory(&settings.debug.dir), directory(&settings.debug.error_dir))
            .map_err(EngineError::Keep)?;
        let networks = Networks::new(settings, wanted.is_some());
        let (tracker, closing) = (TaskTracker::new(), CancellationToken::new());
        let programs = closing.clone().drop_guard();
        let processors = programs::start(settings, registry, &tracker, &closing).await?;
        let (mut pools, mut scratch) = (Pools::new(settings.num_workers()), Vec::new());
        for network in networks.wanted() {
            let sandbox = wanted.clone().map(|policy| Policy { network, ..policy });
            match start_pool(settings, sandbox, (interpreter.clone(), processes), options.require, &tracker)
                .await
            {
                Ok((pool, dir)) => {
                    pools = pools.with(network, pool);
                    scratch.push(dir);
                }
                Err(error) => {
                    pools.shutdown().await;
                    return Err(error);
                }
            }
        }
        let pool = pools.of(networks.default)?;
        let (tier, missing) = (pool.tier(), pool.missing().to_vec());
        let notice = sandbox::notice(tier, networks.default, &missing) + &networks.notice(&pools)?;
        let executor = PoolExecutor::new(pools.clone(), executor_settings(settings));
        let cap = settings.max_execute_at_once().unwrap_or(usize::MAX);
        let pipeline = Pipeline::new(
            executor,
            processors,
            PipelineSettings {
                framing: options.framing,
                default_preprocessor: settings.pipeline.default_preprocessor.clone(),
                limits: limits(settings),
                echo: settings.pipeline.echo_prediction.clone(),
                // One more than there are workers: the next prediction waits where a worker comes free.
                slots: (settings.num_workers() + 1).min(cap),
                max_wait: options.max_wait,
                max_result_bytes: options.max_result_bytes,
                instance: instance(),
                walls: networks.walls(&pools, networks.default)?,
                walls_of: networks.walls_of(&pools)?,
                keep,
            },
        );
        Ok(Self {
            pools,
            tracker,
            pipeline: Arc::new(pipeline),
            tier,
            missing,
            notice,
            scratch,
            num_workers: settings.num_workers(),
            programs,
        })
    }

    /// The stages.
    #[must_use]
    pub fn pipeline(&self) -> Arc<Pipeline<PoolExecutor>> {
        Arc::clone(&self.pipeline)
    }

    /// Runs one executable with the configured limits, as the steps of a library call do.
    ///
    /// # Errors
    /// It cannot be run as it stands. What it does is no error, nor is a failure of ours: it is `infra_error` in the result.
    pub async fn execute(&self, key: String, task: Task) -> Result<ExecutionResult, CommandsError> {
        self.pipeline.run(key, task).await.map_err(CommandsError::Invalid)
    }

    /// Executables that run at a time.
    #[must_use]
    pub fn num_workers(&self) -> usize {
        self.num_workers
    }

    /// Whether there is a processor of this name.
    ///
    /// # Errors
    /// There is none; the error lists the known ones.
    pub fn knows(&self, name: &str) -> Result<(), UnknownProcessor> {
        self.pipeline.knows(name)
    }

    /// The isolation tier in force, for programs of processors with the network of `sandbox.network`.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// What keeps it from being stronger.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// The isolation tier in words, and what keeps it from being stronger.
    #[must_use]
    pub fn notice(&self) -> &str {
        &self.notice
    }

    /// Who makes the results: `<host>/<process id>`.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.pipeline.instance()
    }

    /// Where the engine's tasks are tracked.
    #[must_use]
    pub fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// The workers.
    #[must_use]
    pub fn pools(&self) -> Pools {
        self.pools.clone()
    }

    /// What became of workers so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.pools.stats()
    }

    /// Ends every worker and removes the scratch directory.
    pub async fn shutdown(self) {
        self.pools.shutdown().await;
        drop(self.programs);
        self.tracker.close();
        if tokio::time::timeout(Duration::from_secs(10), self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "tasks of ours did not end in time");
        }
        let scratch = self.scratch;
        // Removal is blocking work; a failure leaves a directory behind and nothing worse.
        let _ = tokio::task::spawn_blocking(move || drop(scratch)).await;
    }
}

/// Bounds and order of a flow, from the settings.
impl Settings {
    /// Bounds of a flow; `ordered`: results leave in the order of their predictions.
    #[must_use]
    pub fn flow(&self, ordered: bool) -> FlowSettings {
        FlowSettings {
            ordered,
            max_unsettled: self.pipeline.max_unsettled as usize,
            max_unsettled_bytes: (self.pipeline.max_unsettled_mb as usize) << 20,
            retry: None,
        }
    }
}

/// Workers with one kind of network, and where their boxes are.
async fn start_pool(
    settings: &Settings,
    sandbox: Option<Policy>,
    (interpreter, processes): (PathBuf, Option<u64>),
    require: Tier,
    tracker: &TaskTracker,
) -> Result<(WorkerPool, Scratch), EngineError> {
    let base = settings.scratch_dir();
    let at = base.clone();
    // What a killed run has left may be large.
    let made = tokio::task::spawn_blocking(move || Scratch::create(&at)).await;
    let scratch = made
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|source| EngineError::Scratch { dir: base, source })?;
    let policy =
        WorkerPolicy { processes, ..policy(settings, interpreter, scratch.path().to_path_buf(), sandbox) };
    let pool = WorkerPool::start(pool_settings(settings, policy), tracker).await?;
    match sandbox::suffices(&settings.sandbox, require, pool.tier(), pool.missing()) {
        Ok(()) => Ok((pool, scratch)),
        Err(error) => {
            pool.shutdown().await;
            Err(error.into())
        }
    }
}

/// What each worker can give its program of processes; there must be as many as each program is allowed.
fn processes(settings: &Settings, contained: bool) -> Result<Option<u64>, EngineError> {
    // Without walls they are root's, who has no limit.
    if !contained && rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let (workers, allowed) = (settings.num_workers(), settings.limits.processes);
    match sandbox::room::of_workers(workers) {
        Some(most) if most < u64::from(allowed) => Err(EngineError::Processes { most, workers, allowed }),
        room => Ok(room),
    }
}

fn directory(setting: &str) -> Option<PathBuf> {
    (!setting.is_empty()).then(|| PathBuf::from(setting))
}

pub(super) fn instance() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{}", std::process::id())
}

fn policy(
    settings: &Settings,
    interpreter: PathBuf,
    scratch_dir: PathBuf,
    sandbox: Option<Policy>,
) -> WorkerPolicy {
    const SYSTEM: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
    let own = interpreter.parent().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
    let mut dirs = SYSTEM.to_vec();
    if !own.is_empty() && !dirs.contains(&own.as_str()) {
        dirs.insert(0, &own);
    }
    let path = dirs.join(":");
    let mut environment = Vec::new();
    if settings.python.hash_seed != "random" {
        environment.push(("PYTHONHASHSEED".to_owned(), settings.python.hash_seed.clone()));
    }
    let passed =
        settings.environment.pass.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    environment.extend(passed);
    environment.extend(settings.environment.set.iter().map(|(name, value)| (name.clone(), value.clone())));
    WorkerPolicy { scratch_dir, interpreter, path, processes: None, environment, sandbox }
}

fn pool_settings(settings: &Settings, policy: WorkerPolicy) -> PoolSettings {
    let worker = &settings.worker;
    PoolSettings {
        num_workers: settings.num_workers(),
        max_tasks_per_process: (worker.max_tasks_per_process > 0).then_some(worker.max_tasks_per_process),
        max_age: settings.max_worker_age(),
        max_memory_bytes: (worker.max_memory_mb > 0).then(|| worker.max_memory_mb * MIB),
        executable: directory(&worker.executable),
        policy,
    }
}

fn executor_settings(settings: &Settings) -> ExecutorSettings {
    ExecutorSettings {
        write_rate_limit: settings.execution.write_rate_limit as usize,
        max_starts_per_second: settings.max_starts_per_second().unwrap_or(0.0),
        carried_output_bytes: (settings.limits.carried_output_kb as usize) << 10,
        tracked_file_bytes: settings.limits.tracked_file_mb * MIB,
        tracked_total_bytes: settings.limits.tracked_total_mb * MIB,
    }
}

fn limits(settings: &Settings) -> LimitSettings {
    let limits = &settings.limits;
    LimitSettings {
        defaults: RunLimits {
            wall: limits.default_timeout(),
            cpu: limits.cpu_time(),
            memory_bytes: limits.memory_mb * MIB,
            output_bytes: limits.output_mb * MIB,
            processes: limits.processes,
            file_bytes: limits.file_mb * MIB,
            open_files: limits.open_files.into(),
        },
        maxima: RunLimits {
            wall: limits.max_timeout(),
            cpu: limits.max_timeout(),
            memory_bytes: limits.max_memory_mb * MIB,
            output_bytes: limits.max_output_mb * MIB,
            processes: limits.max_processes,
            file_bytes: limits.max_file_mb * MIB,
            open_files: limits.max_open_files.into(),
        },
        max_prediction_time: limits.max_prediction_time(),
        max_commands: limits.max_commands as usize,
        max_executables: limits.max_executables as usize,
        max_num_times: limits.max_num_times,
    }
}
