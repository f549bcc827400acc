//! The files of a job group of version 1.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use super::files::{field, number, text, unexpected, write};
use super::{CgroupError, JobLimits, JobUsage, refused};

/// Sockets have this part of the memory again; when that is full, they wait for room.
const SOCKETS: u64 = 8;

#[derive(Debug)]
pub(super) struct Files {
    tasks: Vec<File>,
    limit: File,
    /// Absent without swap accounting.
    swap_limit: Option<File>,
    /// Memory of sockets, which is not in the others' account.
    socket_limit: Option<File>,
    peak: File,
    swap_peak: Option<File>,
    /// What memory is used for.
    pub(super) stat: File,
    oom: File,
    processes: File,
    process_events: Option<File>,
    pub(super) process_peak: Option<File>,
    cpu: File,
    /// The limit of memory in force.
    memory_bytes: u64,
}

impl Files {
    /// Of the controllers `memory`, `pids`, `cpuacct`.
    pub(super) fn open([memory, pids, cpuacct]: &[PathBuf; 3]) -> Result<Self, CgroupError> {
        let read_write =
            |path: PathBuf| File::options().read(true).write(true).open(&path).map_err(refused(&path));
        let read = |path: PathBuf| File::open(&path).map_err(refused(&path));
        let write = |path: PathBuf| File::options().write(true).open(&path).map_err(refused(&path));
        Ok(Self {
            tasks: [memory, pids, cpuacct]
                .map(|dir| write(dir.join("tasks")))
                .into_iter()
                .collect::<Result<_, _>>()?,
            limit: read_write(memory.join("memory.limit_in_bytes"))?,
            swap_limit: read_write(memory.join("memory.memsw.limit_in_bytes")).ok(),
            socket_limit: write(memory.join("memory.kmem.tcp.limit_in_bytes")).ok(),
            stat: read(memory.join("memory.stat"))?,
            peak: read_write(memory.join("memory.max_usage_in_bytes"))?,
            swap_peak: read_write(memory.join("memory.memsw.max_usage_in_bytes")).ok(),
            oom: read(memory.join("memory.oom_control"))?,
            processes: read_write(pids.join("pids.max"))?,
            process_events: read(pids.join("pids.events")).ok(),
            process_peak: read(pids.join("pids.peak")).ok(),
            cpu: read(cpuacct.join("cpuacct.usage"))?,
            memory_bytes: 0,
        })
    }

    /// Moves the calling thread in, and lets go of the way in.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        // 0 is whoever writes.
        self.tasks.drain(..).try_for_each(|file| file.write_all_at(b"0", 0))
    }

    pub(super) fn begin(&mut self, limits: JobLimits) -> io::Result<()> {
        self.set_memory(limits.memory_bytes)?;
        if let Some(socket_limit) = &self.socket_limit {
            write(socket_limit, limits.memory_bytes / SOCKETS)?;
        }
        for peak in std::iter::once(&self.peak).chain(&self.swap_peak) {
            write(peak, 0)?;
        }
        write(&self.processes, Self::processes(limits))
    }

    /// The limit of processes: the thread that starts commands is one of them.
    pub(super) fn processes(limits: JobLimits) -> u64 {
        u64::from(limits.processes) + 1
    }

    /// Memory alone never above memory with swap: the order depends on where both were.
    fn set_memory(&mut self, bytes: u64) -> io::Result<()> {
        self.memory_bytes = bytes;
        let Some(with_swap) = &self.swap_limit else { return write(&self.limit, bytes) };
        if write(&self.limit, bytes).is_ok() {
            return write(with_swap, bytes);
        }
        write(with_swap, bytes)?;
        write(&self.limit, bytes)
    }

    pub(super) fn counters(&self) -> io::Result<JobUsage> {
        let nanos = number(&text(&self.cpu)?).ok_or_else(|| unexpected("cpuacct.usage"))?;
        let oom_kills = field(&text(&self.oom)?, "oom_kill").ok_or_else(|| unexpected("oom_kill"))?;
        let forks_refused = match &self.process_events {
            Some(events) => field(&text(events)?, "max").unwrap_or(0),
            None => 0,
        };
        Ok(JobUsage { cpu: Duration::from_nanos(nanos), oom_kills, forks_refused })
    }

    pub(super) fn peak_bytes(&self) -> Option<u64> {
        number(&text(&self.peak).ok()?)
    }

    pub(super) fn was_full(&self) -> bool {
        // What was swapped out counts in the second.
        let peaks = std::iter::once(&self.peak).chain(&self.swap_peak);
        let most = peaks.filter_map(|peak| number(&text(peak).ok()?)).max();
        // The kernel gives up a few pages below.
        most.is_none_or(|most| most >= self.memory_bytes - self.memory_bytes / 16)
    }
}
