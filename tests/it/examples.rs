//! The examples do what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An example's program, which `cargo test` builds beside ours.
fn example(name: &str) -> PathBuf {
    let ours = Path::new(env!("CARGO_BIN_EXE_evalmill"));
    let path = ours.parent().unwrap().join("examples").join(name);
    assert!(
        path.is_file(),
        "{} is missing: `cargo test` without a choice of targets builds it, and so does `cargo build --examples`",
        path.display()
    );
    path
}

#[test]
fn library() {
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(example("library")).env("EXEC_TMP_DIR", scratch.path()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    // Title, head, five rows; twice.
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 14, "{stdout}\n{stderr}");
    for (table, title) in lines.chunks(7).zip(["blocking", "async"]) {
        assert_eq!(table[0], title);
        let rows: Vec<Vec<_>> =
            table[2..].iter().map(|row| row.split_whitespace().take(4).collect()).collect();
        let expected = [
            ["right", "passed", "3", "3"],
            ["wrong", "failed", "1", "2"],
            ["crash", "failed", "0", "1"],
            ["endless", "timed_out", "0", "1"],
            ["unusable", "invalid", "-", "0"],
        ];
        assert_eq!(rows, expected, "{stdout}\n{stderr}");
    }
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "left in the scratch directory: {left:?}");
}

#[test]
fn utilities() {
    let output = Command::new(example("utilities")).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let expected =
        "squares of 10 numbers, the last one 81\npred3 took 01:01:01.25 and 1.5KiB\nin time: true\n";
    assert_eq!(stdout, expected);
    // Ten values, and a line for each four of them.
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    for (line, count) in lines.iter().zip([4, 8]) {
        assert!(line.contains(&format!("INFO {count} squares (")), "{stderr}");
    }
}
