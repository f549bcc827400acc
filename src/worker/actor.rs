//! The task behind [`WorkerPool`](super::manager::WorkerPool).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::client::{Ending, Lease};
use super::inside::tree::parent_of;
use super::launch::{ANSWER_LIMIT, LauncherProcess};
use super::launcher;
use super::manager::Report;
use super::pool::{Action, Event, Job, Pool, RecycleReason, Rules, WorkerId};
use super::protocol::{FromLauncher, ToLauncher};
use super::settings::{PoolSettings, WorkerError};
use crate::config::Tier;
use crate::util::retry::Retry;

/// Time between two looks at everything that only time brings about.
const TICK: Duration = Duration::from_millis(250);
/// How long a worker whose socket was closed may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long the launcher may take to end at shutdown.
const LAUNCHER_END: Duration = Duration::from_secs(5);
/// How long workers of a lost launcher may take to end at shutdown.
const ORPHANS_END: Duration = Duration::from_secs(1);
/// Launchers in a row that do not start before those who wait are told.
const PATIENCE: u32 = 5;
/// Workers in a row that cannot be made before those who wait are told.
const SPAWN_PATIENCE: u32 = 12;
const RETRY_INITIAL: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Somebody wants a worker.
#[derive(Debug)]
pub(crate) struct Request {
    /// Gets the worker.
    pub(crate) reply: oneshot::Sender<Result<Lease, WorkerError>>,
    /// Ends when nobody waits any more.
    pub(crate) gone: oneshot::Receiver<()>,
}

/// A worker's process that is not known to have ended.
struct Process {
    pid: i32,
    /// For when the launcher that could kill it is gone.
    pidfd: Option<OwnedFd>,
    /// Its launcher is gone: nobody reports its end.
    orphan: bool,
    /// Told to end; killed at this time.
    end_by: Option<Instant>,
}

pub(crate) struct Actor {
    settings: PoolSettings,
    report: Arc<Mutex<Report>>,
    requests: mpsc::Receiver<Request>,
    stop: CancellationToken,
    epoch: Instant,
    pool: Pool,
    launcher: Option<LauncherProcess>,
    tier: Tier,
    starting: Option<BoxFuture<'static, Result<LauncherProcess, WorkerError>>>,
    launcher_retry: Retry,
    launcher_failures: u32,
    launcher_restarts: u64,
    spawn_retry: Retry,
    /// Workers in a row that could not be made or ended unused.
    spawn_failures: u32,
    /// No [`Event::Tick`] before: a worker could not be made a moment ago.
    no_tick_before: Option<Instant>,
    outbox: VecDeque<ToLauncher>,
    /// Spawns that the launcher has not answered, and when it was asked.
    unanswered: BTreeMap<WorkerId, Instant>,
    build_time: Duration,
    processes: BTreeMap<WorkerId, Process>,
    idle: HashMap<WorkerId, UnixStream>,
    next_job: Job,
    waiting: BTreeMap<Job, oneshot::Sender<Result<Lease, WorkerError>>>,
    gone: FuturesUnordered<BoxFuture<'static, Job>>,
    leases: FuturesUnordered<BoxFuture<'static, (WorkerId, Option<Ending>)>>,
}

impl Actor {
    pub(crate) fn new(
        settings: PoolSettings,
        report: Arc<Mutex<Report>>,
        requests: mpsc::Receiver<Request>,
        stop: CancellationToken,
    ) -> Self {
        let rules = Rules {
            slots: settings.num_workers,
            max_tasks: settings.max_tasks_per_process,
            max_age: settings.max_age,
            max_memory_bytes: settings.max_memory_bytes,
        };
        Self {
            settings,
            report,
            requests,
            stop,
            epoch: Instant::now(),
            pool: Pool::new(rules),
            launcher: None,
            tier: Tier::None,
            starting: None,
            launcher_retry: Retry::new(RETRY_INITIAL, RETRY_MAX),
            launcher_failures: 0,
            launcher_restarts: 0,
            spawn_retry: Retry::new(RETRY_INITIAL, RETRY_MAX),
            spawn_failures: 0,
            no_tick_before: None,
            outbox: VecDeque::new(),
            unanswered: BTreeMap::new(),
            build_time: Duration::ZERO,
            processes: BTreeMap::new(),
            idle: HashMap::new(),
            next_job: 0,
            waiting: BTreeMap::new(),
            gone: FuturesUnordered::new(),
            leases: FuturesUnordered::new(),
        }
    }

