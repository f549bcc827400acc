//! Groups of version 2: how a group that we are in comes to have groups with controllers in it, how a worker takes its
//! place, and the files of a job group.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::Pid;

use super::files::{field, number, text, unexpected, write};
use super::own::path_of;
use super::{CgroupError, JobLimits, JobUsage, make, refused};
use crate::sandbox::{birth, clone3};

/// The leaf that our own processes move to where a group with processes cannot have subgroups.
pub(super) const LEAF: &str = "evalmill-own";
/// What a job group needs; the time that it has used is counted without a controller.
pub(super) const CONTROLLERS: [&str; 2] = ["memory", "pids"];

const INIT: &str = "init";
const JOB: &str = "job";

/// Lets groups in `dir`, which this process is in, have these controllers: moves this process and its parent,
/// the service, to the leaf where that is needed. On an error they are where they were.
pub(super) fn delegate(dir: &Path, controllers: &[&str]) -> Result<(), CgroupError> {
    match enable(dir, controllers) {
        // It has processes.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        done => return done.map_err(refused(&dir.join("cgroup.subtree_control"))),
    }
    let leaf = dir.join(LEAF);
    make(&leaf)?;
    let ours = ours();
    let moved = move_to(&leaf, &ours).and_then(|()| {
        enable(dir, controllers).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => {
                CgroupError::Shared { path: dir.display().to_string(), processes: processes(dir) }
            }
            _ => refused(&dir.join("cgroup.subtree_control"))(error),
        })
    });
    moved.inspect_err(|_| {
        let _ = move_to(dir, &ours);
        // Another evalmill may be in it.
        let _ = fs::remove_dir(&leaf);
    })
}

/// Undoes [`delegate`], so that `dir` can be entered again. Nothing where we are not in the leaf, or where another
/// evalmill still has groups in `dir`: the kernel refuses then.
pub(super) fn leave(dir: &Path, controllers: &[&str]) {
    let is_in_leaf =
        group_of(rustix::process::getpid()).is_some_and(|group| Path::new(&group).ends_with(LEAF));
    if is_in_leaf
        && fs::write(dir.join("cgroup.subtree_control"), with_sign('-', controllers)).is_ok()
        && move_to(dir, &ours()).is_ok()
    {
        let _ = fs::remove_dir(dir.join(LEAF));
    }
}

/// Writes which controllers the groups in `dir` have.
pub(super) fn enable(dir: &Path, controllers: &[&str]) -> io::Result<()> {
    fs::write(dir.join("cgroup.subtree_control"), with_sign('+', controllers))
}

fn with_sign(sign: char, controllers: &[&str]) -> String {
    controllers.iter().map(|one| format!("{sign}{one} ")).collect()
}

fn group_of(pid: Pid) -> Option<String> {
    let table = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).ok()?;
    path_of(&table, str::is_empty).map(str::to_owned)
}

/// This process, and its parent where it is in the same group.
fn ours() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let parent = rustix::process::getppid().filter(|parent| group_of(*parent) == group_of(own));
    std::iter::once(own).chain(parent).collect()
}

fn move_to(dir: &Path, processes: &[Pid]) -> Result<(), CgroupError> {
    let file = dir.join("cgroup.procs");
    processes
        .iter()
        .try_for_each(|pid| fs::write(&file, pid.as_raw_nonzero().to_string()))
        .map_err(refused(&file))
}

/// Some of the processes in a group, for people.
fn processes(dir: &Path) -> String {
    let all = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let named = all.lines().take(5).map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{pid} ({})", name.trim())
    });
    let rest = all.lines().count().saturating_sub(5);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    named.collect::<Vec<_>>().join(", ") + &more
}

/// The group of a worker that is to be born in it, and has not taken its place yet.
#[derive(Debug)]
pub(super) struct Nest(OwnedFd);

impl Nest {
    /// Makes the groups. `user` is who will start commands, where that is not this process's user: a process is
    /// cloned into a group by who may move it there from its own.
    pub(super) fn make(dir: &Path, user: Option<u32>) -> Result<Self, CgroupError> {
        for dir in [dir, &dir.join(INIT), &dir.join(JOB)] {
            make(dir)?;
        }
        if let Some(user) = user {
            for dir in [dir, &dir.join(JOB)] {
                let file = dir.join("cgroup.procs");
                chown(&file, Some(user), None).map_err(refused(&file))?;
            }
        }
        Ok(Self(File::open(dir).map_err(refused(dir))?.into()))
    }

