//! The worker: a process that runs one command at a time in one box at a time.
//!
//! One thread does all of it. In tier `full` on cgroups of version 1 that is the second, and the first only waits for
//! it (`newborn`).
//!
//! Everything that descends from it is the current command's, because it is a child subreaper, or the first
//! process of its pid namespace, and starts nothing else. It lives for its supervisor's socket: when that closes, at any moment, the
//! tree is killed, the scratch directory removed, and the process ends.

mod account;
mod box_dir;
mod command;
mod exec;
mod newborn;
mod reap;
mod room;
mod shared;
mod spawn;
pub(super) mod tree;
pub(super) mod wipe;

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use self::box_dir::{BoxDir, Home};
use self::command::Outcome;
pub use self::newborn::Newborn;
pub(super) use self::newborn::OUTSIDE;
use self::newborn::Settled;
use self::room::Room;
use self::shared::Shared;
use self::spawn::Spawner;
use super::frame;
use super::protocol::{Close, Closed, Ended, FromWorker, Opened, Ran, Run, ToWorker, WorkerPolicy};
use crate::sandbox::Shortage;

/// The supervisor closed the socket: the normal end.
pub const EXIT_DONE: i32 = 0;
/// The worker could not be set up.
pub const EXIT_SETUP: i32 = 2;
/// The supervisor said something undecodable, or at the wrong time.
pub const EXIT_PROTOCOL: i32 = 3;

/// Serves one supervisor to its end and answers the exit code for the process.
///
/// To be called in a process of its own with one thread: it changes signal dispositions, becomes a
/// child subreaper, and reaps every child. `newborn`: it is to be a worker in a sandbox. `shortage`: opened outside
/// of it.
#[must_use]
pub fn worker_main(
    socket: UnixStream,
    worker: u64,
    policy: WorkerPolicy,
    newborn: Option<Newborn>,
    shortage: Shortage,
) -> i32 {
    let serve = |mut settled: Settled| {
        settled.spawner.shortage = shortage;
        serve(socket, settled)
    };
    let code = match newborn {
        Some(newborn) => newborn.live(policy, serve),
        None => unprotected(worker, policy).map(serve),
    };
    code.unwrap_or(EXIT_SETUP)
}

fn serve(socket: UnixStream, settled: Settled) -> i32 {
    let Settled { home, spawner, shared, room } = settled;
    let idle = Idle { socket, home, shared, room, spawner, dirty: None, chunk: Vec::new() };
    let (code, last) = idle.serve();
    // Whatever happened, nothing may stay behind. A failure has no listener; the launcher's own
    // clean-up of the scratch directory follows.
    let _ = tree::kill_all(&mut tree::Reaped::default(), command::KILL_BOUND);
    let _ = last.wipe();
    code
}

/// A worker of the tier none.
fn unprotected(worker: u64, policy: WorkerPolicy) -> Option<Settled> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let own = rustix::process::getpid();
    let home = rustix::process::set_child_subreaper(Some(own))
        .map_err(std::io::Error::from)
        .and_then(|()| crate::sandbox::limit_cores())
        .and_then(|()| Home::new(&policy.scratch_dir, worker))
        .and_then(|home| Ok((Shared::new(home.path(), false)?, home)));
    let clear_refs = File::options().write(true).open("/proc/self/clear_refs").ok();
    match home {
        Ok((shared, home)) => {
            let spawner = Spawner::new(policy, clear_refs, None);
            Some(Settled { home, spawner, shared: vec![shared], room: None })
        }
        Err(error) => {
            // Nobody else can hear it: the protocol has no greeting.
            eprintln!("worker {worker}: cannot set up {}: {error}", policy.scratch_dir.display());
            None
        }
    }
}

/// A worker without a box.
struct Idle {
    socket: UnixStream,
    home: Home,
    /// What else programs can write to.
    shared: Vec<Shared>,
    /// Where boxes have a file system of their own.
    room: Option<Room>,
    spawner: Spawner,
    /// Processes that an earlier command left and that could not be killed.
    dirty: Option<String>,
    /// Reused for reading the outputs of every command.
    chunk: Vec<u8>,
}

/// A worker with a box in it: only now can anything run.
struct Busy {
    idle: Idle,
    in_box: BoxDir,
}

/// Why serving ended: the exit code, and what is left to wipe.
type End = (i32, Home);

