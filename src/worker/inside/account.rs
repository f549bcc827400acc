//! What the kernel counts of one command, where its worker has a group for them.
//!
//! In version 1 the thread that starts commands is in that group too, so its own processor time is taken off.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::sandbox::Want;
use crate::sandbox::cgroup::{Job, JobLimits, JobUsage};
use crate::worker::protocol::{Ended, RunLimits};

/// A program may be refused a few processes and make do. One that was refused this many does nothing else.
const BOMB: u64 = 1000;

/// The limits under which [`CONTROLS`] are run.
pub(super) const CONTROL_BYTES: u64 = 32 << 20;
pub(super) const CONTROL_PROCESSES: u32 = 4;
/// What has to be shown before the tier is claimed: programs that must not come to a good end, the second
/// one although its main process would.
pub(super) const CONTROLS: [(&str, &str, Ended); 2] = [
    (
        "the limit of processes",
        "import os, time\nfor i in range(8):\n  if os.fork() == 0: time.sleep(9)",
        Ended::ProcessLimit,
    ),
    (
        "the limit of memory",
        "import os\nif os.fork(): os.wait()\nelse: bytearray(64 << 20)",
        Ended::MemoryLimit,
    ),
];

/// The account of one command after another.
#[derive(Debug)]
pub(crate) struct Account {
    job: Box<Job>,
    /// This thread's processor time when the command began.
    own: Duration,
}

impl Account {
    pub(super) fn new(job: Box<Job>) -> Self {
        Self { job, own: Duration::ZERO }
    }

    /// Where commands are to be cloned into; `None`: they are born there.
    pub(super) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.job.birthplace()
    }

    /// Sets the limits of the next command and begins its account.
    pub(super) fn begin(&mut self, limits: &RunLimits) -> io::Result<()> {
        self.job
            .begin(JobLimits { memory_bytes: limits.memory_bytes, processes: limits.processes })
            .map_err(|error| {
                io::Error::new(error.kind(), format!("setting the limits of the cgroup: {error}"))
            })?;
        self.own = own_cpu();
        Ok(())
    }

    /// What was used since then.
    pub(super) fn usage(&self) -> io::Result<JobUsage> {
        let mut usage = self
            .job
            .usage()
            .map_err(|error| io::Error::new(error.kind(), format!("reading the cgroup: {error}")))?;
        if self.birthplace().is_none() {
            usage.cpu = usage.cpu.saturating_sub(own_cpu().saturating_sub(self.own));
        }
        Ok(usage)
    }

    /// The most memory at one time since then; 0: unknown.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.job.peak_bytes().unwrap_or(0)
    }

    /// Whether the number of processes has been at its limit since then; `None`: unknown.
    pub(super) fn was_full_of_processes(&self) -> Option<bool> {
        self.job.was_full_of_processes()
    }

    /// Memory that is files', of a box and without a name; 0: unknown.
    pub(super) fn file_bytes(&self) -> u64 {
        self.job.file_bytes().unwrap_or(0)
    }

    /// Whether memory has been at its limit since then.
    pub(super) fn was_full(&self) -> bool {
        self.job.was_full()
    }
}

/// The limit that a tree is over while it runs; what came of it is [`judged`] in the end.
pub(super) fn over(usage: &JobUsage, limits: &RunLimits) -> Option<Ended> {
    if usage.oom_kills > 0 {
        Some(Ended::MemoryLimit)
    } else if usage.cpu > limits.cpu {
        Some(Ended::CpuLimit)
    } else if usage.forks_refused > BOMB {
        Some(Ended::ProcessLimit)
    } else {
        None
    }
}

