//! The host of one service: what the service holds of it while it rests, and what is left in the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cgroup::Place;
use crate::faults::children;
use crate::support::{evalmill, eventually, processes_with};

pub(super) struct Host {
    /// In the command lines of programs, and in the environment of the launcher and all its workers.
    pub(super) mark: String,
    scratch: tempfile::TempDir,
    /// Where there are such groups, everything is counted in its own.
    place: Option<Place>,
}

/// What one service holds, itself and the launcher and the workers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Holds {
    /// Open descriptors: of the supervisor, the launcher, and each worker.
    pub(super) descriptors: [usize; 3],
    /// Mounts that each worker sees.
    pub(super) worker_mounts: usize,
    /// Mounts of the host that have to do with the service.
    pub(super) mounts: usize,
    /// Directories of cgroups, all controllers together.
    pub(super) groups: usize,
    /// Files and directories of the scratch directory.
    pub(super) files: usize,
    /// Resident memory of supervisor, launcher and workers, what they share counted once.
    pub(super) memory_kib: u64,
    /// What the kernel itself holds for the service and its programs; 0 without groups.
    pub(super) kernel_kib: u64,
}

/// What the whole machine holds: other work is in it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Machine {
    pub(super) available_mib: u64,
    /// Kernel objects that cannot be given back on demand.
    pub(super) slab_mib: u64,
    /// Memory cgroups, those included that are removed and still charged with something.
    pub(super) memory_groups: u64,
    pub(super) mounts: usize,
}

impl Host {
    pub(super) fn new(what: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("endurance-{what}-{}-{number}", std::process::id());
        Self { mark, scratch: tempfile::tempdir().unwrap(), place: Place::new() }
    }

    /// The strongest tier that these tests ask for here.
    pub(super) fn strongest(&self) -> &'static str {
        if self.place.is_some() { "full" } else { "namespaces" }
    }

    /// `evalmill run ARGS` in this tier, with pipes at its input and output.
    pub(super) fn start(&self, tier: &str, args: &[&str], settings: &[(&str, &str)]) -> Child {
        let mut program = evalmill(self.scratch.path());
        program.arg("run").args(args).envs(settings.iter().copied());
        program.env("EVALMILL__SANDBOX__TIER", tier).env("EVALMILL__SANDBOX__REQUIRE", tier);
        // A variable that the launcher inherits; this value means what "1" does.
        program.env("RUST_BACKTRACE", &self.mark);
        let mut command = match &self.place {
            Some(place) => place.within(&[], &program),
            None => program,
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(self.log()).spawn().unwrap()
    }

    fn log(&self) -> fs::File {
        fs::File::options().create(true).append(true).open(self.log_path()).unwrap()
    }

    fn log_path(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", self.mark))
    }

    /// What it wrote to standard error.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What a service at rest holds: it has this many workers, and none is on its way in or out.
    pub(super) fn holds(&self, service: u32, workers: usize) -> Holds {
        let mut holds = None;
        eventually("launcher and workers rest", || {
            holds = self.at_rest(service, workers);
            holds.is_some()
        });
        holds.unwrap()
    }

    /// `None`: it is not at rest, or was not for as long as it took to look.
    fn at_rest(&self, service: u32, workers: usize) -> Option<Holds> {
        let tree = || {
            let launcher = <[i32; 1]>::try_from(children(service)).ok()?[0];
            let below = children(launcher as u32);
            (below.len() == workers).then_some((launcher, below))
        };
        let (launcher, below) = tree()?;
        let ours = [service as i32, launcher].into_iter().chain(below.iter().copied());
        let descriptors = |pid: i32| Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count());
        let mounts =
            |pid: i32| Some(fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?.lines().count());
        let mut each = below.iter().map(|pid| Some((descriptors(*pid)?, mounts(*pid)?)));
        let worker = each.next()??;
        // One that is not ready yet has others.
        if !each.all(|one| one == Some(worker)) {
            return None;
        }
        let holds = Holds {
            descriptors: [descriptors(service as i32)?, descriptors(launcher)?, worker.0],
            worker_mounts: worker.1,
            mounts: self.mounts().len(),
            groups: self.groups().len(),
            files: files(self.scratch.path()).len(),
            memory_kib: ours.map(anonymous_kib).sum::<Option<u64>>()?,
            kernel_kib: self.place.as_ref().map_or(0, kernel_kib),
        };
        // One directory for each worker and one of the launcher, in each controller; in version 2, one of the
        // launcher, its leaf, and three for each worker.
        let settled = self.place.as_ref().is_none_or(|place| {
            let groups = if place.dirs().len() == 1 { 2 + 3 * workers } else { 3 * (1 + workers) };
            holds.groups == groups
        });
        (settled && tree()? == (launcher, below)).then_some(holds)
    }

    fn groups(&self) -> Vec<PathBuf> {
        self.place.iter().flat_map(Place::dirs).flat_map(|dir| directories(dir)).collect()
    }

    fn mounts(&self) -> Vec<String> {
        let scratch = self.scratch.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|line| line.contains(scratch)).map(str::to_owned).collect()
    }

    fn processes(&self) -> Vec<String> {
        let mut pids: Vec<_> = processes_with(&self.mark).iter().map(ToString::to_string).collect();
        for dir in self.place.iter().flat_map(Place::dirs) {
            for dir in std::iter::once(dir.clone()).chain(directories(dir)) {
                let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().map(str::to_owned));
            }
        }
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(&format!("RUST_BACKTRACE={}\0", self.mark)) {
                pids.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        pids.iter().map(|pid| format!("process {pid}")).collect()
    }

    /// Processes, cgroups, mounts and files of a service that has ended.
    fn left(&self) -> Vec<String> {
        let paths = self.groups().into_iter().chain(files(self.scratch.path()));
        let paths = paths.map(|path| path.display().to_string());
        self.processes().into_iter().chain(self.mounts()).chain(paths).collect()
    }

    /// The service has ended: the host must soon be as it was.
    pub(super) fn ends_clean(self) {
        let mut left = Vec::new();
        eventually("nothing is left", || {
            let before = std::mem::replace(&mut left, self.left());
            if left != before && !left.is_empty() {
                eprintln!("still there: {left:#?}");
            }
            left.is_empty()
        });
        fs::remove_file(self.log_path()).unwrap();
    }
}

