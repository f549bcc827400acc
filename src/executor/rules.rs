//! The rules that an executable carries as data, applied.

use regex::{Regex, RegexBuilder};

use crate::model::{CommandResult, EarlyStop, InvalidExecutable, StdoutPostprocessor};
use crate::processors::Hooks;

/// Most memory of one compiled expression, in bytes.
const MAX_EXPRESSION_BYTES: usize = 1 << 20;
/// Deepest nesting of rules in rules.
const MAX_DEPTH: usize = 16;

/// An executable's rules, checked and compiled.
#[derive(Debug)]
pub struct Rules {
    early_stop: EarlyStop,
    stdout: Vec<Step>,
    hooks: Hooks,
}

#[derive(Debug)]
enum Step {
    Strip,
    LastLine,
    Truncate(usize),
    Match(Box<Regex>),
}

/// Compiles a regular expression that came with a prediction, in bounded memory.
///
/// # Errors
/// It is no expression, or compiles to more than 1 MiB.
fn compile_expression(expression: &str) -> Result<Regex, InvalidExecutable> {
    RegexBuilder::new(expression).size_limit(MAX_EXPRESSION_BYTES).nest_limit(64).build().map_err(|error| {
        InvalidExecutable::Expression {
            expression: expression.chars().take(80).collect(),
            reason: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        }
    })
}

impl Rules {
    /// Checks and compiles.
    ///
    /// # Errors
    /// An expression is refused, or rules are nested too deep.
    pub fn new(
        early_stop: EarlyStop,
        stdout: Option<&StdoutPostprocessor>,
        hooks: Hooks,
    ) -> Result<Self, InvalidExecutable> {
        let mut steps = Vec::new();
        if let Some(rule) = stdout {
            flatten(rule, &mut steps, 0)?;
        }
        Ok(Self { early_stop, stdout: steps, hooks })
    }

    /// Standard output as it is compared and reported.
    #[must_use]
    pub fn stdout(&self, mut text: String) -> String {
        for step in &self.stdout {
            text = match step {
                Step::Strip => text.trim().to_owned(),
                Step::LastLine => {
                    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
                }
                Step::Truncate(most) => match text.char_indices().nth(*most) {
                    Some((end, _)) => text[..end].to_owned(),
                    None => text,
                },
                Step::Match(regex) => regex
                    .captures(&text)
                    .and_then(|found| found.get(1).or_else(|| found.get(0)))
                    .map(|found| found.as_str().to_owned())
                    .unwrap_or_default(),
            };
        }
        match &self.hooks.stdout {
            Some(hook) => hook(text),
            None => text,
        }
    }

    /// Whether the commands after this one are left out.
    #[must_use]
    pub fn stops(&self, index: usize, result: &CommandResult) -> bool {
        if result.had_unexpected_error {
            return true;
        }
        match &self.hooks.early_stop {
            Some(hook) => hook(index, result),
            None => self.early_stop.stops(result),
        }
    }
}

fn flatten(rule: &StdoutPostprocessor, steps: &mut Vec<Step>, depth: usize) -> Result<(), InvalidExecutable> {
    if depth > MAX_DEPTH {
        return Err(InvalidExecutable::Expression {
            expression: "chain".to_owned(),
            reason: format!("nested more than {MAX_DEPTH} deep"),
        });
    }
    steps.push(match rule {
        StdoutPostprocessor::Strip => Step::Strip,
        StdoutPostprocessor::LastLine => Step::LastLine,
        StdoutPostprocessor::Truncate(most) => Step::Truncate(*most),
        StdoutPostprocessor::Regex(expression) => Step::Match(Box::new(compile_expression(expression)?)),
        StdoutPostprocessor::Chain(rules) => {
            return rules.iter().try_for_each(|rule| flatten(rule, steps, depth + 1));
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::executor::outcome::tests::result;
    use crate::model::Termination;

    fn rules(json: &str) -> Rules {
        Rules::new(EarlyStop::default(), Some(&serde_json::from_str(json).unwrap()), Hooks::default())
            .unwrap()
    }

    #[rstest]
    #[case(r#""strip""#, " a \n", "a")]
    #[case(r#""last_line""#, "a\nb\n \n", "b")]
    #[case(r#"{"truncate": 2}"#, "éàü", "éà")]
    #[case(r#"{"truncate": 9}"#, "ab", "ab")]
    #[case(r#"{"regex": "x=(\\d+)"}"#, "y x=12 x=3", "12")]
    #[case(r#"{"regex": "\\d+"}"#, "a7", "7")]
    #[case(r#"{"regex": "q"}"#, "a7", "")]
    #[case(r#"{"chain": ["last_line", {"truncate": 1}]}"#, "a\nbc", "b")]
    fn postprocessors(#[case] rule: &str, #[case] stdout: &str, #[case] kept: &str) {
        assert_eq!(rules(rule).stdout(stdout.to_owned()), kept);
    }

    #[rstest]
    #[case("(")]
    #[case("(?:a{1000}){1000}")]
    fn expressions_are_refused(#[case] expression: &str) {
        assert!(compile_expression(expression).is_err());
    }

    #[rstest]
    #[case("{}", 0, "", false)]
    #[case("{}", 1, "", true)]
    #[case(r#"{"expected_return_code": 1}"#, 1, "", false)]
    #[case(r#"{"expected_return_code": null}"#, 7, "", false)]
    #[case(r#"{"stdout_contains": "x"}"#, 0, "axb", true)]
    #[case(r#"{"stdout_differs": "x"}"#, 0, "x", false)]
    #[case(r#"{"stdout_differs": "x"}"#, 0, "y", true)]
    #[case(r#"{"any_of": [{"stdout_contains": {"text": "X", "ignore_case": true}}]}"#, 0, "x", true)]
    fn early_stop(#[case] rule: &str, #[case] code: i32, #[case] stdout: &str, #[case] stop: bool) {
        let rule: EarlyStop = serde_json::from_str(rule).unwrap();
        let rules = Rules::new(rule, None, Hooks::default()).unwrap();
        assert_eq!(rules.stops(0, &result(code, stdout)), stop);
    }

    #[test]
    fn a_timeout_stops_unless_told_otherwise() {
        let mut timed_out = result(0, "");
        timed_out.timed_out = true;
        timed_out.return_code = None;
        timed_out.termination = Termination::WallLimit;
        assert!(EarlyStop::default().stops(&timed_out));
        assert!(!EarlyStop { stop_for_timeout: false, ..EarlyStop::default() }.stops(&timed_out));
    }
}
