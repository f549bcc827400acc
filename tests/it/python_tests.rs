//! `python_tests`, `python_coverage` and `mbpp`, through the whole program.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Ran, run};

fn judged(preprocessor: &str, payload: &Value, args: &[&str]) -> Ran {
    let mut all = vec!["--preprocessor", preprocessor];
    all.extend(args);
    run(&all, format!("{payload}\n").as_bytes())
}

/// `code` with two tests that a right `f` passes.
fn tested(code: &str, more: &Value) -> Ran {
    let mut payload = json!({"code": code, "tests": ["assert f(1) == 2", ["f(2)", "3"]]});
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    judged("python_tests", &payload, &[])
}

fn words(ran: &Ran) -> Vec<&str> {
    ran.one()["output"]["tests"]
        .as_array()
        .unwrap_or_else(|| panic!("{}", ran.one()))
        .iter()
        .map(|test| test["outcome"].as_str().unwrap())
        .collect()
}

const RIGHT: &str = "def f(x):\n    return x + 1\n";

#[rstest]
fn every_test_has_its_outcome(#[values("test", "process")] isolation: &str) {
    let payload = json!({
        "code": "def f(x):\n    if x == 3: raise KeyError('three')\n    if x == 4:\n        while True: pass\n    \
                 if x == 5: exit(0)\n    if x == 6: import os; os._exit(0)\n    return x / 10\n",
        "tests": [
            ["f(1)", "0.1"], "assert f(2) == 0.3", ["f(3)", "0.3"], ["f(4)", "0.4"], {"call": "f(5)", "output": "0.5"},
            {"name": "six", "test": "f(6)\nassert True"}, ["y = 7\nf(y)", "0.7000000001", true], ["assert f(8) == 0.8", "ignored"],
        ],
        "test_timeout": 0.5, "isolation": isolation,
    });
    let ran = judged("python_tests", &payload, &[]);
    let expected = ["passed", "failed", "exception", "timed_out", "exception", "exited", "passed", "passed"];
    assert_eq!(words(&ran), expected, "{}", ran.one());
    let result = ran.one();
    let tests = &result["output"]["tests"];
    assert_eq!((&tests[2]["exception"], &tests[2]["message"]), (&json!("KeyError"), &json!("'three'")));
    assert_eq!((&tests[4]["exception"], &tests[5]["name"]), (&json!("SystemExit"), &json!("six")));
    assert!(tests[3]["runtime"].as_f64().unwrap() >= 0.5 && tests[0]["cpu_time"].as_f64().is_some());
    assert!(tests[0]["max_rss_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(result["output"]["share_passed"], 3.0 / 8.0);
    assert_eq!((&result["verdict"], &result["output"]["outcome"]), (&json!("failed"), &json!("timed_out")));
    assert!(result["detail"].as_str().unwrap().starts_with("3 of 8 tests passed; tests[1]: failed"));
}

#[rstest]
#[case::plain(RIGHT, json!({}))]
#[case::byte_order_mark("\u{feff}def f(x):\n    return x + 1\n", json!({}))]
#[case::crlf("def f(x):\r\n    return x + 1\r\n", json!({"tests": ["x = 1\r\nassert f(x) == 2"]}))]
#[case::line_separator("def f(x):\n    return '\u{2028}' and x + 1\n", json!({"tests": [["f(1) and '\u{2028}'", "'\\u2028'"]]}))]
#[case::imports("def f(x):\n    return math.floor(x + 1.5)\n", json!({"imports": "import math", "tests": [["f(1)", "int(math.sqrt(4))"]]}))]
#[case::import_list("def f(x):\n    return 0", json!({"imports": ["import math", "import re"], "tests": ["assert re and math"]}))]
#[case::the_future("from __future__ import annotations\ndef f(x: Undefined):\n    return x + 1\n", json!({}))]
#[case::entry_point("class A:\n    @staticmethod\n    def g(x): return x + 1\nf = A.g", json!({"entry_point": "A.g", "tests": ["assert candidate(1) == 2"]}))]
#[case::entry_file("import extra\ndef f(x):\n    return x + extra.one\n", json!({"entry_file": "pkg/main", "files": {"pkg/extra.py": "one = 1"}}))]
#[case::imported_by_a_test(RIGHT, json!({"tests": ["from solution import f as g\nassert g(1) == 2"]}))]
#[case::main_is_not_run("def f(x):\n    return x + 1\nif __name__ == '__main__':\n    f(input())\n", json!({}))]
#[case::dataclass("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 2\ndef f(x):\n    return P(x + 1).x\n", json!({}))]
#[case::pickled("import pickle\nclass P:\n    pass\ndef f(x):\n    return x + 1 if pickle.loads(pickle.dumps(P())) else 0\n", json!({}))]
#[case::pool("from multiprocessing import Pool\ndef g(x):\n    return x + 1\ndef f(x):\n    with Pool(2) as pool:\n        return pool.map(g, [x])[0]\n", json!({}))]
#[case::deep("def f(x):\n    return x + 1 if x > 900 or f(x + 1) else 0\n", json!({}))]
#[case::standard_input("import sys\ndef f(x):\n    return x + 1 + len(sys.stdin.read())\n", json!({}))]
#[case::each_test_is_alone("seen = []\ndef f(x):\n    seen.append(x)\n    return x + len(seen)\n", json!({}))]
#[case::closes_its_streams("import os, sys\nsys.stdout.close()\nos.close(2)\ndef f(x):\n    return x + 1\n", json!({}))]
#[case::loud("def f(x):\n    print('x' * 3_000_000)\n    return x + 1\n", json!({}))]
#[case::exits_at_the_end("import atexit, os\natexit.register(lambda: os._exit(3))\ndef f(x):\n    return x + 1\n", json!({}))]
#[case::background("import os, time\ndef f(x):\n    if os.fork() == 0:\n        time.sleep(1000)\n    return x + 1\n", json!({}))]
#[case::equal_values("import collections, enum\nclass E(enum.IntEnum):\n    A = 2\ndef f(x):\n    return E.A if x == 1 else collections.OrderedDict(a=(x,))\n",
    json!({"isolation": "process", "tests": [["f(1)", "2"], ["f(2)", "{'a': (2,)}"], ["{frozenset([1]), -0.5, 1j, b'x', None, 'é', 10**30}", "{frozenset([1]), -0.5, 1j, b'x', None, 'é', 10**30}"]]}))]