impl Idle {
    fn serve(self) -> End {
        let mut idle = self;
        loop {
            match idle.next() {
                Ok(ToWorker::Open(open)) => match idle.home.open(&open.files) {
                    Ok(in_box) => {
                        let path = in_box.path.to_string_lossy().into_owned();
                        let busy = Busy { idle, in_box };
                        match busy.serve(path) {
                            Ok(again) => idle = again,
                            Err(end) => return *end,
                        }
                    }
                    Err(reason) => {
                        if let Err(code) = idle.answer(FromWorker::Opened(Opened { outcome: Err(reason) })) {
                            return (code, idle.home);
                        }
                    }
                },
                Ok(ToWorker::Run(_) | ToWorker::Close(_)) => return (EXIT_PROTOCOL, idle.home),
                Err(code) => return (code, idle.home),
            }
        }
    }

    /// The next request, or the exit code where there is none.
    fn next(&mut self) -> Result<ToWorker, i32> {
        match frame::read_frame(&mut self.socket) {
            Ok(Some(request)) => Ok(request),
            Ok(None) | Err(frame::FrameError::Truncated | frame::FrameError::Io(_)) => Err(EXIT_DONE),
            Err(_) => Err(EXIT_PROTOCOL),
        }
    }

    fn answer(&mut self, answer: FromWorker) -> Result<(), i32> {
        match frame::write_frame(&mut self.socket, &answer) {
            Ok(()) => Ok(()),
            Err(frame::FrameError::Io(_)) => Err(EXIT_DONE),
            Err(_) => Err(EXIT_PROTOCOL),
        }
    }
}

impl Busy {
    /// Serves one box; answers the idle worker after its close.
    fn serve(mut self, path: String) -> Result<Idle, Box<End>> {
        let mut answer = FromWorker::Opened(Opened { outcome: Ok(path) });
        loop {
            let said = self.idle.answer(answer).and_then(|()| self.idle.next());
            answer = match said {
                Ok(ToWorker::Run(run)) => match self.run(&run) {
                    Some(ran) => FromWorker::Ran(ran),
                    None => return Err(Box::new((EXIT_DONE, self.idle.home))),
                },
                Ok(ToWorker::Close(close)) => {
                    let (mut idle, closed) = self.close(&close);
                    return match idle.answer(FromWorker::Closed(closed)) {
                        Ok(()) => Ok(idle),
                        Err(code) => Err(Box::new((code, idle.home))),
                    };
                }
                Ok(ToWorker::Open(_)) => return Err(Box::new((EXIT_PROTOCOL, self.idle.home))),
                Err(code) => return Err(Box::new((code, self.idle.home))),
            };
        }
    }

    /// `None`: the supervisor went away.
    fn run(&mut self, run: &Run) -> Option<Ran> {
        let idle = &mut self.idle;
        if let Some(reason) = &idle.dirty {
            let ended = Ended::Failed(format!("an earlier command is not gone: {reason}"));
            return Some(Ran { ended, witnessed: run.witness.as_ref().map(|_| false), ..command::nothing() });
        }
        match command::run(&mut idle.spawner, run, &self.in_box, &idle.socket, &mut idle.chunk) {
            Outcome::SupervisorGone => None,
            Outcome::Ran(ran, clean) => {
                idle.dirty = clean.err();
                Some(*ran)
            }
        }
    }

    fn close(self, close: &Close) -> (Idle, Closed) {
        let Self { mut idle, in_box } = self;
        let begun = Instant::now();
        let tracked = in_box.collect(close);
        let collect = begun.elapsed();
        drop(in_box);
        let begun = Instant::now();
        // The shared directories first: the one that boxes are in may have lost its rights.
        let reset = idle.shared.iter().try_for_each(Shared::reset);
        let wiped = reset
            .and_then(|()| idle.home.wipe_boxes())
            .and_then(|()| room::freed(idle.room.as_ref(), idle.spawner.account.as_ref()))
            .map_err(|error| format!("cannot wipe the box: {error}"));
        let clean = idle.dirty.clone().map_or(wiped, Err);
        let closed =
            Closed { tracked, clean, worker_rss_bytes: own_rss_bytes(), collect, wipe: begun.elapsed() };
        (idle, closed)
    }
}

fn own_rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