impl Machine {
    pub(super) fn now() -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap();
        let mib = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
        };
        let groups = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let of_memory = groups.lines().find(|line| line.starts_with("memory\t"));
        Self {
            available_mib: mib("MemAvailable:"),
            slab_mib: mib("SUnreclaim:"),
            memory_groups: of_memory.map_or(0, |line| line.split('\t').nth(2).unwrap().parse().unwrap()),
            mounts: fs::read_to_string("/proc/mounts").unwrap().lines().count(),
        }
    }
}

/// Everything below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // What is removed meanwhile is not there.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

/// All directories below a directory of cgroups, whose files are the kernel's.
fn directories(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.is_dir()).collect()
}

/// Memory of its own, without pages of files: how many share those changes with whatever else runs. `None`: it
/// has ended.
fn anonymous_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn kernel_kib(place: &Place) -> u64 {
    let read = |name: &str| fs::read_to_string(place.dirs()[0].join(name)).ok();
    let v1 = || read("memory.kmem.usage_in_bytes");
    let v2 = || Some(read("memory.stat")?.lines().find_map(|line| line.strip_prefix("kernel "))?.to_owned());
    v1().or_else(v2).and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// What is left is found.
#[test]
fn a_host_that_is_not_clean() {
    let host = Host::new("unclean");
    assert_eq!(host.left(), Vec::<String>::new());
    let mut sleep = std::process::Command::new("sleep");
    let mut process = sleep.arg("60").env("RUST_BACKTRACE", &host.mark).spawn().unwrap();
    let file = host.scratch.path().join("dir/file");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "left").unwrap();
    let group = host.place.as_ref().map(|place| place.dirs().last().unwrap().join("left"));
    group.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let expected: Vec<_> = [Some(&file), group.as_ref()].into_iter().flatten().collect();
    let named = format!("process {}", process.id());
    eventually("all of it is found", || {
        let left = host.left();
        left.contains(&named) && expected.iter().all(|path| left.contains(&path.display().to_string()))
    });
    process.kill().unwrap();
    process.wait().unwrap();
    group.iter().for_each(|dir| fs::remove_dir(dir).unwrap());
    fs::remove_dir_all(file.parent().unwrap()).unwrap();
    assert_eq!(host.left(), Vec::<String>::new());
}
