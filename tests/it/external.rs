//! Processors that are the operator's own programs.

use std::process::Command;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Ran, evalmill, run};

/// The example's program, as a setting.
fn example() -> String {
    format!("/usr/bin/env,python3,{}/examples/my_processor.py", env!("CARGO_MANIFEST_DIR"))
}

/// `evalmill run` of these predictions by a processor `mine`.
fn judged(settings: &[(&str, &str)], predictions: &[Value]) -> (Ran, String) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("evalmill.toml");
    let mut text = String::from("[processors.mine]\n");
    for (name, value) in settings {
        text += &format!("{name} = {value}\n");
    }
    std::fs::write(&config, &text).unwrap();
    let lines: Vec<_> = predictions.iter().map(|one| format!("{one}\n")).collect();
    let args = ["--config", config.to_str().unwrap(), "--preprocessor", "mine", "--workers", "2"];
    (run(&args, lines.concat().as_bytes()), text)
}

fn command(words: &str) -> String {
    serde_json::to_string(&words.split(',').collect::<Vec<_>>()).unwrap()
}

#[rstest]
#[case::one_by_one(&[])]
#[case::in_batches(&[("batch_size", "16"), ("processes", "2"), ("max_tasks_per_process", "5")])]
fn a_program_prepares_and_judges(#[case] settings: &[(&str, &str)]) {
    let own = command(&example());
    let settings: Vec<_> = settings.iter().copied().chain([("command", own.as_str())]).collect();
    let right =
        |n: u32| json!({"id": format!("right{n}"), "code": format!("print({n})"), "expected": n.to_string()});
    let mut predictions: Vec<_> = (0..40).map(right).collect();
    predictions.extend([
        json!({"id": "wrong", "code": "print(1)", "expected": "2"}),
        json!({"id": "crash", "code": "1/0", "expected": "1"}),
        json!({"id": "invalid", "expected": "2"}),
        json!({"id": "filtered", "code": "import socket", "expected": "2"}),
        json!({"id": "incomplete", "code": "print(1)"}),
    ]);
    let (ran, _) = judged(&settings, &predictions);
    let verdicts = ran.verdicts();
    assert!(verdicts[..40].iter().all(|verdict| *verdict == "passed"), "{verdicts:?}\n{}", ran.stderr);
    assert_eq!(verdicts[40..], ["failed", "failed", "invalid", "filtered", "infra_error"], "{}", ran.stderr);
    let detail = |index: usize| ran.results[index]["detail"].as_str().unwrap();
    assert_eq!(detail(42), "code is missing: it is the program that is run");
    assert_eq!(detail(43), "uses the network");
    assert_eq!(detail(44), "processor mine failed: KeyError: 'expected'");
    // What the prediction says already is not said twice.
    assert_eq!(ran.results[0]["output"], json!({"passed": true}));
    assert_eq!(ran.results[43]["output"]["return_code"], 1);
    // What it prints is in the log, and no part of the answer.
    assert!(ran.stderr.contains("judging 39"), "{}", ran.stderr);
}

/// What the documentation says in place of the reference's functions.
#[test]
fn rules_of_an_executable_in_python_are_data() {
    let source = format!(
        r#"import sys
sys.path.insert(0, "{}/examples")
from evalmill_processor import Command, Executable, serve

def preprocessor(prediction):
    command = Command(["python3", "-c", "print(' no = 1 ');exit(1)"])
    return Executable({{}}, [command] * 3, **prediction["rules"])

def postprocessor(prediction, result):
    return {{"passed": True, "ran": len(result), "said": result.last_cmd.stdout}}

serve(preprocessor, postprocessor)
"#,
        env!("CARGO_MANIFEST_DIR")
    );
    let program = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(program.path(), source).unwrap();
    let own = command(&format!("/usr/bin/env,python3,{}", program.path().display()));
    let rules = [
        (json!({}), 1, " no = 1 \n"),
        (json!({"early_stop": {"expected_return_code": 1}, "stdout_postprocessor": "strip"}), 3, "no = 1"),
        (
            json!({"early_stop": {"expected_return_code": 1,
            "stdout_contains": {"text": "NO", "ignore_case": true}}}),
            1,
            " no = 1 \n",
        ),
        (
            json!({"early_stop": {"expected_return_code": null},
            "stdout_postprocessor": {"chain": [{"regex": "= (.*)"}, {"truncate": 1}]}}),
            3,
            "1",
        ),
    ];
    let predictions: Vec<_> = rules.iter().map(|(rules, _, _)| json!({"rules": rules})).collect();
    let (ran, _) = judged(&[("command", own.as_str())], &predictions);
    for ((rules, count, said), result) in rules.iter().zip(&ran.results) {
        assert_eq!(result["output"]["ran"], json!(count), "{rules}: {result}");
        assert_eq!(result["output"]["said"], *said, "{rules}");
    }
    assert_eq!(ran.results.len(), rules.len(), "{}", ran.stderr);
}

