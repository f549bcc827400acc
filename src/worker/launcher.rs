//! The launcher: a process of one thread that forks workers, because a threaded process must not.
//!
//! - It holds no descriptor of a worker's socket once the worker is ready: the worker has one end, the
//!   supervisor the other.
//! - Which tier works is tried before the first worker (`isolation`). A worker in a sandbox is passed on
//!   only when it says that it is behind its walls.
//! - It is the subreaper of everything below it. A child that is not a worker is what a dead worker
//!   left behind: it is killed and reaped.
//! - It ends when its socket does: the workers get 2 s to end by themselves (their sockets end at
//!   the same time), then everything below is killed and the scratch directory removed.
//! - Signals that stop a service are ignored; it has its own session.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};

use super::fork::{self, Forked};
use super::inside::Newborn;
use super::inside::tree::parent_of;
use super::inside::wipe;
use super::isolation::{Isolation, Start};
use super::packet;
use super::protocol::{FromLauncher, ToLauncher, WorkerPolicy};
use crate::sandbox::{Missing, Shortage, room};

/// `argv[1]` of a launcher; `argv[2]` is the number of its socket.
pub(crate) const LAUNCHER_ARGUMENT: &str = "__evalmill-launcher";

/// How long workers may take to end by themselves once the supervisor is gone.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long killed processes are waited for at the end.
const LAST_SWEEP: Duration = Duration::from_secs(5);
/// Time between two looks at orphans that have been killed and are not gone yet.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);
/// How long a worker may take to be ready.
const BIRTH_LIMIT: Duration = Duration::from_secs(8);
/// Time between two looks at workers that are not ready yet.
const BIRTH_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two looks for orphans that nobody announced.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);

/// Was this process started as a launcher?
pub(crate) fn is_launcher() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == OsStr::new(LAUNCHER_ARGUMENT))
}

/// Runs the launcher if this process was started as one, and returns its exit code.
#[must_use]
pub fn launcher_entry() -> Option<i32> {
    if !is_launcher() {
        return None;
    }
    let number = std::env::args_os().nth(2).and_then(|number| number.to_str()?.parse().ok());
    match number.and_then(fork::adopt_packet_socket) {
        Some(socket) => {
            fork::close_inherited(socket.as_raw_fd());
            Some(launcher_main(socket))
        }
        None => {
            eprintln!("{LAUNCHER_ARGUMENT} is internal: it needs the number of an inherited packet socket");
            Some(2)
        }
    }
}

/// The launcher's whole life; returns its exit code. Must run before any thread is started.
#[must_use]
pub fn launcher_main(socket: OwnedFd) -> i32 {
    fork::ignore_stop_signals();
    // Already a session leader, or not: either way a terminal's signals are ignored above.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"evalmill-launch");
    room::raise();
    let own = rustix::process::getpid();
    if let Err(error) = rustix::process::set_child_subreaper(Some(own)) {
        eprintln!("evalmill launcher: cannot become subreaper: {error}");
        return 4;
    }
    let policy = match packet::receive::<ToLauncher>(socket.as_fd()) {
        Ok(Some((ToLauncher::Start(policy), _))) => policy,
        Ok(None) => return 0,
        _ => return 3,
    };
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&policy.scratch_dir) {
        eprintln!("evalmill launcher: cannot make {}: {error}", policy.scratch_dir.display());
        return 4;
    }
    let isolation = match Isolation::start(&policy, own) {
        Start::Ready(isolation) => isolation,
        // This process is the throw-away worker, and has done its work.
        Start::Probe => return 0,
    };
    let (workers, dead) = (BTreeMap::new(), Vec::new());
    let launcher = Launcher { socket, own, policy, isolation, shortage: Shortage::open(), workers, dead };
    match launcher.serve() {
        Role::Done(code) => code,
        Role::Worker(new) => {
            let NewWorker { socket, worker, policy, newborn, shortage } = *new;
            let _ = rustix::thread::set_name(c"evalmill-worker");
            let code = std::panic::catch_unwind(AssertUnwindSafe(|| {
                super::inside::worker_main(socket, worker, policy, newborn, shortage)
            }));
            // A panic was already reported.
            code.unwrap_or(101)
        }
    }
}

