//! Which worker does which job, and which workers there should be: a state machine without I/O and
//! without a clock. [`Pool::handle`] takes what happened and answers with what to do.
//!
//! Invariants, for any sequence of events:
//! - a worker has at most one job; at most `slots` workers have one;
//! - every requested job is granted or cancelled exactly once, grants in order of request;
//! - a retired worker is never granted, a worker number never used twice;
//! - living workers (starting, idle or leased) are at most `slots` and one spare, the spare only
//!   while a living worker is near its end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Number of a request.
pub(crate) type Job = u64;
/// Number of a worker.
pub(crate) type WorkerId = u64;

/// Why a worker was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecycleReason {
    /// It did all the tasks it may do.
    MaxTasks,
    /// It is old.
    MaxAge,
    /// It is large.
    MaxMemory,
    /// It could not vouch for a clean box.
    Unclean,
    /// It broke the protocol, or did not answer in time.
    ProtocolError,
    /// It ended, or its user let it go in the middle of a box.
    Lost,
    /// The launcher that made it is gone.
    LauncherLost,
}

impl RecycleReason {
    /// Name in statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTasks => "max_tasks",
            Self::MaxAge => "max_age",
            Self::MaxMemory => "max_memory",
            Self::Unclean => "unclean",
            Self::ProtocolError => "protocol_error",
            Self::Lost => "lost",
            Self::LauncherLost => "launcher_lost",
        }
    }
}

/// What the pool has to know of the settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Jobs at the same time; at least one.
    pub(crate) slots: usize,
    /// See `PoolSettings`.
    pub(crate) max_tasks: Option<u64>,
    /// See `PoolSettings`.
    pub(crate) max_age: Option<Duration>,
    /// See `PoolSettings`.
    pub(crate) max_memory_bytes: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Somebody wants a worker; job numbers are not used twice.
    Requested { job: Job },
    /// Nobody wants it any more; of a job already granted, this means nothing.
    Cancelled { job: Job },
    /// A worker that was asked for lives.
    Spawned { worker: WorkerId },
    /// A worker that was asked for does not; the next [`Event::Tick`] asks for another.
    SpawnFailed { worker: WorkerId },
    /// A job gives its worker back. `rss`: its size after the box, `None` if it did nothing.
    Returned { worker: WorkerId, rss: Option<u64>, clean: bool },
    /// A worker is of no use any more, leased or not.
    Lost { worker: WorkerId, reason: RecycleReason },
    /// No worker can be made; those that live go on.
    LauncherLost,
    /// Workers can be made.
    LauncherReady,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a worker.
    Spawn { worker: WorkerId },
    /// Give this worker to this job.
    Grant { job: Job, worker: WorkerId },
    /// Let this idle worker end.
    Retire { worker: WorkerId, reason: RecycleReason },
    /// End this worker by force, if it still lives.
    Kill { worker: WorkerId },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Idle,
    Leased,
}

