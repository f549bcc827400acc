//! `gsm8k`: numeric answers.

use rstest::rstest;
use serde_json::json;

use super::{one, told};

#[rstest]
#[case::returns("def solution():\n    print('perhaps 3')\n    return 1072.0", "passed", "")]
#[case::variable("answer = '$1,072.00'", "passed", "")]
#[case::prints("print(5)\nprint('It is 1072 clips.')\nprint()", "passed", "")]
#[case::fraction("from fractions import Fraction\nanswer = Fraction(2144, 2)", "passed", "")]
#[case::list("answer = [1072]", "passed", "")]
#[case::script("import sys\nif __name__ == '__main__':\n    print(1072)", "passed", "")]
#[case::other("answer = 1071", "failed", "the answer is 1071, expected 1072")]
#[case::in_words("print('many')", "failed", "\"many\" has no number in it")]
#[case::nothing(
    "x = 1072",
    "failed",
    "there is no answer: no solution(), no variable answer, nothing printed"
)]
#[case::not_a_number("answer = float('nan')", "failed", "\"nan\" has no number in it")]
#[case::no("answer = True", "failed", "\"True\" has no number in it")]
#[case::raises("print(1072)\nraise ValueError('no')", "failed", "exit code 1: ValueError: no")]
#[case::syntax("answer = (", "failed", "exit code 1: SyntaxError: '(' was never closed")]
fn answers(#[case] code: &str, #[case] verdict: &str, #[case] detail: &str) {
    let result = one("gsm8k", &json!({"answer": "536 + 536 = 1072\n#### 1,072", "completion": code}));
    assert_eq!(told(&result), (verdict, detail), "{result}");
    assert_eq!(result["output"]["expected"], 1072.0);
}

#[test]
fn a_tolerance_may_be_given() {
    let mut row = json!({"answer": 3.15, "completion": "import math\nanswer = math.pi"});
    assert_eq!(one("gsm8k", &row)["verdict"], "failed");
    row["relative_tolerance"] = json!(0.01);
    assert_eq!(one("gsm8k", &row)["verdict"], "passed");
}

#[test]
fn no_number_is_expected() {
    let result = one("gsm8k", &json!({"answer": "#### none", "completion": ""}));
    assert_eq!(result["verdict"], "invalid");
    assert!(told(&result).1.contains("answer is \"#### none\""), "{result}");
}
