//! The job group of a worker, v1 or v2.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::files::{field, number, text};
use super::{v1, v2};

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

/// The group in which a worker's commands run. Its files stay open: they work from inside a root that
/// does not contain them.
#[derive(Debug)]
pub struct Job {
    files: Files,
    /// The counters when the command began.
    start: JobUsage,
    /// The limit of processes in force, and the most there ever were before this command.
    processes: u64,
    process_peak: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Files {
    V1(v1::Files),
    V2(v2::Files),
}

impl Job {
    pub(super) fn new(files: Files) -> Self {
        Self { files, start: JobUsage::default(), processes: 0, process_peak: None }
    }

    /// Where commands are to be cloned into; `None` on v1, where they are born.
    #[must_use]
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match &self.files {
            Files::V1(_) => None,
            Files::V2(files) => Some(files.birthplace()),
        }
    }

    /// Moves the calling thread in, which is to be the one that starts commands; once. Nothing on v2.
    ///
    /// # Errors
    /// The system refused.
    pub fn enter(&mut self) -> io::Result<()> {
        match &mut self.files {
            Files::V1(files) => files.enter(),
            Files::V2(_) => Ok(()),
        }
    }

    /// Sets the limits of the next command, and begins its account.
    ///
    /// # Errors
    /// The system refused.
    pub fn begin(&mut self, limits: JobLimits) -> io::Result<()> {
        self.processes = match &mut self.files {
            Files::V1(files) => {
                files.begin(limits)?;
                v1::Files::processes(limits)
            }
            Files::V2(files) => {
                files.begin(limits)?;
                limits.processes.into()
            }
        };
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
        match &self.files {
            Files::V1(files) => files.peak_bytes(),
            Files::V2(files) => files.peak_bytes(),
        }
    }

    /// Whether memory has been at its limit since [`Job::begin`]. If not, and a process was killed for want of
    /// memory all the same, it was wanted elsewhere.
    #[must_use]
    pub fn was_full(&self) -> bool {
        match &self.files {
            Files::V1(files) => files.was_full(),
            Files::V2(files) => files.was_full(),
        }
    }

    /// Memory that is files' on a tmpfs, or without a name; the kernel counts it in batches.
    #[must_use]
    pub fn file_bytes(&self) -> Option<u64> {
        let (Files::V1(v1::Files { stat, .. }) | Files::V2(v2::Files { stat, .. })) = &self.files;
        field(&text(stat).ok()?, "shmem")
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
        let (Files::V1(v1::Files { process_peak, .. }) | Files::V2(v2::Files { process_peak, .. })) =
            &self.files;
        number(&text(process_peak.as_ref()?).ok()?)
    }

    fn counters(&self) -> io::Result<JobUsage> {
        match &self.files {
            Files::V1(files) => files.counters(),
            Files::V2(files) => files.counters(),
        }
    }
}