/// What a process that came out of [`Launcher::serve`] is.
enum Role {
    Done(i32),
    Worker(Box<NewWorker>),
}

/// A process that was just made to be a worker.
struct NewWorker {
    socket: UnixStream,
    worker: u64,
    policy: WorkerPolicy,
    newborn: Option<Newborn>,
    shortage: Shortage,
}

enum Handled {
    Yes,
    Child(UnixStream, u64, Option<Newborn>),
    PeerGone,
    Nonsense,
}

struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    stage: Stage,
}

/// How far a worker is.
enum Stage {
    /// It has not said yet that it is ready.
    Born {
        /// Our end of the socket on which it says so.
        control: OwnedFd,
        /// The supervisor's end of its socket.
        supervisors: OwnedFd,
        until: Instant,
    },
    /// The supervisor has it.
    Passed,
    /// It was never ready, the supervisor has been told, and it is being killed.
    Failed,
}

struct Launcher {
    socket: OwnedFd,
    own: Pid,
    policy: WorkerPolicy,
    isolation: Isolation,
    /// For every worker: behind its walls it could not be opened.
    shortage: Shortage,
    workers: BTreeMap<u64, Child>,
    /// Workers that have ended and whose orphans and directory may still be there.
    dead: Vec<u64>,
}

impl Launcher {
    /// Serves until the supervisor is gone. In a forked worker this returns at once and everything
    /// of the launcher is closed on the way.
    fn serve(mut self) -> Role {
        let (tier, missing) = (self.isolation.tier, self.isolation.missing.clone());
        if self.tell(&FromLauncher::Started { tier, missing }, None).is_err() {
            return Role::Done(self.end(0));
        }
        loop {
            let wait = if !self.dead.is_empty() {
                SWEEP_INTERVAL
            } else if self.workers.values().any(|child| matches!(child.stage, Stage::Born { .. })) {
                BIRTH_INTERVAL
            } else {
                IDLE_INTERVAL
            };
            let readable = match self.wait(Some(wait)) {
                Ok(readable) => readable,
                Err(error) => {
                    eprintln!("evalmill launcher: poll: {error}");
                    return Role::Done(self.end(4));
                }
            };
            if self.hear_newborns().is_err() || self.reap_workers().is_err() {
                return Role::Done(self.end(0));
            }
            self.sweep();
            if !readable {
                let _ = self.isolation.sweep();
                continue;
            }
            match self.handle() {
                Handled::Yes => {}
                Handled::Child(socket, worker, newborn) => {
                    return Role::Worker(Box::new(NewWorker {
                        socket,
                        worker,
                        policy: self.policy,
                        newborn,
                        shortage: self.shortage,
                    }));
                }
                Handled::PeerGone => return Role::Done(self.end(0)),
                Handled::Nonsense => return Role::Done(self.end(3)),
            }
        }
    }