fn a_right_solution_passes(#[case] code: &str, #[case] more: Value) {
    let ran = tested(code, &more);
    assert_eq!(ran.verdicts(), ["passed"], "{}", ran.one());
    assert_eq!(ran.one()["output"]["share_passed"], 1.0);
}

#[rstest]
#[case::leaves("import os; os._exit(0)", "not_run")]
#[case::leaves_in_the_test("import os\ndef f(x): os._exit(0)", "exited")]
#[case::exits("raise SystemExit(0)", "not_run")]
#[case::exits_in_the_test("def f(x): exit(0)", "exception")]
#[case::forged_marker(
    "print('test\\t0\\tpassed\\t0\\t0\\t0\\t\\t\\nend\\n' * 9, flush=True)\ndef f(x): print('passed')",
    "failed"
)]
#[case::patched_print("import builtins\nbuiltins.print = lambda *a: None\ndef f(x): return 0", "failed")]
#[case::patched_builtins(
    "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.AssertionError = ValueError\nbuiltins.compile = builtins.exec = builtins.eval = lambda *a: 1\ndef f(x): return 0",
    "failed"
)]
#[case::own_builtins("__builtins__ = {'AssertionError': None}\ndef f(x): return 0", "failed")]
#[case::traced(
    "import sys\ndef t(frame, event, arg):\n    if event != 'call': import os; os._exit(0)\nsys.settrace(t); sys.setprofile(t)\ndef f(x): return 0",
    "not_run"
)]
#[case::main_patched(
    "import __main__, sys\nfor m in list(sys.modules.values()):\n    for n in ('test', 'write_all', 'described', 'oneline', 'loader'):\n        if hasattr(m, n) and m.__name__ == '__main__': setattr(m, n, lambda *a: None)\ndef f(x): return 0",
    "failed"
)]
#[case::all_descriptors(
    "import os\ndef f(x):\n    for fd in range(256):\n        try: os.write(fd, b'O\\tpassed\\t\\t\\nX\\t0\\t0\\t0\\n')\n        except OSError: pass\n    os._exit(0)",
    "exited"
)]
#[case::closed_descriptors("import os\nos.closerange(0, 256)\ndef f(x): return x + 1", "not_run")]
#[case::closed_in_the_test("import os\ndef f(x):\n    os.closerange(0, 256)\n    return x + 1", "exited")]
#[case::forks("import os\nos.fork()\ndef f(x): return 0", "failed")]
#[case::forks_in_the_test("import os\ndef f(x):\n    os.fork() and os._exit(0)\n    return x + 1", "exited")]
#[case::becomes_a_daemon(
    "import os\nif os.fork(): os._exit(0)\nos.setsid()\ndef f(x): return x + 1",
    "not_run"
)]
#[case::kills_the_loader(
    "import os, signal\ndef f(x):\n    os.kill(os.getppid(), 9)\n    os._exit(0)",
    "exited"
)]
#[case::raises("raise ValueError('at import')", "not_run")]
#[case::rude_exception(
    "class E(BaseException):\n    def __str__(self): raise self\ndef f(x): raise E",
    "exception"
)]
#[case::no_such_name("def g(x): return x + 1", "exception")]
#[case::at_fork(
    "import os\nos.register_at_fork(after_in_child=lambda: os._exit(0))\ndef f(x): return x + 1",
    "exited"
)]
#[case::children_are_ignored(
    "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\ndef f(x): return 0",
    "failed"
)]
#[case::flags(
    "import sys, os\nif not os.environ.get('O'): os.environ['O'] = '1'; os.execv(sys.executable, [sys.executable, '-O', 'solution.py'])\ndef f(x): return 0",
    "not_run"
)]
fn a_wrong_solution_never_passes(
    #[case] code: &str,
    #[case] word: &str,
    #[values("test", "process")] isolation: &str,
) {
    let ran = tested(code, &json!({"isolation": isolation}));
    assert_eq!(ran.verdicts(), ["failed"], "{}", ran.one());
    assert_eq!(words(&ran)[0], word, "{}", ran.one());
    assert_eq!(ran.one()["output"]["num_passed"], 0, "{}", ran.one());
}

