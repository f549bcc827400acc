//! What one command costs beyond the start of its process, in each tier, and what a worker costs.
//!
//! Two ways to run a static program that does nothing, the second one in each tier that can be had:
//! - `fork_exec_wait`: `std::process::Command`, the least that it can cost from here;
//! - a box in a worker of the pool, the program in it under limits, the box wiped. Of that, `run` is the command
//!   alone, from the request to its answer, and `elapsed` what is told of it.
//!
//! Boxes are made in memory in every tier: in `none` and `process` they would be on the disk, which costs
//! milliseconds where others write to it.
//!
//! All are done in turn, a few of each at a time, so that they meet the same machine. Besides wall time, the
//! processor time of all processes of ours together is printed, without that of `fork_exec_wait`: the program's own
//! time is in both, so it drops out.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use evalmill::config::{Tier, TierChoice};
use evalmill::sandbox::Policy;
use evalmill::worker::protocol::{Close, Ended, Open, Run, RunLimits, WorkerPolicy};
use evalmill::worker::{PoolSettings, WorkerPool};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

/// Executables of each kind, in so many turns.
const EXECUTABLES: usize = 2_000;
const TURNS: usize = 40;
/// Executables before that, which nobody counts.
const WARM_UP: usize = 200;
/// Workers that are made.
const WORKERS: u64 = 100;
/// How long the program of each of them runs: longer than it takes to make the next one.
const NAP: &str = "0.06";

const TIERS: [TierChoice; 4] =
    [TierChoice::None, TierChoice::Process, TierChoice::Namespaces, TierChoice::Full];

fn main() {
    // Before any thread exists: this program is its own launcher of workers.
    evalmill::init();
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (runtime, program) = (&runtime, program.as_path());
    // One after another, as they are asked for.
    let start =
        |max_tasks| TIERS.iter().filter_map(move |tier| Bench::start(runtime, *tier, program, max_tasks));
    let benches: Vec<_> = start(None).collect();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("overhead");
    group.bench_function("fork_exec_wait", |bencher| bencher.iter(|| bare(program)));
    for bench in &benches {
        group.bench_function(format!("open_run_close/{}", bench.name()), |bencher| {
            bencher.iter_custom(|times| bench.run(times).iter().map(|one| one.whole).sum());
        });
    }
    group.finish();
    criterion.final_summary();
    // `cargo test --benches` only wants to see that it works.
    if std::env::args().any(|argument| argument == "--bench") {
        commands(program, &benches);
    }
    benches.into_iter().for_each(Bench::stop);
    if std::env::args().any(|argument| argument == "--bench") {
        println!("\n{WORKERS} workers, each for one program of {NAP} s, ms:");
        println!("{:<16} {:>10} {:>10} {:>18}", "", "build p50", "p95", "wait for it p50");
        start(Some(1)).map(Bench::workers).for_each(Bench::stop);
    }
}

/// A static program that does nothing.
fn compile(dir: &Path) -> PathBuf {
    let program = dir.join("noop");
    let mut cc = Command::new("cc")
        .args(["-static", "-O2", "-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("this benchmark compiles a small static C program, and `cc` cannot be started: {error}")
        });
    cc.stdin.take().unwrap().write_all(b"int main(void) { return 0; }\n").unwrap();
    let status = cc.wait().unwrap();
    assert!(status.success(), "`cc -static` failed ({status}): is the static C library installed?");
    program
}

fn bare(program: &Path) {
    assert!(Command::new(program).status().unwrap().success());
}

/// The times of one executable.
#[derive(Clone, Copy)]
struct Times {
    /// Until there is a worker.
    lease: Duration,
    /// The command, as told.
    elapsed: Duration,
    /// From the request to run it to the answer.
    run: Duration,
    /// All of it.
    whole: Duration,
}

/// A pool with one worker, so that executables run one after another as the bare ones do.
struct Bench<'a> {
    runtime: &'a Runtime,
    tracker: TaskTracker,
    pool: WorkerPool,
    run: Run,
    _scratch: TempDir,
}

