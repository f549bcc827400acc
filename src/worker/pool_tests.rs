//! Invariants of the pool under random events, and that nobody waits for ever.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// The world around the pool: does what the actions say and checks that it may.
struct World {
    pool: Pool,
    rules: Rules,
    now: Duration,
    next_job: Job,
    waiting: VecDeque<Job>,
    ended: BTreeSet<Job>,
    starting: Vec<WorkerId>,
    idle: BTreeSet<WorkerId>,
    leased: HashMap<WorkerId, Job>,
    tasks: HashMap<WorkerId, u64>,
    ever: BTreeSet<WorkerId>,
    launcher: bool,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            pool: Pool::new(rules),
            rules,
            now: Duration::ZERO,
            next_job: 0,
            waiting: VecDeque::new(),
            ended: BTreeSet::new(),
            starting: Vec::new(),
            idle: BTreeSet::new(),
            leased: HashMap::new(),
            tasks: HashMap::new(),
            ever: BTreeSet::new(),
            launcher: false,
        }
    }

    fn feed(&mut self, event: Event) {
        for action in self.pool.handle(event, self.now) {
            match action {
                Action::Spawn { worker } => {
                    assert!(self.launcher, "spawned without a launcher");
                    assert!(self.ever.insert(worker), "number used twice");
                    self.starting.push(worker);
                }
                Action::Grant { job, worker } => {
                    assert!(self.idle.remove(&worker), "granted a worker that is not idle");
                    assert_eq!(self.waiting.pop_front(), Some(job), "out of order");
                    assert!(self.ended.insert(job), "granted twice");
                    assert!(self.leased.insert(worker, job).is_none());
                    let tasks = self.tasks.entry(worker).or_default();
                    *tasks += 1;
                    assert!(self.rules.max_tasks.is_none_or(|max| *tasks <= max), "too many tasks");
                }
                Action::Retire { worker, .. } => {
                    assert!(self.idle.remove(&worker), "retired a worker that is not idle");
                }
                Action::Kill { worker } => {
                    self.idle.remove(&worker);
                    assert!(!self.leased.contains_key(&worker), "killed under a job");
                }
            }
        }
        let living = self.starting.len() + self.idle.len() + self.leased.len();
        assert!(living <= self.rules.slots + 1, "{living} workers");
        assert!(self.leased.len() <= self.rules.slots);
        assert_eq!(self.pool.workers.len(), living);
    }

    fn pick(&self, from: usize, leased: bool) -> Option<WorkerId> {
        let mut all: Vec<_> = self.leased.keys().copied().collect();
        if !leased {
            all.extend(&self.idle);
        }
        all.sort_unstable();
        (!all.is_empty()).then(|| all[from % all.len()])
    }

    fn spawned(&mut self, index: usize, works: bool) {
        if self.starting.is_empty() {
            return;
        }
        let worker = self.starting.remove(index % self.starting.len());
        if works {
            self.idle.insert(worker);
            self.feed(Event::Spawned { worker });
        } else {
            self.feed(Event::SpawnFailed { worker });
        }
    }

    fn step(&mut self, kind: u8, index: usize) {
        match kind {
            0..=3 => {
                self.next_job += 1;
                self.waiting.push_back(self.next_job);
                self.feed(Event::Requested { job: self.next_job });
            }
            4 => {
                let job = index as u64 % (self.next_job + 1);
                if let Some(at) = self.waiting.iter().position(|waiting| *waiting == job) {
                    self.waiting.remove(at);
                    assert!(self.ended.insert(job));
                }
                self.feed(Event::Cancelled { job });
            }
            5..=7 => self.spawned(index, true),
            8 => self.spawned(index, false),
            9..=12 => {
                if let Some(worker) = self.pick(index, true) {
                    self.leased.remove(&worker);
                    self.idle.insert(worker);
                    let rss = (!index.is_multiple_of(5)).then_some(index as u64 % 120);
                    if rss.is_none() {
                        *self.tasks.entry(worker).or_default() -= 1;
                    }
                    self.feed(Event::Returned { worker, rss, clean: !index.is_multiple_of(7) });
                }
            }
            13 => {
                if let Some(worker) = self.pick(index, false) {
                    self.leased.remove(&worker);
                    self.feed(Event::Lost { worker, reason: RecycleReason::Lost });
                    self.feed(Event::Lost { worker, reason: RecycleReason::ProtocolError });
                    self.feed(Event::Returned { worker, rss: Some(1), clean: true });
                }
            }
            14 => {
                self.launcher = false;
                self.starting.clear();
                self.feed(Event::LauncherLost);
                assert!(self.idle.is_empty());
            }
            15 => {
                self.launcher = true;
                self.feed(Event::LauncherReady);
            }
            _ => {
                self.now += Duration::from_secs(index as u64 % 20);
                self.feed(Event::Tick);
            }
        }
    }
}

