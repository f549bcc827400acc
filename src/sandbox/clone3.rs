//! `clone3`: processes that are born in a cgroup of version 2, which no other call can make.
//!
//! The kernel lets a process be born in a group where its parent could move it there: that takes the right to write
//! `cgroup.procs` of the group and of the lowest group above both, and both have to be seen from the parent's
//! cgroup namespace. Linux 5.7 or newer.
#![expect(unsafe_code, reason = "clone3 has no safe interface, nor any in libc")]

use std::arch::asm;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, WaitOptions};

/// From linux/sched.h; libc's is cut to 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a new process runs; answers its exit code.
pub type Entry = extern "C" fn(*mut libc::c_void) -> libc::c_int;

/// A child: its number, and its pidfd, close-on-exec.
type Child = (i32, OwnedFd);

/// `struct clone_args` of linux/sched.h, as of Linux 5.7.
#[repr(C, align(8))]
#[derive(Default)]
struct Args {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl Args {
    fn new(flags: u64, group: BorrowedFd<'_>, pidfd: &mut libc::c_int) -> Self {
        let pidfd: *mut libc::c_int = pidfd;
        Self {
            flags: flags | libc::CLONE_PIDFD as u64 | CLONE_INTO_CGROUP,
            pidfd: pidfd as u64,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: u64::from(group.as_raw_fd().unsigned_abs()),
            ..Self::default()
        }
    }
}

/// A copy of this process in the group, as by `fork`; `None`: this is it.
///
/// # Safety
/// This process has one thread: no lock can be held by a thread that the child lacks.
///
/// # Errors
/// As the kernel says.
pub(super) unsafe fn fork(namespaces: u64, group: BorrowedFd<'_>) -> io::Result<Option<Child>> {
    let mut pidfd: libc::c_int = -1;
    let args = Args::new(namespaces, group, &mut pidfd);
    // SAFETY: the arguments are of the size that is said, and outlive the call. Without CLONE_VM the child has a
    // copy of everything, on the same stack; one thread is promised.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<Args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => born(pid, pidfd).map(Some),
    }
}

/// A process in the group that runs `entry` on `stack` in this one's memory, as by `vfork`: this thread stands
/// still until it executes a program or ends.
///
/// # Safety
/// `entry` with `argument` keeps to what may be done after `vfork`, and does not unwind.
///
/// # Errors
/// As the kernel says.
pub unsafe fn vfork(
    group: BorrowedFd<'_>,
    stack: &mut [u128],
    entry: Entry,
    argument: *mut libc::c_void,
) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let mut args = Args::new((libc::CLONE_VM | libc::CLONE_VFORK) as u64, group, &mut pidfd);
    // Aligned to 16 bytes, as its end is.
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = size_of_val(stack) as u64;
    // SAFETY: the stack belongs to this call alone, and everything that the child borrows outlives it.
    let pid = unsafe { call(&args, entry, argument) };
    born(pid, pidfd)
}

/// Where the call fails, minus the errno. In the child it does not return: nothing of the stack that the compiler
/// knows is there.
#[cfg(target_arch = "x86_64")]
unsafe fn call(args: &Args, entry: Entry, argument: *mut libc::c_void) -> i64 {
    let mut answer = libc::SYS_clone3;
    // SAFETY: in the parent, a system call: the kernel changes rax, rcx and r11 alone. In the child, on its own
    // stack, `entry` is called as the ABI asks for, and the process ends with what it answers.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {entry}",
            "mov edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            entry = in(reg) entry,
            argument = in(reg) argument,
            exit = const libc::SYS_exit,
            inout("rax") answer,
            in("rdi") args,
            in("rsi") size_of::<Args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    answer
}

/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn call(args: &Args, entry: Entry, argument: *mut libc::c_void) -> i64 {
    let mut answer = std::ptr::from_ref(args) as i64;
    // SAFETY: as above; the kernel changes x0 alone.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {argument}",
            "blr {entry}",
            "mov x8, #{exit}",
            "svc #0",
            "brk #1",
            "2:",
            entry = in(reg) entry,
            argument = in(reg) argument,
            exit = const libc::SYS_exit,
            inout("x0") answer,
            in("x1") size_of::<Args>(),
            in("x8") libc::SYS_clone3,
        );
    }
    answer
}

fn born(pid: i64, pidfd: libc::c_int) -> io::Result<Child> {
    match i32::try_from(pid) {
        Ok(errno @ ..0) => Err(io::Error::from_raw_os_error(-errno)),
        // SAFETY: the kernel has just made the pidfd for us, and nobody else knows it.
        Ok(pid) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        Err(_) => Err(io::Error::other("clone3 answered no process")),
    }
}

/// Makes a process in the group that does nothing.
///
/// # Errors
/// As the kernel says.
pub(super) fn try_in(group: BorrowedFd<'_>) -> io::Result<()> {
    extern "C" fn nothing(_: *mut libc::c_void) -> libc::c_int {
        0
    }
    // SAFETY: it does nothing.
    let (pid, _pidfd) = unsafe { vfork(group, &mut [0; 512], nothing, std::ptr::null_mut()) }?;
    rustix::io::retry_on_intr(|| rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;
    use crate::sandbox::cgroup::Group;

    /// What the child of the test is given.
    struct Seen {
        table: [u8; 4096],
        have: isize,
        stack: usize,
    }

    extern "C" fn look(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the test passes its `Seen`, and stands still.
        let seen = unsafe { &mut *argument.cast::<Seen>() };
        seen.stack = (&raw const argument) as usize;
        // SAFETY: async-signal-safe calls on a path and a buffer that are there.
        unsafe {
            let file = libc::open(c"/proc/self/cgroup".as_ptr(), libc::O_RDONLY);
            seen.have = libc::read(file, seen.table.as_mut_ptr().cast(), seen.table.len());
            libc::close(file);
        }
        7
    }

    #[test]
    fn a_process_is_born_in_the_group_on_its_own_stack() {
        let Some(group) = Group::new() else { return };
        let dir = File::open(group.path()).unwrap();
        let mut stack = vec![0u128; 4096];
        let mut seen = Seen { table: [0; 4096], have: -1, stack: 0 };
        // SAFETY: `look` keeps to async-signal-safe calls and does not unwind.
        let (pid, pidfd) = unsafe { vfork(dir.as_fd(), &mut stack, look, (&raw mut seen).cast()) }.unwrap();
        let status = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().unwrap().1;
        assert_eq!(status.exit_status(), Some(7));
        assert!(rustix::io::fcntl_getfd(&pidfd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        let range = stack.as_ptr_range();
        assert!((range.start as usize..range.end as usize).contains(&seen.stack));
        let table = String::from_utf8_lossy(&seen.table[..usize::try_from(seen.have).unwrap()]);
        let name = group.path().file_name().unwrap().to_str().unwrap();
        assert!(table.lines().any(|line| line.starts_with("0::/") && line.ends_with(name)), "{table}");
    }

    #[test]
    fn what_is_no_group_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = try_in(File::open(dir.path()).unwrap().as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let Some(group) = Group::new() else { return };
        let gone = File::open(group.path()).unwrap();
        fs::remove_dir(group.path()).unwrap();
        let error = try_in(gone.as_fd()).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)), "{error}");
    }
}