    pub(crate) async fn run(mut self, launcher: LauncherProcess) {
        self.tier = launcher.tier;
        self.launcher = Some(launcher);
        self.apply(Event::LauncherReady);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        loop {
            self.flush();
            self.publish();
            tokio::select! {
                () = stop.cancelled() => break,
                request = self.requests.recv() => match request {
                    Some(request) => self.requested(request),
                    None => break,
                },
                Some((worker, ending)) = self.leases.next() => self.ended(worker, ending),
                Some(job) = self.gone.next() => {
                    self.waiting.remove(&job);
                    self.apply(Event::Cancelled { job });
                }
                packet = receive(self.launcher.as_ref()) => match packet {
                    Ok(Some((message, passed))) => self.heard(message, passed),
                    Ok(None) => self.launcher_lost("it ended"),
                    Err(error) => self.launcher_lost(&error.to_string()),
                },
                outcome = started(self.starting.as_mut()) => self.launcher_started(outcome),
                _ = tick.tick() => self.ticked(),
            }
        }
        self.end().await;
    }

    fn apply(&mut self, event: Event) {
        for action in self.pool.handle(event, self.epoch.elapsed()) {
            match action {
                Action::Spawn { worker } => {
                    self.unanswered.insert(worker, Instant::now());
                    self.outbox.push_back(ToLauncher::Spawn { worker });
                }
                Action::Grant { job, worker } => self.grant(job, worker),
                Action::Retire { worker, reason } => {
                    tracing::debug!(worker, reason = reason.as_str(), "worker retired");
                    self.let_end(worker);
                }
                Action::Kill { worker } => {
                    self.let_end(worker);
                    // Without a launcher nobody would kill what is below the worker: it gets the
                    // time to do so itself.
                    if self.processes.get(&worker).is_some_and(|process| !process.orphan) {
                        self.outbox.push_back(ToLauncher::Kill { worker });
                    }
                }
            }
        }
    }

    /// Closes the worker's socket, which tells it to end.
    fn let_end(&mut self, worker: WorkerId) {
        self.idle.remove(&worker);
        if let Some(process) = self.processes.get_mut(&worker) {
            process.end_by = Some(Instant::now() + GRACE);
        }
    }

    fn grant(&mut self, job: Job, worker: WorkerId) {
        let (Some(reply), Some(stream)) = (self.waiting.remove(&job), self.idle.remove(&worker)) else {
            tracing::error!(job, worker, "granted without a waiter or a socket");
            return;
        };
        let (ending, ended) = oneshot::channel();
        self.leases.push(async move { (worker, ended.await.ok()) }.boxed());
        // If nobody waits any more, the lease comes back at once.
        let _ = reply.send(Ok(Lease::new(worker, stream, ending)));
    }

    fn requested(&mut self, Request { reply, gone }: Request) {
        self.next_job += 1;
        let job = self.next_job;
        self.waiting.insert(job, reply);
        self.gone.push(gone.map(move |_| job).boxed());
        self.apply(Event::Requested { job });
    }

    fn ended(&mut self, worker: WorkerId, ending: Option<Ending>) {
        match ending {
            Some(Ending::Returned { stream, rss, clean }) => {
                if let Err(reason) = &clean {
                    tracing::warn!(worker, reason, "worker is not clean");
                }
                if self.pool.knows(worker) {
                    self.idle.insert(worker, stream);
                }
                if rss.is_some() {
                    self.spawn_retry.reset();
                    self.spawn_failures = 0;
                }
                self.apply(Event::Returned { worker, rss, clean: clean.is_ok() });
            }
            Some(Ending::Broken) => self.apply(Event::Lost { worker, reason: RecycleReason::ProtocolError }),
            None => self.apply(Event::Lost { worker, reason: RecycleReason::Lost }),
        }
    }