    pub(super) fn birthplace(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether processes can be born in groups here at all.
    pub(super) fn try_out(&self) -> io::Result<()> {
        clone3::try_in(self.birthplace())
    }

    /// From the worker, which is in the group and has still the ids that it was born with: takes its place in
    /// `init`. The cgroup namespace comes first, with this group as its root: what is cloned into a group must see
    /// its own and that one.
    pub(super) fn settle(self, controllers: &[&str]) -> io::Result<Files> {
        birth::own_cgroup_namespace()?;
        // 0 is whoever writes.
        rustix::io::write(self.open("init/cgroup.procs", OFlags::WRONLY)?, b"0")?;
        let control = self.open("cgroup.subtree_control", OFlags::WRONLY)?;
        rustix::io::write(control, with_sign('+', controllers).as_bytes())?;
        self.open_job()
    }

    /// Once it has controllers.
    pub(super) fn open_job(&self) -> io::Result<Files> {
        Files::open(self)
    }

    fn open(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        openat(&self.0, name, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{name}: {error}")))
    }
}

/// The files of a job group.
#[derive(Debug)]
pub(super) struct Files {
    dir: OwnedFd,
    limit: File,
    /// Absent before Linux 5.19.
    peak: Option<File>,
    events: File,
    processes: File,
    process_events: File,
    /// Absent before Linux 6.1.
    pub(super) process_peak: Option<File>,
    /// What memory is used for.
    pub(super) stat: File,
    cpu: File,
    /// The peak before this command, where it cannot begin again.
    earlier_peak: u64,
    /// How often the limit of memory was met before this command.
    earlier_ooms: u64,
}

impl Files {
    fn open(nest: &Nest) -> io::Result<Self> {
        let dir = nest.open(JOB, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let open =
            |name: &str, flags| Ok::<_, io::Error>(File::from(nest.open(&format!("{JOB}/{name}"), flags)?));
        // No swap, where there is any: a limit of memory is one of time otherwise. And what the kernel kills, it
        // kills whole.
        for (name, value) in [("memory.swap.max", b"0"), ("memory.oom.group", b"1")] {
            if let Ok(file) = open(name, OFlags::WRONLY) {
                rustix::io::write(file, value)?;
            }
        }
        Ok(Self {
            dir,
            limit: open("memory.max", OFlags::RDWR)?,
            peak: open("memory.peak", OFlags::RDWR).or_else(|_| open("memory.peak", OFlags::RDONLY)).ok(),
            events: open("memory.events", OFlags::RDONLY)?,
            processes: open("pids.max", OFlags::RDWR)?,
            process_events: open("pids.events", OFlags::RDONLY)?,
            process_peak: open("pids.peak", OFlags::RDONLY).ok(),
            stat: open("memory.stat", OFlags::RDONLY)?,
            cpu: open("cpu.stat", OFlags::RDONLY)?,
            earlier_peak: 0,
            earlier_ooms: 0,
        })
    }

    pub(super) fn birthplace(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn begin(&mut self, limits: JobLimits) -> io::Result<()> {
        write(&self.limit, limits.memory_bytes)?;
        write(&self.processes, limits.processes.into())?;
        // It can since Linux 6.12, for whoever reads this open file.
        let begins_again = self.peak.as_ref().is_none_or(|peak| write(peak, 0).is_ok());
        self.earlier_peak = if begins_again { 0 } else { self.peak().unwrap_or(0) };
        self.earlier_ooms = self.ooms()?;
        Ok(())
    }

    pub(super) fn counters(&self) -> io::Result<JobUsage> {
        let micros = field(&text(&self.cpu)?, "usage_usec").ok_or_else(|| unexpected("cpu.stat"))?;
        let oom_kills = field(&text(&self.events)?, "oom_kill").ok_or_else(|| unexpected("memory.events"))?;
        let forks_refused =
            field(&text(&self.process_events)?, "max").ok_or_else(|| unexpected("pids.events"))?;
        Ok(JobUsage { cpu: Duration::from_micros(micros), oom_kills, forks_refused })
    }

    fn ooms(&self) -> io::Result<u64> {
        field(&text(&self.events)?, "oom").ok_or_else(|| unexpected("memory.events"))
    }

    fn peak(&self) -> Option<u64> {
        number(&text(self.peak.as_ref()?).ok()?)
    }

    pub(super) fn peak_bytes(&self) -> Option<u64> {
        self.peak().filter(|peak| *peak > self.earlier_peak)
    }

    pub(super) fn was_full(&self) -> bool {
        // The kernel says it of the group whose limit was met.
        self.ooms().is_ok_and(|ooms| ooms > self.earlier_ooms)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::sandbox::cgroup::Group;

    #[test]
    fn a_group_without_processes_needs_no_leaf() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("cgroup.subtree_control");
        fs::write(&control, "").unwrap();
        delegate(dir.path(), &CONTROLLERS).unwrap();
        assert_eq!(fs::read_to_string(control).unwrap(), "+memory +pids ");
        assert!(!dir.path().join(LEAF).exists());
    }

    #[test]
    fn what_is_not_ours_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        // No such file stands for any refusal but that of a group with processes.
        fs::create_dir(dir.path().join("cgroup.subtree_control")).unwrap();
        let error = delegate(dir.path(), &CONTROLLERS).unwrap_err().to_string();
        assert!(error.contains("cgroup.subtree_control: "), "{error}");
        assert!(!dir.path().join(LEAF).exists());
    }

    #[test]
    fn strangers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (own, ours) = (std::process::id(), fs::read_to_string("/proc/self/comm").unwrap());
        fs::write(dir.path().join("cgroup.procs"), format!("{own}\n").repeat(7)).unwrap();
        let said = processes(dir.path());
        assert!(said.starts_with(&format!("{own} ({}), ", ours.trim())), "{said}");
        assert!(said.ends_with(" and 2 more"), "{said}");
        assert!(super::ours().contains(&rustix::process::getpid()));
    }

    #[test]
    fn workers_groups_are_made_for_who_starts_commands() {
        let Some(place) = Group::new() else { return };
        let dir = place.path().join("w3");
        let root = rustix::process::geteuid().is_root();
        let nest = Nest::make(&dir, root.then_some(1_900_000_001)).unwrap();
        nest.try_out().unwrap();
        let owner = |file: &str| fs::metadata(dir.join(file)).unwrap().uid();
        let own = rustix::process::geteuid().as_raw();
        let starts = if root { 1_900_000_001 } else { own };
        for (file, expected) in [
            ("cgroup.procs", starts),
            ("job/cgroup.procs", starts),
            ("init/cgroup.procs", own),
            ("cgroup.subtree_control", own),
            ("job", own),
        ] {
            assert_eq!(owner(file), expected, "{file}");
        }
        // Controllers are what it takes to count.
        if !fs::read_to_string(dir.join("cgroup.controllers")).unwrap().contains("memory") {
            let error = nest.open_job().unwrap_err().to_string();
            assert!(error.contains("job/memory.max"), "{error}");
        }
    }
}
