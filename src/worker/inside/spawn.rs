//! Starting a program, and the few system calls that have no safe wrapper.
//!
//! The child is made by `std::process::Command`; what it does between fork and exec is in
//! [`prepare`] and is async-signal-safe: every string and array it uses was made before the fork.
//! It also executes by itself, because `execvp` would hand a file without `#!` to a shell.
#![expect(unsafe_code, reason = "pre_exec, wait4 and signal dispositions have no safe interface")]

use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use super::box_dir::BoxDir;
use crate::worker::protocol::{Run, WorkerPolicy};

/// Marks an errno of `chdir` or `execve`, told apart that way from one of our own preparations.
const OF_PROGRAM: i32 = 1 << 16;

/// The signals whose default action would end a worker and that can come from a terminal, from a
/// program with our uid, or from a closed pipe.
const IGNORED: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE];

/// Why nothing was started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SpawnError {
    /// The program's own fault.
    NotStarted(String),
    /// Ours.
    Failed(String),
}

/// What one child is started with, fixed once for a worker.
#[derive(Debug)]
pub(crate) struct Spawner {
    policy: WorkerPolicy,
    /// Hard limits that the worker itself was given; none can be raised.
    cpu: Option<u64>,
    file: Option<u64>,
    open_files: Option<u64>,
    pid: libc::pid_t,
    /// Signals to set back to default: ours and those that we inherited as ignored.
    reset: Vec<libc::c_int>,
}

/// A started program.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its pipes and its process id; never waited for through this handle.
    pub(crate) child: Child,
    /// Our end of the witness.
    pub(crate) witness: Option<UnixStream>,
}