/// How a command ended, with what the kernel counted: a process killed for want of memory decides whatever
/// came of the others, and one that was refused unless the program came to a good end without it.
pub(super) fn judged(
    ended: Ended,
    usage: &JobUsage,
    was_full: impl FnOnce() -> bool,
    too_many: impl FnOnce() -> bool,
) -> Ended {
    match ended {
        Ended::Failed(_) => ended,
        _ if usage.oom_kills > 0 && was_full() => Ended::MemoryLimit,
        _ if usage.oom_kills > 0 => Ended::Failed(Want::Memory.to_string()),
        Ended::Exited(0) | Ended::MemoryLimit | Ended::OutputLimit => ended,
        _ if usage.forks_refused > 0 && too_many() => Ended::ProcessLimit,
        _ if usage.forks_refused > 0 => Ended::Failed(Want::Processes.to_string()),
        _ => ended,
    }
}

/// How a command ended where the machine was short of something: what it came to is not its doing, unless it met a
/// limit of its own, or had no need of the process that it was refused.
pub(super) fn excused(ended: Ended, want: Option<Want>) -> Ended {
    match (ended, want) {
        (ended @ (Ended::Failed(_) | Ended::NotStarted(_)), _)
        | (ended @ (Ended::MemoryLimit | Ended::OutputLimit | Ended::ProcessLimit), _)
        | (ended @ Ended::Exited(0), Some(Want::Processes))
        | (ended, None) => ended,
        (_, Some(want)) => Ended::Failed(want.to_string()),
    }
}

fn own_cpu() -> Duration {
    // It never fails on Linux, and is never negative.
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::refused_by_the_machine(Ended::Exited(1), (0, true, 3), Ended::Failed(String::new()))]
    #[case::success(Ended::Exited(0), (0, false, 0), Ended::Exited(0))]
    #[case::near_the_limit(Ended::Exited(1), (0, true, 0), Ended::Exited(1))]
    #[case::a_child_was_killed(Ended::Exited(0), (1, true, 0), Ended::MemoryLimit)]
    #[case::killed_by_the_machine(Ended::Signalled(9), (1, false, 0), Ended::Failed(String::new()))]
    #[case::made_do(Ended::Exited(0), (0, false, 3), Ended::Exited(0))]
    #[case::did_not(Ended::Exited(1), (0, false, 3), Ended::ProcessLimit)]
    #[case::hung(Ended::WallLimit, (0, false, 3), Ended::ProcessLimit)]
    #[case::flood(Ended::OutputLimit, (0, false, 3), Ended::OutputLimit)]
    #[case::memory_first(Ended::OutputLimit, (2, true, 3), Ended::MemoryLimit)]
    fn judgements(#[case] ended: Ended, #[case] counted: (u64, bool, u64), #[case] expected: Ended) {
        let (oom_kills, was_full, forks_refused) = counted;
        let usage = JobUsage { cpu: Duration::ZERO, oom_kills, forks_refused };
        let judged = judged(ended, &usage, || was_full, || !was_full);
        let same = std::mem::discriminant(&judged) == std::mem::discriminant(&expected);
        assert!(same && (judged == expected || matches!(judged, Ended::Failed(_))), "{judged:?}");
    }

    #[rstest]
    #[case::nothing(Ended::Exited(1), None, true)]
    #[case::wrong(Ended::Exited(1), Some(Want::Processes), false)]
    #[case::killed(Ended::Signalled(9), Some(Want::Memory), false)]
    #[case::waited_for_a_killed_child(Ended::WallLimit, Some(Want::Memory), false)]
    #[case::a_part_was_killed(Ended::Exited(0), Some(Want::Memory), false)]
    #[case::made_do(Ended::Exited(0), Some(Want::Processes), true)]
    #[case::flood(Ended::OutputLimit, Some(Want::Memory), true)]
    #[case::own_limit(Ended::MemoryLimit, Some(Want::Memory), true)]
    #[case::own_limit_of_processes(Ended::ProcessLimit, Some(Want::Processes), true)]
    fn excuses(#[case] ended: Ended, #[case] want: Option<Want>, #[case] stays: bool) {
        let excused = excused(ended.clone(), want);
        assert!(if stays { excused == ended } else { matches!(excused, Ended::Failed(_)) }, "{excused:?}");
    }
}