#[derive(Debug)]
struct Worker {
    state: State,
    born: Duration,
    /// Tasks given to it.
    tasks: u64,
    /// Its launcher is gone: it is retired when it comes back.
    doomed: bool,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Pool {
    rules: Rules,
    next: WorkerId,
    workers: BTreeMap<WorkerId, Worker>,
    waiting: VecDeque<Job>,
    launcher_ready: bool,
    /// A spawn failed: none is asked for before the next tick.
    paused: bool,
    recycled: BTreeMap<&'static str, u64>,
    started: u64,
}

impl Pool {
    /// No worker, no job, no launcher.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            next: 0,
            workers: BTreeMap::new(),
            waiting: VecDeque::new(),
            launcher_ready: false,
            paused: false,
            recycled: BTreeMap::new(),
            started: 0,
        }
    }

    /// Does this worker live, as far as the pool cares?
    pub(crate) fn knows(&self, worker: WorkerId) -> bool {
        self.workers.contains_key(&worker)
    }

    /// Workers replaced, by reason.
    pub(crate) fn recycled(&self) -> &BTreeMap<&'static str, u64> {
        &self.recycled
    }

    /// Workers that came to life.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    /// Takes one event in and says what to do about it, in order. `now` never goes back.
    pub(crate) fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Requested { job } => self.waiting.push_back(job),
            Event::Cancelled { job } => self.waiting.retain(|waiting| *waiting != job),
            Event::Spawned { worker } => self.spawned(worker, now, &mut actions),
            Event::SpawnFailed { worker } => {
                if self.workers.get(&worker).is_some_and(|worker| worker.state == State::Starting) {
                    self.workers.remove(&worker);
                    self.paused = true;
                }
            }
            Event::Returned { worker, rss, clean } => self.returned(worker, rss, clean, now, &mut actions),
            Event::Lost { worker, reason } => {
                if let Some(lost) = self.workers.remove(&worker) {
                    self.count(reason);
                    // One that ends before its first task would end again: not at once.
                    self.paused |= lost.tasks == 0 && lost.state == State::Idle;
                    actions.push(Action::Kill { worker });
                }
            }
            Event::LauncherLost => self.launcher_lost(&mut actions),
            Event::LauncherReady => {
                self.launcher_ready = true;
                self.paused = false;
            }
            Event::Tick => self.paused = false,
        }
        self.retire_old(now, &mut actions);
        self.grant(now, &mut actions);
        self.fill(now, &mut actions);
        actions
    }

    fn spawned(&mut self, worker: WorkerId, now: Duration, actions: &mut Vec<Action>) {
        match self.workers.get_mut(&worker) {
            Some(known) if known.state == State::Starting => {
                known.state = State::Idle;
                known.born = now;
                self.started += 1;
            }
            Some(_) => {}
            // Given up before it came: nothing may use it.
            None => actions.push(Action::Kill { worker }),
        }
    }

    fn returned(
        &mut self,
        id: WorkerId,
        rss: Option<u64>,
        clean: bool,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let rules = self.rules;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.state != State::Leased {
            return;
        }
        worker.state = State::Idle;
        if rss.is_none() {
            worker.tasks -= 1;
        }
        let reason = if !clean {
            Some(RecycleReason::Unclean)
        } else if worker.doomed {
            Some(RecycleReason::LauncherLost)
        } else if rules.max_tasks.is_some_and(|max| worker.tasks >= max) {
            Some(RecycleReason::MaxTasks)
        } else if rules.max_memory_bytes.is_some_and(|max| rss.is_some_and(|rss| rss > max)) {
            Some(RecycleReason::MaxMemory)
        } else if rules.max_age.is_some_and(|max| now.saturating_sub(worker.born) >= max) {
            Some(RecycleReason::MaxAge)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.retire(id, reason, actions);
        }
    }

    fn launcher_lost(&mut self, actions: &mut Vec<Action>) {
        self.launcher_ready = false;
        let mut idle = Vec::new();
        self.workers.retain(|id, worker| {
            worker.doomed = true;
            if worker.state == State::Idle {
                idle.push(*id);
            }
            worker.state != State::Starting
        });
        for worker in idle {
            self.retire(worker, RecycleReason::LauncherLost, actions);
        }
    }

    fn retire(&mut self, worker: WorkerId, reason: RecycleReason, actions: &mut Vec<Action>) {
        self.workers.remove(&worker);
        self.count(reason);
        actions.push(Action::Retire { worker, reason });
    }

    fn count(&mut self, reason: RecycleReason) {
        *self.recycled.entry(reason.as_str()).or_insert(0) += 1;
    }

    /// Retires idle workers of full age, and one that is near it as soon as its spare is there.
    fn retire_old(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(max) = self.rules.max_age else { return };
        let old: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.state == State::Idle && now.saturating_sub(worker.born) >= max)
            .map(|(id, _)| *id)
            .collect();
        for worker in old {
            self.retire(worker, RecycleReason::MaxAge, actions);
        }
        let starting = self.workers.values().any(|worker| worker.state == State::Starting);
        if self.workers.len() > self.rules.slots && !starting {
            let near = self
                .workers
                .iter()
                .find(|(_, worker)| worker.state == State::Idle && self.near_its_end(worker, now));
            if let Some(worker) = near.map(|(id, _)| *id) {
                self.retire(worker, RecycleReason::MaxAge, actions);
            }
        }
    }

    /// In its last task, in the last tenth of its age, or without a launcher.
    fn near_its_end(&self, worker: &Worker, now: Duration) -> bool {
        let last_task =
            worker.state == State::Leased && self.rules.max_tasks.is_some_and(|max| worker.tasks >= max);
        let age = now.saturating_sub(worker.born);
        let old =
            worker.state != State::Starting && self.rules.max_age.is_some_and(|max| age >= max - max / 10);
        worker.doomed || last_task || old
    }

    fn grant(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut leased = self.workers.values().filter(|worker| worker.state == State::Leased).count();
        while leased < self.rules.slots && !self.waiting.is_empty() {
            let best = self
                .workers
                .iter()
                .filter(|(_, worker)| worker.state == State::Idle)
                .min_by_key(|(id, worker)| (self.near_its_end(worker, now), **id))
                .map(|(id, _)| *id);
            let Some(id) = best else { return };
            let (Some(worker), Some(job)) = (self.workers.get_mut(&id), self.waiting.pop_front()) else {
                return;
            };
            worker.state = State::Leased;
            worker.tasks += 1;
            leased += 1;
            actions.push(Action::Grant { job, worker: id });
        }
    }

    fn fill(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !self.launcher_ready || self.paused {
            return;
        }
        let mut usable = self.workers.values().filter(|worker| !self.near_its_end(worker, now)).count();
        while usable < self.rules.slots && self.workers.len() < self.rules.slots + 1 {
            let worker = self.next;
            self.next += 1;
            self.workers
                .insert(worker, Worker { state: State::Starting, born: now, tasks: 0, doomed: false });
            usable += 1;
            actions.push(Action::Spawn { worker });
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
