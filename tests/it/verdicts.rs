//! Programs of all sorts, and what is said of them.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{eventually, executable, processes_with, run};

fn python(source: &str) -> Value {
    json!({"files": {"main.py": source}, "commands": [{"command": ["python3", "main.py"]}]})
}

#[rstest]
#[case("print('hi')", "passed", "exited")]
#[case("raise SystemExit(3)", "failed", "exited")]
#[case("1/0", "failed", "exited")]
#[case("def f(: pass", "failed", "exited")]
#[case("import os; os.abort()", "crashed", "signalled")]
#[case("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "signalled")]
#[case("import time; time.sleep(60)", "timed_out", "wall_limit")]
#[case("while True: pass", "timed_out", "cpu_limit|wall_limit")]
#[case("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "timed_out", "wall_limit")]
#[case("import sys\nwhile True: sys.stdout.write('x' * 65536)", "output_exceeded", "output_limit")]
#[case("import sys\nwhile True: sys.stderr.write('x' * 65536)", "output_exceeded", "output_limit")]
#[case("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "crashed", "process_limit")]
#[case(
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])",
    "timed_out",
    "cpu_limit|wall_limit"
)]
fn observed_and_judged(#[case] source: &str, #[case] verdict: &str, #[case] termination: &str) {
    let ran = executable(&python(source), &["--timeout", "1.5"]);
    let result = ran.one();
    assert_eq!(result["verdict"], verdict, "{result}\n{}", ran.stderr);
    let seen = result["executions"][0]["command_results"][0]["termination"].as_str().unwrap();
    assert!(termination.split('|').any(|one| one == seen), "{seen}");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn cpu_time_is_summed_over_a_tree_and_ends_it_before_its_wall_limit() {
    // On one core the two would only be done at the wall limit.
    let source = "import os\nos.fork()\nwhile True: pass";
    let ran = executable(&python(source), &["--timeout", "3", "--workers", "1"]);
    let command = &ran.one()["executions"][0]["command_results"][0];
    assert_eq!(ran.verdicts(), ["timed_out"], "{}", ran.one());
    if std::thread::available_parallelism().unwrap().get() > 1 {
        let (cpu, wall) = (command["cpu_time"].as_f64().unwrap(), command["runtime"].as_f64().unwrap());
        // Where others have the cores, even twice the wall time is over first.
        let starved = command["termination"] == "wall_limit" && cpu < 3.0 && wall >= 6.0;
        assert!(starved || (command["termination"] == "cpu_limit" && cpu >= 3.0), "{command}");
    }
}

#[test]
fn more_memory_than_allowed() {
    let source = "x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))";
    let message = json!({"prediction": python(source), "limits": {"memory_mb": 100, "timeout": 20}});
    let ran = run(&[], format!("{message}\n").as_bytes());
    assert_eq!(ran.verdicts(), ["memory_exceeded"], "{}", ran.one());
    assert_eq!(ran.one()["executions"][0]["command_results"][0]["termination"], "memory_limit");
}

#[test]
fn output_before_a_timeout_is_kept() {
    let ran = executable(
        &python("import time\nprint('so far', flush=True)\ntime.sleep(60)"),
        &["--timeout", "0.5"],
    );
    assert_eq!(ran.one()["executions"][0]["command_results"][0]["stdout"], "so far\n");
    let time = ran.one()["executions"][0]["command_results"][0]["runtime"].as_f64().unwrap();
    assert!((0.5..5.0).contains(&time), "{time}");
}

#[test]
fn a_background_child_that_holds_the_pipes_delays_nothing_and_dies() {
    let marker = format!("98{}", std::process::id());
    let source = format!("import subprocess\nsubprocess.Popen(['sleep', '{marker}'])\nprint('done')");
    let ran = executable(&python(&source), &["--timeout", "20"]);
    assert_eq!(ran.verdicts(), ["passed"]);
    assert_eq!(ran.one()["executions"][0]["command_results"][0]["stdout"], "done\n");
    assert!(ran.elapsed < Duration::from_secs(15), "{:?}", ran.elapsed);
    assert_eq!(processes_with(&format!("sleep\0{marker}")), Vec::<i32>::new());
}

#[test]
fn a_daemon_does_not_outlive_its_command() {
    let marker = format!("97{}", std::process::id());
    let source = format!(
        "import os, sys\nif os.fork(): sys.exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\nos.execvp('sleep', ['sleep', '{marker}'])"
    );
    let ran = executable(&python(&source), &[]);
    assert_eq!(ran.verdicts(), ["passed"]);
    eventually("the daemon is gone", || processes_with(&format!("sleep\0{marker}")).is_empty());
}

#[test]
fn stdin_that_nobody_reads_does_not_block() {
    let payload = json!({"files": {"main.py": "print(1)"}, "commands": [{"command": ["python3", "main.py"], "stdin": "x".repeat(8 << 20)}]});
    let ran = executable(&payload, &[]);
    assert_eq!(ran.verdicts(), ["passed"]);
}

#[test]
fn stdin_is_read_while_output_is_written() {
    let payload = json!({"commands": [{"command": ["cat"], "stdin": "y".repeat(3 << 20)}]});
    let ran = executable(&payload, &[]);
    let result = &ran.one()["executions"][0]["command_results"][0];
    assert_eq!(result["return_code"], 0);
    assert_eq!(result["stdout"].as_str().unwrap().len(), 1 << 20);
    assert_eq!(result["stdout_truncated"], true);
}

#[rstest]
#[case(json!(["no-such-program-here"]), "failed", "not_started")]
#[case(json!(["./not-executable"]), "failed", "not_started")]
fn programs_that_cannot_start(#[case] command: Value, #[case] verdict: &str, #[case] termination: &str) {
    let ran = executable(&json!({"files": {"not-executable": "x"}, "commands": [{"command": command}]}), &[]);
    assert_eq!(ran.one()["verdict"], verdict);
    assert_eq!(ran.one()["executions"][0]["command_results"][0]["termination"], termination);
    assert!(ran.one()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", ran.one());
}

#[test]
fn a_file_that_is_no_program_is_not_handed_to_a_shell() {
    let payload = json!({
        "files": {"x": "echo hello\n"},
        "commands": [{"command": ["chmod", "+x", "x"]}, {"command": ["./x"]}],
    });
    let ran = executable(&payload, &[]);
    let command = &ran.one()["executions"][0]["command_results"][1];
    assert_eq!((&ran.one()["verdict"], &command["termination"]), (&json!("failed"), &json!("not_started")));
    assert!(command["detail"].as_str().unwrap().contains("Exec format error"), "{command}");
    assert_eq!(command["stdout"], "");
}

#[test]
fn tracked_files_are_read_back_or_refused_with_the_reason() {
    let source = "import os\nopen('text', 'w').write('hi')\nopen('bytes', 'wb').write(b'\\xff')\nos.symlink('/etc/passwd', 'link')\nos.mkfifo('fifo')\nos.mkdir('dir')\nopen('huge', 'w').truncate(200 << 20)";
    let mut payload = python(source);
    payload["tracked_files"] =
        json!(["text", "bytes", "link", "fifo", "dir", "huge", "absent", "dir/absent"]);
    let ran = executable(&payload, &[]);
    assert_eq!(ran.verdicts(), ["passed"], "{}", ran.one());
    let execution = &ran.one()["executions"][0];
    assert_eq!(execution["tracked_files"]["text"], "hi");
    assert_eq!(execution["tracked_files"]["bytes"], json!({"base64": "/w=="}));
    for refused in ["link", "fifo", "dir", "huge"] {
        assert!(execution["tracked_files"][refused].is_null());
        assert!(execution["tracked_errors"][refused].is_string(), "{refused}: {execution}");
    }
    for absent in ["absent", "dir/absent"] {
        assert!(
            execution["tracked_files"][absent].is_null() && execution["tracked_errors"][absent].is_null()
        );
    }
}

#[test]
fn commands_stop_early_and_runs_are_repeated() {
    let payload = json!({"commands": [
        {"command": ["true"], "num_times": 3},
        {"command": ["sh", "-c", "exit 4"]},
        {"command": ["true"]},
    ]});
    let ran = executable(&payload, &[]);
    let execution = &ran.one()["executions"][0];
    assert_eq!(execution["expected_num_commands"], 3);
    let commands = execution["command_results"].as_array().unwrap();
    assert_eq!(commands.len(), 2);
    assert_eq!(commands[0]["runtimes"].as_array().unwrap().len(), 3);
    assert_eq!(commands[1]["return_code"], 4);
    assert_eq!(ran.one()["verdict"], "failed");
}

#[test]
fn a_failed_build_is_a_compile_error() {
    let payload = json!({"commands": [{"command": ["false"], "build": true}, {"command": ["true"]}]});
    assert_eq!(executable(&payload, &[]).verdicts(), ["compile_error"]);
}

#[test]
fn the_environment_is_an_allow_list() {
    let mut payload = python("import os; print(sorted(os.environ))");
    payload["commands"][0]["command"] = json!(["env"]);
    let ran = executable(&payload, &[]);
    let stdout = ran.one()["executions"][0]["command_results"][0]["stdout"].as_str().unwrap();
    for line in stdout.lines() {
        let name = line.split('=').next().unwrap();
        assert!(
            ["PATH", "HOME", "TMPDIR", "LANG", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"].contains(&name),
            "{line}"
        );
    }
    assert!(stdout.contains("PATH=/usr/local/bin:/usr/bin:/bin\n"), "{stdout}");
}

#[test]
fn a_peak_size_is_the_programs_own() {
    let flood = json!({"prediction": {"commands": [{"command": ["head", "-c", "15000000", "/dev/zero"]}]}});
    let small = json!({"prediction": {"commands": [{"command": ["true"]}]}});
    let ran = run(&["--workers", "1"], format!("{small}\n{flood}\n{small}\n").as_bytes());
    assert_eq!(ran.verdicts(), ["passed"; 3], "{}", ran.stderr);
    let peak =
        |at: usize| ran.results[at]["executions"][0]["command_results"][0]["max_rss_bytes"].as_f64().unwrap();
    assert!(peak(2) < peak(0) * 1.2 + 1e6, "{} and {}", peak(0), peak(2));
}

#[test]
fn boxes_share_nothing() {
    let first = python("open('left', 'w').write('x'); import os; open(os.environ['TMPDIR'] + '/left', 'w')");
    let second = python(
        "import os; assert os.listdir('.') == ['main.py'], os.listdir('.'); assert os.listdir(os.environ['TMPDIR']) == []",
    );
    let ran =
        run(&["--preprocessor", "executable", "--workers", "1"], format!("{first}\n{second}\n").as_bytes());
    assert_eq!(ran.verdicts(), ["passed", "passed"], "{:?}", ran.results);
}
