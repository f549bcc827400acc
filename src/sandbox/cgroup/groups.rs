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
    /// The system refused; none of them is left.
    pub fn worker(&self, worker: u64, user: Option<u32>) -> Result<WorkerGroups, CgroupError> {
        // There is no worker then by whose end they would go.
        self.groups_of(worker, user).inspect_err(|_| self.remove_soon(worker))
    }

    fn groups_of(&self, worker: u64, user: Option<u32>) -> Result<WorkerGroups, CgroupError> {
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
        if let Layout::V2(dir) = &self.layout
            && let Some(above) = dir.parent()
        {
            v2::leave(above, &v2::CONTROLLERS);
        }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::{Command, Output};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sandbox::cgroup::JobLimits;

    #[test]
    fn half_of_it_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["a", "b", "c"].map(|name| dir.path().join(name));
        // The third controller refuses.
        dirs.iter().take(2).for_each(|dir| fs::create_dir(dir).unwrap());
        let made = Cgroups { layout: Layout::V1(dirs.clone().map(|dir| dir.join("evalmill-x"))) };
        let error = made.begin(&[]).inspect_err(|_| made.end()).unwrap_err().to_string();
        assert!(error.contains("/c/evalmill-x"), "{error}");
        assert!(dirs.iter().take(2).all(|dir| fs::read_dir(dir).unwrap().count() == 0));
    }

    #[test]
    fn half_of_a_workers_groups_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["a", "b", "c"].map(|name| dir.path().join(name));
        // The third controller is gone.
        dirs.iter().take(2).for_each(|dir| fs::create_dir(dir).unwrap());
        let made = Cgroups { layout: Layout::V1(dirs.clone()) };
        let error = made.worker(3, None).unwrap_err().to_string();
        assert!(error.contains("/c/w3"), "{error}");
        assert!(dirs.iter().take(2).all(|dir| fs::read_dir(dir).unwrap().count() == 0));
    }

    /// A layout in which groups can have controllers without moving this process.
    fn usable() -> Result<Layout, CgroupError> {
        Ok(match Layout::own()? {
            Layout::V2(dir) => {
                let has = |dir: &Path| {
                    fs::read_to_string(dir.join("cgroup.subtree_control"))
                        .is_ok_and(|on| on.contains("memory"))
                };
                let above = dir.ancestors().take(2).find(|dir| has(dir)).map(PathBuf::from);
                Layout::V2(above.unwrap_or(dir))
            }
            v1 => v1,
        })
    }

    /// Runs Python inside the job group of a worker.
    fn python(worker: &Layout, program: &str) -> Output {
        let dirs = match worker {
            Layout::V1(dirs) => dirs.to_vec(),
            Layout::V2(dir) => vec![dir.join("job")],
        };
        let enter =
            "while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\"; shift; done; shift; exec \"$@\"";
        let python = ["--", "/usr/bin/python3", "-I", "-S", "-c", program];
        Command::new("sh").args(["-c", enter, "sh"]).args(dirs).args(python).output().unwrap()
    }

    #[test]
    fn the_kernel_counts_and_limits_a_tree() {
        let groups = match usable().and_then(|own| Cgroups::within(&own, &v2::CONTROLLERS)) {
            Ok(groups) => groups,
            // An ordinary user, or a machine without cgroups: that must be said.
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("cgroup"), "{said}");
                assert!(
                    std::env::var_os("EVALMILL_TEST_FULL").is_none(),
                    "EVALMILL_TEST_FULL is set: {said}"
                );
                eprintln!("not run: {said}");
                return;
            }
        };
        let worker = groups.layout.join("w7");
        let mut job = match groups.worker(7, None).unwrap().0 {
            Groups::V1(job) => *job,
            Groups::V2(nest) => {
                // Nobody is in it, so nobody has to leave.
                v2::enable(worker.dirs()[0], &v2::CONTROLLERS).unwrap();
                Job::new(Files::V2(nest.open_job().unwrap()))
            }
        };
        let limits = JobLimits { memory_bytes: 100 << 20, processes: 8 };
        job.begin(limits).unwrap();
        let sum = "import os\nfor i in range(2):\n if os.fork() == 0: sum(range(10**6)); os._exit(0)\nfor i in range(2): os.wait()";
        assert!(python(&worker, sum).status.success() && !job.was_full());
        let usage = job.usage().unwrap();
        assert!(usage.cpu > Duration::from_millis(10), "{usage:?}");
        assert_eq!((usage.oom_kills, usage.forks_refused), (0, 0));

        job.begin(limits).unwrap();
        assert!(!python(&worker, "bytearray(200 << 20)").status.success());
        assert!(job.usage().unwrap().oom_kills > 0);
        assert!(job.was_full());
        assert!(job.peak_bytes().is_none_or(|peak| peak > 90 << 20));

        job.begin(JobLimits { memory_bytes: 200 << 20, ..limits }).unwrap();
        assert!(job.peak_bytes().is_none_or(|peak| peak < 90 << 20), "the peak begins again, or is unknown");
        assert!(!job.was_full());
        let many = "import os,time\ntry:\n for i in range(20):\n  if os.fork() == 0: time.sleep(1); os._exit(0)\nexcept BlockingIOError: raise SystemExit(3)";
        assert_eq!(python(&worker, many).status.code(), Some(3));
        assert!(job.usage().unwrap().forks_refused > 0);
        drop(job);
        let dirs: Vec<_> = groups.layout.dirs().into_iter().map(Path::to_owned).collect();
        let until = Instant::now() + Duration::from_secs(5);
        while !remove(&groups.layout) {
            assert!(Instant::now() < until, "still in use: {dirs:?}");
            std::thread::yield_now();
        }
        assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
    }
}
