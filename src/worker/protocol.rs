//! What supervisor, launcher and worker say to each other.
//!
//! Supervisor and worker speak over one stream socket: frames of a 4-byte little-endian length and
//! a postcard body, strictly alternating: [`Open`] → [`Opened`], any number of [`Run`] → [`Ran`],
//! [`Close`] → [`Closed`]. Supervisor and launcher speak over one `SOCK_SEQPACKET` socket, one
//! message a packet: [`ToLauncher`] one way, [`FromLauncher`] the other; a
//! [`FromLauncher::Spawned`] carries the supervisor's end of the new worker's socket as its only
//! `SCM_RIGHTS` descriptor.
//!
//! Both ends are the same binary, so the encoding carries no version.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Tier;
use crate::sandbox::{Missing, Policy};

/// Most bytes in the body of one frame: the largest input line plus room for encoding.
pub const MAX_FRAME_BYTES: usize = 192 << 20;
/// Most bytes in one launcher packet.
pub const MAX_PACKET_BYTES: usize = 64 << 10;

/// What every worker of one launcher is told once, before it is forked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPolicy {
    /// Directory (owned by this run, mode 0700 or, where workers are users of their own, 0711) in which each worker
    /// makes `w<id>/`. In the tier `namespaces` boxes are inside, and this is only the place on which its root is built.
    pub scratch_dir: PathBuf,
    /// Absolute path of the interpreter that `python3` and `python` mean.
    pub interpreter: PathBuf,
    /// `PATH` inside a box, also used to resolve `argv[0]`.
    pub path: String,
    /// Processes that a program can have as far as the limit of its user goes; `None`: no such limit.
    pub processes: Option<u64>,
    /// Further environment of every command, the allow-list resolved to values.
    pub environment: Vec<(String, String)>,
    /// The sandbox to try; `None`: tier none.
    pub sandbox: Option<Policy>,
}

/// Supervisor to launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToLauncher {
    /// First packet, exactly once.
    Start(WorkerPolicy),
    /// Fork a worker under this number; numbers are never used twice.
    Spawn {
        /// The new worker's number.
        worker: u64,
    },
    /// `SIGKILL` this worker, if it still lives.
    Kill {
        /// The worker's number.
        worker: u64,
    },
}

/// Launcher to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromLauncher {
    /// The policy is in force.
    Started {
        /// The isolation that was tried and works.
        tier: Tier,
        /// What keeps it from being more.
        missing: Vec<Missing>,
    },
    /// The worker lives; the packet carries its socket.
    Spawned {
        /// The worker's number.
        worker: u64,
        /// Its process id.
        pid: i32,
    },
    /// The worker could not be made.
    SpawnFailed {
        /// The worker's number.
        worker: u64,
        /// What the system said.
        reason: String,
    },
    /// The worker has ended and was reaped.
    Exited {
        /// The worker's number.
        worker: u64,
        /// For people: `exit code 1`, `signal 9`.
        status: String,
    },
}

/// Supervisor to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Answered by [`FromWorker::Opened`].
    Open(Open),
    /// Answered by [`FromWorker::Ran`].
    Run(Run),
    /// Answered by [`FromWorker::Closed`].
    Close(Close),
}

/// Worker to supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Answer to [`ToWorker::Open`].
    Opened(Opened),
    /// Answer to [`ToWorker::Run`].
    Ran(Ran),
    /// Answer to [`ToWorker::Close`].
    Closed(Closed),
}

/// Make a fresh box and write these files into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Relative paths (no `..`, no absolute path, no NUL; checked again on arrival) and contents.
    pub files: Vec<BoxFile>,
}

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxFile {
    /// Relative path inside the box; its directories are made.
    pub path: String,
    /// Its content.
    #[serde(with = "serde_bytes")]
    pub content: Vec<u8>,
}

/// The box is ready, or it could not be made. After a failure the box is already wiped again and
/// the worker is idle: no [`Close`] follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Absolute path of the box, or which file could not be written and why.
    pub outcome: Result<String, String>,
}

