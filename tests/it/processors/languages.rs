//! `multi_language`: rows as MultiPL-E publishes them.

use rstest::rstest;
use serde_json::{Value, json};

use super::{one, told};

fn row(language: &str, completion: &str) -> Value {
    let (prompt, tests) = match language {
        "py" => (
            "def incr(n: int) -> int:\n    \"\"\"One more\"\"\"\n",
            "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-1) == 0\n\ndef test_check():\n    check(incr)\n\ntest_check()\n",
        ),
        "js" => (
            "//One more\nfunction incr(n){\n",
            "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = incr;\n  assert.deepEqual(candidate(1),2);\n  assert.deepEqual(candidate(-1),0);\n}\n\ntest();",
        ),
        "sh" => (
            "#!/bin/bash\n# One more\n#\n# $1 is an integer\nincr() {\n",
            "}\n\ncandidate() {\n    incr \"$@\"\n}\n\nset -e\nrun_test() {\n    [[ $(candidate \"1\") = \"2\" ]]\n    [[ $(candidate \"-1\") = \"0\" ]]\n}\n\nrun_test",
        ),
        "c" => (
            "#include <assert.h>\n#include <stdlib.h>\nlong incr(long n) {\n",
            "}\nint main() {\n    assert(incr((1)) == (2));\n    assert(incr((-1)) == (0));\n}\n",
        ),
        _ => (
            "#include<assert.h>\n#include<bits/stdc++.h>\n// One more\nlong incr(long n) {\n",
            "}\nint main() {\n    auto candidate = incr;\n    assert(candidate((1)) == (2));\n    assert(candidate((-1)) == (0));\n}\n",
        ),
    };
    json!({
        "name": "HumanEval_0_incr", "language": language, "prompt": prompt, "tests": tests, "completion": completion,
        "stop_tokens": ["\nSTOP", "\n}"],
    })
}

#[rstest]
#[case("py", "    return n + 1\nSTOP here", "    return n\n", "    exit(0)\n")]
#[case("js", "  return n + 1; };\nSTOP here", "  return n; }", "  process.exit(0); }")]
#[case("sh", "  echo $(($1 + 1))\n}\nincr() { echo wrong", "  echo $1", "  :\n }\nexit 0\nincr() { :")]
#[case("c", "  return n + 1;", "  return n;", "  exit(0);")]
#[case("cpp", "  return n + 1;\n}\n}", "  return n;", "  exit(0);")]
fn right_wrong_and_early(
    #[case] language: &str,
    #[case] right: &str,
    #[case] wrong: &str,
    #[case] early: &str,
) {
    let result = one("multi_language", &row(language, right));
    assert_eq!(told(&result), ("passed", ""), "{result}");
    assert_eq!(result["task"], "HumanEval_0_incr");
    assert_eq!(result["output"]["tests_completed"], true);
    let result = one("multi_language", &row(language, wrong));
    // A failed assertion of C ends by a signal.
    let verdict = if language.starts_with('c') { "crashed" } else { "failed" };
    assert_eq!(result["verdict"], verdict, "{result}");
    let result = one("multi_language", &row(language, early));
    assert_eq!(told(&result), ("failed", "exit code 0, but the tests did not run to their end"), "{result}");
}

#[test]
fn tests_that_swallow_nothing() {
    let result = one("multi_language", &row("py", "    return n + 1\n'''"));
    assert_eq!(result["verdict"], "failed", "an open string is no way around the tests: {result}");
}

#[test]
fn names_of_the_library_are_the_programs() {
    let completion = "  return n + 1;\n }\nint read(int a) { return a; }\nint write(int a) { return a; }\nint send(int a) { return a;";
    let result = one("multi_language", &row("c", completion));
    assert_eq!(told(&result), ("passed", ""), "{result}");
}

#[test]
fn a_main_that_returns_is_judged_as_published() {
    let mut row = row("cpp", "  return n + 1;");
    row["tests"] = json!("}\nint main() { assert(incr(1) == 2); return 0; }\n");
    let result = one("multi_language", &row);
    assert_eq!(result["verdict"], "passed");
    assert!(result["output"].get("tests_completed").is_none(), "nothing shows that they ran to their end");
}

#[test]
fn what_does_not_build_says_why() {
    let result = one("multi_language", &row("cpp", "  return m;"));
    let (verdict, detail) = told(&result);
    assert_eq!(verdict, "compile_error");
    assert!(detail.contains("it does not build") && detail.contains('m'), "{detail}");
}
