//! Starting a program: what its name means, its environment, its limits, its pipes.

use std::ffi::{CString, NulError};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::pipe::PipeFlags;
use rustix::process::{Resource, Rlimit};

use super::account::Account;
use super::box_dir::BoxDir;
use super::exec::{self, Image, Refused, Stack, Strings};
use super::reap;
use crate::sandbox::landlock::Domain;
use crate::sandbox::{CommandFilter, Shortage};
use crate::worker::protocol::{Run, WorkerPolicy};

/// Why nothing was started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SpawnError {
    /// The program's own fault.
    NotStarted(String),
    /// Ours.
    Failed(String),
}

/// What one child is started with, fixed once for a worker.
pub(crate) struct Spawner {
    policy: WorkerPolicy,
    /// Hard limits that the worker itself was given; none can be raised.
    cpu: Option<u64>,
    file: Option<u64>,
    open_files: Option<u64>,
    processes: Option<u64>,
    pid: i32,
    /// Signals that a child sets back to default.
    reset: Vec<i32>,
    stack: Stack,
    /// `/proc/self/clear_refs`, where it can be written.
    clear_refs: Option<File>,
    /// How commands are held in a sandbox.
    confined: Option<Confined>,
    /// Of commands that are cloned into a group.
    filter: CommandFilter,
    /// Where the kernel counts and limits what they use.
    pub(super) account: Option<Account>,
    /// Whether the machine has enough of what programs need.
    pub(super) shortage: Shortage,
}

/// What is different for the commands of a sandbox.
#[derive(Debug)]
pub(crate) struct Confined {
    /// The user and group that a command becomes; `None`: the worker's own.
    pub(crate) identity: Option<u32>,
    /// The kernel counts a user's processes for each sandbox by itself, so that it can limit them.
    pub(crate) counted: bool,
    /// What a command enters before it is executed.
    pub(crate) domain: Option<Domain>,
}

/// A started program, with our ends of its pipes; those never block.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    /// Readable once the process has ended.
    pub(crate) pidfd: OwnedFd,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Our end of the witness.
    pub(crate) witness: Option<OwnedFd>,
}

impl Spawner {
    /// Ignores the signals that must not end a worker, and notes the limits in force. `clear_refs` is this
    /// process's own file of that name.
    pub(crate) fn new(policy: WorkerPolicy, clear_refs: Option<File>, confined: Option<Confined>) -> Self {
        reap::return_large_buffers();
        let hard = |resource| rustix::process::getrlimit(resource).maximum;
        Self {
            policy,
            cpu: hard(Resource::Cpu),
            file: hard(Resource::Fsize),
            open_files: hard(Resource::Nofile),
            processes: hard(Resource::Nproc),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            reset: reap::ignore_signals(),
            stack: Stack::new(),
            clear_refs,
            confined,
            filter: CommandFilter::new(),
            account: None,
            shortage: Shortage::default(),
        }
    }

    /// Starts the program of `run`.
    pub(crate) fn start(&mut self, run: &Run, in_box: &BoxDir) -> Result<Started, SpawnError> {
        let Some(name) = run.argv.first() else {
            return Err(SpawnError::NotStarted("the command is empty".to_owned()));
        };
        let program = self.resolve(name)?;
        self.has_room(run.limits.processes)?;
        let (ours, theirs) = match &run.witness {
            Some(asked) => {
                let (ours, theirs) = witness(&asked.nonce).map_err(|error| failed("witness", &error))?;
                (Some(ours), Some(theirs))
            }
            None => (None, None),
        };
        let pipes = Pipes::new().map_err(|error| failed("pipes", &error))?;
        let by_nul = |_: NulError| SpawnError::NotStarted("an argument contains a NUL".to_owned());
        let first = if is_python(name) { program.as_str() } else { name.as_str() };
        let image = Image {
            argv: Strings::new(std::iter::once(first.to_owned()).chain(run.argv.iter().skip(1).cloned()))
                .map_err(by_nul)?,
            envp: Strings::new(self.environment(in_box).into_iter())
                .map_err(|_| SpawnError::Failed("the environment contains a NUL".to_owned()))?,
            dir: c_path(&in_box.path)?,
            program: CString::new(program).map_err(by_nul)?,
            limits: self.limits(run),
            stdio: pipes.theirs(),
            witness: theirs.as_ref().map(AsRawFd::as_raw_fd),
            parent: self.pid,
            identity: self.confined.as_ref().and_then(|confined| confined.identity),
            ruleset: self.confined.as_ref().and_then(|confined| Some(confined.domain.as_ref()?.ruleset())),
            birth: self.account.as_ref().and_then(|account| Some((account.birthplace()?, &self.filter))),
            reset: &self.reset,
        };
        self.forget_peak();
        let (pid, pidfd) = exec::launch(&image, &mut self.stack).map_err(|error| refused(name, error))?;
        let Pipes { stdin, stdout, stderr } = pipes;
        Ok(Started { pid, pidfd, stdin: stdin.1, stdout: stdout.0, stderr: stderr.0, witness: ours })
    }

    /// Whether a program gets the processes that it is allowed. If not, what it is refused would seem to be its doing.
    fn has_room(&self, processes: u32) -> Result<(), SpawnError> {
        match self.policy.processes {
            Some(most) if most < u64::from(processes) => Err(SpawnError::Failed(format!(
                "the user's limit of processes (ulimit -u) leaves {most} for a program that is allowed {processes}: raise it, or lower limits.processes or the number of workers"
            ))),
            _ => Ok(()),
        }
    }

