//! `function_tests`: calls and values.

use rstest::rstest;
use serde_json::{Value, json};

use super::{one, told};

fn row(code: &str, tests: Value) -> Value {
    json!({"code": code, "tests": tests})
}

#[rstest]
#[case::plain("def f(): return {1, 2}, b'x', {'a': (1,)}, [None, True], 1j", json!([["f()", "{2, 1}, b'x', {'a': (1,)}, [None, True], 1j"]]))]
#[case::long_number("def f(): return 7 ** 9000", json!([["f()", "7 ** 9000"]]))]
#[case::infinite("def f(): return float('inf')", json!([["f()", "float('inf')"]]))]
#[case::float("def f(): return 0.1 + 0.2", json!([["f()", "0.3", true]]))]
#[case::json("def f(): return {1: ('a', 2.0)}", json!([{"call": "f()", "expected": {"1": ["a", 2]}}]))]
#[case::statements("def f(x): return x + 1", json!([["x = 1\nf(x)", "y = 1; y + 1"]]))]
#[case::prints("def f(): print('}{'); return 1", json!([["f()", "1"]]))]
#[case::stdin("import sys\ndef f(): return sys.stdin.read()", json!([["f()", "''"]]))]
#[case::surrogate("def f(): return '\\ud800'", json!([["f()", "'\\ud800'"]]))]
#[case::isolated("count = 0\ndef f():\n    global count\n    count += 1\n    return count", json!([["f()", "1"], ["f()", "1"]]))]
#[case::guard("def f(): return __name__\nif __name__ == '__main__': raise ValueError", json!([["f()", "'solution'"]]))]
#[case::dataclass("from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\ndef f(): return A(1).x", json!([["f()", "1"]]))]
fn right(#[case] code: &str, #[case] tests: Value) {
    let result = one("function_tests", &row(code, tests));
    assert_eq!(told(&result), ("passed", ""), "{result}");
}

#[rstest]
#[case::other("def f(): return 2", "wrong_value")]
#[case::tuple_for_list("def f(): return (1,)", "wrong_value")]
#[case::nothing("def f(): pass", "wrong_value")]
#[case::raises("def f(): raise ValueError('no')", "exit_code")]
#[case::absent("", "exit_code")]
#[case::syntax("def f(:", "exit_code")]
#[case::early_exit("import os\ndef f(): os._exit(0)", "no_value")]
#[case::exit_at_import("raise SystemExit(0)", "no_value")]
#[case::equals_everything(
    "class E:\n    def __eq__(self, other): return True\ndef f(): return E()",
    "exit_code"
)]
#[case::list_that_equals_everything(
    "class E(list):\n    def __eq__(self, other): return True\ndef f(): return E()",
    "wrong_value"
)]
#[case::forged(
    "import os\ndef f():\n    for fd in range(3, 20):\n        try: os.write(fd, b'{\"equal\": true, \"detail\": \"\"}')\n        except OSError: pass\n    os._exit(0)",
    "wrong_value"
)]
#[case::forged_inside(
    "import os\ndef f():\n    for fd in range(3, 20):\n        try: os.write(fd, b'{\"inside\": true}')\n        except OSError: pass\n    os._exit(0)",
    "wrong_value"
)]
#[case::patched(
    "import json\njson.dump = lambda value, file: file.write('{\"t\": [1]}')\ndef f(): return 5",
    "wrong_value"
)]
#[case::deep("def f():\n    x = []\n    for _ in range(5000): x = [x]\n    return x", "exit_code")]
#[case::deep_by_hand(
    "import os\ndef f():\n    for fd in range(3, 20):\n        try: os.write(fd, b'[' * 100000)\n        except OSError: pass\n    os._exit(0)",
    "wrong_value"
)]
#[case::long("def f(): return 'x' * (5 << 20)", "value_too_long")]
#[case::cyclic("def f():\n    x = []\n    x.append(x)\n    return x", "exit_code")]
#[case::reads_expected("import gc\ndef f(): return [o for o in gc.get_objects() if o == [1]]", "wrong_value")]
fn wrong(#[case] code: &str, #[case] reason: &str) {
    let result = one("function_tests", &row(code, json!([["f()", "[1]"]])));
    assert_eq!(result["verdict"], "failed", "{result}");
    assert_eq!(result["output"]["tests"][0]["reason"], reason, "{result}");
}

#[test]
fn a_value_that_stalls_the_comparison_is_wrong() {
    // Hashes that all collide: a set of them takes for ever to read.
    let code = "def f(): return [frozenset([i * ((1 << 61) - 1) for i in range(30000)]), 1]";
    let mut row = row(code, json!([["f()", "[1]"]]));
    row["compare"] = json!("outside");
    let payload =
        json!({"id": "x", "preprocessor": "function_tests", "prediction": row, "limits": {"timeout": 3}});
    let ran = crate::support::run(&[], format!("{payload}\n").as_bytes());
    let result = ran.one();
    // Where the program itself takes too long to make it, that is its own doing as well.
    assert!(["failed", "timed_out"].contains(&told(result).0), "{result}");
}

#[rstest]
#[case::objects("from fractions import Fraction\ndef f(): return Fraction(1, 2)", "Fraction(1, 2)", "passed")]
#[case::other("from fractions import Fraction\ndef f(): return Fraction(1, 3)", "Fraction(1, 2)", "failed")]
fn inside_compares_objects(#[case] code: &str, #[case] expected: &str, #[case] verdict: &str) {
    let mut row = row(code, json!([["f()", expected]]));
    assert_eq!(one("function_tests", &row)["verdict"], "failed", "an object is no plain data");
    row["compare"] = json!("inside");
    let result = one("function_tests", &row);
    assert_eq!(result["verdict"], verdict, "{result}");
}

#[test]
fn shares_and_tolerances() {
    let mut row = row("def f(x): return x / 3", json!([["f(3)", "1"], ["f(1)", "0.33"], ["f(0)", "5"]]));
    row["stop_at_first_failure"] = json!(false);
    row["absolute_tolerance"] = json!(0.01);
    let result = one("function_tests", &row);
    assert_eq!(told(&result), ("failed", "test 2: expected 5, got 0.0"), "{result}");
    assert_eq!(result["output"]["num_passed"], 2);
}

#[rstest]
#[case(json!([["f(", "1"]]), "tests[0]: call is no Python")]
#[case(json!([["f()", "1"], ["x = 1", "1"]]), "tests[1]: call does not end with an expression")]
#[case(json!([["f()", "nope"]]), "tests[0]: expected_code cannot be evaluated: NameError")]
#[case(json!([["f()"]]), "tests[0]: it is a list of 1")]
fn unusable(#[case] tests: Value, #[case] says: &str) {
    let mut row = row("def f(): return 1", tests);
    row["stop_at_first_failure"] = json!(false);
    let result = one("function_tests", &row);
    assert_eq!(result["verdict"], "invalid", "{result}");
    assert!(told(&result).1.contains(says), "{result}");
}
