//! Cgroups: memory, processes and CPU time of a whole process tree, counted and limited by the kernel.
//!
//! A directory of ours lies below the cgroup that this process is in, and in it one group for each
//! worker, the *job* group: what the worker's commands use is charged there, and nothing else.
//!
//! - **v1**, and hybrid hosts: the worker's thread that starts commands lives in the job group
//!   ([`Job::enter`]), so commands are born in it. Memory is charged to the group of a process's first
//!   thread, which stays outside: the worker's own buffers are not the task's. Moving that thread costs
//!   some milliseconds, once; a move for each command would cost that each time.
//! - **v2**: no thread can be in another memory group than its process. Commands are cloned into the
//!   job group ([`Job::birthplace`]). Nothing clones commands so yet: [`Cgroups::create`] refuses.
//!
//! Only groups that this module made are ever removed: the name says which process of which pid
//! namespace made it, and one is stale only if that process is gone. Even then its workers may still finish
//! what they do, so a stale group goes only once it is empty.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::Timespec;
use thiserror::Error;

const PREFIX: &str = "evalmill-";
/// The leaf that our own processes move to where a group with processes cannot have subgroups.
const LEAF: &str = "evalmill-own";
/// On v1 sockets have this part of the memory again; when that is full, they wait for room.
const SOCKETS: u64 = 8;
/// Whether commands can be started in groups of version 2.
const STARTS_IN_V2: bool = false;

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
    /// The host has groups of version 2 only.
    #[error("{} has the controllers in version 2, and this version makes cgroups of version 1 only", .0.display())]
    Version(PathBuf),
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

/// What is limited for one command.
#[derive(Debug, Clone, Copy)]
pub struct JobLimits {
    /// Bytes of memory, what is written to a tmpfs included.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub processes: u32,
}

/// What the tree of a command has used since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobUsage {
    /// CPU time; on v1 with that of the thread that starts commands.
    pub cpu: Duration,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// Processes that were not made because there were too many.
    pub forks_refused: u64,
}

/// One place for each thing that is read or written, v1 or v2.
#[derive(Debug)]
enum Layout {
    /// The directories of the controllers `memory`, `pids`, `cpuacct`.
    V1([PathBuf; 3]),
    V2(PathBuf),
}

impl Layout {
    fn dirs(&self) -> Vec<&Path> {
        match self {
            Self::V1(dirs) => dirs.iter().map(PathBuf::as_path).collect(),
            Self::V2(dir) => vec![dir],
        }
    }

    fn join(&self, name: &str) -> Self {
        match self {
            Self::V1(dirs) => Self::V1(dirs.each_ref().map(|dir| dir.join(name))),
            Self::V2(dir) => Self::V2(dir.join(name)),
        }
    }
}

/// The directory of this process.
#[derive(Debug)]
pub struct Cgroups {
    layout: Layout,
}

