//! The utilities of the library whose output is Python: it is run, and does what it says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use evalmill::metrics::{QuestionPrediction, calc_question_metric};
use evalmill::util::{get_mem_limit_code, get_module_and_call};
use rstest::rstest;
use serde_json::Value;

/// Runs a program with the system's `python3`, in this directory.
fn python(dir: &Path, program: &str) -> Output {
    fs::write(dir.join("main.py"), program).unwrap();
    let run = Command::new("python3").arg("main.py").current_dir(dir).output();
    run.unwrap_or_else(|error| panic!("python3 cannot be started ({error}): tests/run installs it"))
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const ALLOCATE: &str =
    "try:\n    print(len(bytearray(600 << 20)))\nexcept MemoryError:\n    print('no memory')\n";

#[rstest]
#[case(None, "629145600\n")]
#[case(Some("0"), "629145600\n")]
#[case(Some("4 * 1024**4"), "629145600\n")]
#[case(Some("512 * 1024 * 1024"), "no memory\n")]
fn the_memory_limit_holds(#[case] limit: Option<&str>, #[case] expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let code = get_mem_limit_code(limit, "\n");
    let output = python(dir.path(), &format!("from __future__ import annotations\n{code}{ALLOCATE}"));
    assert_eq!(stdout(&output), expected);
}

/// Tries each of the calls, with the guard's module beside it.
fn guarded(dir: &Path, call: Option<&str>, body: &str) -> Output {
    let (import, guard, source) = get_module_and_call("safeguard").unwrap();
    fs::write(dir.join("safeguard.py"), source).unwrap();
    python(dir, &format!("{import}\n{}\n{body}", call.unwrap_or(guard)))
}

#[test]
fn destructive_calls_fail_and_leave_everything_as_it_is() {
    const TRY: &str = r#"
import builtins, os, posix, shutil, subprocess, pathlib, signal
calls = {
    "os.remove": lambda: os.remove("kept"),
    "posix.unlink": lambda: posix.unlink("kept"),
    "pathlib": lambda: pathlib.Path("kept").unlink(),
    "os.rename": lambda: os.rename("kept", "moved"),
    "os.rmdir": lambda: os.rmdir("dir"),
    "os.truncate": lambda: os.truncate("kept", 0),
    "os.chmod": lambda: os.chmod("kept", 0),
    "os.chdir": lambda: os.chdir("/"),
    "shutil.rmtree": lambda: shutil.rmtree("dir"),
    "shutil.move": lambda: shutil.move("kept", "moved"),
    "os.kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "os.fork": lambda: os.fork(),
    "os.system": lambda: os.system("touch moved"),
    "os.popen": lambda: os.popen("touch moved"),
    "os.execv": lambda: os.execv("/bin/true", ["true"]),
    "os.posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "os.setuid": lambda: os.setuid(0),
    "os.putenv": lambda: os.putenv("A", "B"),
    "subprocess.run": lambda: subprocess.run(["touch", "moved"]),
    "subprocess.Popen": lambda: subprocess.Popen(["touch", "moved"]),
    "exit": lambda: builtins.exit(3),
    "quit": lambda: builtins.quit(3),
}
for name, call in calls.items():
    try:
        call()
        print(name, "went through")
    except PermissionError as error:
        assert str(error).endswith(" is disabled here"), error
print(len(calls), "refused or not")
"#;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kept"), "text").unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    assert_eq!(stdout(&guarded(dir.path(), None, TRY)), "22 refused or not\n");
    assert_eq!(fs::read_to_string(dir.path().join("kept")).unwrap(), "text");
    assert!(dir.path().join("dir").is_dir() && !dir.path().join("moved").exists());
    // Without the guard, a call of them does what it is for.
    let unguarded = "import os; os.rename('kept', 'moved')";
    assert_eq!(stdout(&guarded(dir.path(), Some(""), unguarded)), "");
    assert!(dir.path().join("moved").is_file());
}

#[test]
fn guarded_programs_still_work() {
    const WORK: &str = r#"
import collections, json, math, os, random, re, sys, tempfile, threading, asyncio
done = []
thread = threading.Thread(target=lambda: done.append(math.sqrt(16)))
thread.start(); thread.join()
with open("own.txt", "w") as file:
    file.write(json.dumps({"x": [1, 2]}))
print(done, open("own.txt").read(), os.environ["OMP_NUM_THREADS"], bool(re.match("a+", "aa")))
class Own(__import__("subprocess").Popen): pass
async def main(): return 7
print(asyncio.run(main()))
for name in ["psutil", "resource", "tkinter"]:
    try:
        __import__(name); print(name, "is there")
    except ImportError: pass
sys.exit(0)
"#;
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(stdout(&guarded(dir.path(), None, WORK)), "[4.0] {\"x\": [1, 2]} 1 True\n7\n");
    let limited = guarded(dir.path(), Some("safeguard.reliability_guard(512 * 1024 * 1024)"), ALLOCATE);
    assert_eq!(stdout(&limited), "no memory\n");
}

/// The same question by the interpreter and by ours, which asks the interpreter for programs only.
#[test]
fn question_metrics_count_lines_of_unparsed_code() {
    const UNPARSE: &str = r#"
import ast, json
out = []
for code in json.load(open("codes.json")):
    try:
        text = ast.unparse(ast.parse(code))
        out.append([text, len(text.strip().splitlines())])
    except SyntaxError:
        out.append([None, len(code.splitlines())])
print(json.dumps(out))
"#;
    let codes = [
        "\n\ndef f(x):  # why\n\n    return (x +\n            1)\n\n",
        "x = '''a\nb\u{2028}c'''\r\ny = 2",
        "def f(:\n    pass\n# kept",
        "",
    ];
    let dir = tempfile::tempdir().unwrap();
    let stripped: Vec<_> = codes.iter().map(|code| code.trim()).collect();
    fs::write(dir.path().join("codes.json"), serde_json::to_string(&stripped).unwrap()).unwrap();
    let answers: Vec<(Option<String>, u64)> =
        serde_json::from_str(&stdout(&python(dir.path(), UNPARSE))).unwrap();
    let predictions: Vec<_> = codes
        .iter()
        .zip([true, true, false, false])
        .map(|(solution, passed)| QuestionPrediction { passed, solution, test_cases: 2, outcome: "any" })
        .collect();
    let mut texts = answers.iter().map(|(text, _)| text.clone());
    let metric = calc_question_metric(&predictions, |_| texts.next().unwrap()).unwrap();
    assert_eq!((metric.solved, metric.num_passed, metric.num_syntax_errors), (true, 2, 1));
    let lines: u64 = answers.iter().map(|(_, lines)| lines).sum();
    assert!(lines > 6, "{answers:?}");
    #[expect(clippy::cast_precision_loss, reason = "a handful of lines")]
    let mean = lines as f64 / 4.0;
    assert!((metric.num_lines - mean).abs() < 1e-12, "{} {answers:?}", metric.num_lines);
    assert_eq!(serde_json::to_value(&metric.result_count).unwrap(), serde_json::json!({"any": 4}) as Value);
}
