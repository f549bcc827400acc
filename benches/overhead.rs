//! What one executable costs beyond the start of its process.
//!
//! Two ways to run a static program that does nothing:
//! - `fork_exec_wait`: `std::process::Command`, the least that it can cost from here;
//! - `open_run_close`: a box in a worker of the pool, the program in it under limits, the box wiped.
//!
//! Besides wall time, the processor time of all processes of ours together is printed for each, and
//! their difference: the overhead per executable. The program's own time is in both, so it drops out.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use evalmill::config::TierChoice;
use evalmill::sandbox::Policy;
use evalmill::worker::protocol::{Close, Ended, Open, Run, RunLimits, WorkerPolicy};
use evalmill::worker::{PoolSettings, WorkerPool};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

/// Executables over which processor time is taken.
const EXECUTABLES: u64 = 2_000;
/// Executables before that, which nobody counts.
const WARM_UP: u64 = 200;

fn main() {
    // Before any thread exists: this program is its own launcher of workers.
    evalmill::init();
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path());
    let bench = Bench::start(&program);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("overhead");
    group.bench_function("fork_exec_wait", |bencher| bencher.iter(|| bare(&program)));
    group.bench_function("open_run_close", |bencher| bencher.iter_custom(|times| bench.run(times).0));
    group.finish();
    criterion.final_summary();
    // `cargo test --benches` only wants to see that it works.
    if std::env::args().any(|argument| argument == "--bench") {
        bench.report(&program);
    }
    bench.stop();
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

/// The tier `EVALMILL_BENCH_TIER` names: none (the default) or namespaces.
fn sandbox(program: &Path) -> Option<Policy> {
    let tier = std::env::var("EVALMILL_BENCH_TIER").unwrap_or_else(|_| "none".to_owned());
    assert!(matches!(&*tier, "none" | "namespaces"), "EVALMILL_BENCH_TIER={tier}: none or namespaces");
    (tier == "namespaces").then(|| Policy {
        choice: TierChoice::Namespaces,
        binds: vec![program.to_path_buf()],
        disk_bytes: 256 << 20,
        disk_inodes: 10_000,
        network: false,
    })
}

/// A pool with one worker, so that executables run one after another as the bare ones do.
struct Bench {
    runtime: Runtime,
    tracker: TaskTracker,
    pool: WorkerPool,
    run: Run,
    _scratch: TempDir,
}

impl Bench {
    fn start(program: &Path) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let tracker = TaskTracker::new();
        let settings = PoolSettings {
            num_workers: 1,
            max_tasks_per_process: None,
            max_age: None,
            max_memory_bytes: None,
            executable: None,
            policy: WorkerPolicy {
                scratch_dir: scratch.path().to_path_buf(),
                interpreter: PathBuf::from("/usr/bin/python3"),
                path: "/usr/bin:/bin".to_owned(),
                processes: None,
                environment: Vec::new(),
                sandbox: sandbox(program),
            },
        };
        let pool = runtime.block_on(WorkerPool::start(settings, &tracker)).unwrap();
        println!("isolation tier {}: {:?}", pool.tier().name(), pool.missing());
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
        Self { runtime, tracker, pool, run, _scratch: scratch }
    }

    /// This many executables one after another; their wall time and, of that, what the commands took
    /// from fork to end.
    fn run(&self, times: u64) -> (Duration, Duration) {
        let (pool, run) = (self.pool.clone(), self.run.clone());
        // A task of the runtime, as the executor's are: the main thread only waits for it.
        let task = self.tracker.spawn_on(
            async move {
                let started = Instant::now();
                let mut commands = Duration::ZERO;
                for _ in 0..times {
                    let lease = pool.lease().await.unwrap();
                    let mut open = lease.open(Open { files: Vec::new() }).await.unwrap();
                    let ran = open.run(run.clone()).await.unwrap();
                    assert_eq!(ran.ended, Ended::Exited(0));
                    commands += ran.elapsed;
                    let close = Close { tracked: Vec::new(), max_file_bytes: 0, max_total_bytes: 0 };
                    open.close(close).await.unwrap().clean.unwrap();
                }
                (started.elapsed(), commands)
            },
            self.runtime.handle(),
        );
        self.runtime.block_on(task).unwrap()
    }

    fn report(&self, program: &Path) {
        let own = ["self".to_owned()];
        (0..WARM_UP).for_each(|_| bare(program));
        let before = cpu(&own);
        let started = Instant::now();
        (0..EXECUTABLES).for_each(|_| bare(program));
        let bare_wall = started.elapsed();
        let bare_cpu = cpu(&own) - before;

        self.run(WARM_UP);
        let ours = self.processes();
        let before = cpu(&ours);
        let each: Vec<_> = ours.iter().map(|process| cpu(std::slice::from_ref(process))).collect();
        let (wall, commands) = self.run(EXECUTABLES);
        assert_eq!(self.processes(), ours, "a worker was replaced meanwhile: measure again");
        let all_cpu = cpu(&ours) - before;

        println!("{EXECUTABLES} executables one after another, µs per executable:");
        println!("{:<24} {:>10} {:>10}", "", "wall", "processor");
        println!("{:<24} {:>10.1} {:>10.1}", "fork_exec_wait", micros(bare_wall), micros(bare_cpu));
        println!("{:<24} {:>10.1} {:>10.1}", "open_run_close", micros(wall), micros(all_cpu));
        println!("{:<24} {:>10.1}", "  the command in it", micros(commands));
        for (name, (process, before)) in
            ["  supervisor", "  launcher", "  worker and command"].iter().zip(ours.iter().zip(each))
        {
            println!("{name:<24} {:>10} {:>10.1}", "", micros(cpu(std::slice::from_ref(process)) - before));
        }
        println!(
            "{:<24} {:>10.1} {:>10.1}",
            "overhead per executable",
            micros(wall) - micros(bare_wall),
            micros(all_cpu) - micros(bare_cpu)
        );
    }

    /// This process, the launcher, and the workers.
    fn processes(&self) -> Vec<String> {
        let mut workers: Vec<_> = self.pool.worker_pids();
        workers.sort_unstable();
        let launcher = stat(&workers[0].to_string())[1].clone();
        let mut all = vec!["self".to_owned(), launcher];
        all.extend(workers.iter().map(ToString::to_string));
        all
    }

    fn stop(self) {
        self.runtime.block_on(self.pool.shutdown());
        self.tracker.close();
        self.runtime.block_on(self.tracker.wait());
    }
}

/// The fields of `/proc/<process>/stat` after the name: 0 is the state, 1 the parent.
fn stat(process: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    fields.split_whitespace().map(str::to_owned).collect()
}

/// Processor time of these processes and of all their children that were waited for. The kernel
/// gives it in ticks, 10 ms as a rule: over 2,000 executables that is 5 µs each.
fn cpu(processes: &[String]) -> Duration {
    let ticks: u64 = processes
        .iter()
        .flat_map(|process| stat(process)[11..15].to_vec())
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_secs(1) * u32::try_from(ticks).unwrap()
        / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap()
}

fn micros(total: Duration) -> f64 {
    total.as_secs_f64() * 1e6 / EXECUTABLES as f64
}