#[test]
fn a_built_in_processor_does_what_the_program_does_not() {
    let source = "import json, sys\nfor line in sys.stdin:\n  items = json.loads(line)['items']\n  print(json.dumps({'items': [{'run': {'files': {'a.py': item['preprocess']['prediction']['code']}, 'commands': [{'command': ['python3', 'a.py']}]}} for item in items]}), flush=True)";
    let own = serde_json::to_string(&["/usr/bin/env", "python3", "-c", source]).unwrap();
    let settings = [("command", own.as_str()), ("postprocessor", "\"executable\"")];
    let (ran, _) = judged(&settings, &[json!({"code": "print(1)"}), json!({"code": "1/0"})]);
    assert_eq!(ran.verdicts(), ["passed", "failed"], "{}", ran.stderr);
}

#[test]
fn a_program_that_breaks_is_our_fault_and_the_others_are_judged() {
    let source = "import os, sys\nsys.path.insert(0, sys.argv[1])\nfrom evalmill_processor import *\ndef pre(prediction):\n  if prediction['code'] == 'die': os._exit(3)\n  return Executable({'a.py': prediction['code']}, [Command(['python3', 'a.py'])])\nserve(pre)";
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let own = serde_json::to_string(&["/usr/bin/env", "python3", "-c", source, examples]).unwrap();
    let predictions: Vec<_> =
        ["print(1)", "die", "print(2)", "1/0"].iter().map(|code| json!({"code": code})).collect();
    let (ran, _) = judged(&[("command", &own), ("batch_size", "4")], &predictions);
    assert_eq!(ran.verdicts(), ["passed", "infra_error", "passed", "failed"], "{}", ran.stderr);
    assert!(ran.results[1]["detail"].as_str().unwrap().contains("ended (exit status: 3)"));
    assert_eq!(ran.results[0]["output"]["stdout"], "1\n");
}

#[rstest]
#[case::absent(&[("command", "[\"/no/such/program\"]")], 69, "processors.mine.command is the program and its arguments")]
#[case::broken(&[("command", "[\"/usr/bin/env\", \"python3\", \"-c\", \"import nowhere\"]")], 69, "No module named 'nowhere'")]
#[case::nobody(&[("command", "[\"/usr/bin/env\", \"cat\"]"), ("postprocessor", "\"humanevil\"")], 78, "preprocessor \"humanevil\" is unknown")]
#[case::without(&[("batch_size", "4")], 78, "a program of your own has a command")]
fn a_start_says_what_is_wrong(#[case] settings: &[(&str, &str)], #[case] code: i32, #[case] says: &str) {
    let (ran, text) = judged(settings, &[json!({"code": ""})]);
    assert_eq!(ran.code, Some(code), "{text}\n{}", ran.stderr);
    assert!(ran.stderr.contains(says), "{}", ran.stderr);
}

#[test]
fn a_built_in_processor_is_no_program() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command: Command = evalmill(scratch.path());
    command.args(["check-config"]).env("EVALMILL__PROCESSORS__HUMANEVAL__COMMAND", "python3,x.py");
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(
        stderr.contains("this one is built in") && stderr.contains("[processors.my_humaneval]"),
        "{stderr}"
    );
}
