//! Faults of the machine and of whoever starts it: nothing is left, and what went wrong is said. Workers and
//! launchers that are killed are in `endurance`.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{evalmill, eventually, processes_with, start};

pub(crate) fn children(pid: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        if rest.split_whitespace().nth(1) == Some(&pid.to_string()) {
            found.push(child);
        }
    }
    found
}

fn kill(signal: &str, pid: i32) {
    Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
}

#[test]
fn a_killed_supervisor_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let marker = format!("96{}", std::process::id());
    let mut child = start(scratch.path(), &["--workers", "2"]);
    let mut pipe = child.stdin.take().unwrap();
    for _ in 0..4 {
        writeln!(pipe, "{}", json!({"prediction": {"commands": [{"command": ["sleep", marker]}]}})).unwrap();
    }
    let running = || processes_with(&format!("sleep\0{marker}"));
    eventually("programs run", || running().len() == 2);
    kill("-KILL", child.id() as i32);
    child.wait().unwrap();
    eventually("nothing runs", || running().is_empty());
    eventually("the scratch directory is gone", || std::fs::read_dir(scratch.path()).unwrap().count() == 0);
}

#[test]
fn an_interrupt_drains_and_leaves_a_valid_output() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let out = out.join("out.jsonl");
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path(), &["--workers", "2", "-o", out.to_str().unwrap()]);
    let mut pipe = child.stdin.take().unwrap();
    for i in 0..50 {
        let line = json!({"id": i.to_string(), "prediction": {"commands": [{"command": ["sleep", "0.2"]}]}});
        writeln!(pipe, "{line}").unwrap();
    }
    eventually("first results", || std::fs::read_to_string(&out).is_ok_and(|text| text.lines().count() >= 2));
    kill("-INT", child.id() as i32);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&out).unwrap();
    let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!((2..50).contains(&results.len()), "{}", results.len());
    assert!(results.iter().all(|result| result["verdict"] == "passed"), "{text}");
    drop(pipe);
}

/// The directory that boxes are made in, or the file system that a sandbox makes them on.
#[rstest]
#[case::the_hosts("none")]
#[case::of_the_sandbox("namespaces")]
fn a_full_scratch_disk_is_our_fault_and_the_run_goes_on(#[case] tier: &str) {
    let rows = [
        json!({"id": "big", "prediction": {"files": {"f": "x".repeat(3 << 20)}, "commands": [{"command": ["true"]}]}}),
        json!({"id": "small", "prediction": {"commands": [{"command": ["true"]}]}}),
    ];
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, format!("{}\n{}\n", rows[0], rows[1])).unwrap();
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mount = if tier == "none" { "mount -t tmpfs -o size=1m none" } else { "test -d" };
    let script = format!(
        "{mount} {0} && export EVALMILL__SANDBOX__TIER={tier} EVALMILL__SANDBOX__REQUIRE={tier} EVALMILL__SANDBOX__DISK_MB=1 EXEC_TMP_DIR={0} && exec {1} run --error-dir {2} {3}",
        scratch.display(),
        env!("CARGO_BIN_EXE_evalmill"),
        dir.path().join("errors").display(),
        input.display()
    );
    let unshare: &[&str] = &["unshare", "--user", "--map-root-user", "--mount"];
    let shell = ["sh", "-c", &*script];
    let mut words = if tier == "none" { unshare } else { &[] }.iter().chain(&shell);
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .expect("unshare (package util-linux) is needed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let results: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results.len(), 2, "user namespaces and tmpfs mounts are needed for this test: {stderr}");
    assert_eq!(results[0]["verdict"], "infra_error");
    assert!(results[0]["detail"].as_str().unwrap().contains("No space left"), "{}", results[0]);
    assert_eq!(results[1]["verdict"], "passed", "{stderr}");
    assert_eq!(output.status.code(), Some(1));
    let errors = std::fs::read_to_string(dir.path().join("errors/errors.jsonl")).unwrap();
    assert!(errors.contains("\"id\":\"big\""), "{errors}");
}

#[test]
fn a_full_output_disk_is_said_and_ends_the_run() {
    let scratch = tempfile::tempdir().unwrap();
    let input = scratch.path().join("in.jsonl");
    let line = json!({"prediction": {"commands": [{"command": ["true"]}]}});
    std::fs::write(&input, format!("{line}\n").repeat(50)).unwrap();
    let base = tempfile::tempdir().unwrap();
    let output =
        evalmill(base.path()).args(["run", "--force", "-o", "/dev/full"]).arg(&input).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("/dev/full") && stderr.contains("No space left"), "{stderr}");
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

