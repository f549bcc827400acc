//! HumanEval, right and wrong.

use std::io::Read;

use flate2::read::GzDecoder;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{humaneval, run};

fn problems() -> Vec<Value> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(humaneval()).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_canonical_solution_passes() {
    let ran = run(&["--preprocessor", "humaneval", &humaneval()], b"");
    assert_eq!(ran.results.len(), 164);
    let wrong: Vec<_> = ran.results.iter().filter(|result| result["passed"] != true).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let tasks: Vec<_> = problems().iter().map(|problem| problem["task_id"].clone()).collect();
    let seen: Vec<_> = ran.results.iter().map(|result| result["task"].clone()).collect();
    assert_eq!(seen, tasks, "the order of the input is kept");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[rstest]
#[case::nothing("    pass\n")]
#[case::exit("    import os; os._exit(0)\n")]
#[case::sys_exit("    import sys; sys.exit(0)\n")]
#[case::at_import("    pass\nimport os\nos._exit(0)\n")]
#[case::swallow("    pass\n\nx = '''\n")]
#[case::own_check("    pass\ndef check(f): pass\ncheck(None)\nraise SystemExit(0)\n")]
#[case::atexit("    import atexit, os; atexit.register(lambda: os._exit(0)); raise ValueError\n")]
#[case::fork("    import os\n    os.fork() and os._exit(0)\n    raise ValueError\n")]
fn a_wrong_completion_never_passes(#[case] completion: &str) {
    let rows: String = problems()
        .into_iter()
        .step_by(20)
        .map(|problem| format!("{}\n", json!({"task_id": problem["task_id"], "completion": completion})))
        .collect();
    let ran = run(&["--preprocessor", "humaneval", "--problems", &humaneval()], rows.as_bytes());
    assert_eq!(ran.results.len(), 9);
    for result in &ran.results {
        assert_eq!(result["verdict"], "failed", "{result}");
    }
}

#[test]
fn a_future_import_and_deep_recursion_work() {
    let payload = json!({
        "prompt": "from __future__ import annotations\ndef f(n: Undefined):\n",
        "completion": "    return 0 if n == 0 else 1 + f(n - 1)\n",
        "test": "def check(c):\n    assert c(990) == 990\n",
        "entry_point": "f",
    });
    let ran = run(&["--preprocessor", "humaneval"], format!("{payload}\n").as_bytes());
    assert_eq!(ran.verdicts(), ["passed"], "{}", ran.one());
}
