//! Whether a value is what its key asks for, and whether the values fit each other.

use super::keys::{Key, Kind, is_name};
use super::settings::Settings;
use super::types::Tier;
use config::{Value, ValueKind};
use serde_json::{Value as Json, json};

/// Names that may be an environment variable's.
pub(super) fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Kind {
    /// The rule in words.
    pub(super) fn rule(self) -> String {
        match self {
            Self::Whole(min, max) => format!("must be a whole number from {min} to {max}"),
            Self::Cap(max) => format!("must be -1 or a whole number from 1 to {max}"),
            Self::Number(min, max) => format!("must be a finite number from {min} to {max}"),
            Self::Text => "must be text".into(),
            Self::AbsolutePath => "must be empty or an absolute path".into(),
            Self::OneOf(words) => format!("must be one of \"{}\"", words.join("\", \"")),
            Self::HashSeed => "must be \"random\" or a whole number from 0 to 4294967295, as text".into(),
            Self::Name => "must be a name of lower-case letters, digits and underscores".into(),
            Self::Directive => "must be an env-filter directive".into(),
            Self::Listen => "must be empty or an IP address and a port".into(),
            Self::Echo => "must be \"all\", \"none\" or a list of field names".into(),
            Self::VariableNames => "must be a list of names of environment variables".into(),
            Self::Names => "must be a list of names of lower-case letters, digits and underscores".into(),
            Self::Switch => "must be true or false".into(),
            Self::AbsolutePaths => "must be a list of absolute paths".into(),
            Self::Texts => "must be a list of texts".into(),
            Self::BoxFile => "must be a relative path without \"..\"".into(),
            Self::Variables => "must be a table from names of environment variables to text".into(),
        }
    }

    /// A text from the environment or the command line, made the type this kind has in a file.
    pub(super) fn read_text(self, text: &str) -> ValueKind {
        let list = || {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            ValueKind::from(parts.map(str::to_owned).collect::<Vec<_>>())
        };
        let as_is = || ValueKind::String(text.into());
        match self {
            Self::Whole(..) | Self::Cap(_) => text.trim().parse().map_or_else(|_| as_is(), ValueKind::I64),
            Self::Number(..) => text.trim().parse().map_or_else(|_| as_is(), ValueKind::Float),
            Self::VariableNames | Self::Names | Self::AbsolutePaths | Self::Texts => list(),
            Self::Switch => text.trim().parse().map_or_else(|_| as_is(), ValueKind::Boolean),
            Self::Echo if !matches!(text, "all" | "none") => list(),
            _ => as_is(),
        }
    }

    /// The value as the settings take it, `None` when it breaks the rule.
    pub(super) fn accept(self, value: &ValueKind) -> Option<Json> {
        match (self, value) {
            (Self::Whole(min, max), ValueKind::I64(n)) => (min..=max).contains(n).then(|| json!(n)),
            (Self::Cap(max), ValueKind::I64(n)) => (*n == -1 || (1..=max).contains(n)).then(|| json!(n)),
            (Self::Number(min, max), ValueKind::I64(n)) => {
                let number = *n as f64;
                (min..=max).contains(&number).then(|| json!(number))
            }
            // NaN is in no range, and every range is finite.
            (Self::Number(min, max), ValueKind::Float(n)) => (min..=max).contains(n).then(|| json!(n)),
            (Self::Echo, ValueKind::Array(items)) => texts(items, is_text),
            (Self::VariableNames, ValueKind::Array(items)) => texts(items, is_variable_name),
            (Self::AbsolutePaths, ValueKind::Array(items)) => texts(items, is_absolute),
            (Self::Texts, ValueKind::Array(items)) => texts(items, is_text),
            (Self::Switch, ValueKind::Boolean(value)) => Some(json!(value)),
            (Self::Names, ValueKind::Array(items)) if !items.is_empty() => texts(items, is_name),
            (_, ValueKind::String(text)) => (is_text(text) && self.accepts_text(text)).then(|| json!(text)),
            _ => None,
        }
    }

    fn accepts_text(self, text: &str) -> bool {
        match self {
            Self::Text => true,
            Self::AbsolutePath => text.is_empty() || text.starts_with('/'),
            Self::OneOf(words) => words.contains(&text),
            Self::HashSeed => {
                text == "random" || (text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok())
            }
            Self::Name => is_name(text),
            Self::BoxFile => crate::model::BoxPath::new(text).is_ok(),
            Self::Directive => {
                !text.trim().is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok()
            }
            Self::Listen => text.is_empty() || text.parse::<std::net::SocketAddr>().is_ok(),
            Self::Echo => matches!(text, "all" | "none"),
            _ => false,
        }
    }
}

fn is_absolute(text: &str) -> bool {
    text.starts_with('/') && is_text(text)
}

/// Text that can be given to the system: no NUL, and no sign that it was not Unicode.
pub(super) fn is_text(text: &str) -> bool {
    !text.contains(['\0', char::REPLACEMENT_CHARACTER])
}

fn texts(items: &[Value], good: fn(&str) -> bool) -> Option<Json> {
    let each = items.iter().map(|item| match &item.kind {
        ValueKind::String(text) if good(text) => Some(json!(text)),
        _ => None,
    });
    each.collect::<Option<Vec<_>>>().map(Json::Array)
}

/// The value of `key` as it was given, checked.
pub(super) fn check(key: &Key, value: &ValueKind) -> Result<Json, String> {
    key.kind.accept(value).ok_or_else(|| key.kind.rule())
}

/// Two keys of which the first may be at most the second.
pub(super) const AT_MOST: &[(&str, &str)] = &[
    ("limits.default_timeout", "limits.max_timeout"),
    ("limits.default_timeout", "limits.max_prediction_time"),
    ("limits.memory_mb", "limits.max_memory_mb"),
    ("limits.processes", "limits.max_processes"),
    ("limits.output_mb", "limits.max_output_mb"),
    ("limits.file_mb", "limits.max_file_mb"),
    ("limits.open_files", "limits.max_open_files"),
    ("limits.tracked_file_mb", "limits.tracked_total_mb"),
    ("pipeline.max_line_mb", "pipeline.max_unsettled_mb"),
];

/// The tier required, where the one asked for is less. What a command requires is not known here.
pub(super) fn tier_lacks(settings: &Settings) -> Option<Tier> {
    let least = settings.sandbox.require.tier()?;
    settings.sandbox.tier.tier().filter(|tier| *tier < least).map(|_| least)
}