impl Cgroups {
    /// Makes it, and removes what processes that are gone have left.
    ///
    /// # Errors
    /// A controller is missing, or groups cannot be made here.
    pub fn create() -> Result<Self, CgroupError> {
        let own = own_layout(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
        if let Layout::V2(dir) = &own {
            if !STARTS_IN_V2 {
                return Err(CgroupError::Version(dir.clone()));
            }
            delegate(dir)?;
        }
        let layout = own.join(&own_name().map_err(refused(Path::new("/proc/self")))?);
        let made = Self { layout };
        made.sweep();
        // Half of it is not left behind.
        made.begin().inspect_err(|_| made.end())?;
        Ok(made)
    }

    fn begin(&self) -> Result<(), CgroupError> {
        make(&self.layout)?;
        if let Layout::V2(dir) = &self.layout {
            enable(dir)?;
        }
        // A positive control: what a worker will need is tried once.
        drop(self.job(u64::MAX)?);
        self.remove_soon(u64::MAX);
        Ok(())
    }

    /// Makes the job group of a worker, which inherits it.
    ///
    /// # Errors
    /// The system refused.
    pub fn job(&self, worker: u64) -> Result<Job, CgroupError> {
        let layout = self.layout.join(&format!("w{worker}"));
        make(&layout)?;
        Job::open(&layout)
    }

    /// Removes what launchers that are gone have left. `false`: their workers have not ended yet.
    pub fn sweep(&self) -> bool {
        self.layout.dirs().into_iter().filter_map(Path::parent).map(sweep).fold(true, |all, one| all & one)
    }

    /// Removes the group of a worker that is gone. `false`: something in it has not ended yet; it was
    /// killed, and this is to be called again.
    #[must_use]
    pub fn remove(&self, worker: u64) -> bool {
        let layout = self.layout.join(&format!("w{worker}"));
        layout.dirs().into_iter().map(remove).fold(true, |all, one| all & one)
    }

    /// Removes everything; as [`Cgroups::remove`].
    #[must_use]
    pub fn remove_all(&self) -> bool {
        self.layout.dirs().into_iter().map(remove_tree).fold(true, |all, one| all & one)
    }

    /// As [`Self::remove`], of a worker that was just killed and reaped: what it leaves is gone in a moment.
    pub fn remove_soon(&self, worker: u64) {
        soon(|| self.remove(worker));
    }

    /// Removes everything, when the last worker is gone. There is no destructor: workers are forked, and
    /// would run it.
    pub fn end(&self) {
        soon(|| self.remove_all() & self.sweep());
    }
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

/// The group in which a worker's commands run. Its files stay open: they work from inside a root that
/// does not contain them.
#[derive(Debug)]
pub struct Job {
    files: Files,
    /// What its memory is used for.
    memory: File,
    /// The counters when the command began.
    start: JobUsage,
    /// Its limit of memory.
    memory_bytes: u64,
    /// Its limit of processes, with the thread that starts them, and the most there ever were before it.
    processes: u64,
    process_peak: Option<u64>,
}

#[derive(Debug)]
enum Files {
    V1 {
        tasks: Vec<File>,
        limit: File,
        /// Absent without swap accounting.
        swap_limit: Option<File>,
        /// Memory of sockets, which is not in the others' account.
        socket_limit: Option<File>,
        peak: File,
        swap_peak: Option<File>,
        oom: File,
        processes: File,
        process_events: Option<File>,
        process_peak: Option<File>,
        cpu: File,
    },
    V2 {
        dir: OwnedFd,
        limit: File,
        peak: Option<File>,
        oom: File,
        processes: File,
        process_events: File,
        process_peak: Option<File>,
        cpu: File,
    },
}

impl Job {
    fn open(layout: &Layout) -> Result<Self, CgroupError> {
        let read_write =
            |path: PathBuf| File::options().read(true).write(true).open(&path).map_err(refused(&path));
        let read = |path: PathBuf| File::open(&path).map_err(refused(&path));
        let write = |path: PathBuf| File::options().write(true).open(&path).map_err(refused(&path));
        let files = match layout {
            Layout::V1([memory, pids, cpuacct]) => Files::V1 {
                tasks: [memory, pids, cpuacct]
                    .map(|dir| write(dir.join("tasks")))
                    .into_iter()
                    .collect::<Result<_, _>>()?,
                limit: read_write(memory.join("memory.limit_in_bytes"))?,
                swap_limit: read_write(memory.join("memory.memsw.limit_in_bytes")).ok(),
                socket_limit: write(memory.join("memory.kmem.tcp.limit_in_bytes")).ok(),
                peak: read_write(memory.join("memory.max_usage_in_bytes"))?,
                swap_peak: read_write(memory.join("memory.memsw.max_usage_in_bytes")).ok(),
                oom: read(memory.join("memory.oom_control"))?,
                processes: read_write(pids.join("pids.max"))?,
                process_events: read(pids.join("pids.events")).ok(),
                process_peak: read(pids.join("pids.peak")).ok(),
                cpu: read(cpuacct.join("cpuacct.usage"))?,
            },
            Layout::V2(dir) => {
                // No swap, where there is any: a limit of memory is one of time otherwise.
                let _ = fs::write(dir.join("memory.swap.max"), "0");
                // What the kernel kills, it kills whole.
                let _ = fs::write(dir.join("memory.oom.group"), "1");
                Files::V2 {
                    dir: File::open(dir).map_err(refused(dir))?.into(),
                    limit: read_write(dir.join("memory.max"))?,
                    peak: read_write(dir.join("memory.peak")).ok(),
                    oom: read(dir.join("memory.events"))?,
                    processes: read_write(dir.join("pids.max"))?,
                    process_events: read(dir.join("pids.events"))?,
                    process_peak: read(dir.join("pids.peak")).ok(),
                    cpu: read(dir.join("cpu.stat"))?,
                }
            }
        };
        // The controller of memory is the first.
        let (Layout::V1([dir, ..]) | Layout::V2(dir)) = layout;
        let memory = read(dir.join("memory.stat"))?;
        let start = JobUsage::default();
        Ok(Self { files, memory, start, memory_bytes: 0, processes: 0, process_peak: None })
    }

    /// Moves the calling thread in, which is to be the one that starts commands. Nothing on v2.
    ///
    /// # Errors
    /// The system refused.
    pub fn enter(&self) -> io::Result<()> {
        match &self.files {
            // 0 is whoever writes.
            Files::V1 { tasks, .. } => tasks.iter().try_for_each(|file| file.write_all_at(b"0", 0)),
            Files::V2 { .. } => Ok(()),
        }
    }

    /// Lets go of the way in, once the thread that starts commands is there.
    pub fn close(&mut self) {
        if let Files::V1 { tasks, .. } = &mut self.files {
            tasks.clear();
        }
    }

    /// Where commands are to be cloned into; `None` on v1, where they are born.
    #[must_use]
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match &self.files {
            Files::V1 { .. } => None,
            Files::V2 { dir, .. } => Some(dir.as_fd()),
        }
    }

    /// Sets the limits of the next command, and begins its account.
    ///
    /// # Errors
    /// The system refused.
    pub fn begin(&mut self, limits: JobLimits) -> io::Result<()> {
        let JobLimits { memory_bytes, processes } = limits;
        match &self.files {
            Files::V1 { limit, swap_limit, socket_limit, peak, swap_peak, processes: max, .. } => {
                let bytes = memory_bytes.to_string();
                set_v1_memory(limit, swap_limit.as_ref(), bytes.as_bytes())?;
                if let Some(socket_limit) = socket_limit {
                    let bytes = (memory_bytes / SOCKETS).to_string();
                    socket_limit.write_all_at(bytes.as_bytes(), 0)?;
                }
                for peak in std::iter::once(peak).chain(swap_peak) {
                    peak.write_all_at(b"0", 0)?;
                }
                // The thread that starts commands is one of them.
                max.write_all_at((u64::from(processes) + 1).to_string().as_bytes(), 0)?;
            }
            Files::V2 { limit, peak, processes: max, .. } => {
                limit.write_all_at(memory_bytes.to_string().as_bytes(), 0)?;
                max.write_all_at(processes.to_string().as_bytes(), 0)?;
                if let Some(peak) = peak {
                    // Since 6.12; before that, the peak is of all commands so far.
                    let _ = peak.write_all_at(b"0", 0);
                }
            }
        }
        self.memory_bytes = memory_bytes;
        self.processes = u64::from(processes) + u64::from(matches!(self.files, Files::V1 { .. }));
        self.process_peak = self.process_peak();
        self.start = self.counters()?;
        Ok(())
    }

    /// What was used since [`Job::begin`].
    ///
    /// # Errors
    /// The system refused, or said something else than expected.
    pub fn usage(&self) -> io::Result<JobUsage> {
        let now = self.counters()?;
        Ok(JobUsage {
            cpu: now.cpu.saturating_sub(self.start.cpu),
            oom_kills: now.oom_kills.saturating_sub(self.start.oom_kills),
            forks_refused: now.forks_refused.saturating_sub(self.start.forks_refused),
        })
    }

    /// The most memory at any time since [`Job::begin`], cached files included; `None` where this kernel
    /// cannot say.
    #[must_use]
    pub fn peak_bytes(&self) -> Option<u64> {
        let (Files::V1 { peak, .. } | Files::V2 { peak: Some(peak), .. }) = &self.files else { return None };
        number(&text(peak).ok()?)
    }

    /// Memory that is files' on a tmpfs, or without a name; the kernel counts it in batches.
    #[must_use]
    pub fn file_bytes(&self) -> Option<u64> {
        field(&text(&self.memory).ok()?, "shmem")
    }

    /// Whether memory has been at its limit since [`Job::begin`]. If not, and a process was killed for want of
    /// memory all the same, it was wanted elsewhere.
    #[must_use]
    pub fn was_full(&self) -> bool {
        let most = match &self.files {
            // What was swapped out counts in the second.
            Files::V1 { peak, swap_peak, .. } => {
                std::iter::once(peak).chain(swap_peak).filter_map(|peak| number(&text(peak).ok()?)).max()
            }
            Files::V2 { .. } => self.peak_bytes(),
        };
        // The kernel gives up a few pages below.
        most.is_none_or(|most| most >= self.memory_bytes - self.memory_bytes / 16)
    }

    /// Whether there have been as many processes as are allowed since [`Job::begin`]. If not, and one was refused all
    /// the same, it was for want of them elsewhere. `None`: it cannot be said, because there were as many before.
    #[must_use]
    pub fn was_full_of_processes(&self) -> Option<bool> {
        match (self.process_peak, self.process_peak()) {
            (_, Some(now)) if now < self.processes => Some(false),
            (Some(before), _) if before < self.processes => Some(true),
            _ => None,
        }
    }

    fn process_peak(&self) -> Option<u64> {
        let (Files::V1 { process_peak, .. } | Files::V2 { process_peak, .. }) = &self.files;
        number(&text(process_peak.as_ref()?).ok()?)
    }

    fn counters(&self) -> io::Result<JobUsage> {
        let (oom, events, cpu) = match &self.files {
            Files::V1 { oom, process_events, cpu, .. } => {
                let nanos = number(&text(cpu)?).ok_or_else(|| unexpected("cpuacct.usage"))?;
                (oom, process_events.as_ref(), Duration::from_nanos(nanos))
            }
            Files::V2 { oom, process_events, cpu, .. } => {
                let micros = field(&text(cpu)?, "usage_usec").ok_or_else(|| unexpected("cpu.stat"))?;
                (oom, Some(process_events), Duration::from_micros(micros))
            }
        };
        let oom_kills = field(&text(oom)?, "oom_kill").ok_or_else(|| unexpected("oom_kill"))?;
        let forks_refused = match events {
            Some(events) => field(&text(events)?, "max").unwrap_or(0),
            None => 0,
        };
        Ok(JobUsage { cpu, oom_kills, forks_refused })
    }
}

/// Memory alone never above memory with swap: the order depends on where both were.
fn set_v1_memory(limit: &File, with_swap: Option<&File>, bytes: &[u8]) -> io::Result<()> {
    let Some(with_swap) = with_swap else { return limit.write_all_at(bytes, 0) };
    if limit.write_all_at(bytes, 0).is_ok() {
        return with_swap.write_all_at(bytes, 0);
    }
    with_swap.write_all_at(bytes, 0)?;
    limit.write_all_at(bytes, 0)
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cgroup: {what} is not as expected"))
}

/// A small file of the kernel's, from its beginning.
pub(super) fn text(file: &File) -> io::Result<String> {
    let mut buffer = [0; 16 << 10];
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, have as u64)? {
            0 => break,
            count => have += count,
        }
    }
    Ok(String::from_utf8_lossy(buffer.get(..have).unwrap_or_default()).into_owned())
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number behind a name that stands at the beginning of a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(name)?.strip_prefix(' ')?))
}