/// Start one process and see it to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Program and arguments; not empty.
    pub argv: Vec<String>,
    /// Everything that standard input will give.
    #[serde(with = "serde_bytes")]
    pub stdin: Vec<u8>,
    /// What is on descriptor 3; `None`: there is no such descriptor.
    pub witness: Option<Witness>,
    /// The limits in force.
    pub limits: RunLimits,
}

/// A nonce that the program may read from descriptor 3 and must write back to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// The nonce.
    pub nonce: String,
    /// Most bytes of a report that may follow it.
    pub report_bytes: u64,
}

/// Limits of one process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLimits {
    /// Wall time, extended up to twice itself where run-queue delay explains the lateness.
    pub wall: Duration,
    /// CPU time summed over the tree.
    pub cpu: Duration,
    /// Memory summed over the tree, in bytes: resident, or all that the kernel accounts for.
    pub memory_bytes: u64,
    /// Bytes of each output stream; one more ends the command.
    pub output_bytes: u64,
    /// Processes and threads of the tree.
    pub processes: u32,
    /// Largest single file, in bytes.
    pub file_bytes: u64,
    /// Open descriptors of each process.
    pub open_files: u64,
}

/// How a command ended, as the kernel and the limits saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Killed at the wall limit.
    WallLimit,
    /// Killed at the CPU limit.
    CpuLimit,
    /// Killed at the memory limit.
    MemoryLimit,
    /// Killed at the output limit of a stream.
    OutputLimit,
    /// Killed at the process limit, or kept below it and come to no good end.
    ProcessLimit,
    /// `argv[0]` missing or not executable, or refused by the kernel (argument list too long, no
    /// interpreter): the program's own fault.
    NotStarted(String),
    /// We could not start it (fork failed, no descriptor left, …): our fault.
    Failed(String),
}

/// What came of one [`Run`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// How it ended.
    pub ended: Ended,
    /// The main process's exit code, where it has one (also after a limit, when it raced the kill).
    pub exit_code: Option<i32>,
    /// The signal that ended the main process, where one did.
    pub signal: Option<i32>,
    /// Wall time from just before the fork to the main process's end.
    pub elapsed: Duration,
    /// User plus system time over the tree: the kernel's account, else from wait4 of everything that was reaped.
    pub cpu: Duration,
    /// Largest peak resident size of any one process of the tree, or the peak of the kernel's account where that
    /// is more, in bytes.
    pub max_rss_bytes: u64,
    /// Standard output, at most `output_bytes` of it.
    #[serde(with = "serde_bytes")]
    pub stdout: Vec<u8>,
    /// Standard error, at most `output_bytes` of it.
    #[serde(with = "serde_bytes")]
    pub stderr: Vec<u8>,
    /// More standard output was written than is kept here.
    pub stdout_truncated: bool,
    /// More standard error was written than is kept here.
    pub stderr_truncated: bool,
    /// The nonce came back, with nothing but a report behind it. `None` where no witness was asked for.
    pub witnessed: Option<bool>,
    /// What came behind the nonce, at most as much of it as was asked for.
    #[serde(with = "serde_bytes")]
    pub report: Vec<u8>,
    /// The wall limit was extended because the machine was busy.
    pub contended: bool,
}

/// Read these files back, then wipe the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Relative paths to read back.
    pub tracked: Vec<String>,
    /// Most bytes of one file.
    pub max_file_bytes: u64,
    /// Most bytes of all of them.
    pub max_total_bytes: u64,
}

/// The box is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// One entry for each tracked path, in order.
    pub tracked: Vec<Tracked>,
    /// Nothing of the box is left: no process, no file. Otherwise why not; the worker must go.
    pub clean: Result<(), String>,
    /// The worker's own resident size, in bytes.
    pub worker_rss_bytes: u64,
    /// Time spent on reading back.
    pub collect: Duration,
    /// Time spent on wiping.
    pub wipe: Duration,
}

/// What became of one tracked file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tracked {
    /// Its whole content.
    Content(#[serde(with = "serde_bytes")] Vec<u8>),
    /// There is no such file.
    Absent,
    /// Not read, and why (symlink, not a regular file, too large).
    Refused(String),
}
