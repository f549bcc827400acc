//! Cgroups: memory, processes and CPU time of a whole process tree, counted and limited by the kernel.
//!
//! A directory of ours lies below the cgroup that this process is in, and in it one group for each
//! worker. What the worker's commands use is charged to its *job* group, and nothing else is.
//!
//! - **v1**, and hybrid hosts with the controllers in v1 (`v1`): the worker's group is the job group, and the
//!   worker's thread that starts commands lives in it ([`Job::enter`]), so commands are born in it. Memory is charged
//!   to the group of a process's first thread, which stays outside: the worker's own buffers are not the task's. Moving
//!   that thread costs some milliseconds, once; a move for each command would cost that each time.
//! - **v2** (`v2`): no thread can be in another memory group than its process. The worker's group has two in it:
//!   `init`, where the worker is, and `job`, which commands are cloned into ([`Job::birthplace`]). A group has either
//!   processes or groups with controllers, so our own processes move from the group that evalmill was started in to
//!   a leaf of it, `evalmill-own`, and back in the end. Where that group is writable for an ordinary user, which is what
//!   delegation means, none of it takes root.
//!
//! Only groups that this module made are ever removed (`sweep`): the name says which process of which pid
//! namespace made it, and one is stale only if that process is gone. Even then its workers may still finish
//! what they do, so a stale group goes only once it is empty.
//!
//! What the kernel does not say: before Linux 6.12 the peak of memory cannot begin again in v2 (and before 5.19 there
//! is none), so [`Job::peak_bytes`] is unknown for a command that stays below an earlier one of its worker.

mod files;
mod groups;
mod job;
mod own;
mod sweep;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::path::Path;

use thiserror::Error;

pub(super) use files::{field, text};
pub use groups::{Cgroups, WorkerGroups};
pub use job::{Job, JobLimits, JobUsage};
pub(super) use own::chains;
#[cfg(test)]
pub(super) use own::tests::Group;

/// Why there are no cgroups for us.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// A controller is not there.
    #[error("no cgroup controller \"{controller}\" is available{at}")]
    Absent {
        /// Its name.
        controller: &'static str,
        /// Where it was looked for.
        at: String,
    },
    /// Others live in the group that would have to be ours.
    #[error("{path}: other processes are in this cgroup, and evalmill moves none but its own: {processes}")]
    Shared {
        /// The group.
        path: String,
        /// Who.
        processes: String,
    },
    /// The system said no.
    #[error("{path}: {source}")]
    Refused {
        /// Of what.
        path: String,
        /// What it said.
        source: io::Error,
    },
}

fn refused(path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.display().to_string();
    move |source| CgroupError::Refused { path, source }
}

/// Makes a group, if it is not there.
fn make(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(refused(dir)),
    }
}