fn read(path: &str) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(refused(Path::new(path)))
}

/// The directories of the cgroups that this process is in, from the kernel's two tables.
fn own_layout(mountinfo: &str, cgroup: &str) -> Result<Layout, CgroupError> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    let v1 = |controller: &'static str| {
        let mount = mounts.iter().find(|mount| mount.kind == "cgroup" && mount.has(controller))?;
        mount.dir(path_of(cgroup, |controllers| controllers.split(',').any(|one| one == controller))?)
    };
    if let (Some(memory), Some(pids), Some(cpuacct)) = (v1("memory"), v1("pids"), v1("cpuacct")) {
        return Ok(Layout::V1([memory, pids, cpuacct]));
    }
    let absent = |controller, at| CgroupError::Absent { controller, at };
    let v2 = mounts.iter().find(|mount| mount.kind == "cgroup2");
    // Already in the leaf: a launcher before this one moved us.
    let above = |path: &'_ str| path.strip_suffix(LEAF).map_or(path.len(), str::len);
    let dir = v2.and_then(|mount| {
        let path = path_of(cgroup, str::is_empty)?;
        mount.dir(path.get(..above(path))?)
    });
    let dir = dir.ok_or_else(|| absent("memory", String::new()))?;
    let there = fs::read_to_string(dir.join("cgroup.controllers")).map_err(refused(&dir))?;
    for controller in ["memory", "pids"] {
        if !there.split_whitespace().any(|one| one == controller) {
            return Err(absent(controller, format!(" in {}", dir.display())));
        }
    }
    Ok(Layout::V2(dir))
}