    fn heard(&mut self, message: FromLauncher, passed: Option<OwnedFd>) {
        match message {
            FromLauncher::Started { .. } => self.launcher_lost("it started twice"),
            FromLauncher::Spawned { worker, pid } => {
                let asked = self.unanswered.remove(&worker);
                self.build_time += asked.map_or(Duration::ZERO, |asked| asked.elapsed());
                let process = Process { pid, pidfd: self.open_pidfd(pid), orphan: false, end_by: None };
                self.processes.insert(worker, process);
                match passed.and_then(|socket| to_stream(socket).ok()) {
                    Some(stream) => {
                        self.idle.insert(worker, stream);
                        self.apply(Event::Spawned { worker });
                    }
                    None => {
                        self.outbox.push_back(ToLauncher::Kill { worker });
                        self.spawn_failed(worker, "its socket is of no use");
                    }
                }
            }
            FromLauncher::SpawnFailed { worker, reason } => {
                self.unanswered.remove(&worker);
                self.spawn_failed(worker, &reason);
            }
            FromLauncher::Exited { worker, status } => {
                tracing::debug!(worker, status, "worker ended");
                self.processes.remove(&worker);
                if self.idle.remove(&worker).is_some() {
                    self.pause_spawns("a worker ended while it was idle");
                }
                self.apply(Event::Lost { worker, reason: RecycleReason::Lost });
            }
        }
    }

    fn spawn_failed(&mut self, worker: WorkerId, reason: &str) {
        tracing::warn!(worker, reason, "a worker could not be made");
        self.pause_spawns(reason);
        self.apply(Event::SpawnFailed { worker });
    }

    /// Puts off the next try; where none succeeds for long, those who wait are told.
    fn pause_spawns(&mut self, reason: &str) {
        self.no_tick_before = Some(Instant::now() + self.spawn_retry.next_delay());
        self.spawn_failures += 1;
        if self.spawn_failures >= SPAWN_PATIENCE {
            self.fail_waiting(reason);
        }
    }

    /// A pidfd of a worker just announced; none if the number is no longer the launcher's child.
    fn open_pidfd(&self, pid: i32) -> Option<OwnedFd> {
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        (parent_of(pid) == Some(self.launcher.as_ref()?.pid)).then_some(pidfd)
    }

    fn launcher_lost(&mut self, reason: &str) {
        let Some(launcher) = self.launcher.take() else { return };
        tracing::warn!(pid = launcher.pid, reason, "the launcher is lost and will be replaced");
        self.outbox.clear();
        self.unanswered.clear();
        for process in self.processes.values_mut() {
            process.orphan = true;
        }
        self.apply(Event::LauncherLost);
        self.start_launcher(Some(launcher));
    }

    fn start_launcher(&mut self, old: Option<LauncherProcess>) {
        let delay = self.launcher_retry.next_delay();
        let settings = self.settings.clone();
        let start = async move {
            if let Some(old) = old {
                old.kill().await;
            }
            tokio::time::sleep(delay).await;
            LauncherProcess::start(&settings).await
        };
        self.starting = Some(start.boxed());
    }

    fn launcher_started(&mut self, outcome: Result<LauncherProcess, WorkerError>) {
        self.starting = None;
        let outcome = outcome.and_then(|launcher| self.as_isolated(launcher));
        match outcome {
            Ok(launcher) => {
                tracing::info!(pid = launcher.pid, "the launcher was replaced");
                self.launcher = Some(launcher);
                self.launcher_failures = 0;
                self.launcher_restarts += 1;
                self.apply(Event::LauncherReady);
            }
            Err(error) => {
                self.launcher_failures += 1;
                tracing::warn!(failures = self.launcher_failures, %error, "the launcher does not start");
                if self.launcher_failures >= PATIENCE {
                    // Those who wait are told which launcher it is by the same error, made anew.
                    match &error {
                        WorkerError::LauncherUnavailable { reason, .. } => self.fail_waiting(reason),
                        other => self.fail_waiting(&other.to_string()),
                    }
                }
                self.start_launcher(None);
            }
        }
    }

    /// Results are stamped with the tier of the first launcher: none of its successors may be below it.
    fn as_isolated(&self, launcher: LauncherProcess) -> Result<LauncherProcess, WorkerError> {
        if launcher.tier == self.tier {
            return Ok(launcher);
        }
        let missing = launcher.missing.first().map(ToString::to_string).unwrap_or_default();
        let reason = format!(
            "its isolation tier is \"{}\" and was \"{}\" before: {missing}",
            launcher.tier.name(),
            self.tier.name()
        );
        // Its socket closes with it, and then it ends.
        Err(WorkerError::LauncherUnavailable {
            executable: LauncherProcess::executable(&self.settings),
            reason,
        })
    }

