//! A new process, in new namespaces or not: `clone` with the meaning of `fork`.
//!
//! Nothing is shared with the parent, and libc's own fork handlers do not run, so the caller has one
//! thread. `clone` and not `unshare`: the child is process 1 of its namespace, and the parent's own
//! namespaces stay as they are.
#![expect(unsafe_code, reason = "clone and unshare have no safe interface")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::clone3;

/// A child, seen from its parent.
#[derive(Debug)]
pub struct Born {
    /// Its process id here.
    pub pid: Pid,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Makes the child; `None`: this is it. It has no ids yet and must wait for them. Born in a group of version 2,
/// it is to make its own cgroup namespace there.
///
/// # Errors
/// More than one thread, or as the kernel says.
pub(super) fn clone_away(network: bool, group: Option<BorrowedFd<'_>>) -> io::Result<Option<Born>> {
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    if group.is_none() {
        flags |= libc::CLONE_NEWCGROUP;
    }
    if !network {
        flags |= libc::CLONE_NEWNET;
    }
    clone(flags, group)
}

/// Makes the group that this process is in the root of what it, and what it starts, sees of the groups of version 2.
///
/// # Errors
/// As the kernel says.
pub(super) fn own_cgroup_namespace() -> io::Result<()> {
    // SAFETY: of the flags, only CLONE_FILES is a matter of memory safety.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?)
}

/// Makes a child in the namespaces of this process; `None`: this is it.
///
/// # Errors
/// As [`clone_away`].
pub(super) fn fork() -> io::Result<Option<Born>> {
    clone(0, None)
}

fn clone(namespaces: libc::c_int, group: Option<BorrowedFd<'_>>) -> io::Result<Option<Born>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "{threads} threads instead of one: evalmill::init() must come first in main"
        )));
    }
    let numbered = |pid: i64, pidfd| {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Ok(Some(Born { pid: pid.ok_or_else(|| io::Error::other("clone answered no process"))?, pidfd }))
    };
    if let Some(group) = group {
        // SAFETY: there is one thread.
        let child = unsafe { clone3::fork(u64::from(namespaces.unsigned_abs()), group) }?;
        return child.map_or(Ok(None), |(pid, pidfd)| numbered(pid.into(), pidfd));
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
        // SAFETY: the kernel has just made the pidfd for us, and nobody else knows it.
        pid => numbered(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }),
    }
}
