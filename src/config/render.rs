//! What is in force, as TOML that loads again.

use super::keys::{KEYS, NAMED, VARIABLES, below};
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
    for key in KEYS.iter().filter(|key| key.has_default()) {
        let value = key.path.split('.').fold(&tree, |at, name| &at[name]);
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        line(section, name, key.path, value);
    }
    let variables = VARIABLES.split('.').fold(&tree, |at, name| &at[name]);
    for (name, value) in variables.as_object().into_iter().flatten() {
        let path = format!("{VARIABLES}.{name}");
        line(VARIABLES, below(&path, VARIABLES).unwrap_or(name), &path, value);
    }
    for (section, all) in NAMED.map(|section| (section, &tree[section])) {
        for (name, settings) in all.as_object().into_iter().flatten() {
            let section = format!("{section}.{name}");
            for (key, value) in settings.as_object().into_iter().flatten() {
                let path = format!("{section}.{key}");
                // What is not for this one is empty here.
                if loaded.origins.contains_key(&path) {
                    line(&section, key, &path, value);
                }
            }
        }
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
