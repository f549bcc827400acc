//! `wait4`, and the dispositions of signals: what no safe wrapper offers.
#![expect(unsafe_code, reason = "wait4, signal dispositions and mallopt have no safe interface")]

use std::io;
use std::time::Duration;

/// The signals whose default action would end a worker and that can come from a terminal, from a
/// program with our uid, or from a closed pipe.
const IGNORED: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE];

/// Ignores the signals that must not end a worker; answers those that a child has to set back to
/// default: ours, and those that were inherited as ignored.
pub(super) fn ignore_signals() -> Vec<libc::c_int> {
    let mut reset = Vec::new();
    for signal in 1..=64 {
        // SAFETY: a zeroed sigaction is a valid value to be overwritten, a null new action only
        // queries, and the kernel refuses numbers that are not signals.
        let ignored = unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
        };
        if ignored || IGNORED.contains(&signal) {
            reset.push(signal);
        }
    }
    for signal in IGNORED {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SIGCHLD ignored would reap children behind our back.
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    reset
}

/// Signals every process of this pid namespace but this one, which is its first; no fork outruns it.
pub(super) fn kill_namespace() {
    if rustix::process::getpid().is_init() {
        // SAFETY: a system call on integers. Elsewhere -1 would mean the whole machine.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// Process 1 of a namespace is safe from every signal that it has no handler for, and the runtime has
/// two, for faults of its own: a program of the same user could send those.
pub(super) fn reset_fault_handlers() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: SIG_DFL installs no handler. A fault still ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Large buffers go back to the system at once. Else glibc raises its threshold and keeps them, and
/// the peak resident size of a program begins with what its worker holds.
pub(super) fn return_large_buffers() {
    // SAFETY: sets numbers in the allocator of this process, which has one thread so far.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        // A second thread does all the work where there is one: it needs no second heap.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// What `wait4` says of one ended child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    pub(crate) pid: i32,
    /// The raw wait status.
    pub(crate) status: i32,
    /// User plus system time of it and of what it waited for.
    pub(crate) cpu: Duration,
    pub(crate) max_rss_bytes: u64,
}

/// What a non-blocking wait for any child came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// This one had ended and is reaped.
    Reaped(Waited),
    /// Children live.
    Pending,
    /// There is no child at all.
    NoChild,
}

/// Reaps any child that has ended.
pub(crate) fn wait_any() -> Wait {
    let mut status = 0;
    loop {
        // SAFETY: a zeroed rusage is valid, and both pointers are to live locals.
        let (pid, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            let pid = libc::wait4(-1, &raw mut status, libc::WNOHANG | libc::__WALL, &raw mut usage);
            (pid, usage)
        };
        match pid {
            0 => return Wait::Pending,
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Wait::NoChild,
            pid => {
                let time = |time: libc::timeval| {
                    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
                        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
                };
                return Wait::Reaped(Waited {
                    pid,
                    status,
                    cpu: time(usage.ru_utime) + time(usage.ru_stime),
                    max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
                });
            }
        }
    }
}
