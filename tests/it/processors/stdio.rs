//! `stdio_tests`: standard input → standard output.

use rstest::rstest;
use serde_json::{Value, json};

use super::{judge, one, told};
use crate::support::run;

const SUM: &str = "print(sum(map(int, input().split())))";
const SUM_C: &str =
    "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }";
const SUM_CPP: &str =
    "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }";
const SUM_JS: &str =
    "const t = require('fs').readFileSync(0, 'utf8').split(' ').map(Number); console.log(t[0] + t[1]);";

fn tests() -> Value {
    json!([{"input": "1 2\n", "output": "3\n"}, {"input": "-1 1\n", "output": "0\n"}])
}

#[rstest]
#[case("python", SUM)]
#[case("c", SUM_C)]
#[case("C++", SUM_CPP)]
#[case("js", SUM_JS)]
#[case("bash", "read a b; echo $((a + b))")]
fn every_language_that_ships(#[case] language: &str, #[case] code: &str) {
    let row = json!({"code": code, "language": language, "tests": tests()});
    let result = one("stdio_tests", &row);
    assert_eq!(told(&result), ("passed", ""), "{result}");
    assert_eq!(result["output"]["share_passed"], 1.0);
    let commands = result["executions"][0]["command_results"].as_array().unwrap();
    let builds = commands.iter().filter(|command| command["build"] == true).count();
    assert_eq!(commands.len(), 2 + builds, "it is built once");
}

#[rstest]
#[case::stop(true, 1)]
#[case::all(false, 3)]
fn the_first_failure_ends_it_where_that_is_asked_for(#[case] stop: bool, #[case] run: u64) {
    let tests = json!([
        {"name": "a", "input": "1 2\n", "output": "4\n"},
        {"name": "b", "input": "-1 1\n", "output": "0\n"},
        {"name": "c", "input": "x\n", "output": "0\n"},
    ]);
    let result = one("stdio_tests", &json!({"code": SUM, "tests": tests, "stop_at_first_failure": stop}));
    assert_eq!(told(&result), ("failed", "test 0 (a): token 1: expected \"4\", got \"3\""), "{result}");
    let output = &result["output"];
    assert_eq!((&output["num_run"], &output["num_tests"]), (&json!(run), &json!(3)));
    let first = json!({"unit": "token", "number": 1, "expected": "4", "got": "3"});
    assert_eq!(output["first_failure"]["difference"], first);
    if !stop {
        assert_eq!(output["tests"][1]["passed"], true);
        assert_eq!(output["tests"][2]["reason"], "exit_code");
        assert!(output["tests"][2]["detail"].as_str().unwrap().contains("ValueError"), "{output}");
    }
}

#[rstest]
#[case::sleeper("import time; time.sleep(60)", json!(0.5), "timed_out", "wall_limit")]
#[case::killed("import os; os.kill(os.getpid(), 11)", Value::Null, "crashed", "signalled")]
#[case::right_but_exit_code("print(3); raise SystemExit(1)", Value::Null, "failed", "exit_code")]
#[case::nothing("", Value::Null, "failed", "wrong_output")]
#[case::not_utf8("import sys; sys.stdout.buffer.write(b'3\\xff')", Value::Null, "failed", "wrong_output")]
#[case::nul("print('3\\0')", Value::Null, "failed", "wrong_output")]
#[case::closed("import os; os.close(1)", Value::Null, "failed", "wrong_output")]
fn how_programs_fail(
    #[case] code: &str,
    #[case] timeout: Value,
    #[case] verdict: &str,
    #[case] reason: &str,
) {
    let tests = json!([{"input": "1 2\n", "output": "3\n"}]);
    let result = one("stdio_tests", &json!({"code": code, "tests": tests, "timeout": timeout}));
    assert_eq!(result["verdict"], verdict, "{result}");
    assert_eq!(result["output"]["tests"][0]["reason"], reason, "{result}");
}

