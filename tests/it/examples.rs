//! The examples do what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

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

/// What an example prints; nothing may be left in its scratch directory.
fn printed(name: &str) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(example(name))
        .env("EXEC_TMP_DIR", scratch.path())
        .env("TMPDIR", scratch.path())
        .output();
    let output = output.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "left in the scratch directory: {left:?}");
    stdout.into_owned()
}

#[rstest]
#[case("multiple_commands", "\"reads\": exit code 0, \"42\\n\"\n\"fails\": exit code 1, \"\"\n")]
#[case("tracked_files", "passed: true\nabsent.txt: null\nout/answer.json: \"[1, 2]\"\n")]
#[case("early_stop", "3 of 3 commands ran\n2 of 3 commands ran\n")]
#[case(
    "many_executables",
    "passed: [\"2\",\"2\",\"2\"] \ninvalid: null the preprocessor gave 3 executables: preproc_returns_list is false, so it may give one\n"
)]
#[case(
    "filtered",
    "1 filtered \"SyntaxError\" there is no function in it\n2 passed \"2\\n\" \n3 invalid null code is not a text\n"
)]
#[case("debug_directory", "pred0.0/main.py: print(1)\npred1.0/main.py: print(2)\n")]
#[case(
    "error_directory",
    "passed\ninfra_error\npassed\nkept: {\"say\":2} \"the preprocessor library failed: it panicked: say is a text\"\n"
)]
#[case(
    "steps",
    "true \"one\\n\"\nfalse \"say is not a text\"\ntrue \"three\\n\"\n(0, 0) \"a\\n\" []\n(1, 0) \"\" [\"b\"]\nleft: 1\nleft: 0\nhello 3 times\n"
)]
#[case(
    "code_trees",
    r#"assert f(1) == 2
"x = 1": valid, the interpreter: true
"x = ": unknown, the interpreter: false
"def f(:": invalid, the interpreter: false
"f() = 1": invalid, the interpreter: false
"import os; os._exit(0)": valid, the interpreter: true
"x = '\0'": unknown, the interpreter: false
"((((((((((((((((((((((((": unknown, the interpreter: true
Some("x = 1 + 2\ny = 'a'")
None
"#
)]
fn a_feature(#[case] name: &str, #[case] prints: &str) {
    assert_eq!(printed(name), prints);
}

#[test]
fn library() {
    let stdout = printed("library");
    // Title, head, five rows; twice.
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 14, "{stdout}");
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
        assert_eq!(rows, expected, "{stdout}");
    }
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