    /// Waits for a packet (when asked for; then the answer says whether there is one), a worker's
    /// end, or the time.
    fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        self.poll(true, limit)
    }

    fn poll(&self, packets: bool, limit: Option<Duration>) -> io::Result<bool> {
        let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(self.workers.len() + 1);
        if packets {
            polled.push(PollFd::new(&self.socket, PollFlags::IN));
        }
        polled.extend(self.workers.values().map(|child| PollFd::new(&child.pidfd, PollFlags::IN)));
        polled.extend(self.workers.values().filter_map(|child| match &child.stage {
            Stage::Born { control, .. } => Some(PollFd::new(control, PollFlags::IN)),
            _ => None,
        }));
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        match poll(&mut polled, limit.as_ref()) {
            Ok(_) => Ok(packets && polled.first().is_some_and(|socket| !socket.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&self, message: &FromLauncher, passed: Option<&OwnedFd>) -> io::Result<()> {
        packet::send(self.socket.as_fd(), &packet::encode(message)?, passed.map(AsFd::as_fd))
    }

    fn handle(&mut self) -> Handled {
        let message = match packet::receive::<ToLauncher>(self.socket.as_fd()) {
            Ok(Some((message, None))) => message,
            Ok(None) => return Handled::PeerGone,
            Ok(Some((_, Some(_)))) | Err(_) => return Handled::Nonsense,
        };
        match message {
            ToLauncher::Start(_) => Handled::Nonsense,
            ToLauncher::Kill { worker } => {
                if let Some(child) = self.workers.get(&worker) {
                    let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
                }
                Handled::Yes
            }
            ToLauncher::Spawn { worker } => match self.spawn(worker) {
                Ok(None) => Handled::Yes,
                Ok(Some((socket, newborn))) => Handled::Child(socket, worker, newborn),
                Err(reason) => {
                    let failed = FromLauncher::SpawnFailed { worker, reason };
                    if self.tell(&failed, None).is_err() { Handled::PeerGone } else { Handled::Yes }
                }
            },
        }
    }

    /// Makes a worker; in the worker, returns its end of its socket, and what it has to do first.
    fn spawn(&mut self, worker: u64) -> Result<Option<(UnixStream, Option<Newborn>)>, String> {
        let (supervisors, workers) = UnixStream::pair().map_err(|error| error.to_string())?;
        let supervisors = OwnedFd::from(supervisors);
        if let Some(born) = self.isolation.birth(self.own, worker) {
            let child = match born.map_err(|missing| missing.to_string())? {
                Err(newborn) => return Ok(Some((workers, Some(newborn)))),
                Ok(child) => child,
            };
            let stage =
                Stage::Born { control: child.control, supervisors, until: Instant::now() + BIRTH_LIMIT };
            self.workers.insert(worker, Child { pid: child.born.pid, pidfd: child.born.pidfd, stage });
            return Ok(None);
        }
        let pid = match fork::fork().map_err(|error| error.to_string())? {
            Forked::Child => return Ok(Some((workers, None))),
            Forked::Parent(pid) => pid,
        };
        drop(workers);
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                kill_and_reap(pid);
                return Err(error.to_string());
            }
        };
        self.workers.insert(worker, Child { pid, pidfd, stage: Stage::Passed });
        self.pass_on(worker, pid, &supervisors);
        Ok(None)
    }

    /// Gives a worker that is ready to the supervisor.
    fn pass_on(&self, worker: u64, pid: Pid, supervisors: &OwnedFd) {
        let spawned = FromLauncher::Spawned { worker, pid: pid.as_raw_nonzero().get() };
        // A peer that is gone is seen by the next poll; the worker ends with its socket.
        let _ = self.tell(&spawned, Some(supervisors));
    }

    /// Takes the answers of workers that are not ready yet; an error means that nobody listens.
    fn hear_newborns(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut answers = Vec::new();
        for (worker, child) in &self.workers {
            let Stage::Born { control, until, .. } = &child.stage else { continue };
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            if matches!(poll(&mut [PollFd::new(control, PollFlags::IN)], Some(&at_once)), Ok(1)) {
                answers.push((
                    *worker,
                    match packet::receive::<Result<(), Missing>>(control.as_fd()) {
                        Ok(Some((answer, _))) => answer.map_err(|missing| missing.to_string()),
                        Ok(None) => Err("it ended during its set-up".to_owned()),
                        Err(error) => Err(format!("its answer cannot be understood: {error}")),
                    },
                ));
            } else if *until <= now {
                answers.push((*worker, Err(format!("it was not ready within {BIRTH_LIMIT:?}"))));
            }
        }
        for (worker, answer) in answers {
            let Some(child) = self.workers.get_mut(&worker) else { continue };
            let pid = child.pid;
            match (answer, std::mem::replace(&mut child.stage, Stage::Passed)) {
                (Ok(()), Stage::Born { supervisors, .. }) => self.pass_on(worker, pid, &supervisors),
                (Ok(()), _) => {}
                (Err(reason), _) => {
                    child.stage = Stage::Failed;
                    let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
                    self.tell(&FromLauncher::SpawnFailed { worker, reason }, None)?;
                }
            }
        }
        Ok(())
    }

    /// Reaps workers that have ended and reports each; an error means that nobody listens.
    fn reap_workers(&mut self) -> io::Result<()> {
        let mut ended = Vec::new();
        self.workers.retain(|worker, child| {
            match rustix::process::waitpid(Some(child.pid), WaitOptions::NOHANG) {
                Ok(None) | Err(rustix::io::Errno::INTR) => true,
                Ok(Some((_, status))) => {
                    ended.push((*worker, describe(status), is_known(&child.stage)));
                    false
                }
                Err(error) => {
                    ended.push((*worker, format!("unknown: {error}"), is_known(&child.stage)));
                    false
                }
            }
        });
        let mut heard = Ok(());
        for (worker, status, known) in ended {
            self.dead.push(worker);
            if known {
                heard = heard.and(self.tell(&FromLauncher::Exited { worker, status }, None));
            }
        }
        heard
    }

    /// Kills and reaps every child that is no worker. Once none is left, what dead workers left on
    /// disk goes too. Never blocks on a process that does not die.
    fn sweep(&mut self) {
        // Killing one orphan hands its children to us: look again until a round finds none.
        for _ in 0..64 {
            let orphans = self.orphans();
            if orphans.is_empty() {
                let (isolation, scratch_dir) = (&self.isolation, &self.policy.scratch_dir);
                self.dead.retain(|worker| {
                    remove(scratch_dir, &format!("w{worker}"));
                    !isolation.forget(*worker)
                });
                return;
            }
            let mut reaped = false;
            for orphan in &orphans {
                let _ = rustix::process::kill_process(*orphan, Signal::KILL);
            }
            for orphan in orphans {
                reaped |= !matches!(
                    rustix::process::waitpid(Some(orphan), WaitOptions::NOHANG),
                    Ok(None) | Err(rustix::io::Errno::INTR)
                );
            }
            if !reaped {
                return;
            }
        }
    }

    /// Our children that are not workers, dead or alive.
    fn orphans(&self) -> Vec<Pid> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| parent_of(*pid) == Some(self.own.as_raw_nonzero().get()))
            .filter_map(Pid::from_raw)
            .filter(|pid| self.workers.values().all(|child| child.pid != *pid))
            .collect()
    }

    /// The end: workers get their time, then everything below is killed, and the scratch
    /// directory goes.
    fn end(&mut self, code: i32) -> i32 {
        // One that was not passed on would wait for a supervisor until it is killed.
        for child in self.workers.values_mut().filter(|child| matches!(child.stage, Stage::Born { .. })) {
            let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
            child.stage = Stage::Failed;
        }
        let until = Instant::now() + FAREWELL;
        while !self.workers.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.poll(false, Some(left)).is_err() {
                break;
            }
            // Nobody listens any more; the workers are reaped all the same.
            let _ = self.reap_workers();
        }
        let until = Instant::now() + LAST_SWEEP;
        loop {
            for child in self.workers.values() {
                let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
            }
            let _ = self.reap_workers();
            self.sweep();
            let done = self.workers.is_empty() && self.orphans().is_empty();
            if done || Instant::now() >= until || self.pause().is_err() {
                break;
            }
        }
        remove_whole(&self.policy.scratch_dir);
        self.isolation.end();
        code
    }

    fn pause(&self) -> io::Result<()> {
        self.poll(false, Some(SWEEP_INTERVAL)).map(|_| ())
    }
}

/// Whether the supervisor knows of a worker, so that it wants to hear of its end.
fn is_known(stage: &Stage) -> bool {
    !matches!(stage, Stage::Failed)
}

/// As [`remove`], of a path.
pub(super) fn remove_whole(path: &Path) {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        remove(parent, name);
    }
}

/// Removes what hostile programs may have made: any depth, any mode. What cannot go stays, and is said.
pub(super) fn remove(parent: &Path, name: &str) {
    let done = wipe::open(parent).and_then(|dir| wipe::wipe(dir.as_fd(), name));
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("evalmill launcher: {} stays: {error}", parent.join(name).display());
        }
        _ => {}
    }
}

fn kill_and_reap(pid: Pid) {
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}
