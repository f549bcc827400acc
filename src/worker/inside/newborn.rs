//! A worker that was just born behind walls: it waits to be let go, takes its place there, and
//! says to the launcher that it is ready, or which layer failed.

use std::fs::Permissions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::{self, Account};
use super::box_dir::Home;
use super::command::{self, Outcome};
use super::reap;
use super::room::Room;
use super::shared::{EMPTIED, Shared};
use super::spawn::{Confined, Spawner};
use super::wipe;
use crate::config::Tier;
use crate::sandbox::cgroup::{Job, WorkerGroups};
use crate::sandbox::{BOX_DIR, Ids, Layer, Missing, Plan, SECOND_THREAD};
use crate::worker::packet;
use crate::worker::protocol::{Ended, Run, RunLimits, WorkerPolicy};

/// How long the interpreter may take to do nothing.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// A file of the throw-away worker that is outside of its box, and by its rights open to everybody.
pub(crate) const OUTSIDE: &str = "outside";
/// What is allowed works, and what would be possible without the walls does not.
const CONTROLS: &str = "\
import os, sys, _socket
outside, network = sys.argv[1:]
if not os.stat(outside).st_size:
    sys.exit('there is no file outside')
with open('inside', 'w') as file:
    file.write('inside')
with open('inside') as file:
    if file.read() != 'inside':
        sys.exit('what was written was not read')
def held(by, what, attempt):
    try:
        attempt()
    except OSError:
        return
    sys.exit(by + ': ' + what)
held('landlock', 'read outside of its box', lambda: open(outside))
held('landlock', 'write outside of its box', lambda: open(outside, 'a'))
held('landlock', 'inspect the worker', lambda: open('/proc/%d/environ' % os.getppid()))
if network == 'no network':
    held('seccomp', 'make a socket', _socket.socket)
";

/// What a worker in a sandbox is born with.
#[derive(Debug)]
pub struct Newborn {
    /// How it is isolated.
    pub plan: Plan,
    /// Who it is.
    pub ids: Ids,
    /// Its number.
    pub worker: u64,
    /// Its end of the socket on which it is let go and answers, once.
    pub control: OwnedFd,
    /// Where its commands are counted and limited; `None`: they are watched.
    pub groups: Option<WorkerGroups>,
}

/// What a worker needs to serve.
pub(super) struct Settled {
    pub(super) home: Home,
    pub(super) spawner: Spawner,
    pub(super) shared: Vec<Shared>,
    pub(super) room: Option<Room>,
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
        let served = self.enter(policy).and_then(|(settled, job)| {
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
            // It takes hardly a process, whatever programs get.
            let tried = self.try_out(WorkerPolicy { processes: None, ..policy });
            self.answer(&tried);
        }
    }

