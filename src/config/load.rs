//! Reading all sources, one over the other, and finding everything that is wrong with them.

use super::checks::{AT_MOST, check, is_text, is_variable_name, tier_lacks};
use super::keys::{self, KEYS, LANGUAGE_KEYS, LANGUAGES, VARIABLES, below};
use super::layers::{self, Leaf, PREFIX};
use super::problem::{Origin, Problem, Problems};
use super::settings::Settings;
use super::types::Tier;
use config::ValueKind;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

/// The environment variable that names the file when no flag does.
const FILE_VARIABLE: &str = "EVALMILL_CONFIG";

/// A setting given on the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Override {
    /// The dotted path of the key.
    pub path: String,
    /// The value as text, converted to the key's type; lists are comma separated.
    pub value: String,
    /// The flag that gave it, as `--workers`.
    pub flag: String,
}

impl Override {
    /// `flag` sets the key `path` to `value`.
    pub fn new(path: &str, value: impl fmt::Display, flag: &str) -> Self {
        Self { path: path.into(), value: value.to_string(), flag: flag.into() }
    }
}

impl fmt::Debug for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}={}", self.flag, self.path, super::redact(&self.path, &self.value))
    }
}

/// Where settings are read from.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file named by a flag; it must exist. `None`: the one `EVALMILL_CONFIG` names, if any.
    pub file: Option<PathBuf>,
    /// The environment; only names beginning with `EVALMILL` are looked at.
    pub environment: Vec<(String, String)>,
    /// Settings given on the command line; the last of a key counts.
    pub overrides: Vec<Override>,
}

impl Sources {
    /// This file, this process's environment, and no overrides yet.
    pub fn from_process(file: Option<PathBuf>) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let ours = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        let environment = ours.filter(|(name, _)| name.starts_with("EVALMILL")).collect();
        Self { file, environment, overrides: Vec::new() }
    }

    /// The file to read, and what named it.
    fn file(&self) -> Option<(PathBuf, Origin)> {
        if let Some(file) = &self.file {
            return Some((file.clone(), Origin::File(file.clone())));
        }
        let named = self.environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        named.map(|(name, value)| (value.into(), Origin::Environment(name.clone())))
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("environment", &names)
            .field("overrides", &self.overrides)
            .finish()
    }
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Where each came from, by dotted path; each variable of `environment.set` has a path of its own.
    pub origins: BTreeMap<String, Origin>,
}

impl Default for Loaded {
    fn default() -> Self {
        let settings = Settings::default();
        let known = KEYS.iter().filter(|key| key.path != VARIABLES).map(|key| key.path.to_owned());
        let of_language =
            |name| LANGUAGE_KEYS.iter().map(move |key| format!("{LANGUAGES}.{name}.{}", key.path));
        let origins = known.chain(settings.languages.keys().flat_map(of_language));
        let origins = origins.map(|path| (path, Origin::Default)).collect();
        Self { settings, origins }
    }
}

/// Reads all sources.
///
/// # Errors
///
/// Every problem of every source, also of values that a later source would have replaced.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut merged = Merged::default();
    if let Some((path, origin)) = sources.file() {
        match layers::of_file(&path, &origin) {
            Ok(leaves) => merged.add(leaves, &mut problems),
            Err(problem) => problems.push(problem),
        }
    }
    let mut variables: Vec<_> = sources
        .environment
        .iter()
        .filter(|(name, _)| name.to_ascii_uppercase().starts_with(PREFIX))
        .collect();
    variables.sort();
    merged.add(
        variables.into_iter().filter_map(|(name, value)| layers::of_variable(name, value)).collect(),
        &mut problems,
    );
    let flags = sources.overrides.iter().map(|given| {
        let value = ValueKind::String(given.value.clone());
        layers::of_string(given.path.clone(), value, Origin::Flag(given.flag.clone()))
    });
    merged.add(flags.collect(), &mut problems);
    merged.finish(problems)
}

/// The good values so far, later layers over earlier ones.
#[derive(Default)]
struct Merged {
    good: BTreeMap<String, (Json, Leaf)>,
    bad: BTreeSet<String>,
}

impl Merged {
    fn add(&mut self, leaves: Vec<Leaf>, problems: &mut Vec<Problem>) {
        for leaf in leaves {
            // The case of a variable's name does not count, so two of them can mean one key.
            if let (Origin::Environment(_), Some((_, Leaf { origin: other @ Origin::Environment(_), .. }))) =
                (&leaf.origin, self.good.get(&leaf.path))
            {
                problems.push(leaf.problem(format!("is also set from {other}"), Some("one of them".into())));
            }
            match judge(&leaf) {
                Ok(value) => {
                    self.good.insert(leaf.path.clone(), (value, leaf));
                }
                Err(problem) => {
                    self.bad.insert(leaf.path);
                    problems.push(problem);
                }
            }
        }
    }

    fn finish(self, mut problems: Vec<Problem>) -> Result<Loaded, Problems> {
        let mut tree = json!({});
        let mut loaded = Loaded::default();
        for (path, (value, leaf)) in &self.good {
            path.split('.').fold(&mut tree, |at, name| &mut at[name]).clone_from(value);
            loaded.origins.insert(path.clone(), leaf.origin.clone());
        }
        match serde_path_to_error::deserialize(tree) {
            Ok(settings) => loaded.settings = settings,
            // The table of keys and the structs disagree; a test holds them together.
            Err(error) => problems.push(Problem {
                path: error.path().to_string(),
                value: None,
                origin: Origin::Default,
                rule: error.inner().to_string().into(),
                hint: None,
            }),
        }
        self.cross(&loaded, &mut problems);
        if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
    }

