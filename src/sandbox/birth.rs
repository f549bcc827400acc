//! A new process, in new namespaces or not: `clone` with the meaning of `fork`.
//!
//! Nothing is shared with the parent, and libc's own fork handlers do not run, so the caller has one
//! thread. `clone` and not `unshare`: the child is process 1 of its namespace, and the parent's own
//! namespaces stay as they are.
#![expect(unsafe_code, reason = "clone has no safe interface")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::Pid;

/// A child, seen from its parent.
#[derive(Debug)]
pub struct Born {
    /// Its process id here.
    pub pid: Pid,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Makes the child; `None`: this is it. It has no ids yet and must wait for them.
///
/// # Errors
/// More than one thread, or as the kernel says.
pub(super) fn clone_away(network: bool) -> io::Result<Option<Born>> {
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if !network {
        flags |= libc::CLONE_NEWNET;
    }
    clone(flags)
}

/// Makes a child in the namespaces of this process; `None`: this is it.
///
/// # Errors
/// As [`clone_away`].
pub(super) fn fork() -> io::Result<Option<Born>> {
    clone(0)
}

fn clone(namespaces: libc::c_int) -> io::Result<Option<Born>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "{threads} threads instead of one: evalmill::init() must come first in main"
        )));
    }
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: libc::c_int = -1;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM the child has a copy of everything, on the same stack (a null stack);
    // there is one thread, so no lock can be held by a thread that the child lacks. The kernel
    // writes the pidfd through the third argument, on every architecture that has CLONE_PIDFD; the
    // others are unused.
    let pid = unsafe { libc::syscall(libc::SYS_clone, i64::from(flags), none, &raw mut pidfd, none, none) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            // SAFETY: the kernel has just made it for us, and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some(Born { pid: pid.ok_or_else(|| io::Error::other("clone answered no process"))?, pidfd }))
        }
    }
}
