//! The launcher: a process of one thread that forks workers, because a threaded process must not.
//!
//! - It holds no descriptor of a worker's socket: the worker has one end, the supervisor the other.
//! - It is the subreaper of everything below it. A child that is not a worker is what a dead worker
//!   left behind: it is killed and reaped.
//! - It ends when its socket does: the workers get 2 s to end by themselves (their sockets end at
//!   the same time), then everything below is killed and the scratch directory removed.
//! - Signals that stop a service are ignored; it has its own session.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};

use super::fork::{self, Forked};
use super::inside::tree::parent_of;
use super::inside::wipe::wipe;
use super::packet;
use super::protocol::{FromLauncher, ToLauncher, WorkerPolicy};

/// `argv[1]` of a launcher; `argv[2]` is the number of its socket.
pub(crate) const LAUNCHER_ARGUMENT: &str = "__evalmill-launcher";

/// How long workers may take to end by themselves once the supervisor is gone.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long killed processes are waited for at the end.
const LAST_SWEEP: Duration = Duration::from_secs(5);
/// Time between two looks at orphans that have been killed and are not gone yet.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);
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
        Some(socket) => Some(launcher_main(socket)),
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
    let launcher = Launcher { socket, own, policy, workers: BTreeMap::new(), dead: Vec::new() };
    match launcher.serve() {
        Role::Done(code) => code,
        Role::Worker { socket, worker, policy } => {
            let _ = rustix::thread::set_name(c"evalmill-worker");
            let code = std::panic::catch_unwind(AssertUnwindSafe(|| {
                super::inside::worker_main(socket, worker, policy)
            }));
            // A panic was already reported.
            code.unwrap_or(101)
        }
    }
}

/// What a process that came out of [`Launcher::serve`] is.
enum Role {
    Done(i32),
    Worker { socket: UnixStream, worker: u64, policy: WorkerPolicy },
}

enum Handled {
    Yes,
    Child(UnixStream, u64),
    PeerGone,
    Nonsense,
}

struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

struct Launcher {
    socket: OwnedFd,
    own: Pid,
    policy: WorkerPolicy,
    workers: BTreeMap<u64, Child>,
    /// Workers that have ended and whose orphans and directory may still be there.
    dead: Vec<u64>,
}

impl Launcher {
    /// Serves until the supervisor is gone. In a forked worker this returns at once and everything
    /// of the launcher is closed on the way.
    fn serve(mut self) -> Role {
        if self.tell(&FromLauncher::Started, None).is_err() {
            return Role::Done(self.end(0));
        }
        loop {
            let wait = if self.dead.is_empty() { IDLE_INTERVAL } else { SWEEP_INTERVAL };
            let readable = match self.wait(Some(wait)) {
                Ok(readable) => readable,
                Err(error) => {
                    eprintln!("evalmill launcher: poll: {error}");
                    return Role::Done(self.end(4));
                }
            };
            if self.reap_workers().is_err() {
                return Role::Done(self.end(0));
            }
            self.sweep();
            if !readable {
                continue;
            }
            match self.handle() {
                Handled::Yes => {}
                Handled::Child(socket, worker) => {
                    return Role::Worker { socket, worker, policy: self.policy };
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
                Ok(Some(socket)) => Handled::Child(socket, worker),
                Err(error) => {
                    let failed = FromLauncher::SpawnFailed { worker, reason: error.to_string() };
                    if self.tell(&failed, None).is_err() { Handled::PeerGone } else { Handled::Yes }
                }
            },
        }
    }

    /// Forks a worker and passes its socket on; in the worker, returns its end of it.
    fn spawn(&mut self, worker: u64) -> io::Result<Option<UnixStream>> {
        let (supervisors, workers) = UnixStream::pair()?;
        let pid = match fork::fork()? {
            Forked::Child => return Ok(Some(workers)),
            Forked::Parent(pid) => pid,
        };
        drop(workers);
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                kill_and_reap(pid);
                return Err(error.into());
            }
        };
        self.workers.insert(worker, Child { pid, pidfd });
        let spawned = FromLauncher::Spawned { worker, pid: pid.as_raw_nonzero().get() };
        // A peer that is gone is seen by the next poll; the worker ends with its socket.
        let _ = self.tell(&spawned, Some(&OwnedFd::from(supervisors)));
        Ok(None)
    }

    /// Reaps workers that have ended and reports each; an error means that nobody listens.
    fn reap_workers(&mut self) -> io::Result<()> {
        let mut ended = Vec::new();
        self.workers.retain(|worker, child| {
            match rustix::process::waitpid(Some(child.pid), WaitOptions::NOHANG) {
                Ok(None) | Err(rustix::io::Errno::INTR) => true,
                Ok(Some((_, status))) => {
                    ended.push((*worker, describe(status)));
                    false
                }
                Err(error) => {
                    ended.push((*worker, format!("unknown: {error}")));
                    false
                }
            }
        });
        let mut heard = Ok(());
        for (worker, status) in ended {
            self.dead.push(worker);
            heard = heard.and(self.tell(&FromLauncher::Exited { worker, status }, None));
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
                for worker in self.dead.drain(..) {
                    remove(&self.policy.scratch_dir, &format!("w{worker}"));
                }
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
        if let (Some(parent), Some(name)) = (
            self.policy.scratch_dir.parent(),
            self.policy.scratch_dir.file_name().and_then(|name| name.to_str()),
        ) {
            remove(parent, name);
        }
        code
    }

    fn pause(&self) -> io::Result<()> {
        self.poll(false, Some(SWEEP_INTERVAL)).map(|_| ())
    }
}

/// Removes what hostile programs may have made: any depth, any mode. What cannot go stays, and is said.
fn remove(parent: &Path, name: &str) {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let opened = rustix::fs::open(parent, flags, Mode::empty());
    let done = opened.map_err(io::Error::from).and_then(|dir| wipe(dir.as_fd(), name));
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