proptest! {
    #[test]
    fn invariants_hold_and_everybody_is_served(
        slots in 1usize..5,
        max_tasks in proptest::option::of(1u64..4),
        max_age in proptest::option::of(1u64..100),
        max_memory in proptest::option::of(50u64..200),
        steps in proptest::collection::vec((0u8..18, any::<usize>()), 0..200),
    ) {
        let max_age = max_age.map(Duration::from_secs);
        let mut world = World::new(Rules { slots, max_tasks, max_age, max_memory_bytes: max_memory });
        for (kind, index) in steps {
            world.step(kind, index);
        }
        // From here on everything works: all who still wait are served, in bounded time.
        world.step(15, 0);
        for _ in 0..4 * world.waiting.len() + 20 {
            world.step(16, 0);
            while !world.starting.is_empty() {
                world.spawned(0, true);
            }
            if let Some(worker) = world.pick(0, true) {
                world.leased.remove(&worker);
                world.idle.insert(worker);
                world.feed(Event::Returned { worker, rss: Some(1), clean: true });
            }
        }
        prop_assert!(world.waiting.is_empty());
        prop_assert_eq!(world.ended.len() as u64, world.next_job);
    }
}

fn ready(rules: Rules) -> World {
    let mut world = World::new(rules);
    world.step(15, 0);
    while !world.starting.is_empty() {
        world.spawned(0, true);
    }
    world
}

#[test]
fn a_spare_is_started_during_the_last_task() {
    let mut world = ready(Rules { slots: 1, max_tasks: Some(2), max_age: None, max_memory_bytes: None });
    world.step(0, 0);
    assert!(world.starting.is_empty());
    world.leased.clear();
    world.idle.insert(0);
    world.feed(Event::Returned { worker: 0, rss: Some(1), clean: true });
    world.step(0, 0);
    assert_eq!(world.starting, [1]);
    world.spawned(0, true);
    world.leased.clear();
    world.idle.insert(0);
    world.feed(Event::Returned { worker: 0, rss: Some(1), clean: true });
    assert_eq!(world.pool.recycled().get("max_tasks"), Some(&1));
    world.step(0, 0);
    assert!(world.leased.contains_key(&1));
}

#[test]
fn idle_workers_are_replaced_one_by_one_before_their_age() {
    let max_age = Some(Duration::from_secs(100));
    let mut world = ready(Rules { slots: 3, max_tasks: None, max_age, max_memory_bytes: None });
    world.now = Duration::from_secs(95);
    for _ in 0..3 {
        world.feed(Event::Tick);
        world.spawned(0, true);
        assert!(world.idle.len() >= 3);
    }
    assert_eq!(world.idle, BTreeSet::from([3, 4, 5]));
}

#[test]
fn a_lost_launcher_takes_no_job_with_it() {
    let mut world = ready(Rules { slots: 2, max_tasks: None, max_age: None, max_memory_bytes: None });
    world.step(0, 0);
    world.step(14, 0);
    assert_eq!(world.leased.len(), 1);
    assert!(world.idle.is_empty());
    world.leased.clear();
    world.idle.insert(0);
    world.feed(Event::Returned { worker: 0, rss: Some(1), clean: true });
    assert!(world.idle.is_empty());
    assert_eq!(world.pool.recycled().get("launcher_lost"), Some(&2));
}
