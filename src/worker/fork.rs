//! What no safe wrapper has: fork, signal dispositions, putting a descriptor under epoll, handing a
//! descriptor over an exec. Nothing here knows about workers.
#![expect(unsafe_code, reason = "fork, sigaction, pre_exec, adopting and registering descriptors")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forked {
    /// The old process, and the new one's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks this process, which must have exactly one thread.
pub(crate) fn fork() -> io::Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "the launcher has {threads} threads instead of one: evalmill::init() must come first in main"
        )));
    }
    // SAFETY: the process has one thread, so no lock can be held by a thread that the child lacks.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(Forked::Child),
        // Of a negative number no `Pid` may be made.
        1.. => Pid::from_raw(pid).map(Forked::Parent).ok_or_else(io::Error::last_os_error),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ignores what a terminal or an operator sends to stop the service (the launcher ends when its
/// socket does), makes children waitable, and blocks nothing.
pub(crate) fn ignore_stop_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        // SAFETY: SIG_IGN installs no handler; the numbers are valid.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: as above; the set is initialised by sigemptyset before it is read.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Lets the command inherit the descriptor under its own number. The descriptor stays
/// close-on-exec in this process, so no other child gets it; it must stay open until the spawn.
pub(crate) fn pass_descriptor(command: &mut tokio::process::Command, descriptor: BorrowedFd<'_>) {
    let number = descriptor.as_raw_fd();
    let clear = move || {
        // SAFETY: fcntl is async-signal-safe and touches no memory; a closed number is an error.
        if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure calls only async-signal-safe functions and does not allocate.
    unsafe { command.pre_exec(clear) };
}

/// Closes everything that this process was started with but its standard streams and `kept`: what the
/// service was itself started with is no business of its workers'.
pub(crate) fn close_inherited(kept: RawFd) {
    let kept = u32::try_from(kept).unwrap_or(2).max(2);
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: this process has just started and opened nothing yet, so nobody owns these numbers.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// Adopts a packet socket that this process was started with; `None` if the number is no such
/// socket.
pub(crate) fn adopt_packet_socket(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl touches no memory; a closed number is an error.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: the number is open (above), and this process, just started and single-threaded, has
    // no other owner of a descriptor that it inherited.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    match rustix::net::sockopt::socket_type(borrowed) {
        // SAFETY: as above; adopted once, from `launcher_entry`.
        Ok(rustix::net::SocketType::SEQPACKET) => Some(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => None,
    }
}

/// Puts a descriptor under the runtime's eyes.
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its one descriptor open until it is dropped, and `AsyncFd` owns
    // it from here and drops it only after deregistering.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