impl Spawner {
    /// Ignores the signals that must not end a worker, and notes the limits in force.
    pub(crate) fn new(policy: WorkerPolicy) -> Self {
        let mut reset = Vec::new();
        for signal in 1..=64 {
            // SAFETY: a zeroed sigaction is a valid value to be overwritten, a null new action only
            // queries, and the kernel refuses numbers that are not signals.
            let ignored = unsafe {
                let mut old: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0
                    && old.sa_sigaction == libc::SIG_IGN
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
        // A fixed threshold: large buffers go back to the system at once. Else glibc raises it and keeps
        // them, and a forked child's peak resident size begins with what its parent holds.
        // SAFETY: sets a number in the allocator of this one-threaded process.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        }
        let hard = |resource| rustix::process::getrlimit(resource).maximum;
        Self {
            policy,
            cpu: hard(Resource::Cpu),
            file: hard(Resource::Fsize),
            open_files: hard(Resource::Nofile),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            reset,
        }
    }

    /// Starts the program of `run`.
    pub(crate) fn start(&self, run: &Run, in_box: &BoxDir) -> Result<Started, SpawnError> {
        let Some(name) = run.argv.first() else {
            return Err(SpawnError::NotStarted("the command is empty".to_owned()));
        };
        let program = self.resolve(name)?;
        let (ours, theirs) = match &run.witness {
            Some(nonce) => {
                let (ours, theirs) = witness(nonce).map_err(|error| failed("witness", &error))?;
                (Some(ours), Some(theirs))
            }
            None => (None, None),
        };
        let by_nul = |_: NulError| SpawnError::NotStarted("an argument contains a NUL".to_owned());
        let first = if is_python(name) { program.as_str() } else { name.as_str() };
        let image = Image {
            argv: Strings::new(std::iter::once(first.to_owned()).chain(run.argv.iter().skip(1).cloned()))
                .map_err(by_nul)?,
            envp: Strings::new(self.environment(in_box, theirs.as_ref()).into_iter())
                .map_err(|_| SpawnError::Failed("the environment contains a NUL".to_owned()))?,
            box_path: c_path(&in_box.path)?,
            program: CString::new(program.as_str()).map_err(by_nul)?,
            limits: self.limits(run),
            witness: theirs.as_ref().map(AsRawFd::as_raw_fd),
            parent: self.pid,
            reset: self.reset.clone(),
        };
        let mut command = Command::new(&program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: `prepare` makes only async-signal-safe calls and allocates nothing.
        unsafe { command.pre_exec(move || Err(prepare(&image))) };
        match command.spawn() {
            Ok(child) => Ok(Started { child, witness: ours }),
            Err(error) => Err(refused(name, &error)),
        }
    }

    /// What `argv[0]` means: with a `/` a path relative to the box, `python3` and `python` the
    /// interpreter of the policy, else the first match in `PATH`. The box itself is never searched.
    fn resolve(&self, name: &str) -> Result<String, SpawnError> {
        if name.contains('/') {
            return Ok(name.to_owned());
        }
        if is_python(name) {
            return Ok(self.policy.interpreter.to_string_lossy().into_owned());
        }
        let mut denied = false;
        // An empty name would match the directories themselves.
        for dir in self.policy.path.split(':').filter(|dir| dir.starts_with('/') && !name.is_empty()) {
            let candidate = format!("{dir}/{name}");
            if !Path::new(&candidate).is_file() {
                continue;
            }
            if rustix::fs::access(candidate.as_str(), rustix::fs::Access::EXEC_OK).is_ok() {
                return Ok(candidate);
            }
            denied = true;
        }
        let reason = if denied { "permission denied" } else { "command not found" };
        Err(SpawnError::NotStarted(format!("{name}: {reason}")))
    }

    fn environment(&self, in_box: &BoxDir, witness: Option<&OwnedFd>) -> Vec<String> {
        let policy = &self.policy;
        let mut all = vec![
            ("PATH", policy.path.clone()),
            ("HOME", in_box.path.to_string_lossy().into_owned()),
            ("TMPDIR", in_box.tmp.to_string_lossy().into_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ];
        all.retain(|(name, _)| !policy.environment.iter().any(|(set, _)| set == name));
        all.extend(policy.environment.iter().map(|(name, value)| (name.as_str(), value.clone())));
        all.extend(witness.map(|fd| ("EVALMILL_WITNESS_FD", fd.as_raw_fd().to_string())));
        all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn limits(&self, run: &Run) -> [(Resource, Rlimit); 4] {
        let limits = &run.limits;
        let both = |value: u64, hard: Option<u64>| {
            let value = hard.map_or(value, |hard| value.min(hard));
            Rlimit { current: Some(value), maximum: Some(value) }
        };
        // A backstop of one process behind the sampled limit of the tree.
        let cpu = limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0) + 1;
        [
            (Resource::Core, both(0, None)),
            (Resource::Cpu, both(cpu, self.cpu)),
            (Resource::Fsize, both(limits.file_bytes, self.file)),
            (Resource::Nofile, both(limits.open_files, self.open_files)),
        ]
    }
}

fn is_python(name: &str) -> bool {
    matches!(name, "python3" | "python")
}

fn failed(what: &str, error: &io::Error) -> SpawnError {
    SpawnError::Failed(format!("{what}: {error}"))
}

fn c_path(path: &Path) -> Result<CString, SpawnError> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|error| failed("box path", &error.into()))
}

fn refused(name: &str, error: &io::Error) -> SpawnError {
    let code = error.raw_os_error().unwrap_or(0);
    if code & OF_PROGRAM == 0 {
        return failed("cannot start a process", error);
    }
    let error = io::Error::from_raw_os_error(code & !OF_PROGRAM);
    let reason = format!("{name}: {error}");
    match code & !OF_PROGRAM {
        // The machine's want, not the program's.
        libc::EAGAIN | libc::ENOMEM | libc::ENFILE | libc::EIO | libc::EINTR => SpawnError::Failed(reason),
        _ => SpawnError::NotStarted(reason),
    }
}

/// A pair of sockets: ours has said the nonce and will say no more, theirs is inherited.
fn witness(nonce: &str) -> io::Result<(UnixStream, OwnedFd)> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    io::Write::write_all(&mut ours, nonce.as_bytes())?;
    ours.shutdown(std::net::Shutdown::Write)?;
    Ok((ours, theirs.into()))
}

/// Strings with the null-terminated pointer array that `execve` wants.
struct Strings {
    pointers: Vec<*const libc::c_char>,
    /// What the pointers point to.
    _owned: Vec<CString>,
}

impl Strings {
    fn new(strings: impl Iterator<Item = String>) -> Result<Self, NulError> {
        let owned = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|one| one.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { pointers, _owned: owned })
    }
}