impl<'a> Bench<'a> {
    /// `None`, and said: this tier cannot be had here.
    fn start(
        runtime: &'a Runtime,
        choice: TierChoice,
        program: &Path,
        max_tasks: Option<u64>,
    ) -> Option<Self> {
        let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
        let tracker = TaskTracker::new();
        let sandbox = (choice != TierChoice::None).then(|| Policy {
            choice,
            binds: vec![program.parent().unwrap().to_path_buf()],
            disk_bytes: 256 << 20,
            disk_inodes: 10_000,
            network: false,
        });
        let settings = PoolSettings {
            num_workers: 1,
            max_tasks_per_process: max_tasks,
            max_age: None,
            max_memory_bytes: None,
            executable: None,
            policy: WorkerPolicy {
                scratch_dir: scratch.path().to_path_buf(),
                interpreter: PathBuf::from("/usr/bin/python3"),
                path: "/usr/bin:/bin".to_owned(),
                processes: None,
                environment: Vec::new(),
                sandbox,
            },
        };
        let pool = runtime.block_on(WorkerPool::start(settings, &tracker)).unwrap();
        let run = Run {
            argv: vec![program.to_str().unwrap().to_owned()],
            stdin: Vec::new(),
            witness: None,
            limits: RunLimits {
                wall: Duration::from_secs(10),
                cpu: Duration::from_secs(10),
                memory_bytes: 1 << 30,
                output_bytes: 1 << 20,
                processes: 64,
                file_bytes: 1 << 26,
                open_files: 256,
            },
        };
        let bench = Self { runtime, tracker, pool, run, _scratch: scratch };
        let wanted = match choice {
            TierChoice::None => Tier::None,
            TierChoice::Process => Tier::Process,
            TierChoice::Namespaces => Tier::Namespaces,
            TierChoice::Full | TierChoice::Auto => Tier::Full,
        };
        if bench.pool.tier() == wanted {
            return Some(bench);
        }
        println!("tier {} cannot be had here: {:?}", wanted.name(), bench.pool.missing());
        bench.stop();
        None
    }

    fn name(&self) -> &'static str {
        self.pool.tier().name()
    }

    /// This many executables one after another.
    fn run(&self, times: u64) -> Vec<Times> {
        let (pool, run) = (self.pool.clone(), self.run.clone());
        // A task of the runtime, as the executor's are: the main thread only waits for it.
        let task = self.tracker.spawn_on(
            async move {
                let mut all = Vec::new();
                for _ in 0..times {
                    all.push(one(&pool, &run).await);
                }
                all
            },
            self.runtime.handle(),
        );
        self.runtime.block_on(task).unwrap()
    }

    /// Lets each worker do one thing.
    fn workers(mut self) -> Self {
        self.run.argv = vec!["sleep".to_owned(), NAP.to_owned()];
        let (mut builds, mut waits) = (Vec::new(), Vec::new());
        let mut before = self.pool.stats();
        while (builds.len() as u64) < WORKERS {
            waits.push(self.run(1)[0].lease);
            let now = self.pool.stats();
            // The first one is there before anybody asks; then there is one more with each.
            if now.workers_started == before.workers_started + 1 {
                builds.push(now.build_time - before.build_time);
            }
            before = now;
        }
        let [build, late, wait] =
            [p(50, &builds), p(95, &builds), p(50, &waits)].map(|time| time.as_secs_f64() * 1e3);
        println!("{:<16} {build:>10.1} {late:>10.1} {wait:>18.2}", self.name());
        self
    }

    /// This process, the launcher, and the worker.
    fn processes(&self) -> Vec<String> {
        let workers = self.pool.worker_pids();
        let launcher = stat(&workers[0].to_string())[1].clone();
        ["self".to_owned(), launcher].into_iter().chain(workers.iter().map(ToString::to_string)).collect()
    }

    fn stop(self) {
        self.runtime.block_on(self.pool.shutdown());
        self.tracker.close();
        self.runtime.block_on(self.tracker.wait());
    }
}

