//! `gsm8k`: a program whose answer is a number.
//!
//! ```json
//! {"question": "…", "answer": "Natalia sold 48 / 2 = 24 clips in May. … #### 72",
//!  "completion": "def solution():\n    clips = 48\n    return clips + clips / 2\n"}
//! ```
//!
//! The program's answer is what its `solution()` returns, or else its variable `answer`, or else the last line
//! that it prints. The expected number is what stands behind `####`, or all of `answer`. Numbers may be written as
//! people do: `$1,234.50`, `-3`, `3/4`, `1 1/2`, `25%` (which is 25, as the data set has it), `2e3`, `12 apples`; of
//! several in a line the last counts. They are the same where they differ by no more than `absolute_tolerance`
//! (1e-6 unless the row says otherwise) or `relative_tolerance`.

use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde_json::{Map, Value, json};

use super::fields::{code, seconds, tolerances, value, wrong};
use super::outcome::{Slots, broken};
use super::{Case, Hooks, Judgement, Prepared, Preprocessor, Task, Tolerance, Undecided, Unusable};
use crate::model::{BoxPath, Command, CommandResult, Executable, ExecutionResult, FileContent};

const RUN: &str = include_str!("gsm8k/run.py");

/// Most bytes of a line that are looked at.
const MAX_LINE_BYTES: usize = 10_000;

/// The processor for numeric answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gsm8k;

/// Sign, currency, a mixed or common fraction or a decimal, exponent.
static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let digits = r"(?:\d{1,3}(?:,\d{3})+|\d+)";
    let decimal = format!(r"(?:{digits}(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?");
    let fraction = format!(r"(?:(?P<whole>\d+)\s+)?(?P<upper>{digits})\s*/\s*(?P<lower>{digits})");
    Regex::new(&format!(r"(?P<sign>[-+])?\s?[$€£¥₹]?\s?(?P<sign2>-)?(?:{fraction}|(?P<decimal>{decimal}))"))
        .ok()
});

/// The last number in a text, as people write numbers.
fn number(text: &str) -> Option<f64> {
    // The minus sign that is no hyphen.
    let text = text.replace('\u{2212}', "-");
    let found = NUMBER.as_ref()?.captures_iter(&text).last()?;
    let part = |name: &str| found.name(name).map(|part| part.as_str().replace(',', ""));
    let parsed = |name: &str| part(name)?.parse::<f64>().ok();
    let size = match (parsed("decimal"), parsed("upper"), parsed("lower")) {
        (Some(decimal), ..) => decimal,
        (None, Some(upper), Some(lower)) => parsed("whole").unwrap_or(0.0) + upper / lower,
        _ => return None,
    };
    // A sign behind a digit or a letter is a dash between two.
    let begin = found.get(0)?.start();
    let dash = text[..begin].chars().next_back().is_some_and(char::is_alphanumeric);
    let below = part("sign2").is_some() || (part("sign").as_deref() == Some("-") && !dash);
    Some(if below { -size } else { size }).filter(|number| number.is_finite())
}

/// The number that a row expects.
fn expected(payload: &Value) -> Result<f64, Unusable> {
    let given = value(payload, "answer")
        .ok_or_else(|| Unusable("answer is missing: it must hold the expected number".to_owned()))?;
    let rule = "a number, or a text that ends with one, behind #### where there is more";
    let found = match given {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.rsplit_once("####") {
            Some((_, last)) => number(last),
            None => number(text),
        },
        _ => None,
    };
    found.ok_or_else(|| wrong("answer", given, rule))
}

impl Preprocessor for Gsm8k {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        let usual = Tolerance { absolute: 1e-6, relative: 0.0, ignore_case: false };
        let case = Arc::new(NumberCase {
            expected: expected(payload)?,
            tolerance: tolerances(payload, usual)?,
            line: Slots::new(1),
        });
        let path = |name| BoxPath::new(name).map_err(|error| Unusable(error.to_string()));
        let files = [(path("run.py")?, RUN), (path("solution.py")?, code(payload)?)];
        let files = files.map(|(path, text)| (path, FileContent::from(text))).into();
        let command =
            Command { timeout: seconds(payload, "timeout")?, ..Command::new(["python3", "run.py"]) };
        let seen = Arc::clone(&case);
        let early_stop = Some(Arc::new(move |_: usize, result: &CommandResult| {
            let line = result.stdout.lines().map(str::trim).rfind(|line| !line.is_empty());
            // The number that counts is at its end.
            let end = |line: &str| line.len().saturating_sub(MAX_LINE_BYTES);
            seen.line.set(0, line.map(|line| line[line.ceil_char_boundary(end(line))..].to_owned()));
            false
        }) as _);
        let task = Task {
            executable: Executable::new(files, vec![command]),
            hooks: Hooks { early_stop, stdout: None },
        };
        Ok(Prepared::Case(vec![task], case))
    }

    fn task(&self, payload: &Value) -> Option<String> {
        payload.get("task_id").and_then(Value::as_str).map(str::to_owned)
    }
}