#[test]
fn a_program_that_does_not_build_says_why() {
    let row = json!({"code": "int main(void) { return x; }", "language": "c", "tests": tests()});
    let result = one("stdio_tests", &row);
    let (verdict, detail) = told(&result);
    assert_eq!(verdict, "compile_error");
    assert!(detail.contains("it does not build") && detail.contains("error"), "{detail}");
    assert_eq!(result["output"]["num_run"], 0);
}

#[test]
fn what_is_expected_is_nowhere_in_the_box() {
    // The program prints every file and every environment it can see; none of it may hold what is expected.
    let code = "import os, sys, glob\nprint(sys.stdin.read(), sys.argv, os.environ)\n\
        for top in ('.', '..', os.environ['TMPDIR']):\n for path, _, files in os.walk(top):\n  for name in files:\n\
        \x20  print(path, name, open(os.path.join(path, name), errors='replace').read())\n\
        for path in glob.glob('/proc/[0-9]*/cmdline') + glob.glob('/proc/[0-9]*/environ'):\n\
        \x20try: print(open(path).read())\n except OSError: pass\n";
    let tests = json!([{"input": "in\n", "output": "s3cr3t-of-the-first"}, {"input": "", "output": "s3cr3t-of-the-second"}]);
    let checker = "raise SystemExit(1)";
    for row in [
        json!({"code": code, "tests": tests, "stop_at_first_failure": false}),
        json!({"code": code, "tests": tests, "stop_at_first_failure": false, "checker": checker}),
    ] {
        let result = one("stdio_tests", &row);
        assert_eq!(result["verdict"], "failed", "{result}");
        let commands = result["executions"][0]["command_results"].as_array().unwrap();
        assert_eq!(commands.len(), 2);
        for command in commands {
            let seen = command["stdout"].as_str().unwrap();
            assert!(seen.contains("main.py") && !seen.contains("s3cr3t"), "{seen}");
        }
    }
}

#[test]
fn outputs_longer_than_what_a_result_carries_are_compared_whole() {
    let code = "print('1 ' * 1000000 + input())";
    let expected = "1 ".repeat(1_000_000);
    let row =
        |last: &str| json!({"code": code, "tests": [{"input": "7", "output": format!("{expected}{last}")}]});
    let ran = judge("stdio_tests", &[row("7"), row("8")]);
    assert_eq!(ran.verdicts(), ["passed", "failed"]);
    let failed = &ran.results[1];
    assert_eq!(told(failed).1, "test 0: token 1000001: expected \"8\", got \"7\"");
    assert!(failed["output"].to_string().len() < 5000, "what is shown is cut");
}

const REVERSED: &str = "import sys\ngiven, output, expected = (open(name).read() for name in sys.argv[1:])\n\
    assert expected == 'E' + given\nprint('not reversed', file=sys.stderr)\nsys.exit(output.strip() != given[::-1])";

#[rstest]
#[case::right("print(input()[::-1])", "passed", "")]
#[case::wrong("print(input())", "failed", "test 0: not reversed")]
#[case::broken(
    "print(input()[::-1]); 1 / 0",
    "failed",
    "test 0: exit code 1: ZeroDivisionError: division by zero"
)]
fn a_checker_judges(#[case] code: &str, #[case] verdict: &str, #[case] detail: &str) {
    let tests = json!([{"input": "abc", "output": "Eabc"}, {"input": "de", "output": "Ede"}]);
    let result = one("stdio_tests", &json!({"code": code, "tests": tests, "checker": REVERSED}));
    assert_eq!(told(&result), (verdict, detail), "{result}");
    assert_eq!(
        result["executions"].as_array().unwrap().len(),
        1,
        "the checker is no execution of the program"
    );
}

