//! The host's network, opened for some processors and for no other.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use crate::sandbox::{Who, python, told};

/// Where programs run, and who starts evalmill.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Walled(Who),
    Process(Who),
}

impl Place {
    fn tier(self) -> &'static str {
        match self {
            Self::Walled(who) => crate::sandbox::tier(who),
            Self::Process(_) => "process",
        }
    }

    /// `evalmill ARGS`, with these settings and this input.
    fn evalmill(self, args: &[&str], settings: &[(&str, &str)], input: &str) -> Output {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let (Self::Walled(who) | Self::Process(who)) = self;
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let becomes = who == Who::Nobody && rustix::process::geteuid().is_root();
        let mut words = nobody.iter().take(if becomes { 4 } else { 0 }).copied();
        let mut command = match words.next() {
            Some(word) => Command::new(word),
            None => Command::new(env!("CARGO_BIN_EXE_evalmill")),
        };
        if becomes {
            command.args(words).arg(env!("CARGO_BIN_EXE_evalmill"));
        }
        command.args(args).env("EXEC_TMP_DIR", scratch.path()).env_remove("EVALMILL_CONFIG");
        command.env("EVALMILL__SANDBOX__TIER", self.tier()).envs(settings.iter().copied());
        let piped = Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        let (mut pipe, input) = (child.stdin.take().unwrap(), input.to_owned());
        let writer = std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        output
    }

    /// Results, and standard error.
    fn run(self, workers: &str, settings: &[(&str, &str)], rows: &[Value]) -> (Vec<Value>, String) {
        let input: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let output = self.evalmill(&["run", "--workers", workers], settings, &input);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(results.len(), rows.len(), "{stderr}");
        for result in &results {
            assert_eq!(result["worker"]["tier"], self.tier(), "{stderr}");
        }
        (results, stderr)
    }
}

/// The same statements as a program of the processor `executable` or `humaneval`.
fn row(id: &str, processor: &str, source: &str) -> Value {
    let mut row = match processor {
        "executable" => python(source),
        _ => json!({"prediction": {
            "task_id": "T/0", "prompt": "def f(x):\n", "entry_point": "f",
            "completion": source.lines().map(|line| format!("    {line}\n")).collect::<String>() + "    return x\n",
            "test": "def check(candidate):\n    assert candidate(1) == 1\n",
        }}),
    };
    row["id"] = json!(id);
    row["preprocessor"] = json!(processor);
    row
}

/// Both say what they can reach; the listener hears from those that have the network, and from them only.
#[rstest]
#[case::one_is_open(&[("EVALMILL__PROCESSORS__HUMANEVAL__NETWORK", "true")], "humaneval")]
#[case::the_other_is_open(&[("EVALMILL__PROCESSORS__EXECUTABLE__NETWORK", "true")], "executable")]
#[case::one_is_closed(
    &[("EVALMILL__SANDBOX__NETWORK", "true"), ("EVALMILL__PROCESSORS__HUMANEVAL__NETWORK", "false")],
    "executable"
)]
fn one_processor_has_the_network_and_another_has_not(
    #[values(
        Place::Walled(Who::Tester),
        Place::Walled(Who::Full),
        Place::Walled(Who::Nobody),
        Place::Process(Who::Tester),
        Place::Process(Who::Nobody)
    )]
    place: Place,
    #[case] settings: &[(&str, &str)],
    #[case] open: &str,
) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let mut names = BTreeSet::new();
        while let Ok((mut connection, _)) = listener.accept() {
            connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut name = String::new();
            connection.read_to_string(&mut name).unwrap();
            if name == "end" {
                break;
            }
            names.insert(name);
        }
        names
    });
    let reaches = |id: &str| {
        format!(
            "import socket\nwith socket.create_connection(('127.0.0.1', {port}), timeout=9) as c: c.sendall(b'{id}')"
        )
    };
    let held = |id: &str| {
        format!(
            "import socket\ntry:\n    c = socket.create_connection(('127.0.0.1', {port}), timeout=9)\nexcept OSError:\n    pass\nelse:\n    c.sendall(b'{id}')\n    raise SystemExit('reached')"
        )
    };
    let mut rows = Vec::new();
    for number in 0..6 {
        for processor in ["executable", "humaneval"] {
            let id = format!("{processor}-{number}");
            let source = if processor == open { reaches(&id) } else { held(&id) };
            rows.push(row(&id, processor, &source));
        }
    }
    let (results, stderr) = place.run("2", settings, &rows);
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(b"end").unwrap();
    let expected: BTreeSet<_> = (0..6).map(|number| format!("{open}-{number}")).collect();
    assert_eq!(heard.join().unwrap(), expected, "{stderr}");
    for result in &results {
        assert_eq!(result["verdict"], "passed", "{}\n{stderr}", told(result));
        let missing = result["worker"]["missing"].as_array().cloned().unwrap_or_default();
        let is_open = result["id"].as_str().unwrap().starts_with(open);
        assert_eq!(missing.contains(&json!("network")), is_open, "{result}");
    }
    assert!(stderr.contains("but programs of "), "{stderr}");
}

