//! Rules that are data: when to stop an executable, and how to trim what a program printed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CommandResult, Termination};

/// When the remaining commands of an executable are not run. An error of ours always stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EarlyStop {
    /// Stop when a command ends with another exit code; `null`: whatever the code. The reference's name for it,
    /// `expected_rtr_code`, is understood, too.
    #[serde(alias = "expected_rtr_code")]
    pub expected_return_code: Option<i32>,
    /// Stop when a command hits its time limit.
    pub stop_for_timeout: bool,
    /// Stop when standard output contains this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_contains: Option<TextRule>,
    /// Stop when standard error contains this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_contains: Option<TextRule>,
    /// Stop when standard output is not exactly this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_differs: Option<TextRule>,
    /// Stop when standard error is not exactly this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_differs: Option<TextRule>,
    /// Stop when any of these says so, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any_of: Vec<EarlyStop>,
}

impl Default for EarlyStop {
    fn default() -> Self {
        Self {
            expected_return_code: Some(0),
            stop_for_timeout: true,
            stdout_contains: None,
            stderr_contains: None,
            stdout_differs: None,
            stderr_differs: None,
            any_of: Vec::new(),
        }
    }
}

impl EarlyStop {
    /// Whether the remaining commands are left out after this one.
    #[must_use]
    pub fn stops(&self, result: &CommandResult) -> bool {
        let limit = matches!(result.termination, Termination::WallLimit | Termination::CpuLimit);
        let code_differs =
            !limit && self.expected_return_code.is_some_and(|expected| result.return_code != Some(expected));
        result.had_unexpected_error
            || (self.stop_for_timeout && result.timed_out)
            || code_differs
            || self.stdout_contains.as_ref().is_some_and(|text| text.is_in(&result.stdout))
            || self.stderr_contains.as_ref().is_some_and(|text| text.is_in(&result.stderr))
            || self.stdout_differs.as_ref().is_some_and(|text| !text.is(&result.stdout))
            || self.stderr_differs.as_ref().is_some_and(|text| !text.is(&result.stderr))
            || self.any_of.iter().any(|rule| rule.stops(result))
    }
}

/// A text to look for: a string, or an object with `ignore_case`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "it must be a string, or an object with `text`")]
pub enum TextRule {
    /// Compared as it stands.
    Exact(String),
    /// Compared with the given care for case.
    Cased {
        /// The text.
        text: String,
        /// Upper and lower case are the same.
        #[serde(default)]
        ignore_case: bool,
    },
}

impl TextRule {
    fn compare(&self, other: &str, with: impl Fn(&str, &str) -> bool) -> bool {
        match self {
            Self::Exact(text) | Self::Cased { text, ignore_case: false } => with(other, text),
            Self::Cased { text, ignore_case: true } => with(&other.to_lowercase(), &text.to_lowercase()),
        }
    }

    /// Whether `text` contains it.
    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        self.compare(text, |text, rule| text.contains(rule))
    }

    /// Whether `text` is exactly it.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.compare(text, |text, rule| text == rule)
    }
}

/// What is done to standard output before it is compared and reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StdoutPostprocessor {
    /// White space at both ends is removed.
    Strip,
    /// Only the last line that is not blank is kept.
    LastLine,
    /// Only the first so many characters are kept.
    Truncate(usize),
    /// Only the first match of the expression is kept (its first group, where it has one); nothing
    /// where there is none. Linear-time syntax: no look-around, no back-references.
    Regex(String),
    /// One after the other.
    Chain(Vec<StdoutPostprocessor>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_means_the_default_rule() {
        assert_eq!(serde_json::from_str::<EarlyStop>("{}").unwrap(), EarlyStop::default());
        let open: EarlyStop = serde_json::from_str(r#"{"expected_return_code": null}"#).unwrap();
        assert_eq!(open.expected_return_code, None);
    }

    #[test]
    fn text_rules() {
        let rule: TextRule = serde_json::from_str(r#"{"text": "OK", "ignore_case": true}"#).unwrap();
        assert!(rule.is_in("all ok\n") && rule.is("Ok") && !rule.is("ok "));
        let rule: TextRule = serde_json::from_str(r#""OK""#).unwrap();
        assert!(!rule.is_in("all ok"));
    }
}
