//! One CPython for all questions of a test: `tests/golden/code_trees/reference.py`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) struct Python {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

pub(super) fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/code_trees")
}

/// The lines of a golden file.
pub(super) fn golden<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let text = std::fs::read_to_string(golden_dir().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Python {
    pub(super) fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-B", "-W", "ignore"])
            .arg(golden_dir().join("reference.py"))
            .env("PYTHONIOENCODING", "utf-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("python3 is needed, and cannot be started ({error}): apt-get install python3")
            });
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// The answers to requests, in order.
    pub(super) fn ask(&mut self, requests: &[Value]) -> Vec<Value> {
        let mut line = serde_json::to_vec(requests).unwrap();
        line.push(b'\n');
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(&line).unwrap();
        stdin.flush().unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        let answers: Vec<Value> = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("reference.py answered {answer:?}: {error}"));
        assert_eq!(answers.len(), requests.len());
        answers
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.stdin = None;
        let ended = self.child.wait();
        assert!(
            std::thread::panicking() || ended.is_ok_and(|status| status.success()),
            "reference.py failed"
        );
    }
}