/// Looks among its objects, and in the memory of the processes before it.
const LOOKS_FOR_IT: &str = r"
import gc, os, re
def f(x):
    wanted = x * 3
    text = str(wanted).encode()
    for thing in gc.get_objects():
        if isinstance(thing, (tuple, list)) and wanted in thing:
            return wanted
    for pid in range(os.getppid() - 5, os.getpid()):
        try:
            with open(f'/proc/{pid}/maps') as maps, open(f'/proc/{pid}/mem', 'rb', 0) as memory:
                for start, end in re.findall('([0-9a-f]+)-([0-9a-f]+) rw', maps.read()):
                    memory.seek(int(start, 16))
                    if text in memory.read(int(end, 16) - int(start, 16)):
                        return wanted
        except OSError:
            pass
    return 0
";

#[rstest]
#[case::equals_everything(
    "class E:\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0\ndef f(x): return E()"
)]
#[case::derived(
    "class E(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n    def __sub__(self, other): return 0\ndef f(x): return E()"
)]
#[case::hidden("def abs(x): return 0\ndef f(x): return 7")]
#[case::looks_for_it(LOOKS_FOR_IT)]
fn another_process_compares(#[case] code: &str) {
    let more = json!({"isolation": "process", "tests": [["f(329218107)", "987654321"], ["f(329218107)", "987654321", true]]});
    let ran = tested(code, &more);
    // Nothing keeps a program from the memory of others where there are no walls.
    let is_open = ran.one()["worker"]["tier"] == "none" && code == LOOKS_FOR_IT;
    assert!(is_open || words(&ran) == ["failed", "failed"], "{}", ran.one());
}

#[rstest]
#[case::an_assert(
    "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()",
    "assert f(1) == 2",
    "failed"
)]
#[case::with_a_message(
    "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()",
    "assert f(1) == 2, 'why'",
    "failed"
)]
#[case::right(RIGHT, "assert f(1) == 2", "passed")]
#[case::wrong(RIGHT, "assert f(1) == 3", "failed")]
#[case::expected_of_the_solution(
    "class P:\n    pass\np = P()\ndef f(x): return p",
    "assert f(1) == p",
    "passed"
)]
#[case::not_plain("def f(x): return object", "assert f(1) == object", "passed")]
#[case::something_else(RIGHT, "assert f(1) == 2 == f(1)", "passed")]
#[case::statements(RIGHT, "y = 2\nassert f(1) == y", "passed")]
fn a_lone_assert_is_compared_elsewhere_where_that_can_be(
    #[case] code: &str,
    #[case] test: &str,
    #[case] word: &str,
) {
    let ran = tested(code, &json!({"isolation": "process", "tests": [test]}));
    assert_eq!(words(&ran), [word], "{}", ran.one());
}

