//! What is in force, as TOML that loads again.

use super::keys::{KEYS, LANGUAGE_KEYS, LANGUAGES, VARIABLES, below};
use super::layers::quote;
use super::load::Loaded;
use super::problem::Origin;
use super::redact::redact;
use serde_json::Value as Json;
use std::fmt::Write;

/// The settings in force as TOML, secrets masked; `show_origin` adds where each came from as a comment.
pub fn render(loaded: &Loaded, show_origin: bool) -> String {
    let tree = serde_json::to_value(&loaded.settings).unwrap_or_default();
    let mut text = String::new();
    let mut current = String::new();
    let mut line = |section: &str, name: &str, path: &str, value: &Json| {
        if section != current {
            let gap = if current.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
            section.clone_into(&mut current);
        }
        let _ = write!(text, "{name} = {}", toml(path, value));
        if show_origin {
            let origin = loaded.origins.get(path).unwrap_or(&Origin::Default).to_string();
            // A path may hold anything; a comment ends with the line.
            let _ = write!(text, "  # {}", origin.replace(char::is_control, "?"));
        }
        text.push('\n');
    };
    for key in KEYS {
        let value = key.path.split('.').fold(&tree, |at, name| &at[name]);
        if key.path == VARIABLES {
            continue;
        }
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        line(section, name, key.path, value);
    }
    for (name, language) in tree[LANGUAGES].as_object().into_iter().flatten() {
        let section = format!("{LANGUAGES}.{name}");
        for key in LANGUAGE_KEYS {
            line(&section, key.path, &format!("{section}.{}", key.path), &language[key.path]);
        }
    }
    let variables = VARIABLES.split('.').fold(&tree, |at, name| &at[name]);
    for (name, value) in variables.as_object().into_iter().flatten() {
        let path = format!("{VARIABLES}.{name}");
        line(VARIABLES, below(&path, VARIABLES).unwrap_or(name), &path, value);
    }
    text
}

fn toml(path: &str, value: &Json) -> String {
    match value {
        Json::String(text) => quote(&redact(path, text)),
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| toml(path, item)).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}