    fn try_out(&mut self, policy: WorkerPolicy) -> Result<(), Missing> {
        let arguments = if self.plan.tier == Tier::Process {
            let outside = policy.scratch_dir.join(OUTSIDE);
            std::fs::write(&outside, "outside")
                .and_then(|()| std::fs::set_permissions(&outside, Permissions::from_mode(0o666)))
                .map_err(|error| failed(Layer::Process, format!("{}: {error}", outside.display())))?;
            let network = if self.plan.policy.network { "network" } else { "no network" };
            vec![CONTROLS.to_owned(), outside.to_string_lossy().into_owned(), network.to_owned()]
        } else {
            vec!["pass".to_owned()]
        };
        let (settled, job) = self.enter(policy)?;
        runner(job, |account| try_all(settled.with(account), &arguments))?
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

    /// A worker among the processes of the host.
    fn enter_process(&self, policy: WorkerPolicy) -> Result<Settled, Missing> {
        let wipe = |dir: &Path, name: &str| wipe::wipe(wipe::open(dir)?.as_fd(), name);
        let name = format!("w{}", self.worker);
        let mut settled = self.plan.settle(self.ids, &policy.scratch_dir, &name, wipe)?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let clear_refs = settled.entered.clear_refs.take();
        let dirs = || -> std::io::Result<_> {
            Ok((Home::whole(&settled.home)?, vec![Shared::new(&settled.home, false)?]))
        };
        let (home, shared) = dirs().map_err(|error| {
            failed(Layer::Process, format!("opening {}: {error}", settled.home.display()))
        })?;
        let domain = self.plan.seal_process(self.ids, settled)?;
        let confined = Confined {
            identity: self.ids.program(),
            counted: self.ids.counts_processes(),
            domain: Some(domain),
        };
        let interpreter = self.plan.trees.interpreter.clone();
        let policy =
            WorkerPolicy { path: path_with(&policy, &interpreter), interpreter, sandbox: None, ..policy };
        let spawner = Spawner::new(policy, clear_refs, Some(confined));
        Ok(Settled { home, spawner, shared, room: None })
    }

    fn enter(&mut self, policy: WorkerPolicy) -> Result<(Settled, Option<Box<Job>>), Missing> {
        if self.plan.tier == Tier::Process {
            return Ok((self.enter_process(policy)?, None));
        }
        let job = self.groups.take().map(WorkerGroups::settle).transpose();
        let job = job.map_err(missing("taking the place in the groups of a worker"))?;
        let clones = job.as_ref().is_some_and(|job| job.birthplace().is_some());
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
        let confined =
            Confined { identity: self.ids.program(), counted: self.ids.counts_processes(), domain: None };
        let spawner = Spawner::new(policy, entered.clear_refs, Some(confined));
        reap::reset_fault_handlers();
        let dirs = || -> std::io::Result<_> {
            let mut shared = vec![Shared::new(Path::new(BOX_DIR), false)?];
            for path in EMPTIED {
                shared.push(Shared::new(Path::new(path), true)?);
            }
            Ok((Home::whole(Path::new(BOX_DIR))?, shared, Some(Room::new(Path::new(BOX_DIR))?)))
        };
        let (home, shared, room) = dirs()
            .map_err(|error| failed(Layer::Root, format!("opening the directories of boxes: {error}")))?;
        // Who is not cloned into its group is started by a thread that is in it.
        self.plan.seal(job.is_some() && !clones, clones)?;
        Ok((Settled { home, spawner, shared, room }, job))
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

fn failed(layer: Layer, said: String) -> Missing {
    Missing { layer, said, remedy: "this is a defect of evalmill".to_owned() }
}

fn missing(what: &'static str) -> impl FnOnce(std::io::Error) -> Missing {
    move |error| Missing::cgroup(format!("{what}: {error}"))
}

/// Calls `work` where commands have to be started from: with a job of version 1, on a second thread, which is in its
/// groups.
///
/// Those hold threads, but memory is charged to that of a process's first thread: that one stays outside
/// and waits, so that what the worker keeps of its programs' outputs is not their memory.
fn runner<T: Send>(
    job: Option<Box<Job>>,
    work: impl FnOnce(Option<Account>) -> T + Send,
) -> Result<T, Missing> {
    let Some(mut job) = job else { return Ok(work(None)) };
    if job.birthplace().is_some() {
        return Ok(work(Some(Account::new(job))));
    }
    std::thread::scope(|scope| {
        let inside = move || {
            // What the filter of system calls keeps programs from.
            if rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs() != SECOND_THREAD {
                return Err(failed(
                    Layer::Seccomp,
                    "the second thread is not where it is protected".to_owned(),
                ));
            }
            job.enter().map_err(missing("entering the groups of a worker"))?;
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

/// What the throw-away worker does: a program that ends well (its source, and what it is called with) and,
/// with an account, two that must not.
fn try_all(settled: Settled, arguments: &[String]) -> Result<(), Missing> {
    let Settled { mut home, mut spawner, .. } = settled;
    let is_counted = spawner.account.is_some();
    let missing = |said: String| {
        Missing {
        layer: Layer::Interpreter,
        said: format!("running it in a box: {said}"),
        remedy: "set python.interpreter to a Python that an ordinary user can run, and sandbox.binds to what it needs beside its own prefix".to_owned(),
    }
    };
    let in_box = home.open(&[]).map_err(missing)?;
    let (control, _ours) = UnixStream::pair().map_err(|error| missing(error.to_string()))?;
    // How it ended, its last words, and what is left of it.
    let mut run = |arguments: &[String], memory_bytes: u64, processes: u32| {
        let run = Run {
            argv: ["python3", "-I", "-S", "-c"].map(str::to_owned).iter().chain(arguments).cloned().collect(),
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
                let last = String::from_utf8_lossy(&ran.stderr).lines().last().unwrap_or_default().to_owned();
                Ok((ran.ended, last, clean.err()))
            }
            Outcome::SupervisorGone => Err(missing("the launcher is gone".to_owned())),
        }
    };
    let (ended, last, unclean) = run(arguments, 1 << 30, 64)?;
    if is_counted && let Ended::Failed(said) = &ended {
        // Not the program's: without groups it is tried again.
        return Err(Missing::cgroup(format!("starting a program in a group: {said}")));
    }
    if unclean.is_some() || ended != Ended::Exited(0) {
        let held_by = [(Layer::Landlock, "landlock: "), (Layer::Seccomp, "seccomp: ")];
        if let Some((layer, said)) =
            held_by.iter().find_map(|(layer, prefix)| Some((*layer, last.strip_prefix(prefix)?)))
        {
            return Err(Missing {
                layer,
                said: format!("it is in force, and a program could {said} all the same"),
                remedy: "report it with the version of the kernel".to_owned(),
            });
        }
        return Err(missing(told(&ended, &last, unclean)));
    }
    if !is_counted {
        return Ok(());
    }
    for (what, program, expected) in account::CONTROLS {
        let arguments = [program.to_owned()];
        let (ended, last, unclean) = run(&arguments, account::CONTROL_BYTES, account::CONTROL_PROCESSES)?;
        if unclean.is_some() || ended != expected {
            return Err(Missing::cgroup(format!(
                "{what} does not work: the program that has to show it came to {}",
                told(&ended, &last, unclean)
            )));
        }
    }
    Ok(())
}

fn told(ended: &Ended, last: &str, unclean: Option<String>) -> String {
    let unclean = unclean.unwrap_or_default();
    [format!("{ended:?}").as_str(), last, &unclean].join(" ").trim().to_owned()
}