/// The directories of the groups of memory and of processes that this process is in, each with all above it.
pub(super) fn chains(mountinfo: &str, cgroup: &str) -> [Vec<PathBuf>; 2] {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    ["memory", "pids"].map(|controller| {
        let v1 = mounts.iter().find(|mount| mount.kind == "cgroup" && mount.has(controller));
        let v2 = || mounts.iter().find(|mount| mount.kind == "cgroup2");
        let (mount, path) = match v1 {
            Some(mount) => (
                Some(mount),
                path_of(cgroup, |controllers| controllers.split(',').any(|one| one == controller)),
            ),
            None => (v2(), path_of(cgroup, str::is_empty)),
        };
        let Some((mount, dir)) = mount.and_then(|mount| Some((mount, mount.dir(path?)?))) else {
            return Vec::new();
        };
        dir.ancestors().take_while(|dir| dir.starts_with(mount.point)).map(Path::to_owned).collect()
    })
}

/// The path behind the first line of `/proc/self/cgroup` whose controllers fit.
fn path_of(cgroup: &str, fits: impl Fn(&str) -> bool) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        fits(controllers).then(|| parts.next())?
    })
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, file_system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut file_system = file_system.split(' ');
        Some(Self {
            root: place.next()?,
            point: place.next()?,
            kind: file_system.next()?,
            options: file_system.nth(1)?,
        })
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|one| one == controller)
    }

    /// Where the group of this path is seen.
    fn dir(&self, path: &str) -> Option<PathBuf> {
        let below = if self.root == "/" { path } else { path.strip_prefix(self.root)? };
        // A group outside what is mounted, as "/..", cannot be reached.
        (!below.contains("/..")).then(|| Path::new(self.point).join(below.trim_start_matches('/')))
    }
}

