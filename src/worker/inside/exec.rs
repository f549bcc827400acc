//! A new process running a program: clone and exec in one step.
//!
//! The child borrows the worker's memory until it executes (`CLONE_VM | CLONE_VFORK`), so nothing is
//! copied for it, however large the worker; the worker stands still meanwhile. What the child does
//! is in [`prepare_and_exec`]: system calls over strings and arrays that were made before, on a stack
//! of its own. It calls `execve` itself, because `execvp` would hand a file without `#!` to a shell.
#![expect(unsafe_code, reason = "clone, execve and what comes between have no safe interface")]

use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::process::{Resource, Rlimit};

use crate::sandbox::landlock::restrict;
use crate::sandbox::{CommandFilter, clone3};

/// Where a program finds its witness.
pub(super) const WITNESS_FD: RawFd = 3;

/// Bytes of the child's stack; it uses a few hundred, ten times that without optimisation.
const STACK_BYTES: usize = 64 << 10;

/// Strings with the null-terminated pointer array that `execve` wants.
pub(super) struct Strings {
    pointers: Vec<*const libc::c_char>,
    /// What the pointers point to.
    _owned: Vec<CString>,
}

impl Strings {
    pub(super) fn new(strings: impl Iterator<Item = String>) -> Result<Self, NulError> {
        let owned = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|one| one.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { pointers, _owned: owned })
    }
}

/// Everything that the child uses before it executes.
pub(super) struct Image<'a> {
    pub(super) program: CString,
    pub(super) argv: Strings,
    pub(super) envp: Strings,
    /// Working directory.
    pub(super) dir: CString,
    pub(super) limits: Vec<(Resource, Rlimit)>,
    /// The program's ends of standard input, output and error; above [`WITNESS_FD`].
    pub(super) stdio: [RawFd; 3],
    /// Becomes [`WITNESS_FD`]; above it.
    pub(super) witness: Option<RawFd>,
    /// The process that must be the parent: this one.
    pub(super) parent: libc::pid_t,
    /// The user and group to become; `None`: the worker's own.
    pub(super) identity: Option<u32>,
    /// The Landlock ruleset to be held by; above [`WITNESS_FD`].
    pub(super) ruleset: Option<RawFd>,
    /// The cgroup to be born in, and what takes the means to that from the program.
    pub(super) birth: Option<(BorrowedFd<'a>, &'a CommandFilter)>,
    /// Signals to set back to default.
    pub(super) reset: &'a [libc::c_int],
}

/// Why the program does not run.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is no process, or it could not be prepared.
    Process(io::Error),
    /// Its directory cannot be entered, or the program not be executed.
    Program(io::Error),
}

/// The child's stack, used by one child after another.
pub(super) struct Stack(Vec<u128>);

impl Stack {
    pub(super) fn new() -> Self {
        Self(vec![0; STACK_BYTES / size_of::<u128>()])
    }
}

/// What parent and child share.
struct Shared<'a> {
    image: &'a Image<'a>,
    /// The errno of what failed; 0: nothing did.
    errno: AtomicI32,
    of_program: AtomicBool,
}

/// Starts the program; answers its process id and a pidfd, close-on-exec.
pub(super) fn launch(image: &Image<'_>, stack: &mut Stack) -> Result<(i32, OwnedFd), Refused> {
    if image
        .stdio
        .iter()
        .chain(&image.witness)
        .chain(&image.ruleset)
        .any(|descriptor| *descriptor <= WITNESS_FD)
    {
        return Err(Refused::Process(io::Error::other("a standard descriptor of the worker is closed")));
    }
    let mut shared = Shared { image, errno: AtomicI32::new(0), of_program: AtomicBool::new(false) };
    let (pid, pidfd) = clone(&mut shared, stack).map_err(Refused::Process)?;
    let errno = shared.errno.load(Ordering::Relaxed);
    if errno == 0 {
        return Ok((pid, pidfd));
    }
    // It has ended, or is about to without another step of ours.
    let _ =
        rustix::process::waitpid(rustix::process::Pid::from_raw(pid), rustix::process::WaitOptions::empty());
    let error = io::Error::from_raw_os_error(errno);
    Err(if shared.of_program.load(Ordering::Relaxed) {
        Refused::Program(error)
    } else {
        Refused::Process(error)
    })
}

