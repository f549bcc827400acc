//! The process tree of a command: what it uses, and its complete end.
//!
//! The worker is a child subreaper with no children of its own, so every process that descends from
//! it belongs to the command, however it daemonised. The tree is found by scanning `/proc/*/stat`
//! for parents (`task/*/children` is not compiled into every kernel), which costs a millisecond or
//! more; commands that leave nothing behind never pay for it. In the tier `namespaces` the worker is the first
//! process of its pid namespace: the scan sees its own programs only, and killing needs none.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::reap::{self, Wait};

/// Scans of a tree that keeps growing before it is killed as it is.
const STOP_ROUNDS: u32 = 5;

/// What was reaped since the command began.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// The process whose end is the command's end.
    pub(crate) main: i32,
    /// Its wait status, once it was reaped.
    pub(crate) status: Option<i32>,
    /// CPU time of the main process, with what it waited for.
    pub(crate) main_cpu: Duration,
    /// CPU time of everything.
    pub(crate) cpu: Duration,
    /// Largest peak resident size of any one process.
    pub(crate) max_rss_bytes: u64,
}

impl Reaped {
    pub(crate) fn new(main: i32) -> Self {
        Self { main, ..Self::default() }
    }

    /// Reaps all that has ended; `true` when no child is left at all.
    pub(crate) fn reap(&mut self) -> bool {
        // Bounded: children that end as fast as they are reaped must not keep us from the limits.
        for _ in 0..4096 {
            match reap::wait_any() {
                Wait::NoChild => return true,
                Wait::Pending => return false,
                Wait::Reaped(one) => {
                    self.cpu += one.cpu;
                    self.max_rss_bytes = self.max_rss_bytes.max(one.max_rss_bytes);
                    // Its number may be another's once it is reaped.
                    if one.pid == self.main && self.status.is_none() {
                        self.status = Some(one.status);
                        self.main_cpu = one.cpu;
                    }
                }
            }
        }
        false
    }
}

/// One line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    group: i32,
    /// Its own CPU time and that of children it waited for.
    cpu_ticks: u64,
    threads: u64,
    /// With the pid, the identity of a process.
    started: u64,
    rss_pages: u64,
}

/// Parses a `stat` line; the name in it may contain anything, also parentheses.
fn parse(pid: i32, line: &[u8]) -> Option<Process> {
    let name_end = line.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(22).collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        cpu_ticks: number(11)? + number(12)? + number(13)? + number(14)?,
        threads: number(17)?,
        started: number(19)?,
        rss_pages: fields.get(21)?.parse::<i64>().ok()?.try_into().unwrap_or(0),
    })
}

fn read_stat(pid: i32) -> Option<Process> {
    let mut line = [0; 1024];
    let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    let read = file.read(&mut line).ok()?;
    parse(pid, line.get(..read)?)
}

/// The parent of a process; none where there is no such process.
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    read_stat(pid).map(|process| process.parent)
}

/// Every process below this one, zombies too.
pub(crate) fn descendants() -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(process) = pid.and_then(read_stat) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    // Taking each list out also ends a cycle that a changing table might show.
    let mut all = children.remove(&own_pid()).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = all.get(next) {
        all.extend(children.remove(&process.pid).unwrap_or_default());
        next += 1;
    }
    all
}

/// What the tree uses at one moment.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) processes: Vec<Process>,
    /// CPU time of the living, and of what they waited for.
    pub(crate) cpu: Duration,
    /// Processes and threads.
    pub(crate) count: u64,
    /// Resident memory, pages shared between processes counted once for each.
    pub(crate) rss_bytes: u64,
    /// Tables of pages, which grow without a page becoming resident where nothing was ever written.
    pub(crate) table_bytes: u64,
}

/// Samples the tree.
pub(crate) fn usage() -> Usage {
    let processes = descendants();
    let mut usage = Usage::default();
    for process in &processes {
        usage.cpu += Duration::from_nanos(
            process.cpu_ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)),
        );
        usage.count += process.threads.max(1);
        usage.rss_bytes += process.rss_pages * rustix::param::page_size() as u64;
        usage.table_bytes += Status::of(process.pid).bytes("VmPTE:");
    }
    usage.processes = processes;
    usage
}

impl Usage {
    /// Memory that is the tree's own: anonymous and shared-memory pages, a page that several
    /// processes share counted once, and tables of pages. Costs a walk of every mapping, so it only confirms.
    pub(crate) fn own_memory_bytes(&self) -> u64 {
        let (mut own, mut shared) = (self.table_bytes, 0);
        for process in &self.processes {
            let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid));
            if let Some(bytes) = rollup.ok().and_then(|text| own_of_rollup(&text)) {
                own += bytes;
                continue;
            }
            // Unreadable where the program made itself so, and empty for a zombie. Who shares what is not known
            // then: all of them the same, so that no program is charged twice.
            let status = Status::of(process.pid);
            own += status.bytes("RssAnon:");
            shared = shared.max(status.bytes("RssShmem:"));
        }
        own + shared
    }

    /// The longest time that any one thread of the tree has waited for a CPU, and whether one waits or runs now:
    /// a wait is counted once it is over.
    pub(crate) fn run_delay(&self) -> (Duration, bool) {
        let (mut longest, mut runnable) = (0, false);
        for process in &self.processes {
            let Ok(threads) = fs::read_dir(format!("/proc/{}/task", process.pid)) else { continue };
            for thread in threads.flatten() {
                let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
                let delay = text.split_ascii_whitespace().nth(1).and_then(|delay| delay.parse().ok());
                longest = longest.max(delay.unwrap_or(0));
                let stat = fs::read(thread.path().join("stat")).unwrap_or_default();
                let name_end = stat.iter().rposition(|&byte| byte == b')').unwrap_or(0);
                runnable |= stat.get(name_end + 2) == Some(&b'R');
            }
        }
        (Duration::from_nanos(longest), runnable)
    }
}