    /// The peak resident size that a program is told of begins with that of the memory it was made in:
    /// the worker's, which earlier programs' outputs may have passed through.
    fn forget_peak(&self) {
        if let Some(mut file) = self.clear_refs.as_ref() {
            // Documented in proc(5): 5 resets the peak. Without it, the figure is too high.
            let _ = file.write(b"5");
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

    fn environment(&self, in_box: &BoxDir) -> Vec<String> {
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
        all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn limits(&self, run: &Run) -> Vec<(Resource, Rlimit)> {
        let limits = &run.limits;
        let both = |value: u64, hard: Option<u64>| {
            let value = hard.map_or(value, |hard| value.min(hard));
            Rlimit { current: Some(value), maximum: Some(value) }
        };
        // A backstop of one process behind the sampled limit of the tree.
        let cpu = limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0) + 1;
        let mut all = vec![
            (Resource::Cpu, both(cpu, self.cpu)),
            (Resource::Fsize, both(limits.file_bytes, self.file)),
            (Resource::Nofile, both(limits.open_files, self.open_files)),
        ];
        if self.confined.as_ref().is_some_and(|confined| confined.counted) {
            // A backstop behind the sampled limit, and far enough above it for a sample to see: a bomb that grows
            // faster than it is sampled would take the process numbers of the whole machine.
            let most = u64::from(limits.processes);
            all.push((Resource::Nproc, both(most + most / 2 + 32, self.processes)));
        }
        all
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

fn refused(name: &str, error: Refused) -> SpawnError {
    let error = match error {
        Refused::Process(error) => return failed("cannot start a process", &error),
        Refused::Program(error) => error,
    };
    let reason = format!("{name}: {error}");
    match error.raw_os_error().unwrap_or(libc::EIO) {
        // What is said of a program that was cut short, as a linker does where the disk is full.
        libc::EIO if name.contains('/') => SpawnError::NotStarted(reason),
        // The machine's want, not the program's.
        libc::EAGAIN | libc::ENOMEM | libc::ENFILE | libc::EIO | libc::EINTR => SpawnError::Failed(reason),
        _ => SpawnError::NotStarted(reason),
    }
}

/// The three pipes of a program, each as (read end, write end), all close-on-exec.
struct Pipes {
    stdin: (OwnedFd, OwnedFd),
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn new() -> io::Result<Self> {
        let pipe = || -> io::Result<_> { Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?) };
        let made = Self { stdin: pipe()?, stdout: pipe()?, stderr: pipe()? };
        // The program's ends are descriptions of their own, and block as everybody expects.
        for ours in [&made.stdin.1, &made.stdout.0, &made.stderr.0] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        Ok(made)
    }

    fn theirs(&self) -> [RawFd; 3] {
        [self.stdin.0.as_raw_fd(), self.stdout.1.as_raw_fd(), self.stderr.1.as_raw_fd()]
    }
}

/// A pair of sockets: ours has said the nonce and will say no more, theirs is inherited.
fn witness(nonce: &str) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    ours.write_all(nonce.as_bytes())?;
    ours.shutdown(std::net::Shutdown::Write)?;
    Ok((ours.into(), theirs.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use rstest::rstest;

    #[test]
    fn a_file_limit_never_exceeds_the_hard_one() {
        let spawner = Spawner {
            policy: WorkerPolicy {
                scratch_dir: "/".into(),
                interpreter: "/opt/python".into(),
                path: "/usr/bin:/bin".into(),
                processes: Some(5),
                environment: vec![("LANG".into(), "xx".into())],
                sandbox: None,
            },
            cpu: None,
            file: Some(5),
            open_files: None,
            processes: None,
            pid: 1,
            reset: vec![],
            stack: Stack::new(),
            clear_refs: None,
            confined: Some(Confined { identity: None, counted: true, domain: None }),
            filter: CommandFilter::new(),
            account: None,
            shortage: Shortage::default(),
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
        assert_eq!(values, [Some(3), Some(5), Some(20), Some(33)]);
        assert!(spawner.has_room(5).is_ok() && spawner.has_room(6).is_err());
        assert_eq!(spawner.resolve("python").unwrap(), "/opt/python");
        assert_eq!(spawner.resolve("./x").unwrap(), "./x");
        assert!(spawner.resolve("sh").unwrap().ends_with("/sh"));
        assert!(matches!(spawner.resolve("no-such-program"), Err(SpawnError::NotStarted(_))));
        assert!(matches!(spawner.resolve(""), Err(SpawnError::NotStarted(_))));
    }

    #[rstest]
    #[case("x", libc::ENOENT, Refused::Program, true)]
    #[case("x", libc::ENOEXEC, Refused::Program, true)]
    #[case("x", libc::E2BIG, Refused::Program, true)]
    #[case("./x", libc::EIO, Refused::Program, true)]
    #[case("x", libc::EIO, Refused::Program, false)]
    #[case("./x", libc::ENOMEM, Refused::Program, false)]
    #[case("x", libc::EAGAIN, Refused::Process, false)]
    #[case("x", libc::EACCES, Refused::Process, false)]
    fn whose_fault(
        #[case] name: &str,
        #[case] code: i32,
        #[case] whose: fn(io::Error) -> Refused,
        #[case] of_program: bool,
    ) {
        let error = refused(name, whose(io::Error::from_raw_os_error(code)));
        assert_eq!(matches!(error, SpawnError::NotStarted(_)), of_program);
    }
}
