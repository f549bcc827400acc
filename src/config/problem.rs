//! What is wrong with the settings, said in a way that can be acted upon.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The file of this path.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// The command line flag of this name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One problem with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The dotted path of the key; empty when a whole source is meant.
    pub path: String,
    /// The value as TOML, secrets masked; `None` when there is none to show.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
    /// The rule it breaks.
    pub rule: Box<str>,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, value, origin, rule, hint } = self;
        match (path.as_str(), value) {
            ("", _) => write!(f, "{origin}: {rule}")?,
            (path, Some(value)) => write!(f, "{path} = {value} (from {origin}): {rule}")?,
            (path, None) => write!(f, "{path} (from {origin}): {rule}")?,
        }
        match hint {
            Some(hint) => write!(f, ". Try: {hint}"),
            None => Ok(()),
        }
    }
}

/// All problems found, at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} problem{} in the settings:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