struct NumberCase {
    expected: f64,
    tolerance: Tolerance,
    /// The last line that was printed.
    line: Slots<Option<String>>,
}

impl Case for NumberCase {
    fn judge(&self, executions: &[ExecutionResult], _: &[ExecutionResult]) -> Result<Judgement, Undecided> {
        let line = self.line.take(0).flatten();
        let answer = line.as_deref().and_then(number);
        let broken = executions.first().and_then(ExecutionResult::last_command).and_then(broken);
        let detail = match (broken, answer) {
            (Some((reason, detail)), _) => Some(detail.unwrap_or(reason)),
            (None, Some(answer)) if self.tolerance.close(answer, self.expected) => None,
            (None, Some(answer)) => Some(format!("the answer is {answer}, expected {}", self.expected)),
            (None, None) => Some(match &line {
                Some(line) => format!("{:?} has no number in it", super::compare::excerpt(line, 120)),
                None => "there is no answer: no solution(), no variable answer, nothing printed".to_owned(),
            }),
        };
        let output = Map::from_iter([
            ("expected".to_owned(), json!(self.expected)),
            ("answer".to_owned(), json!(answer)),
        ]);
        Ok(Judgement { passed: detail.is_none(), detail, output })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("42", 42.0)]
    #[case(" 42.\n", 42.0)]
    #[case("-42", -42.0)]
    #[case("\u{2212}42", -42.0)]
    #[case("+42", 42.0)]
    #[case("$1,234.50", 1234.5)]
    #[case("-$5", -5.0)]
    #[case("$-5", -5.0)]
    #[case("$ 5", 5.0)]
    #[case("5€", 5.0)]
    #[case("1,000,000", 1e6)]
    #[case("1, 2", 2.0)]
    #[case("25%", 25.0)]
    #[case("12 apples", 12.0)]
    #[case("5kg", 5.0)]
    #[case("3/4", 0.75)]
    #[case("-3/4", -0.75)]
    #[case("1 1/2", 1.5)]
    #[case("2e3", 2000.0)]
    #[case("1.5E-2", 0.015)]
    #[case(".5", 0.5)]
    #[case("There are 3 boxes with 4 each: 12", 12.0)]
    #[case("10-4", 4.0)]
    #[case("x = -4", -4.0)]
    #[case("0.1", 0.1)]
    #[case("-0", 0.0)]
    fn numbers_as_people_write_them(#[case] text: &str, #[case] expected: f64) {
        assert_eq!(number(text), Some(expected), "{text}");
    }

    #[rstest]
    #[case("")]
    #[case("no idea")]
    #[case("nan")]
    #[case("inf")]
    #[case("1/0")]
    #[case("1e999")]
    #[case("True")]
    fn no_number(#[case] text: &str) {
        assert_eq!(number(text), None, "{text}");
    }

    #[rstest]
    #[case(json!({}), "answer is missing: it must hold the expected number")]
    #[case(json!({"answer": "no number"}), "answer is \"no number\": it must be a number")]
    #[case(json!({"answer": "5 #### five"}), "it must be a number, or a text that ends with one")]
    #[case(json!({"answer": [1]}), "answer is a list of 1")]
    #[case(json!({"answer": "1"}), "the program is missing")]
    #[case(json!({"answer": "1", "code": "", "absolute_tolerance": "x"}), "absolute_tolerance is \"x\"")]
    fn unusable(#[case] payload: Value, #[case] says: &str) {
        let error = Gsm8k.preprocess(&payload).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn the_number_behind_the_marks_is_expected() {
        assert_eq!(expected(&json!({"answer": "1 + 1 = 2\n#### 1,072"})), Ok(1072.0));
        assert_eq!(expected(&json!({"answer": 7.5})), Ok(7.5));
    }
}