async fn one(pool: &WorkerPool, run: &Run) -> Times {
    let begun = Instant::now();
    let lease = pool.lease().await.unwrap();
    let leased = begun.elapsed();
    let mut open = lease.open(Open { files: Vec::new() }).await.unwrap();
    let asked = Instant::now();
    let ran = open.run(run.clone()).await.unwrap();
    let run = asked.elapsed();
    assert_eq!(ran.ended, Ended::Exited(0));
    let close = Close { tracked: Vec::new(), max_file_bytes: 0, max_total_bytes: 0 };
    open.close(close).await.unwrap().clean.unwrap();
    Times { lease: leased, elapsed: ran.elapsed, run, whole: begun.elapsed() }
}

/// What was measured of one tier.
#[derive(Default)]
struct Measured {
    times: Vec<Times>,
    processor: Duration,
}

fn commands(program: &Path, benches: &[Bench<'_>]) {
    let own = ["self".to_owned()];
    (0..WARM_UP).for_each(|_| bare(program));
    benches.iter().for_each(|bench| drop(bench.run(WARM_UP as u64)));
    let processes: Vec<_> = benches.iter().map(Bench::processes).collect();
    let (mut barely, mut bare_processor) = (Vec::new(), Duration::ZERO);
    let mut measured: Vec<_> = benches.iter().map(|_| Measured::default()).collect();
    for _ in 0..TURNS {
        let before = processor(&own);
        for _ in 0..EXECUTABLES / TURNS {
            let begun = Instant::now();
            bare(program);
            barely.push(begun.elapsed());
        }
        bare_processor += processor(&own) - before;
        for ((bench, ours), measured) in benches.iter().zip(&processes).zip(&mut measured) {
            let before = processor(ours);
            measured.times.extend(bench.run((EXECUTABLES / TURNS) as u64));
            assert_eq!(bench.processes(), *ours, "a worker was replaced meanwhile: measure again");
            measured.processor += processor(ours) - before;
        }
    }
    let base = p(50, &barely);
    println!(
        "{EXECUTABLES} of each, in turn, µs; p50 of all but the last; + what is more than fork_exec_wait:"
    );
    println!("{:<16} {:>18} {:>18} {:>18} {:>12}", "", "elapsed", "run", "open, run, close", "processor");
    let alone = micros(bare_processor) / EXECUTABLES as f64;
    println!(
        "{:<16} {:>18.0} {:>18.0} {:>18.0} {alone:>12.0}",
        "fork_exec_wait",
        micros(base),
        micros(base),
        micros(base)
    );
    for (bench, Measured { times, processor }) in benches.iter().zip(&measured) {
        let column = |of: fn(&Times) -> Duration| {
            let median = micros(p(50, &times.iter().map(of).collect::<Vec<_>>()));
            format!("{median:.0} ({:+.0})", median - micros(base))
        };
        println!(
            "{:<16} {:>18} {:>18} {:>18} {:>+12.0}",
            bench.name(),
            column(|one| one.elapsed),
            column(|one| one.run),
            column(|one| one.whole),
            micros(*processor) / EXECUTABLES as f64 - alone,
        );
    }
}

/// A percentile.
fn p(percent: usize, times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) * percent / 100]
}

/// The fields of `/proc/<process>/stat` after the name: 0 is the state, 1 the parent.
fn stat(process: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    fields.split_whitespace().map(str::to_owned).collect()
}

/// Processor time of these processes and of all their children that were waited for. The kernel
/// gives it in ticks, 10 ms as a rule: over 2,000 executables that is 5 µs each.
fn processor(processes: &[String]) -> Duration {
    let ticks: u64 = processes
        .iter()
        .flat_map(|process| stat(process)[11..15].to_vec())
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_secs(1) * u32::try_from(ticks).unwrap()
        / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
