//! One source of settings, read and taken apart into values with their origin.

use super::keys::{self, Kind, VARIABLES, below};
use super::problem::{Origin, Problem};
use super::redact::redact;
use config::{Environment, File, FileFormat, Source, Value, ValueKind};
use std::collections::HashMap;
use std::path::Path;

/// What the names of environment variables that hold settings begin with.
pub(super) const PREFIX: &str = "EVALMILL__";

/// One value and where it came from.
#[derive(Clone)]
pub(super) struct Leaf {
    /// Its dotted path, known or not.
    pub(super) path: String,
    /// The value.
    pub(super) value: ValueKind,
    /// Where it came from.
    pub(super) origin: Origin,
}

impl Leaf {
    /// A problem with this value.
    pub(super) fn problem(&self, rule: impl Into<Box<str>>, hint: Option<String>) -> Problem {
        let value = match &self.value {
            ValueKind::Table(_) => None,
            value => Some(show(&self.path, value)),
        };
        Problem { path: self.path.clone(), value, origin: self.origin.clone(), rule: rule.into(), hint }
    }
}

/// A value as TOML, secrets masked.
fn show(path: &str, value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => quote(&redact(path, text)),
        ValueKind::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| show(path, &item.kind)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Table(_) => "{ … }".into(),
        other => redact(path, &other.to_string()).into_owned(),
    }
}

/// A text as a TOML basic string.
pub(super) fn quote(text: &str) -> String {
    // A JSON string is a TOML one, but for DEL, which TOML wants escaped.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// The values in a file.
pub(super) fn of_file(path: &Path, origin: &Origin) -> Result<Vec<Leaf>, Problem> {
    let whole = |rule: String, hint: &str| Problem {
        path: String::new(),
        value: None,
        origin: origin.clone(),
        rule: rule.into(),
        hint: Some(hint.into()),
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        whole(format!("{} cannot be read: {error}", path.display()), "the path of a readable TOML file")
    })?;
    of_text(&text, &Origin::File(path.into()))
        .map_err(|error| whole(format!("is not valid TOML: {error}"), "correct the line named"))
}

/// The values in a TOML text.
pub(super) fn of_text(text: &str, origin: &Origin) -> Result<Vec<Leaf>, String> {
    // Collected from the source itself: a `Config` would take a quoted key with a dot in it for a path.
    let source = File::from_str(text, FileFormat::Toml);
    let table = source.collect().map_err(|error| without_source_lines(&error))?;
    let mut leaves = Vec::new();
    flatten("", table, origin, &mut leaves);
    leaves.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(leaves)
}

/// The error on one line, without the quoted lines of the file: they may hold a secret.
fn without_source_lines(error: &config::ConfigError) -> String {
    let text = error.to_string();
    let kept = text.lines().filter(|line| {
        let start = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        !start.starts_with('|') && !line.trim().is_empty()
    });
    kept.map(str::trim).collect::<Vec<_>>().join(": ")
}

fn flatten(at: &str, table: HashMap<String, Value>, origin: &Origin, leaves: &mut Vec<Leaf>) {
    for (name, value) in table {
        // A quoted name with a dot in it is no path: keep the quotes, so that it is unknown.
        let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        let name = if bare { name } else { quote(&name) };
        let path = if at.is_empty() { name } else { format!("{at}.{name}") };
        match value.kind {
            ValueKind::Table(inner) if keys::is_section(&path) || path == VARIABLES => {
                flatten(&path, inner, origin, leaves);
            }
            value => leaves.push(Leaf { path, value, origin: origin.clone() }),
        }
    }
}

/// The value in one environment variable, `None` when it is not a setting's.
pub(super) fn of_variable(name: &str, value: &str) -> Option<Leaf> {
    let one = HashMap::from([(name.to_owned(), value.to_owned())]);
    let source =
        Environment::with_prefix("EVALMILL").prefix_separator("__").separator("__").source(Some(one));
    let (mut path, value) = source.collect().ok()?.into_iter().next()?;
    if below(&path, VARIABLES).is_some() {
        // The names of variables keep their case and their underscores.
        path = format!("{VARIABLES}.{}", name.get(PREFIX.len() + VARIABLES.len() + 3..)?);
    }
    Some(of_string(path, value.kind, Origin::Environment(name.into())))
}

/// A value given as text, made the type its key has.
pub(super) fn of_string(path: String, value: ValueKind, origin: Origin) -> Leaf {
    let kind = keys::find(&path).map_or(Kind::Text, |key| key.kind);
    let value = match value {
        ValueKind::String(text) => kind.read_text(&text),
        other => other,
    };
    Leaf { path, value, origin }
}