#[test]
fn a_solution_that_does_not_compile_says_where() {
    for code in ["def f(x):\n    retrun x\n", "def f(:", "x = '\u{0}'"] {
        let ran = tested(code, &json!({}));
        assert_eq!(ran.one()["output"]["outcome"], "compile_error", "{}", ran.one());
        assert_eq!((ran.verdicts()[0], words(&ran)[0]), ("failed", "not_run"));
        assert!(ran.one()["detail"].as_str().unwrap().starts_with("the solution does not load: "));
    }
}

#[test]
fn limits_of_the_whole_leave_what_was_judged_before() {
    let hangs = "def f(x):\n    while x == 2: pass\n    return x + 1\n";
    let payload =
        json!({"code": hangs, "tests": ["assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"]});
    let ran = judged("python_tests", &payload, &["--timeout", "1"]);
    assert_eq!((ran.verdicts()[0], words(&ran)), ("timed_out", vec!["passed", "timed_out", "not_run"]));
    let floods = json!({
        "code": "def f(x):\n    while x == 2: print('x' * 100000)\n    return x + 1\n", "tests": payload["tests"],
    });
    let ran = judged("python_tests", &floods, &[]);
    assert_eq!(
        (ran.verdicts()[0], words(&ran)),
        ("output_exceeded", vec!["passed", "output_exceeded", "not_run"])
    );
    let ran = judged(
        "python_tests",
        &json!({"code": "while True: pass", "tests": ["assert True"]}),
        &["--timeout", "1"],
    );
    assert_eq!((ran.verdicts()[0], words(&ran)), ("timed_out", vec!["not_run"]));
    assert_eq!(ran.one()["output"]["load"]["outcome"], "timed_out");
}

#[test]
fn a_timeout_of_a_test_cannot_be_put_off() {
    let code = "import signal, os\nfor n in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(n, signal.SIG_IGN)\n\
                def f(x):\n    signal.alarm(0)\n    os.setsid() if os.getpid() != os.getpgrp() else None\n    while True: pass\n";
    let ran = tested(code, &json!({"test_timeout": 0.3, "tests": ["f(1)", "f(1)", "assert True"]}));
    assert_eq!(words(&ran), ["timed_out", "timed_out", "passed"], "{}", ran.one());
}

#[test]
fn an_early_stop_leaves_the_rest_out() {
    let ran = tested(
        "def f(x): return 2",
        &json!({"early_stop": true, "tests": [["f(1)", "2"], ["f(1)", "3"], ["f(1)", "2"]]}),
    );
    assert_eq!(words(&ran), ["passed", "failed", "not_run"]);
    assert_eq!(ran.one()["output"]["outcome"], "failed");
}

#[rstest]
#[case(json!({"tests": ["assert f("]}), "tests[0] cannot be used: ")]
#[case(json!({"tests": ["return 1"]}), "tests[0] cannot be used: SyntaxError: 'return' outside function")]
#[case(json!({"tests": ["pass", "x\u{0}"]}), "tests[1] cannot be used: ")]
#[case(json!({"tests": [["f(1)", "2 2"]]}), "tests[0] cannot be used: ")]
#[case(json!({"tests": [["f(1)", ""]]}), "tests[0] cannot be used: ")]
#[case(json!({"tests": [["x = f(1)", "2"]]}), "tests[0] cannot be used: the call has to end with an expression")]
#[case(json!({"tests": [["", "2"]]}), "tests[0] cannot be used: the call has to end with an expression")]
#[case(json!({"tests": [["f(1)", "f(1)"]], "isolation": "process"}), "tests[0] cannot be used: NameError")]
#[case(json!({"tests": [["f(1)", "object()"]], "isolation": "process"}), "the expected value: the value is a object")]
#[case(json!({"imports": "import no_such_module"}), "No module named 'no_such_module'")]
#[case(json!({"tests": []}), "tests is empty")]
fn what_cannot_be_used_is_invalid(#[case] more: Value, #[case] says: &str) {
    let ran = tested(RIGHT, &more);
    assert_eq!(ran.verdicts(), ["invalid"], "{}", ran.one());
    assert!(ran.one()["detail"].as_str().unwrap().contains(says), "{}", ran.one());
}

#[test]
fn nesting_without_end_is_no_verdict_about_the_solution() {
    let deep = format!("assert {}1{}", "(".repeat(5000), ")".repeat(5000));
    let ran = tested(RIGHT, &json!({"tests": [deep]}));
    assert_eq!(ran.verdicts(), ["invalid"], "{}", ran.one());
}