/// Which process of which pid namespace this is, for ever.
fn own_name() -> io::Result<String> {
    let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
    let pid = std::process::id();
    let started = started(pid).ok_or_else(|| unexpected("/proc/self/stat"))?;
    Ok(format!("{PREFIX}{namespace}-{pid}-{started}"))
}

/// When a process was started, in ticks since boot; `None`: there is none, or it has ended and nobody has
/// reaped it.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !has_ended)
}

/// Whether the process that this name speaks of is gone; never for a name that is not ours.
fn is_stale(name: &OsStr) -> bool {
    let parts = || {
        let mut parts = name.to_str()?.strip_prefix(PREFIX)?.split('-').map(str::parse::<u64>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let Some((namespace, pid, start)) = parts() else { return false };
    let ours = fs::metadata("/proc/self/ns/pid").is_ok_and(|ours| ours.ino() == namespace);
    ours && u32::try_from(pid).is_ok_and(|pid| started(pid) != Some(start))
}

fn sweep(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return true };
    let stale = entries.flatten().filter(|entry| is_stale(&entry.file_name()));
    stale.map(|entry| remove_empty(&entry.path())).fold(true, |all, one| all & one)
}

/// A group and those in it, as far as nothing runs in them.
fn remove_empty(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    let busy = |error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy;
    !fs::remove_dir(dir).is_err_and(|error| busy(&error))
}

fn make(layout: &Layout) -> Result<(), CgroupError> {
    for dir in layout.dirs() {
        match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(refused(dir))?,
        }
    }
    Ok(())
}