#[test]
fn a_checker_says_for_each_test_what_it_thinks() {
    let tests = json!([{"input": "abc", "output": "Eabc"}, {"input": "aa", "output": "Eaa"}]);
    let row = json!({"code": "print(input())", "tests": tests, "checker": REVERSED, "stop_at_first_failure": false});
    let result = one("stdio_tests", &row);
    let reasons: Vec<_> =
        result["output"]["tests"].as_array().unwrap().iter().map(|test| &test["reason"]).collect();
    assert_eq!(reasons, ["checker", "passed"], "{result}");
}

#[rstest]
#[case::failed(json!({"language": "c", "code": "int main(void) { return 3; }"}), "infra_error", "the checker failed at test 0: exit code 3")]
#[case::killed(json!("import os; os.kill(os.getpid(), 9)"), "infra_error", "the checker failed at test 0")]
#[case::endless(json!({"code": "while True: pass", "timeout": 0.5}), "infra_error", "the checker failed at test 0")]
#[case::not_built(json!({"language": "c", "code": "int main(void) {"}), "invalid", "checker: it does not build")]
#[case::no_python(json!("sys.exit("), "invalid", "checker: it does not build")]
#[case::files(json!({"language": "c", "code": "#include \"one.h\"\nint main(void) { return ONE; }", "files": {"one.h": "#define ONE 1\n"}}), "failed", "the checker's exit code is 1")]
fn a_checker_that_fails_says_nothing_about_the_program(
    #[case] checker: Value,
    #[case] verdict: &str,
    #[case] says: &str,
) {
    let tests = json!([{"input": "", "output": ""}]);
    let result = one("stdio_tests", &json!({"code": "print(1)", "tests": tests, "checker": checker}));
    assert_eq!(result["verdict"], verdict, "{result}");
    assert!(told(&result).1.contains(says), "{result}");
}

/// A row of the form that CodeContests publishes, with programs of its `solutions` and `incorrect_solutions`.
fn contest(code: &str, language: &str) -> Value {
    json!({
        "name": "1_A. Halves", "source": 2, "difficulty": 7, "cf_rating": 800,
        "description": "Print YES or no, and half of the number.",
        "public_tests": {"input": ["4\n", "3\n"], "output": ["YES 2\n", "NO 1.5\n"]},
        "private_tests": {"input": ["0\n"], "output": ["YES 0\n"]},
        "generated_tests": {"input": ["1000000001\n"], "output": ["NO 500000000.5\n"]},
        "time_limit": {"seconds": 2, "nanos": 0}, "memory_limit_bytes": 256_000_000,
        "solutions": {"language": [3], "solution": ["…"]},
        "code": code, "language": language,
    })
}

#[test]
fn code_contests_as_published() {
    let right = "n = int(input())\nprint('Yes' if n % 2 == 0 else 'No')\nprint('%.6f' % (n / 2))";
    let right_cpp = "#include <cstdio>\nint main() { int n; scanf(\"%d\", &n); printf(\"%s %.1f\\n\", n % 2 ? \"NO\" : \"YES\", n / 2.0); }";
    let whole = "n = int(input())\nprint('YES' if n % 2 == 0 else 'NO', n // 2)";
    let slow = "import time; time.sleep(30)";
    let rows =
        [contest(right, "python3"), contest(right_cpp, "cpp"), contest(whole, "py"), contest(slow, "py")];
    let ran = judge("stdio_tests", &rows);
    assert_eq!(ran.verdicts(), ["passed", "passed", "failed", "timed_out"], "{:?}", ran.results);
    assert_eq!(ran.results[0]["task"], "1_A. Halves");
    let test = &ran.results[2]["output"]["tests"][1];
    assert_eq!((&test["name"], &test["passed"]), (&json!("public_tests[1]"), &json!(false)));
    let slept = ran.results[3]["executions"][0]["command_results"][0]["runtime"].as_f64().unwrap();
    assert!(slept < 10.0, "its time limit is 2 s, not the prediction's: {slept}");
}

