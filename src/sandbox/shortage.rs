//! What the machine was short of while a program ran: memory, so that the kernel killed something, or processes, so
//! that it made none.
//!
//! A program does not have to be at a limit of its own for that: a limit of the service itself (a container's, a
//! unit's) may be met by several programs together, each within its own. Then nothing that came of a program is its
//! doing. The kernel counts such events for each cgroup; those that the service is in are looked at, and those above.
//! Commands in groups of their own have their own counters (`cgroup`).
//!
//! What is not counted anywhere, and so not seen: a fork that is refused for want of the user's own limit
//! (RLIMIT_NPROC) or of process numbers.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use super::cgroup::{chains, field, text};

/// What there was too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A process was killed.
    Memory,
    /// A process was not made.
    Processes,
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => {
                "a process was killed for want of memory on the machine, below its own limit: lower limits.memory_mb or the number of workers, or give evalmill more"
            }
            Self::Processes => {
                "a process was refused for want of processes on the machine, below its own limit: lower limits.processes or the number of workers, or give evalmill more (pids.max of its cgroup; systemd: TasksMax=; Docker: --pids-limit)"
            }
        })
    }
}

/// The counters; they stay open, and work from inside a root that does not contain them.
#[derive(Debug, Default)]
pub struct Shortage {
    memory: Vec<Counter>,
    processes: Vec<Counter>,
    /// The most processes so far, and how many there may be, of each group.
    peaks: Vec<(File, File)>,
}

#[derive(Debug)]
struct Counter {
    file: File,
    name: &'static str,
}

/// What the counters said at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    memory: u64,
    processes: u64,
}

impl Shortage {
    /// Opens what there is for this process. Where no group counts memory, the machine does.
    #[must_use]
    pub fn open() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let [memory, processes] = chains(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        // Kills are counted where the killed one is.
        let own = memory.first().and_then(|dir| {
            counter(dir, "memory.events.local", "oom_kill")
                .or_else(|| counter(dir, "memory.oom_control", "oom_kill"))
        });
        let peaks = processes.iter().filter_map(|dir| {
            Some((File::open(dir.join("pids.peak")).ok()?, File::open(dir.join("pids.max")).ok()?))
        });
        Self {
            memory: own.or_else(machine).into_iter().collect(),
            peaks: peaks.collect(),
            // Refusals where the limit is, or before Linux 6.11 and in version 1 where the refused one is.
            processes: processes
                .iter()
                .filter_map(|dir| {
                    counter(dir, "pids.events.local", "max").or_else(|| counter(dir, "pids.events", "max"))
                })
                .collect(),
        }
    }

    /// Only whether the kernel killed anything on this machine, wherever it was.
    #[must_use]
    pub fn of_machine() -> Self {
        Self { memory: machine().into_iter().collect(), ..Self::default() }
    }

    /// What the counters say now.
    #[must_use]
    pub fn now(&self) -> Seen {
        let sum = |counters: &[Counter]| counters.iter().map(Counter::read).fold(0, u64::wrapping_add);
        Seen { memory: sum(&self.memory), processes: sum(&self.processes) }
    }

    /// What there was too little of since then.
    #[must_use]
    pub fn since(&self, before: Seen) -> Option<Want> {
        let now = self.now();
        if now.memory != before.memory {
            Some(Want::Memory)
        } else if now.processes != before.processes {
            Some(Want::Processes)
        } else {
            None
        }
    }

    /// Whether there have ever been as many processes as there may be, in any of the groups.
    #[must_use]
    pub fn ever_of_processes(&self) -> bool {
        let number = |file: &File| text(file).ok()?.trim().parse::<u64>().ok();
        self.peaks.iter().any(|(peak, max)| {
            // No number: "max".
            matches!((number(peak), number(max)), (Some(peak), Some(max)) if peak >= max)
        })
    }
}

impl Counter {
    fn read(&self) -> u64 {
        text(&self.file).ok().and_then(|text| field(&text, self.name)).unwrap_or(0)
    }
}

fn counter(dir: &Path, file: &str, name: &'static str) -> Option<Counter> {
    let counter = Counter { file: File::open(dir.join(file)).ok()?, name };
    field(&text(&counter.file).ok()?, name).map(|_| counter)
}

fn machine() -> Option<Counter> {
    counter(Path::new("/proc"), "vmstat", "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn of(dir: &Path, memory: &str, pids: &str) -> Shortage {
        fs::write(dir.join("m"), memory).unwrap();
        fs::write(dir.join("p"), pids).unwrap();
        let one = |file, name| counter(dir, file, name).into_iter().collect();
        Shortage { memory: one("m", "oom_kill"), processes: one("p", "max"), peaks: Vec::new() }
    }

    #[rstest]
    #[case::nothing("oom_kill 3\n", "max 5\n", None)]
    #[case::memory("under_oom 0\noom_kill 4\n", "max 5\n", Some(Want::Memory))]
    #[case::processes("oom_kill 3\n", "max 6\n", Some(Want::Processes))]
    #[case::both("oom_kill 4\n", "max 6\n", Some(Want::Memory))]
    fn what_moved_was_wanted(#[case] memory: &str, #[case] pids: &str, #[case] want: Option<Want>) {
        let dir = tempfile::tempdir().unwrap();
        let shortage = of(dir.path(), "oom_kill 3\n", "max 5\n");
        let before = shortage.now();
        fs::write(dir.path().join("m"), memory).unwrap();
        fs::write(dir.path().join("p"), pids).unwrap();
        assert_eq!(shortage.since(before), want);
    }

    #[rstest]
    #[case("7", "8", false)]
    #[case("8", "8", true)]
    #[case("8", "max", false)]
    fn a_group_that_was_full(#[case] peak: &str, #[case] max: &str, #[case] was: bool) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("peak"), peak).unwrap();
        fs::write(dir.path().join("max"), max).unwrap();
        let open = |name: &str| File::open(dir.path().join(name)).unwrap();
        let shortage = Shortage { peaks: vec![(open("peak"), open("max"))], ..Shortage::default() };
        assert_eq!(shortage.ever_of_processes(), was);
    }

    /// Every Linux counts what it kills, here or on the whole machine.
    #[test]
    fn memory_is_always_counted() {
        assert_eq!(Shortage::open().memory.len(), 1);
        assert_eq!(Shortage::of_machine().memory.len(), 1);
    }
}