/// Workers of two kinds live; how many programs run at a time is said for both together.
#[rstest]
#[case(1)]
#[case(2)]
fn both_kinds_together_run_no_more_than_there_are_workers(#[case] workers: usize) {
    let source =
        "import sys, time\nbegun = time.monotonic()\ntime.sleep(0.3)\nprint(begun, time.monotonic())";
    let rows: Vec<_> = (0..4 * workers)
        .map(|number| row(&number.to_string(), ["executable", "humaneval"][number % 2], source))
        .collect();
    let settings = [("EVALMILL__PROCESSORS__HUMANEVAL__NETWORK", "true")];
    let (results, stderr) = Place::Walled(Who::Tester).run(&workers.to_string(), &settings, &rows);
    let mut times: Vec<(f64, bool)> = Vec::new();
    for result in &results {
        assert_eq!(result["verdict"], "passed", "{}\n{stderr}", told(result));
        let out = result["executions"][0]["command_results"][0]["stdout"].as_str().unwrap();
        let mut ends = out.split_whitespace().map(|time| time.parse::<f64>().unwrap());
        times.extend([(ends.next().unwrap(), true), (ends.next().unwrap(), false)]);
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut running, mut most) = (0, 0);
    for (_, begins) in times {
        running = if begins { running + 1 } else { running - 1 };
        most = most.max(running);
    }
    assert!((1..=workers).contains(&most), "{most} at a time\n{stderr}");
}

#[rstest]
#[case::check_config(&["check-config"])]
#[case::run(&["run"])]
#[case::serve(&["serve"])]
#[case::doctor(&["doctor"])]
fn a_section_for_no_processor_is_refused(#[case] args: &[&str]) {
    let settings = [("EVALMILL__PROCESSORS__HUMANEVIL__NETWORK", "true")];
    let output = Place::Walled(Who::Tester).evalmill(args, &settings, "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0), "{stderr}");
    for part in [
        "processors.humanevil (from environment EVALMILL__",
        "known are: executable, ",
        "Try: [processors.humaneval]",
    ] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[test]
fn check_config_says_whose_network_is_open() {
    let settings = [("EVALMILL__PROCESSORS__HUMANEVAL__NETWORK", "true")];
    let output = Place::Walled(Who::Tester).evalmill(&["check-config", "--show-origin"], &settings, "");
    let text = String::from_utf8(output.stdout).unwrap();
    let said =
        "[processors.humaneval]\nnetwork = true  # environment EVALMILL__PROCESSORS__HUMANEVAL__NETWORK\n";
    assert!(output.status.success() && text.contains(said), "{text}");
}

/// What the operator opens is told like any other hole, and whose it is.
#[rstest]
#[case::another("HUMANEVAL", "programs of humaneval have no network", 1)]
#[case::the_one_that_is_tried("EXECUTABLE", "evalmill's listener on 127.0.0.1 is not reached", 2)]
fn doctor_tells_whose_network_is_open(#[case] name: &str, #[case] check: &str, #[case] least: usize) {
    let setting = format!("EVALMILL__PROCESSORS__{name}__NETWORK");
    let output =
        Place::Walled(Who::Tester).evalmill(&["doctor", "--format", "json"], &[(&setting, "true")], "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| check["outcome"] == "failed").collect();
    assert!(failed.len() >= least && failed.iter().any(|one| one["name"] == check), "{failed:#?}");
    let remedy = format!("set processors.{}.network to false", name.to_lowercase());
    assert!(failed.iter().all(|one| one["layer"] == "network" && one["remedy"] == remedy), "{failed:#?}");
}