/// Twenty programs of `seconds`, but for a short second one, from a file, so that the whole input is
/// read at once.
fn interrupted(seconds: &str, signals: usize) -> (Option<i32>, String, usize) {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (input, out) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
    let line = |argv: [&str; 2]| {
        format!("{}\n", json!({"prediction": {"commands": [{"command": argv, "timeout": 100}]}}))
    };
    let (slow, begun) = (line(["sleep", seconds]), dir.path().join("begun"));
    let short = line(["touch", begun.to_str().unwrap()]);
    std::fs::write(&input, format!("{slow}{short}{}", slow.repeat(18))).unwrap();
    let child = evalmill(scratch.path())
        .args(["run", "--workers", "2", "-o", out.to_str().unwrap(), input.to_str().unwrap()])
        // The short one is seen by a file of the host.
        .env("EVALMILL__SANDBOX__TIER", "none")
        .env("EVALMILL__SANDBOX__REQUIRE", "none")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("programs run", || begun.exists());
    // The short one is done, and its result waits for the first one's.
    std::thread::park_timeout(Duration::from_millis(300));
    for _ in 0..signals {
        kill("-TERM", child.id() as i32);
        std::thread::park_timeout(Duration::from_millis(300));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    let lines = std::fs::read_to_string(&out).unwrap().lines().count();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), lines)
}

#[test]
fn two_runs_do_not_write_one_output() {
    let dir = tempfile::tempdir().unwrap();
    let (scratch, out) = (tempfile::tempdir().unwrap(), dir.path().join("out.jsonl"));
    let start = || {
        evalmill(scratch.path())
            .args(["run", "--force", "-o", out.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut first = start();
    let mut input = first.stdin.take().unwrap();
    writeln!(input, "{}", json!({"prediction": {"commands": [{"command": ["true"]}]}})).unwrap();
    let lines = || std::fs::read_to_string(&out).is_ok_and(|text| text.lines().count() == 1);
    eventually("a result is written", lines);
    let second = start().wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is being written by another run"));
    drop(input);
    assert!(first.wait().unwrap().success());
    assert!(lines(), "the second run did nothing to the file");
}

#[test]
fn a_drain_after_the_input_was_read_is_no_success() {
    let (code, stderr, lines) = interrupted("1", 1);
    assert_eq!(code, Some(143), "{stderr}");
    assert!((1..20).contains(&lines), "{lines}\n{stderr}");
    assert!(stderr.contains("--resume"), "{stderr}");
}

#[test]
fn a_second_signal_forces() {
    let marker = format!("95{}", std::process::id());
    let (code, stderr, lines) = interrupted(&marker, 2);
    assert_eq!((code, lines), (Some(143), 1), "what is finished is kept: {stderr}");
    eventually("nothing runs", || processes_with(&format!("sleep\0{marker}")).is_empty());
}

#[test]
fn a_standard_error_that_is_full_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let input = scratch.path().join("in.jsonl");
    std::fs::write(&input, json!({"prediction": {"commands": [{"command": ["true"]}]}}).to_string()).unwrap();
    let base = tempfile::tempdir().unwrap();
    let output = evalmill(base.path()).arg("run").arg(&input).stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
}

#[test]
fn results_that_wait_for_a_slow_program_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let config = dir.path().join("evalmill.toml");
    std::fs::write(&config, "[pipeline]\nmax_line_mb = 1\nmax_unsettled_mb = 1\n").unwrap();
    let mut rows = format!("{}\n", json!({"prediction": {"commands": [{"command": ["sleep", "3"]}]}}));
    let big = json!({"prediction": {"commands": [{"command": ["sh", "-c", "yes | head -c 300000"]}]}});
    rows.push_str(&format!("{big}\n").repeat(40));
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, rows).unwrap();
    let output = evalmill(scratch.path())
        .args(["run", "--workers", "2", "--config", config.to_str().unwrap(), input.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), 41, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(results.iter().all(|result| result["verdict"] == "passed"));
    // 300 KB print as 600 KB: two of them fill the bound, and two more may be running.
    let before = results.iter().filter(|result| result["timings"]["net"].as_f64().unwrap() < 3.0).count();
    assert!((1..=6).contains(&before), "{before} results were made while the first one was waited for");
}
