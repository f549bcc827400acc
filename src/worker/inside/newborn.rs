//! A worker that was just born into namespaces: it waits to be let go, takes itself behind its walls, and
//! says to the launcher that it is ready, or which layer failed.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::{self, Account};
use super::box_dir::Home;
use super::command::{self, Outcome};
use super::reap;
use super::shared::{EMPTIED, Shared};
use super::spawn::{Confined, Spawner};
use crate::sandbox::cgroup::Job;
use crate::sandbox::{BOX_DIR, Ids, Layer, Missing, Plan};
use crate::worker::packet;
use crate::worker::protocol::{Ended, Run, RunLimits, WorkerPolicy};

/// How long the interpreter may take to do nothing.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What a worker in a sandbox is born with.
#[derive(Debug)]
pub struct Newborn {
    /// How it is isolated.
    pub plan: Plan,
    /// Who it is.
    pub ids: Ids,
    /// Its end of the socket on which it is let go and answers, once.
    pub control: OwnedFd,
    /// Where its commands are counted and limited; `None`: they are watched.
    pub job: Option<Box<Job>>,
}

/// What a worker needs to serve.
pub(super) struct Settled {
    pub(super) home: Home,
    pub(super) spawner: Spawner,
    pub(super) shared: Vec<Shared>,
}

impl Settled {
    fn with(mut self, account: Option<Account>) -> Self {
        self.spawner.account = account;
        self
    }
}

impl Newborn {
    /// Becomes a worker and serves; `None`: it could not, and has said so.
    pub(super) fn live(
        mut self,
        policy: WorkerPolicy,
        serve: impl FnOnce(Settled) -> i32 + Send,
    ) -> Option<i32> {
        if !self.wait() {
            return None;
        }
        let job = self.job.take();
        let served = self.enter(policy).and_then(|settled| {
            runner(job, |account| {
                self.answer(&Ok(()));
                serve(settled.with(account))
            })
        });
        match served {
            Ok(code) => Some(code),
            Err(missing) => {
                self.answer(&Err(missing));
                None
            }
        }
    }

    /// The throw-away worker that shows whether all of it works: runs the interpreter as a program would be run.
    pub(crate) fn probe(mut self, policy: WorkerPolicy) {
        if self.wait() {
            let job = self.job.take();
            let tried =
                self.enter(policy).and_then(|settled| runner(job, |account| try_all(settled.with(account))));
            self.answer(&tried.and_then(|tried| tried));
        }
    }

    /// Until the launcher has written the ids; `false`: it is gone.
    fn wait(&self) -> bool {
        matches!(packet::receive::<u8>(self.control.as_fd()), Ok(Some(_)))
    }

    fn answer(&self, answer: &Result<(), Missing>) {
        // A launcher that is gone needs no answer; the worker's socket is closed then, too.
        if let Ok(body) = packet::encode(answer) {
            let _ = packet::send(self.control.as_fd(), &body, None);
        }
    }

    fn enter(&self, policy: WorkerPolicy) -> Result<Settled, Missing> {
        let entered = self.plan.enter(self.ids, &policy.scratch_dir)?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let interpreter = self.plan.trees.interpreter.clone();
        let policy = WorkerPolicy {
            scratch_dir: PathBuf::from(BOX_DIR),
            path: path_with(&policy, &interpreter),
            interpreter,
            sandbox: None,
            ..policy
        };
        let confined = Confined { identity: self.ids.program(), counted: self.ids.counts_processes() };
        let spawner = Spawner::new(policy, entered.clear_refs, Some(confined));
        reap::reset_fault_handlers();
        let dirs = || -> std::io::Result<_> {
            let mut shared = vec![Shared::new(Path::new(BOX_DIR), false)?];
            for path in EMPTIED {
                shared.push(Shared::new(Path::new(path), true)?);
            }
            Ok((Home::whole(Path::new(BOX_DIR))?, shared))
        };
        let (home, shared) = dirs().map_err(|error| Missing {
            layer: Layer::Root,
            said: format!("opening the directories of boxes: {error}"),
            remedy: "this is a defect of evalmill".to_owned(),
        })?;
        self.plan.seal()?;
        Ok(Settled { home, spawner, shared })
    }
}

