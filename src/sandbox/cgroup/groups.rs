//! The directory of a launcher, and the groups of its workers.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::event::Timespec;

use super::job::Files;
use super::own::Layout;
use super::v2::Nest;
use super::{CgroupError, Job, refused, sweep, v1, v2};

/// The directory of this process.
#[derive(Debug)]
pub struct Cgroups {
    layout: Layout,
}

/// The groups of a worker that is to be born.
#[derive(Debug)]
pub struct WorkerGroups(Groups);

#[derive(Debug)]
enum Groups {
    V1(Box<Job>),
    V2(Nest),
}

impl WorkerGroups {
    /// Where the worker is to be cloned into; `None` on v1: anywhere.
    #[must_use]
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Groups::V1(_) => None,
            Groups::V2(nest) => Some(nest.birthplace()),
        }
    }

    /// Takes the worker's place in them, as the first thing that the worker does once it has its ids. On v2 this gives
    /// it a cgroup namespace of its own.
    ///
    /// # Errors
    /// The system refused.
    pub fn settle(self) -> io::Result<Box<Job>> {
        match self.0 {
            Groups::V1(job) => Ok(job),
            Groups::V2(nest) => Ok(Box::new(Job::new(Files::V2(nest.settle(&v2::CONTROLLERS)?)))),
        }
    }
}

impl Cgroups {
    /// Makes it, and removes what processes that are gone have left.
    ///
    /// # Errors
    /// A controller is missing, or groups cannot be made here.
    pub fn create() -> Result<Self, CgroupError> {
        let own = Layout::own()?;
        if let Layout::V2(dir) = &own {
            v2::delegate(dir, &v2::CONTROLLERS)?;
        }
        Self::within(&own, &v2::CONTROLLERS)
    }

    /// As [`Self::create`], in a group that may have groups with these controllers.
    fn within(own: &Layout, controllers: &[&str]) -> Result<Self, CgroupError> {
        let layout = own.join(&sweep::own_name().map_err(refused(Path::new("/proc/self")))?);
        let made = Self { layout };
        made.sweep();
        // Half of it is not left behind.
        made.begin(controllers).inspect_err(|_| made.end())?;
        Ok(made)
    }

    fn begin(&self, controllers: &[&str]) -> Result<(), CgroupError> {
        make(&self.layout)?;
        if let Layout::V2(dir) = &self.layout {
            v2::enable(dir, controllers).map_err(refused(&dir.join("cgroup.subtree_control")))?;
        }
        // A positive control: what a worker will need is tried once.
        if let WorkerGroups(Groups::V2(nest)) = self.worker(u64::MAX, None)? {
            nest.try_out().map_err(|error| CgroupError::Refused {
                path: "clone3 into a cgroup".to_owned(),
                source: error,
            })?;
        }
        self.remove_soon(u64::MAX);
        Ok(())
    }

    /// Makes the groups of a worker, which inherits them. `user` is the one as whom it will start commands, where that
    /// is not this process's.
    ///
    /// # Errors
    /// The system refused.
    pub fn worker(&self, worker: u64, user: Option<u32>) -> Result<WorkerGroups, CgroupError> {
        let layout = self.layout.join(&format!("w{worker}"));
        Ok(WorkerGroups(match &layout {
            Layout::V1(dirs) => {
                make(&layout)?;
                Groups::V1(Box::new(Job::new(Files::V1(v1::Files::open(dirs)?))))
            }
            Layout::V2(dir) => Groups::V2(Nest::make(dir, user)?),
        }))
    }

    /// Removes what launchers that are gone have left. `false`: their workers have not ended yet.
    pub fn sweep(&self) -> bool {
        self.layout
            .dirs()
            .into_iter()
            .filter_map(Path::parent)
            .map(sweep::sweep)
            .fold(true, |all, one| all & one)
    }

    /// Removes the groups of a worker that is gone. `false`: something in them has not ended yet; it was
    /// killed, and this is to be called again.
    #[must_use]
    pub fn remove(&self, worker: u64) -> bool {
        remove(&self.layout.join(&format!("w{worker}")))
    }

    /// As [`Self::remove`], of a worker that was just killed and reaped: what it leaves is gone in a moment.
    pub fn remove_soon(&self, worker: u64) {
        soon(|| self.remove(worker));
    }

    /// Removes everything, when the last worker is gone. There is no destructor: workers are forked, and
    /// would run it.
    pub fn end(&self) {
        soon(|| remove(&self.layout) & self.sweep());
    }
}

fn make(layout: &Layout) -> Result<(), CgroupError> {
    layout.dirs().into_iter().try_for_each(super::make)
}

fn remove(layout: &Layout) -> bool {
    layout.dirs().into_iter().map(sweep::remove).fold(true, |all, one| all & one)
}

/// Asks until it is done, for one second; what is left then is found by the next start.
fn soon(mut done: impl FnMut() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        let _ = rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
    }
}
