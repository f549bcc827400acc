//! How long `evalmill report` takes over a file of a million results, and how much memory.
//!
//! The file is made first: results of HumanEval's size, 10 runs of 10,000 tasks with 10 samples each, one
//! in a hundred of them twice. `EVALMILL_BENCH_RESULTS` is another number; `EVALMILL_BENCH_FILE` keeps the
//! file under that name, and does nothing else.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const TASKS: u64 = 10_000;
const SAMPLES: u64 = 10;

fn main() {
    // `cargo test --benches` only wants to see that it works.
    let default = if std::env::args().any(|argument| argument == "--bench") { 1_000_000 } else { 1_000 };
    let count = std::env::var("EVALMILL_BENCH_RESULTS").map_or(default, |count| count.parse().unwrap());
    if let Ok(path) = std::env::var("EVALMILL_BENCH_FILE") {
        return write(Path::new(&path), count);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("results.jsonl");
    write(&path, count);
    let size = path.metadata().unwrap().len();
    println!("{count} results, {:.0} MB", size as f64 / 1e6);
    for format in ["text", "json"] {
        let (seconds, megabytes) = report(&path, format, count);
        println!("report --format {format}: {seconds:.2} s, at most {megabytes:.0} MB resident");
    }
}

fn write(path: &Path, count: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    for number in 0..count {
        let line = serde_json::to_vec(&result(number)).unwrap();
        for _ in 0..1 + u64::from(number % 100 == 99) {
            out.write_all(&line).unwrap();
            out.write_all(b"\n").unwrap();
        }
    }
    out.flush().unwrap();
}

fn result(number: u64) -> Value {
    // Not in the order of tasks, as results of a service are not.
    let (task, sample) = (number.wrapping_mul(7_919) % TASKS, number / TASKS % SAMPLES);
    let run = format!("run-{}", number / (TASKS * SAMPLES));
    let id = format!("{run}/Task/{task}/{sample}/{number}");
    let verdict = ["passed", "failed", "passed", "timed_out", "passed", "crashed", "infra_error"]
        [(number.wrapping_mul(2_654_435_761) >> 7) as usize % 7];
    let seconds = |scale: f64| (number % 1_000) as f64 * scale;
    json!({
        "schema": "result.v1", "result_id": evalmill::model::result_id(&id, b""), "id": id, "run": run,
        "task": format!("Task/{task}"), "verdict": verdict, "passed": verdict == "passed", "detail": null,
        "prediction": {
            "prompt": "def solution(numbers):\n    \"\"\"Sorts them, and says how often \u{fc} each comes.\"\"\"\n".repeat(3),
            "completion": "    counts = {}\n    for number in numbers:\n        counts[number] = 1\n".repeat(4),
            "test": "def check(candidate):\n    assert candidate([1, 2, 2]) == [(1, 1), (2, 2)]\n".repeat(3),
        },
        "metadata": null,
        "executions": [{
            "key": format!("{number}.0"), "expected_num_commands": 1, "elapsed": seconds(1e-4), "cwd": "/box",
            "timed_out": false, "had_error": false, "preprocess_time": 1e-5, "writing_time": 1e-4,
            "cleanup_time": 1e-4, "tracked_files": {},
            "command_results": [{
                "return_code": 0, "runtime": seconds(1e-4), "stdout": "", "stderr": "", "timed_out": false,
                "had_unexpected_error": false, "had_error": false, "termination": "exited", "signal": null,
                "cpu_time": 0.01, "max_rss_bytes": 9_043_968, "stdout_truncated": false,
                "stderr_truncated": false, "runtimes": [seconds(1e-4)], "start": "cold", "witnessed": true,
            }],
        }],
        "output": {"check_completed": true},
        "timings": {
            "queue": seconds(1e-3), "preprocess": 1e-5, "write": 1e-4, "wait": seconds(1e-5),
            "execute": seconds(1e-4), "cleanup": 1e-4, "postprocess": 2e-5, "net": seconds(2e-3),
        },
        "attempt": 1, "redelivered": false,
        "worker": {"instance": "host/1", "version": "0.1.0", "tier": "full", "contended": false},
    })
}

/// Seconds and the largest resident size in MB of one report.
fn report(path: &Path, format: &str, count: u64) -> (f64, f64) {
    let output = path.with_extension(format);
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_evalmill"))
        .args(["report", "--no-progress", "--format", format])
        .arg(path)
        .stdout(File::create(&output).unwrap())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most: u32 = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        most = peak.map_or(most, |peak| peak.parse().unwrap());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let elapsed = started.elapsed().as_secs_f64();
    let text = std::fs::read_to_string(output).unwrap();
    let found = match format {
        "json" => serde_json::from_str::<Value>(&text).unwrap()["results"].as_u64().unwrap(),
        _ => text.split(' ').next().unwrap().parse().unwrap(),
    };
    assert_eq!(found, count, "each result counts once");
    (elapsed, f64::from(most) * 1024.0 / 1e6)
}