/// `PATH` with the directory of the interpreter as it is inside, where a shim was named.
fn path_with(policy: &WorkerPolicy, interpreter: &Path) -> String {
    let (Some(named), Some(real)) = (policy.interpreter.parent(), interpreter.parent()) else {
        return policy.path.clone();
    };
    let real = real.to_string_lossy();
    policy
        .path
        .split(':')
        .map(|dir| if Path::new(dir) == named { &*real } else { dir })
        .collect::<Vec<_>>()
        .join(":")
}

/// Calls `work` where commands have to be started from: with a job, on a second thread, which is in its groups.
///
/// Groups of version 1 hold threads, but memory is charged to that of a process's first thread: that one stays outside
/// and waits, so that what the worker keeps of its programs' outputs is not their memory.
fn runner<T: Send>(
    job: Option<Box<Job>>,
    work: impl FnOnce(Option<Account>) -> T + Send,
) -> Result<T, Missing> {
    let Some(mut job) = job else { return Ok(work(None)) };
    let missing =
        |what: &'static str| move |error: std::io::Error| Missing::cgroup(format!("{what}: {error}"));
    std::thread::scope(|scope| {
        let inside = move || {
            job.enter().map_err(missing("entering the groups of a worker"))?;
            job.close();
            Ok(work(Some(Account::new(job))))
        };
        let thread = std::thread::Builder::new()
            .name("evalmill-runner".to_owned())
            .spawn_scoped(scope, inside)
            .map_err(missing("a second thread"))?;
        // A panic was reported there; here it goes on.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What the throw-away worker does: a program that ends well and, with an account, two that must not.
fn try_all(settled: Settled) -> Result<(), Missing> {
    let Settled { mut home, mut spawner, .. } = settled;
    let is_counted = spawner.account.is_some();
    let missing = |said: String| {
        Missing {
        layer: Layer::Interpreter,
        said: format!("it does not run in the sandbox: {said}"),
        remedy: "set python.interpreter to one that an ordinary user can run, or sandbox.binds to what it needs beside its prefix".to_owned(),
    }
    };
    let in_box = home.open(&[]).map_err(missing)?;
    let (control, _ours) = UnixStream::pair().map_err(|error| missing(error.to_string()))?;
    let mut run = |program: &str, memory_bytes: u64, processes: u32| {
        let run = Run {
            argv: ["python3", "-I", "-S", "-c", program].map(str::to_owned).to_vec(),
            stdin: Vec::new(),
            witness: None,
            limits: RunLimits {
                wall: PROBE_LIMIT,
                cpu: PROBE_LIMIT,
                memory_bytes,
                output_bytes: 4 << 10,
                processes,
                file_bytes: 1 << 20,
                open_files: 256,
            },
        };
        match command::run(&mut spawner, &run, &in_box, &control, &mut Vec::new()) {
            Outcome::Ran(ran, clean) => {
                let stderr = String::from_utf8_lossy(&ran.stderr);
                let last = stderr.lines().last().unwrap_or_default();
                let unclean = clean.err();
                let said = format!("{:?} {last} {}", ran.ended, unclean.as_deref().unwrap_or_default());
                Ok((ran.ended, unclean.is_none(), said.trim().to_owned()))
            }
            Outcome::SupervisorGone => Err(missing("the launcher is gone".to_owned())),
        }
    };
    let (ended, clean, said) = run("pass", 1 << 30, 64)?;
    if !clean || ended != Ended::Exited(0) {
        return Err(missing(said));
    }
    if !is_counted {
        return Ok(());
    }
    for (what, program, expected) in account::CONTROLS {
        let (ended, clean, said) = run(program, account::CONTROL_BYTES, account::CONTROL_PROCESSES)?;
        if !clean || ended != expected {
            return Err(Missing::cgroup(format!(
                "{what} does not work: the program that has to show it came to {said}"
            )));
        }
    }
    Ok(())
}