    fn fail_waiting(&mut self, reason: &str) {
        for (job, reply) in std::mem::take(&mut self.waiting) {
            let executable = LauncherProcess::executable(&self.settings);
            let reason = reason.to_owned();
            let _ = reply.send(Err(WorkerError::LauncherUnavailable { executable, reason }));
            self.apply(Event::Cancelled { job });
        }
    }

    fn ticked(&mut self) {
        let now = Instant::now();
        if self.unanswered.values().any(|asked| *asked + ANSWER_LIMIT <= now) {
            self.launcher_lost("it does not answer");
        }
        let mut overdue = Vec::new();
        self.processes.retain(|worker, process| {
            let due = process.end_by.is_some_and(|end_by| end_by <= now);
            if due && !process.orphan {
                overdue.push(ToLauncher::Kill { worker: *worker });
                process.end_by = Some(now + GRACE);
            }
            if due && process.orphan {
                process.kill();
            }
            // Nobody reports the end of an orphan.
            !(process.orphan && process.end_by.is_some() && (due || process.has_ended()))
        });
        self.outbox.extend(overdue);
        if self.no_tick_before.is_none_or(|before| before <= now) {
            self.no_tick_before = None;
            self.launcher_settled();
            self.apply(Event::Tick);
        }
    }

    /// The delay before the next launcher starts small again once this one makes workers.
    fn launcher_settled(&mut self) {
        if self.launcher.is_some() && self.processes.values().any(|process| !process.orphan) {
            self.launcher_retry.reset();
        }
    }

    /// Sends what waits to be sent; what does not fit now waits for the next event.
    fn flush(&mut self) {
        let Some(launcher) = &self.launcher else {
            self.outbox.clear();
            return;
        };
        while let Some(message) = self.outbox.front() {
            match launcher.socket.try_send(message) {
                Ok(()) => {
                    self.outbox.pop_front();
                }
                // Full: a launcher that hangs is found by its unanswered spawns. Anything else is
                // seen when its socket is read.
                Err(_) => return,
            }
        }
    }

    fn publish(&self) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.stats.recycled.clone_from(self.pool.recycled());
        report.stats.launcher_restarts = self.launcher_restarts;
        report.stats.workers_started = self.pool.started();
        report.stats.build_time = self.build_time;
        report.pids = self.processes.iter().map(|(worker, process)| (*worker, process.pid)).collect();
    }

    async fn end(mut self) {
        self.requests.close();
        self.waiting.clear();
        self.idle.clear();
        self.starting = None;
        if let Some(launcher) = self.launcher.take() {
            launcher.finish(LAUNCHER_END).await;
        }
        let until = Instant::now() + ORPHANS_END;
        for process in std::mem::take(&mut self.processes).into_values().filter(|process| process.orphan) {
            process.finish(until).await;
        }
        // The launcher has done it, unless it was killed; workers of a lost launcher may have made
        // something since, of any depth.
        let scratch = self.settings.policy.scratch_dir.clone();
        let _ = tokio::task::spawn_blocking(move || launcher::remove_whole(&scratch)).await;
        self.publish();
    }
}

impl Process {
    fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    fn has_ended(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(pidfd) = &self.pidfd else { return true };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(1))
    }

    /// Waits for its end, and kills it when that does not come.
    async fn finish(mut self, until: Instant) {
        let Some(pidfd) = self.pidfd.take() else { return };
        let Ok(pidfd) = super::fork::watch(pidfd, Interest::READABLE) else { return };
        if tokio::time::timeout_at(until, pidfd.readable()).await.is_err() {
            let _ = rustix::process::pidfd_send_signal(pidfd.get_ref(), Signal::KILL);
        }
    }
}

fn to_stream(socket: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = StdUnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn receive(
    launcher: Option<&LauncherProcess>,
) -> std::io::Result<Option<(FromLauncher, Option<OwnedFd>)>> {
    match launcher {
        Some(launcher) => launcher.socket.receive().await,
        None => std::future::pending().await,
    }
}

async fn started(
    starting: Option<&mut BoxFuture<'static, Result<LauncherProcess, WorkerError>>>,
) -> Result<LauncherProcess, WorkerError> {
    match starting {
        Some(starting) => starting.await,
        None => std::future::pending().await,
    }
}