    /// The rules between two keys, where both are good by themselves.
    fn cross(&self, loaded: &Loaded, problems: &mut Vec<Problem>) {
        let Ok(tree) = serde_json::to_value(&loaded.settings) else { return };
        let number = |path: &str| path.split('.').fold(&tree, |at, name| &at[name]).as_f64();
        let sound = |path: &str| !self.bad.contains(path);
        for &(low, high) in AT_MOST.iter().filter(|(low, high)| sound(low) && sound(high)) {
            let (Some(less), Some(more)) = (number(low), number(high)) else { continue };
            if less <= more {
                continue;
            }
            // The one that was set is at fault, not a default.
            problems.push(match (self.good.get(low), self.good.get(high)) {
                (None, Some((_, leaf))) => leaf.problem(
                    format!("must be at least {low}, which is {less}"),
                    Some(format!("{less}, or a smaller {low}")),
                ),
                (Some((_, leaf)), _) => leaf.problem(
                    format!("must be at most {high}, which is {more}"),
                    Some(format!("{more}, or a larger {high}")),
                ),
                (None, None) => continue,
            });
        }
        for (path, rule, hint) in loaded.settings.languages.faults() {
            // Where the key is not set, its language is: by another key.
            let section = path.rsplit_once('.').map_or("", |(section, _)| section);
            let mut near = self.good.range(section.to_owned()..).map(|(_, (_, leaf))| leaf);
            let near = near.find(|leaf| below(&leaf.path, section).is_some());
            let origin = near.map_or(Origin::Default, |leaf| leaf.origin.clone());
            if sound(&path) {
                problems.push(Problem { path, value: None, origin, rule: rule.into(), hint: Some(hint) });
            }
        }
        let (tier, require) = ("sandbox.tier", "sandbox.require");
        if sound(tier)
            && sound(require)
            && let Some(least) = tier_lacks(&loaded.settings).map(Tier::name)
        {
            let rule = format!("must be \"auto\" or at least as strong as {require}, which is \"{least}\"");
            if let Some((_, leaf)) = self.good.get(tier) {
                problems.push(leaf.problem(rule, Some(format!("\"auto\" or \"{least}\""))));
            }
        }
    }
}

/// The value of a leaf as the settings take it.
fn judge(leaf: &Leaf) -> Result<Json, Problem> {
    let path = leaf.path.as_str();
    if path == VARIABLES || (keys::find(path).is_none() && keys::is_section(path)) {
        return Err(leaf.problem("must be a table", Some(format!("a table [{path}]"))));
    }
    if let Some(name) = below(path, VARIABLES) {
        if !is_variable_name(name) {
            let rule = "must have a name of letters, digits and underscores that begins with no digit";
            return Err(leaf.problem(rule, Some("MY_NAME = \"value\"".into())));
        }
        return match &leaf.value {
            ValueKind::String(text) if is_text(text) => Ok(json!(text)),
            _ => Err(leaf.problem("must be text", Some(format!("{name} = \"value\"")))),
        };
    }
    let Some(key) = keys::find(path) else {
        if below(path, LANGUAGES).is_some() {
            let keys: Vec<_> = LANGUAGE_KEYS.iter().map(|key| key.path).collect();
            let rule = format!(
                "is not a known setting: a language has a name of lower-case letters, digits and underscores, and the keys {}",
                keys.join(", ")
            );
            return Err(leaf.problem(rule, None));
        }
        let hint = keys::nearest(path).map(str::to_owned);
        return Err(leaf.problem("is not a known setting", hint));
    };
    check(key, &leaf.value).map_err(|rule| leaf.problem(rule, Some(key.hint.into())))
}

impl Loaded {
    /// [`Settings::held_long_enough`], its problem naming the setting that was set, and where.
    ///
    /// # Errors
    ///
    /// A prediction may outlast its delivery.
    pub fn held_long_enough(&self) -> Result<(), Problem> {
        self.settings.held_long_enough().map_err(|problem| {
            let other = "rabbitmq.consumer_timeout_seconds";
            let origin = |path: &str| self.origins.get(path).cloned().unwrap_or(Origin::Default);
            if origin(&problem.path) != Origin::Default || origin(other) == Origin::Default {
                return Problem { origin: origin(&problem.path), ..problem };
            }
            let seconds = self.settings.limits.max_prediction_time;
            Problem {
                path: other.into(),
                value: Some(self.settings.rabbitmq.consumer_timeout_seconds.to_string()),
                origin: origin(other),
                rule: format!("must be at least twice {}, which is {seconds}", problem.path).into(),
                hint: Some(format!(
                    "{}, where the broker's consumer_timeout (or its policy for evalmill.work.*) is as long, or a smaller {}",
                    seconds * 2.0, problem.path
                )),
            }
        })
    }

    /// [`Settings::interpreter`], its problem naming where the setting came from.
    ///
    /// # Errors
    ///
    /// The one configured is not an executable file, or there is none.
    pub fn interpreter(&self) -> Result<PathBuf, Problem> {
        self.settings.interpreter().map_err(|problem| {
            let origin = self.origins.get(&problem.path).cloned().unwrap_or(Origin::Default);
            Problem { origin, ..problem }
        })
    }
}