fn own_of_rollup(text: &str) -> Option<u64> {
    Some(kib(text, "Pss_Anon:")? + kib(text, "Pss_Shmem:")?)
}

/// `/proc/<pid>/status`, which everybody may read.
struct Status(String);

impl Status {
    fn of(pid: i32) -> Self {
        Self(fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
    }

    /// A field that is a size; a zombie has none.
    fn bytes(&self, name: &str) -> u64 {
        kib(&self.0, name).unwrap_or(0)
    }
}

/// The bytes behind a name that stands at the beginning of a line.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Ends every process of the tree and reaps it.
///
/// In a pid namespace of our own that is one system call, which no fork outruns. Elsewhere everything is
/// stopped first, until a scan shows nothing new: a stopped parent can neither fork nor answer the death of a
/// child. Then everything is killed.
///
/// # Errors
/// What was still there after `bound`.
pub(crate) fn kill_all(reaped: &mut Reaped, bound: Duration) -> Result<(), String> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(200);
    let of_namespace = rustix::process::getpid().is_init();
    loop {
        if reaped.reap() {
            return Ok(());
        }
        if of_namespace {
            reap::kill_namespace();
        } else {
            kill_tree();
        }
        // Most die at once; what is deep in the kernel takes a moment.
        for _ in 0..20 {
            if reaped.reap() {
                return Ok(());
            }
            wait(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        if started.elapsed() > bound {
            let left = descendants().len();
            if reaped.reap() {
                return Ok(());
            }
            return Err(format!("{left} processes were left {bound:?} after they were killed"));
        }
    }
}

/// Kills every process that a scan finds.
fn kill_tree() {
    let mut stopped = HashSet::new();
    let mut rounds = 0;
    let tree = loop {
        let tree = descendants();
        rounds += 1;
        signal_groups(&tree, Signal::STOP);
        let mut grew = false;
        for process in &tree {
            if stopped.insert((process.pid, process.started)) {
                grew = true;
                signal(process, Signal::STOP);
            }
        }
        if !grew || rounds == STOP_ROUNDS {
            break tree;
        }
    };
    signal_groups(&tree, Signal::KILL);
    for process in &tree {
        signal(process, Signal::KILL);
    }
}

/// Kills the process group that the main process leads, in one call that no fork outruns.
///
/// Only while the main process is not reaped: until then its number cannot mean another group.
pub(crate) fn kill_main_group(reaped: &Reaped) {
    if reaped.status.is_none()
        && let Some(main) = Pid::from_raw(reaped.main)
    {
        // ESRCH: it has not come as far as its `setsid`, or nobody is left in the group.
        let _ = rustix::process::kill_process_group(main, Signal::KILL);
    }
}

/// Signals every process group of the tree. A fork bomb grows faster than it is scanned; a group
/// is signalled as a whole, forks under way included. The main process begins a session of its
/// own, so no group of the tree can hold a stranger.
fn signal_groups(tree: &[Process], signal: Signal) {
    let own = rustix::process::getpgrp().as_raw_nonzero().get();
    let groups: HashSet<i32> = tree.iter().map(|process| process.group).collect();
    for group in groups.into_iter().filter(|group| *group > 1 && *group != own) {
        if let Some(group) = Pid::from_raw(group) {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

/// Signals exactly this process: a pid that is not our own child may have been reaped and reused.
fn signal(process: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    // A failure means that it is gone or not ours to kill; the next scan shows which.
    if process.parent == own_pid() {
        let _ = rustix::process::kill_process(pid, signal);
        return;
    }
    if let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        && read_stat(process.pid).is_some_and(|now| now.started == process.started)
    {
        let _ = rustix::process::pidfd_send_signal(handle, signal);
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

pub(crate) fn wait(time: Duration) {
    if let Ok(time) = Timespec::try_from(time) {
        let _ = rustix::event::poll(&mut [], Some(&time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parent_of_a_process() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(parent_of(own), parent);
        assert_eq!(parent_of(i32::MAX), None);
    }

    #[test]
    fn stat_lines() {
        let line = b"42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 5 6 7 8 20 0 3 0 12345 1000 250 1844";
        let process = parse(42, line).unwrap();
        let expected = Process {
            pid: 42,
            parent: 7,
            group: 42,
            cpu_ticks: 26,
            threads: 3,
            started: 12345,
            rss_pages: 250,
        };
        assert_eq!(process, expected);
        for end in 0..line.len() - 10 {
            let _ = parse(42, &line[..end]);
        }
        assert_eq!(parse(1, b""), None);
        assert_eq!(parse(1, b"1 (x)"), None);
    }

    #[test]
    fn own_stat_is_readable() {
        let own = read_stat(own_pid()).unwrap();
        assert!(own.threads >= 1 && own.rss_pages > 0);
    }

    #[test]
    fn rollup() {
        let text = "00-ff ---p 0 [rollup]\nRss: 9 kB\nPss:  8 kB\nPss_Anon:   112 kB\nPss_Shmem:     8 kB\n";
        assert_eq!(own_of_rollup(text), Some(120 * 1024));
        assert_eq!(own_of_rollup(""), None);
        let status = Status::of(own_pid());
        assert!(status.bytes("RssAnon:") > 0 && status.bytes("VmPTE:") > 0);
        assert_eq!(status.bytes("Name:"), 0);
    }
}