/// Everything that the child uses before it executes.
struct Image {
    program: CString,
    argv: Strings,
    envp: Strings,
    box_path: CString,
    limits: [(Resource, Rlimit); 4],
    witness: Option<libc::c_int>,
    parent: libc::pid_t,
    reset: Vec<libc::c_int>,
}

// SAFETY: the pointers point into the heap buffers of `CString`s that the same value owns and never
// changes; nothing is bound to a thread.
unsafe impl Send for Image {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for Image {}

/// Runs in the child; returns only with an error. Async-signal-safe, allocates nothing.
fn prepare(image: &Image) -> io::Error {
    match prepare_and_exec(image) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare_and_exec(image: &Image) -> io::Result<std::convert::Infallible> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // SAFETY: plain system calls on integers, all async-signal-safe.
    unsafe {
        // The worker may have gone before the line above took effect.
        if libc::getppid() != image.parent {
            libc::_exit(1);
        }
        if libc::setsid() == -1 {
            return Err(io::Error::last_os_error());
        }
        for &signal in &image.reset {
            libc::signal(signal, libc::SIG_DFL);
        }
        // A flag and not a close: the pipe by which std reports a failed start must live until exec.
        if libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) == -1 {
            return Err(io::Error::last_os_error());
        }
        if let Some(fd) = image.witness
            && libc::fcntl(fd, libc::F_SETFD, 0) == -1
        {
            return Err(io::Error::last_os_error());
        }
        if libc::chdir(image.box_path.as_ptr()) == -1 {
            return Err(of_program());
        }
    }
    // Last: they bind this process, too.
    for (resource, limit) in &image.limits {
        rustix::process::setrlimit(*resource, *limit)?;
    }
    // SAFETY: the path is a C string, and both arrays end with a null and point to C strings that
    // outlive the call.
    unsafe {
        libc::execve(image.program.as_ptr(), image.argv.pointers.as_ptr(), image.envp.pointers.as_ptr());
    }
    Err(of_program())
}

fn of_program() -> io::Error {
    let code = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    io::Error::from_raw_os_error(code | OF_PROGRAM)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_file_limit_never_exceeds_the_hard_one() {
        let spawner = Spawner {
            policy: WorkerPolicy {
                scratch_dir: "/".into(),
                interpreter: "/opt/python".into(),
                path: "/usr/bin:/bin".into(),
                environment: vec![("LANG".into(), "xx".into())],
            },
            cpu: None,
            file: Some(5),
            open_files: None,
            pid: 1,
            reset: vec![],
        };
        let limits = crate::worker::protocol::RunLimits {
            wall: Duration::from_secs(1),
            cpu: Duration::from_millis(1500),
            memory_bytes: 1,
            output_bytes: 1,
            processes: 1,
            file_bytes: 10,
            open_files: 20,
        };
        let run = Run { argv: vec![], stdin: vec![], witness: None, limits };
        let values: Vec<_> = spawner.limits(&run).iter().map(|(_, limit)| limit.maximum).collect();
        assert_eq!(values, [Some(0), Some(3), Some(5), Some(20)]);
        assert_eq!(spawner.resolve("python").unwrap(), "/opt/python");
        assert_eq!(spawner.resolve("./x").unwrap(), "./x");
        assert!(spawner.resolve("sh").unwrap().ends_with("/sh"));
        assert!(matches!(spawner.resolve("no-such-program"), Err(SpawnError::NotStarted(_))));
        assert!(matches!(spawner.resolve(""), Err(SpawnError::NotStarted(_))));
    }

    #[rstest]
    #[case(libc::ENOENT | OF_PROGRAM, true)]
    #[case(libc::ENOEXEC | OF_PROGRAM, true)]
    #[case(libc::E2BIG | OF_PROGRAM, true)]
    #[case(libc::ENOMEM | OF_PROGRAM, false)]
    #[case(libc::EAGAIN, false)]
    #[case(libc::EACCES, false)]
    fn whose_fault(#[case] code: i32, #[case] of_program: bool) {
        let error = refused("x", &io::Error::from_raw_os_error(code));
        assert_eq!(matches!(error, SpawnError::NotStarted(_)), of_program);
    }
}