/// A group of ours and those in it. What still runs in them is killed: it was a worker's.
fn remove_tree(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return true };
    let groups = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let empty = groups.map(|entry| remove(&entry.path())).fold(true, |all, one| all & one);
    empty && remove(dir)
}

/// `false`: it is still in use.
fn remove(dir: &Path) -> bool {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        // Gone, or nothing that we could do about it; the next start looks again.
        _ => return true,
    }
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    false
}

/// v2: a group has either processes or groups with controllers. Ours move to a leaf.
fn delegate(dir: &Path) -> Result<(), CgroupError> {
    if enable(dir).is_ok() {
        return Ok(());
    }
    let leaf = dir.join(LEAF);
    make(&Layout::V2(leaf.clone()))?;
    let ours = [
        std::process::id(),
        rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
    ];
    for pid in ours.into_iter().filter(|pid| *pid != 0) {
        let procs = leaf.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).map_err(refused(&procs))?;
    }
    enable(dir)
}

fn enable(dir: &Path) -> Result<(), CgroupError> {
    let control = dir.join("cgroup.subtree_control");
    fs::write(&control, "+memory +pids").map_err(refused(&control))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use rstest::rstest;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        39 31 0:36 /docker/ab /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn each_controller_has_its_own_place() {
        let cgroup = "8:pids:/docker/ab/x\n4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/s\n0::/u\n";
        let Ok(Layout::V1(dirs)) = own_layout(HYBRID, cgroup) else { panic!("not v1") };
        let expected = ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/pids/x", "/sys/fs/cgroup/cpu,cpuacct"]
            .map(PathBuf::from);
        assert_eq!(dirs, expected);
    }

    #[test]
    fn groups_and_those_above_them() {
        let cgroup = "8:pids:/docker/ab/x\n4:memory:/a/b\n0::/u\n";
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        let memory =
            paths(&["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]);
        let pids = paths(&["/sys/fs/cgroup/pids/x", "/sys/fs/cgroup/pids"]);
        assert_eq!(chains(HYBRID, cgroup), [memory, pids]);
        let unified = chains("1 2 0:3 / /c rw - cgroup2 cgroup2 rw\n", "0::/u\n");
        assert_eq!(unified, [paths(&["/c/u", "/c"]), paths(&["/c/u", "/c"])]);
        assert_eq!(chains("", "0::/u\n"), [Vec::<PathBuf>::new(), Vec::new()]);
    }

    #[rstest]
    #[case::none("", "0::/\n", "memory")]
    #[case::outside("1 2 0:3 /a /c rw - cgroup2 cgroup2 rw\n", "0::/b\n", "memory")]
    #[case::above("1 2 0:3 / /c rw - cgroup2 cgroup2 rw\n", "0::/../b\n", "memory")]
    fn what_is_not_there_is_named(#[case] mountinfo: &str, #[case] cgroup: &str, #[case] controller: &str) {
        let error = own_layout(mountinfo, cgroup).unwrap_err().to_string();
        assert!(error.contains(controller), "{error}");
    }

    #[test]
    fn unified_without_controllers_is_not_enough() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "memory hugetlb\n").unwrap();
        let mountinfo = format!("1 2 0:3 / {} rw - cgroup2 cgroup2 rw\n", dir.path().display());
        assert!(own_layout(&mountinfo, "0::/\n").unwrap_err().to_string().contains("\"pids\""));
        fs::write(dir.path().join("cgroup.controllers"), "memory pids cpu\n").unwrap();
        assert!(matches!(own_layout(&mountinfo, "0::/\n"), Ok(Layout::V2(_))));
    }

    #[rstest]
    #[case("low 0\nmax 3\noom 2\noom_kill 1\n", "oom_kill", Some(1))]
    #[case("low 0\nmax 3\noom 2\noom_kill 1\n", "oom", Some(2))]
    #[case("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", "oom_kill", Some(7))]
    #[case("usage_usec 12\nuser_usec 5\n", "usage_usec", Some(12))]
    #[case("", "max", None)]
    fn fields(#[case] text: &str, #[case] name: &str, #[case] expected: Option<u64>) {
        assert_eq!(field(text, name), expected);
    }

    #[test]
    fn half_of_it_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["a", "b", "c"].map(|name| dir.path().join(name));
        // The third controller refuses.
        dirs.iter().take(2).for_each(|dir| fs::create_dir(dir).unwrap());
        let made = Cgroups { layout: Layout::V1(dirs.clone().map(|dir| dir.join("evalmill-x"))) };
        let error = made.begin().inspect_err(|_| made.end()).unwrap_err().to_string();
        assert!(error.contains("/c/evalmill-x"), "{error}");
        assert!(dirs.iter().take(2).all(|dir| fs::read_dir(dir).unwrap().count() == 0));
    }

    #[test]
    fn only_what_is_ours_and_over_is_stale() {
        let own = own_name().unwrap();
        assert!(!is_stale(OsStr::new(&own)));
        let (rest, _) = own.rsplit_once('-').unwrap();
        assert!(is_stale(OsStr::new(&format!("{rest}-1"))));
        let mut ended = Command::new("true").spawn().unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while started(ended.id()).is_some() {
            assert!(std::time::Instant::now() < until, "a process that waits to be reaped is over");
            std::thread::yield_now();
        }
        ended.wait().unwrap();
        for other in ["docker", "evalmill-own", "evalmill-1-2", "evalmill-x-1-1", "evalmill-1-999999-1"] {
            assert!(!is_stale(OsStr::new(other)), "{other}");
        }
    }

    /// Runs Python from a thread inside the job group.
    fn python(job: &Job, program: &str) -> std::process::Output {
        std::thread::scope(|scope| {
            let run = || {
                job.enter().unwrap();
                Command::new("/usr/bin/python3").args(["-I", "-S", "-c", program]).output().unwrap()
            };
            scope.spawn(run).join().unwrap()
        })
    }

    #[test]
    fn the_kernel_counts_and_limits_a_tree() {
        let groups = match Cgroups::create() {
            Ok(groups) => groups,
            // An ordinary user, or a machine without cgroups of version 1: that must be said.
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("cgroup"), "{said}");
                eprintln!("not run: {said}");
                return;
            }
        };
        let mut job = groups.job(7).unwrap();
        let limits = JobLimits { memory_bytes: 100 << 20, processes: 8 };
        job.begin(limits).unwrap();
        if job.birthplace().is_none() {
            let sum = "import os\nfor i in range(2):\n if os.fork() == 0: sum(range(10**6)); os._exit(0)\nfor i in range(2): os.wait()";
            assert!(python(&job, sum).status.success() && !job.was_full());
            let usage = job.usage().unwrap();
            assert!(usage.cpu > Duration::from_millis(10), "{usage:?}");
            assert_eq!((usage.oom_kills, usage.forks_refused), (0, 0));

            job.begin(limits).unwrap();
            assert!(!python(&job, "bytearray(200 << 20)").status.success());
            assert_eq!(job.usage().unwrap().oom_kills, 1);
            assert!(job.was_full());
            assert!(job.peak_bytes().unwrap() > 90 << 20);

            job.begin(JobLimits { memory_bytes: 200 << 20, ..limits }).unwrap();
            assert!(job.peak_bytes().unwrap() < 90 << 20, "the peak begins again");
            let many = "import os,time\ntry:\n for i in range(20):\n  if os.fork() == 0: time.sleep(1); os._exit(0)\nexcept BlockingIOError: raise SystemExit(3)";
            assert_eq!(python(&job, many).status.code(), Some(3));
            assert!(job.usage().unwrap().forks_refused > 0);
        }
        drop(job);
        let dirs: Vec<_> = groups.layout.dirs().into_iter().map(Path::to_owned).collect();
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while !groups.remove_all() {
            assert!(std::time::Instant::now() < until, "still in use: {dirs:?}");
            std::thread::yield_now();
        }
        assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
    }
}
