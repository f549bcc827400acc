//! The order of things: from a process that was just made to a sealed worker.
//!
//! ```text
//! launcher                               child (process 1 of its namespace)
//! birth: clone into namespaces     ──>   waits
//! write its ids, let it go         ──>   Plan::enter: network, root, descriptors, limits, ids
//!                                        (the caller opens what it needs of the old ids)
//!                                        Plan::seal: not inspectable, no_new_privs, filter
//!                                  <──   says that it is ready, or which layer failed
//! ```
//! The tier `process` goes its own way from birth on: [`Plan::settle`] and [`Plan::seal_process`]. Cgroups
//! of version 1 are entered after sealing, by the thread that starts commands, over files that were opened before birth.
//! In version 2 the child is born in its group, and takes its place there before it enters.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit};

use super::birth::{self, Born};
use super::ids::Ids;
use super::missing::{Layer, Missing};
use super::policy::{HOST_NAME, Policy};
use super::seccomp::{self, Place};
use super::trees::Trees;
use super::{landlock, net, root};
use crate::config::Tier;

/// Workers and programs are killed before the services of the host.
const OOM_SCORE: &[u8] = b"300";

/// How workers are isolated: made once by the launcher, used for each worker.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is allowed.
    pub policy: Policy,
    /// What is shown.
    pub trees: Trees,
    /// By namespaces, or among the processes of the host.
    pub tier: Tier,
}

/// What a worker takes along from before it gave up its ids.
#[derive(Debug)]
pub struct Entered {
    /// Its own `clear_refs`, for which it has not the rights any more.
    pub clear_refs: Option<File>,
}

impl Plan {
    /// Makes a process in namespaces of its own, or in the tier `process` without; `None`: this is it, and it must
    /// wait until it is let go. `group` is the one of version 2 that it is to be born in.
    ///
    /// # Errors
    /// The layer that failed; no process is left.
    pub fn birth(&self, ids: Ids, group: Option<BorrowedFd<'_>>) -> Result<Option<Born>, Missing> {
        let born = if self.tier == Tier::Process {
            birth::fork().map_err(|error| Missing::new(Layer::Process, "fork", &error))?
        } else {
            birth::clone_away(self.policy.network, group).map_err(|error| match group {
                None => Missing::new(Layer::Namespaces, "clone into new namespaces", &error),
                // Which of the two it was is seen where the namespaces are tried alone.
                Some(_) => Missing::cgroup(format!("clone into new namespaces and a cgroup: {error}")),
            })?
        };
        let Some(born) = born else { return Ok(None) };
        // From here and not by itself: what a process with the host's CAP_SYS_RESOURCE sets, programs cannot lower.
        let score = format!("/proc/{}/oom_score_adj", born.pid.as_raw_nonzero());
        std::fs::write(score, OOM_SCORE)
            .map_err(|error| Missing::new(Layer::Process, "setting oom_score_adj", &error))
            .and_then(|()| {
                ids.write_maps(born.pid)
                    .map_err(|error| Missing::new(Layer::Ids, "writing the maps of users and groups", &error))
            })
            .inspect_err(|_| end(born.pid))?;
        Ok(Some(born))
    }

    /// What the tier, once it works, still lacks on this machine.
    ///
    /// # Errors
    /// It is known without trying that it does not work.
    pub fn shortfall(&self, own_ids: bool) -> Result<Option<Missing>, Missing> {
        if self.tier == Tier::Process {
            landlock::shortfall(own_ids)
        } else {
            Ok(landlock::root_shortfall(own_ids))
        }
    }

    /// Takes this process behind its walls. `at` is a directory of the host to build the root on; the
    /// host is not changed.
    ///
    /// # Errors
    /// The layer that failed; the process must end.
    pub fn enter(&self, ids: Ids, at: &Path) -> Result<Entered, Missing> {
        let process = |what: &'static str| move |error: io::Error| Missing::new(Layer::Process, what, &error);
        // A group and session of its own: nothing of the launcher's can be reached by number 0.
        rustix::process::setsid().map_err(|error| process("setsid")(error.into()))?;
        rustix::system::sethostname(HOST_NAME.as_bytes())
            .map_err(|error| process("sethostname")(error.into()))?;
        if !self.policy.network {
            net::set_up().map_err(|(what, error)| Missing::new(Layer::Network, what, &error))?;
        }
        root::enter(&self.policy, &self.trees, at)?;
        own_descriptors().map_err(process("opening /dev/null"))?;
        limit().map_err(process("setting limits"))?;
        let clear_refs = OpenOptions::new().write(true).open("/proc/self/clear_refs").ok();
        ids.drop_privileges()
            .map_err(|error| Missing::new(Layer::Privileges, "giving up privileges", &error))?;
        Ok(Entered { clear_refs })
    }

    /// Closes the door: from here on nothing can be changed any more, by the worker neither. `two_threads`: it will
    /// have a second one, [`SECOND_THREAD`](super::SECOND_THREAD). `clones`: it starts commands by `clone3`, and takes
    /// that from each of them by a [`CommandFilter`](seccomp::CommandFilter).
    ///
    /// # Errors
    /// The layer that failed; the process must end.
    pub fn seal(&self, two_threads: bool, clones: bool) -> Result<(), Missing> {
        let privileges = |error: rustix::io::Errno| Missing::new(Layer::Privileges, "sealing", &error.into());
        // Programs that are the same user must not read or trace it.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(privileges)?;
        rustix::thread::set_no_new_privs(true).map_err(privileges)?;
        landlock::hold_to_root(self.policy.network)?;
        seccomp::install(Place::Namespaces { two_threads, clones })
            .map_err(|error| Missing::new(Layer::Seccomp, "installing the filter", &error))
    }
}

/// Standard input and output were the host's `/dev/null`.
fn own_descriptors() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Limits that no command sets for itself: what is shared between all processes of a user, and
/// what no judged program needs. They are only ever lowered.
pub(super) fn limit() -> io::Result<()> {
    limit_cores()?;
    let most = [
        (Resource::Memlock, 8 << 20),
        (Resource::Msgqueue, 0),
        (Resource::Sigpending, 4096),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ];
    most.into_iter().try_for_each(|(resource, most)| lower(resource, most))
}

/// No core of this process and of those that it starts: at 0 a program of the host that takes cores over a pipe would
/// still be started, at 1 it is not.
///
/// # Errors
/// As the kernel says.
pub fn limit_cores() -> io::Result<()> {
    lower(Resource::Core, 1)
}

fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(now), maximum: Some(now) })?)
}

/// Kills and reaps a child that cannot be used.
fn end(pid: Pid) {
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
    });
}