/// Makes the child; answers when it has executed or ended.
fn clone(shared: &mut Shared<'_>, stack: &mut Stack) -> io::Result<(i32, OwnedFd)> {
    let group = shared.image.birth.map(|(group, _)| group);
    let argument = (&raw mut *shared).cast();
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack's end is aligned to 16 bytes and belongs to this call alone; `child` returns
    // or executes before `clone` does, so everything it borrows outlives it. With its own tables of
    // descriptors and signals it can change neither of ours, and the worker has no handlers but
    // those for faults of its own.
    unsafe {
        if let Some(group) = group {
            return clone3::vfork(group, &mut stack.0, child, argument);
        }
        let end = stack.0.as_mut_ptr_range().end.cast();
        match libc::clone(child, end, flags, argument, &raw mut pidfd) {
            -1 => Err(io::Error::last_os_error()),
            // The kernel has just made the pidfd for us, and nobody else knows it.
            pid => Ok((pid, OwnedFd::from_raw_fd(pidfd))),
        }
    }
}

extern "C" fn child(shared: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `launch` passes a `Shared` and waits, suspended, until this process lets go of it.
    let shared = unsafe { &*shared.cast::<Shared<'_>>() };
    let (error, of_program) = match prepare_and_exec(shared.image) {
        Ok(never) => match never {},
        Err(Refused::Process(error)) => (error, false),
        Err(Refused::Program(error)) => (error, true),
    };
    shared.of_program.store(of_program, Ordering::Relaxed);
    shared
        .errno
        .store(error.raw_os_error().filter(|code| *code != 0).unwrap_or(libc::EIO), Ordering::Relaxed);
    127
}

/// Runs in the child. Async-signal-safe, allocates nothing.
fn prepare_and_exec(image: &Image<'_>) -> Result<std::convert::Infallible, Refused> {
    let ours = |error: rustix::io::Errno| Refused::Process(error.into());
    if let Some(id) = image.identity {
        // First: the kernel forgets the parent-death signal with it. By number, because libc's own would go
        // about the threads of the worker.
        // SAFETY: system calls on integers.
        unsafe {
            if libc::syscall(libc::SYS_setresgid, id, id, id) == -1
                || libc::syscall(libc::SYS_setresuid, id, id, id) == -1
            {
                return Err(process());
            }
        }
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(ours)?;
    // SAFETY: plain system calls on integers.
    unsafe {
        // The worker may have gone before the line above took effect.
        if libc::getppid() != image.parent {
            libc::_exit(1);
        }
        if libc::setsid() == -1 {
            return Err(process());
        }
        for &signal in image.reset {
            libc::signal(signal, libc::SIG_DFL);
        }
        // A duplicate is not close-on-exec; each of the originals lies above all targets.
        for (target, &descriptor) in (0..).zip(&image.stdio) {
            if libc::dup2(descriptor, target) == -1 {
                return Err(process());
            }
        }
        let mut last = 2;
        if let Some(witness) = image.witness {
            if libc::dup2(witness, WITNESS_FD) == -1 {
                return Err(process());
            }
            last = WITNESS_FD;
        }
        // Before its descriptor is closed; what follows opens nothing but the program.
        if let Some(ruleset) = image.ruleset {
            restrict(ruleset).map_err(Refused::Process)?;
        }
        if libc::syscall(libc::SYS_close_range, last + 1, u32::MAX, 0) == -1 {
            return Err(process());
        }
        if libc::chdir(image.dir.as_ptr()) == -1 {
            return Err(program());
        }
    }
    if let Some((_, filter)) = image.birth {
        filter.install().map_err(Refused::Process)?;
    }
    // Last: they bind this process, too.
    for (resource, limit) in &image.limits {
        rustix::process::setrlimit(*resource, *limit).map_err(ours)?;
    }
    // SAFETY: the path is a C string, and both arrays end with a null and point to C strings that
    // outlive the call.
    unsafe {
        libc::execve(image.program.as_ptr(), image.argv.pointers.as_ptr(), image.envp.pointers.as_ptr());
    }
    Err(program())
}

fn process() -> Refused {
    Refused::Process(io::Error::last_os_error())
}

fn program() -> Refused {
    Refused::Program(io::Error::last_os_error())
}