#[test]
fn published_rows_of_functions() {
    let apps = |code: &str| {
        json!({"problem_id": 1, "code": code, "input_output": json!({
            "fn_name": "pairs",
            "inputs": [[[3, 1]], [[]], [[123_456_789_012_345_678_u64]]],
            "outputs": [[[[0, 3], [1, 1]]], [], [[0, 123_456_789_012_345_678_u64]]],
        }).to_string()})
    };
    let bench = |code: &str| {
        json!({"question_id": "q", "code": code, "metadata": "{\"func_name\": \"add\"}",
            "public_test_cases": json!([{"input": "[1, 2]\n\"x\"", "output": "[1, 2, \"x\"]", "testtype": "functional"}]).to_string(),
            "private_test_cases": "[]"})
    };
    let method = "class Solution:\n    def add(self, items: List[int], item) -> List:\n        return tuple(items) + (item,)\n";
    let ran = judge(
        "stdio_tests",
        &[
            apps(
                "def pairs(items):\n    return list(enumerate(items)) if len(items) != 1 else [0, items[0]]",
            ),
            apps("def pairs(items):\n    return []"),
            bench(method),
            bench("class Solution:\n    def add(self, items, item):\n        items.append(item)\n"),
        ],
    );
    assert_eq!(ran.verdicts(), ["passed", "failed", "passed", "failed"], "{:?}", ran.results);
}

#[rstest]
#[case(json!({"tests": [{"input": "", "output": ""}]}), "the program is missing")]
#[case(json!({"code": "", "tests": []}), "tests holds no test")]
#[case(json!({"code": "", "tests": [{"input": "", "output": ""}], "language": "cobol"}), "language is \"cobol\"")]
#[case(json!({"code": "", "tests": [{"input": "", "output": ""}], "comparator": "near"}), "comparator is \"near\"")]
#[case(json!({"code": "", "tests": [{"input": "", "output": ""}], "timeout": 601}), "commands[0].timeout is 601 s; limits.max_timeout allows 600 s")]
#[case(json!({"code": "", "tests": vec![json!({"input": "", "output": ""}); 1001]}), "commands: 1001 of them; limits.max_commands allows 1000")]
#[case(json!({"code": "", "input_output": "{\"inputs\": [\"a\"], \"outputs\": []}"}), "has 1 items and input_output.outputs has 0")]
#[case(json!({"code": "", "private_test_cases": "eJxrYJk6VwAEdgHS"}), "Python pickle")]
#[case(json!({"code": "", "language": "c", "input_output": {"fn_name": "f", "inputs": [[1]], "outputs": [1]}}), "language is \"python\"")]
fn unusable(#[case] payload: Value, #[case] says: &str) {
    let result = one("stdio_tests", &payload);
    assert_eq!(result["verdict"], "invalid", "{result}");
    assert!(told(&result).1.contains(says), "{result}");
}

#[test]
fn a_missing_toolchain_is_named_and_is_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("evalmill.toml");
    let text = "[languages.nolang]\nfile = \"main.no\"\nrun = [\"no-such-runtime\", \"main.no\"]\n\
        [languages.unbuilt]\nfile = \"main.no\"\ncompile = [\"true\"]\nrun = [\"./main\"]\n\
        [languages.cat]\naliases = [\"echo\"]\nfile = \"main.txt\"\nrun = [\"cat\", \"main.txt\"]\n";
    std::fs::write(&config, text).unwrap();
    let row = |language: &str| {
        json!({"code": "3\n", "language": language, "tests": [{"input": "", "output": "3"}]}).to_string()
            + "\n"
    };
    let rows = ["nolang", "unbuilt", "echo"].map(row).concat();
    let ran = run(&["--config", config.to_str().unwrap(), "--preprocessor", "stdio_tests"], rows.as_bytes());
    assert_eq!(ran.verdicts(), ["infra_error", "failed", "passed"], "{:?}", ran.results);
    let detail = told(&ran.results[0]).1;
    assert!(detail.starts_with("language nolang: no-such-runtime cannot be started in a box"), "{detail}");
}