#[test]
fn half_a_surrogate_is_refused() {
    let ran = run(&["--preprocessor", "python_tests"], b"{\"code\": \"\", \"tests\": [\"\\ud800\"]}\n");
    assert_eq!(ran.verdicts(), ["invalid"]);
    assert!(ran.one()["detail"].as_str().unwrap().contains("surrogate"));
}

#[test]
fn many_tests_are_all_reported() {
    let tests: Vec<_> =
        (0..300).map(|n| json!([format!("f({n})"), (n + 1 + i32::from(n == 299)).to_string()])).collect();
    let ran = tested(RIGHT, &json!({"tests": tests}));
    assert_eq!(ran.one()["output"]["num_passed"], 299, "{}", ran.one()["detail"]);
    assert_eq!(words(&ran)[299], "failed");
}

#[test]
fn coverage_counts_the_lines_of_all_tests() {
    let code =
        "def sign(x):\n    if x < 0:\n        return -1\n    if x > 0:\n        return 1\n    return 0\n";
    let ran = judged(
        "python_coverage",
        &json!({"code": code, "tests": ["assert sign(3) == 1", "assert sign(4) == 1"]}),
        &[],
    );
    let output = &ran.one()["output"];
    assert_eq!(ran.verdicts(), ["passed"], "{}", ran.one());
    assert_eq!(output["missing_lines"], json!([3, 6]), "{}", ran.one());
    assert!((output["percent_covered"].as_f64().unwrap() - 400.0 / 6.0).abs() < 1e-6, "{output}");
    let tests = json!(["assert sign(3) == 1", "assert sign(-3) == 1", "assert sign(0) == 0"]);
    let ran = judged("python_coverage", &json!({"code": code, "tests": tests}), &[]);
    assert_eq!(words(&ran), ["passed", "failed", "passed"]);
    assert_eq!(ran.one()["output"]["missing_lines"], json!([]), "{}", ran.one());
    let ran = judged("python_coverage", &json!({"code": "x = (", "tests": ["pass"]}), &[]);
    assert_eq!((ran.verdicts()[0], &ran.one()["output"]["percent_covered"]), ("failed", &Value::Null));
}

#[test]
fn an_interpreter_without_coverage_is_no_fault_of_the_solution() {
    // A package of that name that cannot be imported stands in for one that is not there.
    let files = json!({"coverage.py": "raise ModuleNotFoundError(\"No module named 'coverage'\")"});
    let ran = judged(
        "python_coverage",
        &json!({"code": RIGHT, "tests": ["assert f(1) == 2"], "files": files}),
        &[],
    );
    assert_eq!(ran.verdicts(), ["infra_error"], "{}", ran.one());
    let detail = ran.one()["detail"].as_str().unwrap();
    assert!(detail.contains("no package `coverage`") && detail.contains("python3-coverage"), "{detail}");
}

fn mbpp_rows() -> Vec<Value> {
    let path = std::env::var("EVALMILL_MBPP")
        .unwrap_or_else(|_| format!("{}/tests/fixtures/mbpp.jsonl", env!("CARGO_MANIFEST_DIR")));
    let text =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("EVALMILL_MBPP: {path}: {error}"));
    // Sanitized MBPP is one array, the full one is JSONL.
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).unwrap();
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lines(rows: &[Value]) -> Vec<u8> {
    rows.iter().map(|row| format!("{row}\n")).collect::<String>().into_bytes()
}

#[test]
fn every_published_solution_of_mbpp_passes() {
    let rows = mbpp_rows();
    let ran = run(&["--preprocessor", "mbpp"], &lines(&rows));
    let wrong: Vec<_> = ran
        .results
        .iter()
        .filter(|result| result["passed"] != true)
        .map(|result| (&result["task"], &result["detail"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!((ran.results.len(), ran.code), (rows.len(), Some(0)), "{}", ran.stderr);
    assert_eq!(ran.results[0]["task"], format!("MBPP/{}", rows[0]["task_id"]));
}

#[test]
fn a_wrong_completion_of_mbpp_fails() {
    let mut rows = mbpp_rows();
    for (at, row) in rows.iter_mut().enumerate() {
        let wrong = ["", "raise SystemExit(0)", "import os; os._exit(0)", "def f(): pass"][at % 4];
        row["completion"] = json!(wrong);
    }
    let ran = run(&["--preprocessor", "mbpp"], &lines(&rows));
    assert!(ran.results.iter().all(|result| result["verdict"] == "failed"), "{:?}", ran.verdicts());
    assert_eq!(ran.results.len(), rows.len());
}
