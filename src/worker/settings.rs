//! What the pool is told, what it reports, and how it fails.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::protocol::WorkerPolicy;

/// How many workers there are and when each is replaced.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Workers that run at the same time; at least one.
    pub num_workers: usize,
    /// Boxes of one worker process; `None`: any number.
    pub max_tasks_per_process: Option<u64>,
    /// Life of one worker process; `None`: any length.
    pub max_age: Option<Duration>,
    /// Resident size of a worker process between two boxes, above which it is replaced.
    pub max_memory_bytes: Option<u64>,
    /// The program to start as the launcher; `None`: this one.
    pub executable: Option<PathBuf>,
    /// What every worker is told.
    pub policy: WorkerPolicy,
}

/// Counts since the start of the pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Workers retired or lost, by reason.
    pub recycled: BTreeMap<&'static str, u64>,
    /// Launchers started in place of one that was lost.
    pub launcher_restarts: u64,
    /// Workers that came to life.
    pub workers_started: u64,
    /// From asking the launcher for a worker to having it, summed over them.
    pub build_time: Duration,
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The launcher does not start.
    #[error(
        "the worker launcher {executable} is not available: {reason}. A program that uses evalmill as a \
         library must call `evalmill::init()` first in `main`, or set `worker.executable` to the evalmill \
         program"
    )]
    LauncherUnavailable {
        /// What was started.
        executable: PathBuf,
        /// What came of it.
        reason: String,
    },
    /// The policy is too large for a packet.
    #[error("the worker policy cannot be sent to the launcher: {0}")]
    Policy(#[source] io::Error),
    /// There would be no worker at all.
    #[error("num_workers is 0: at least one worker is needed")]
    NoWorkers,
    /// No pool has workers of this kind.
    #[error("no workers were started {} the host's network", if *network { "with" } else { "without" })]
    Network {
        /// Programs were to have the host's network.
        network: bool,
    },
    /// The pool was shut down.
    #[error("the worker pool is shut down")]
    ShutDown,
}
