//! From settings to running workers and a pipeline over them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use thiserror::Error;
use tokio_util::task::TaskTracker;

use crate::config::{self, Settings, Tier};
use crate::executor::{ExecutorSettings, PoolExecutor};
use crate::pipeline::{Framing, Keep, LimitSettings, Pipeline, PipelineSettings};
use crate::processors::{ProblemsError, ProcessorSettings, Registry, UnknownProcessor};
use crate::sandbox::{self, Policy, TierError};
use crate::service::FlowSettings;
use crate::util::ceiling::Ceiling;
use crate::worker::protocol::{RunLimits, WorkerPolicy};
use crate::worker::{PoolSettings, PoolStats, WorkerError, WorkerPool};

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
    /// The isolation asked for cannot be had.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// Workers cannot be started.
    #[error(transparent)]
    Workers(#[from] WorkerError),
}

/// Running workers, and the pipeline over them.
#[derive(Debug)]
pub struct Engine {
    pool: WorkerPool,
    tracker: TaskTracker,
    pipeline: Arc<Pipeline<PoolExecutor>>,
    notice: String,
    scratch: TempDir,
}

impl Engine {
    /// Starts workers as `settings` say.
    ///
    /// # Errors
    /// Something that is needed cannot be had; nothing is left running.
    pub async fn start(settings: &Settings, options: EngineOptions) -> Result<Self, EngineError> {
        let problems = &settings.processors.humaneval.problems;
        let humaneval_problems = (!problems.is_empty()).then(|| PathBuf::from(problems));
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
        let wanted = sandbox::wanted(&settings.sandbox, options.require)?;
        let interpreter = settings.interpreter()?;
        let keep = Keep::new(directory(&settings.debug.dir), directory(&settings.debug.error_dir))
            .map_err(EngineError::Keep)?;
        let base = settings.scratch_dir();
        let scratch = tempfile::Builder::new()
            .prefix("evalmill-")
            .tempdir_in(&base)
            .map_err(|source| EngineError::Scratch { dir: base, source })?;
        let policy = policy(settings, interpreter, scratch.path().to_path_buf(), wanted);
        let tracker = TaskTracker::new();
        let pool = WorkerPool::start(pool_settings(settings, policy), &tracker).await?;
        if let Err(error) = sandbox::suffices(&settings.sandbox, options.require, pool.tier(), pool.missing())
        {
            pool.shutdown().await;
            return Err(error.into());
        }
        let notice = sandbox::notice(pool.tier(), settings.sandbox.network, pool.missing());
        let executor = PoolExecutor::new(pool.clone(), executor_settings(settings));
        let cap = settings.max_execute_at_once().unwrap_or(usize::MAX);
        let pipeline = Pipeline::new(
            executor,
            registry,
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
                tier: pool.tier().name().to_owned(),
                missing: pool.missing().iter().map(|missing| missing.layer.name().to_owned()).collect(),
                keep,
            },
        );
        Ok(Self { pool, tracker, pipeline: Arc::new(pipeline), notice, scratch })
    }

    /// The stages.
    #[must_use]
    pub fn pipeline(&self) -> Arc<Pipeline<PoolExecutor>> {
        Arc::clone(&self.pipeline)
    }

    /// Whether there is a processor of this name.
    ///
    /// # Errors
    /// There is none; the error lists the known ones.
    pub fn knows(&self, name: &str) -> Result<(), UnknownProcessor> {
        self.pipeline.knows(name)
    }

    /// The isolation tier in force.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.pool.tier()
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
    pub fn pool(&self) -> WorkerPool {
        self.pool.clone()
    }

    /// What became of workers so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Ends every worker and removes the scratch directory.
    pub async fn shutdown(self) {
        self.pool.shutdown().await;
        self.tracker.close();
        if tokio::time::timeout(Duration::from_secs(10), self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "tasks of ours did not end in time");
        }
        let scratch = self.scratch;
        // Removal is blocking work; a failure leaves a directory behind and nothing worse.
        let _ = tokio::task::spawn_blocking(move || scratch.close()).await;
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
    WorkerPolicy { scratch_dir, interpreter, path, environment, sandbox }
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
    let wall = limits.default_timeout();
    let max_wall = limits.max_timeout();
    LimitSettings {
        defaults: RunLimits {
            wall,
            cpu: wall,
            memory_bytes: limits.memory_mb * MIB,
            output_bytes: limits.output_mb * MIB,
            processes: limits.processes,
            file_bytes: limits.file_mb * MIB,
            open_files: limits.open_files.into(),
        },
        maxima: RunLimits {
            wall: max_wall,
            cpu: max_wall,
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
