//! Running the program, and looking at what is left.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The HumanEval problems: `EVALMILL_HUMANEVAL`, else beside the project.
pub(crate) fn humaneval() -> String {
    let path = std::env::var("EVALMILL_HUMANEVAL")
        .unwrap_or_else(|_| format!("{}/../shared/data/HumanEval.jsonl.gz", env!("CARGO_MANIFEST_DIR")));
    assert!(
        Path::new(&path).is_file(),
        "{path} is missing: get data/HumanEval.jsonl.gz of openai/human-eval and set EVALMILL_HUMANEVAL to its path"
    );
    path
}

/// Tier `full` cannot be had: says why; fails where the tests were started to show it.
pub(crate) fn without_full(why: &str) {
    assert!(std::env::var_os("EVALMILL_TEST_FULL").is_none(), "EVALMILL_TEST_FULL is set: {why}");
    eprintln!("not run in tier full: {why}");
}

/// How one run of the program ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) results: Vec<Value>,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
}

impl Ran {
    /// The one result.
    pub(crate) fn one(&self) -> &Value {
        assert_eq!(self.results.len(), 1, "{}", self.stderr);
        &self.results[0]
    }

    /// Verdicts, in the order of the output.
    pub(crate) fn verdicts(&self) -> Vec<&str> {
        self.results.iter().map(|result| result["verdict"].as_str().unwrap()).collect()
    }
}

/// The program, with a scratch directory of its own that must be empty in the end.
pub(crate) fn evalmill(scratch: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evalmill"));
    command.env("EXEC_TMP_DIR", scratch).env_remove("EVALMILL_CONFIG");
    command
}

/// `evalmill run ARGS` with pipes at all three streams.
pub(crate) fn start(scratch: &Path, args: &[&str]) -> Child {
    let piped = Stdio::piped;
    evalmill(scratch).arg("run").args(args).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap()
}

/// `evalmill run ARGS` with this standard input; nothing may be left in the scratch directory.
pub(crate) fn run(args: &[&str], stdin: &[u8]) -> Ran {
    let scratch = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut child = start(scratch.path(), args);
    let mut pipe = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    // The program may refuse its arguments and never read: a broken pipe is no failure here.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let results = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "left in the scratch directory: {left:?}\n{stderr}");
    Ran { code: output.status.code(), results, stderr, elapsed: started.elapsed() }
}

/// Runs one executable payload.
pub(crate) fn executable(payload: &Value, args: &[&str]) -> Ran {
    let mut all = vec!["--preprocessor", "executable"];
    all.extend(args);
    run(&all, format!("{payload}\n").as_bytes())
}

/// Process ids whose command line contains `marker`.
pub(crate) fn processes_with(marker: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(marker) {
            found.push(pid);
        }
    }
    found
}

/// Waits (bounded) until `done` says so.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
