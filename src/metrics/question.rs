//! Metrics of the predictions of one question.

use std::collections::{BTreeMap, HashSet};

use thiserror::Error;

use crate::model::ExecutionResult;

/// The simplest rule: it neither had an error nor timed out.
#[must_use]
pub fn naive_process_result(result: &ExecutionResult) -> bool {
    !(result.had_error || result.timed_out)
}

/// One judged prediction of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuestionPrediction<'a> {
    /// It does what was asked.
    pub passed: bool,
    /// The program.
    pub solution: &'a str,
    /// How many test cases it was judged by.
    pub test_cases: usize,
    /// What it came to, in any words.
    pub outcome: &'a str,
}

/// What the predictions of a question came to.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionMetric {
    /// Whether any of them passed.
    pub solved: bool,
    /// How many passed.
    pub num_passed: u64,
    /// How many are no valid program.
    pub num_syntax_errors: u64,
    /// How many there are of each outcome.
    pub result_count: BTreeMap<String, u64>,
    /// Lines of a program, the mean.
    pub num_lines: f64,
}

/// Why there is no such metric.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuestionError {
    /// Nothing was given.
    #[error("a question without predictions has no metrics")]
    NoPredictions,
    /// They are not of one question.
    #[error("the predictions of one question have the same number of test cases, and these have {0:?}")]
    DifferentTests(Vec<usize>),
}

/// Metrics of the predictions of one question.
///
/// `normalize` is given each program without white space around it, and gives it back as
/// `ast.unparse(ast.parse(…))` would, or none where it is no valid Python: lines are counted over that,
/// so that comments and layout do not count. What is not valid is counted as it is.
///
/// # Errors
/// There are no predictions, or they differ in their number of test cases.
#[expect(clippy::cast_precision_loss, reason = "numbers of lines are far below 2^53")]
pub fn calc_question_metric(
    predictions: &[QuestionPrediction<'_>],
    mut normalize: impl FnMut(&str) -> Option<String>,
) -> Result<QuestionMetric, QuestionError> {
    if predictions.is_empty() {
        return Err(QuestionError::NoPredictions);
    }
    let tests: HashSet<usize> = predictions.iter().map(|prediction| prediction.test_cases).collect();
    if tests.len() > 1 {
        let mut tests: Vec<_> = tests.into_iter().collect();
        tests.sort_unstable();
        return Err(QuestionError::DifferentTests(tests));
    }
    let mut metric = QuestionMetric {
        solved: predictions.iter().any(|prediction| prediction.passed),
        num_passed: 0,
        num_syntax_errors: 0,
        result_count: BTreeMap::new(),
        num_lines: 0.0,
    };
    let mut lines = 0;
    for prediction in predictions {
        let code = strip(prediction.solution);
        let normalized = normalize(code);
        metric.num_passed += u64::from(prediction.passed);
        metric.num_syntax_errors += u64::from(normalized.is_none());
        lines += python_lines(normalized.as_deref().map_or(code, strip));
        *metric.result_count.entry(prediction.outcome.to_owned()).or_default() += 1;
    }
    metric.num_lines = lines as f64 / predictions.len() as f64;
    Ok(metric)
}

/// Without what Python's `str.strip` takes away, which is a little more than Unicode's white space.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

/// How many lines Python's `str.splitlines` makes of it.
fn python_lines(text: &str) -> usize {
    let (mut lines, mut open, mut after_return) = (0, false, false);
    for c in text.chars() {
        let ends = matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c' | '\x1d' | '\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        );
        // A line feed behind a carriage return belongs to it.
        let same_end = c == '\n' && after_return;
        lines += usize::from(ends && !same_end);
        open = !ends;
        after_return = c == '\r';
    }
    lines + usize::from(open)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn prediction<'a>(passed: bool, solution: &'a str, outcome: &'a str) -> QuestionPrediction<'a> {
        QuestionPrediction { passed, solution, test_cases: 3, outcome }
    }

    /// Takes comments away, and knows what is wrong.
    fn normalize(code: &str) -> Option<String> {
        let code: Vec<_> = code.lines().filter(|line| !line.starts_with('#')).collect();
        (!code.contains(&"(")).then(|| code.join("\n") + "\n")
    }

    #[test]
    fn a_question() {
        let predictions = [
            prediction(true, "\n# why\nx = 1\ny = 2\n", "Passed"),
            prediction(false, "(\n# kept\n\n", "CompileError"),
            prediction(false, "x = 1", "Failed"),
            prediction(false, "", "Failed"),
        ];
        let metric = calc_question_metric(&predictions, normalize).unwrap();
        let counts = [("CompileError", 1), ("Failed", 2), ("Passed", 1)];
        let expected = QuestionMetric {
            solved: true,
            num_passed: 1,
            num_syntax_errors: 1,
            result_count: counts.map(|(name, count)| (name.to_owned(), count)).into(),
            num_lines: f64::from(2 + 2 + 1) / 4.0,
        };
        assert_eq!(metric, expected);
    }

    #[test]
    fn what_is_no_question() {
        assert_eq!(calc_question_metric(&[], normalize), Err(QuestionError::NoPredictions));
        let other = QuestionPrediction { test_cases: 4, ..prediction(true, "x", "Passed") };
        let found = calc_question_metric(&[prediction(true, "x", "Passed"), other], normalize);
        assert_eq!(found, Err(QuestionError::DifferentTests(vec![3, 4])));
    }

    #[rstest]
    #[case("", 0)]
    #[case("a", 1)]
    #[case("a\n", 1)]
    #[case("a\n\nb", 3)]
    #[case("a\r\nb\rc", 3)]
    #[case("\n\r\n", 2)]
    #[case("a\u{2028}b\x0cc", 3)]
    fn lines(#[case] text: &str, #[case] expected: usize) {
        assert_eq!(python_lines(text), expected);
    }

    #[rstest]
    #[case(false, false, true)]
    #[case(true, false, false)]
    #[case(false, true, false)]
    fn the_naive_rule(#[case] had_error: bool, #[case] timed_out: bool, #[case] passes: bool) {
        let result = ExecutionResult { had_error, timed_out, ..ExecutionResult::default() };
        assert_eq!(naive_process_result(&result), passes);
    }
}
