//! The settings: their shape, where each value came from, and every rule they must keep.
//!
//! Values are layered, later ones winning: the built-in defaults (the same as [`DEFAULT_TOML`], a test
//! holds the two together), then one TOML file, then `EVALMILL__SECTION__KEY` environment variables, then
//! command line flags. [`load()`] reads them all and reports every problem at once; [`render()`] writes what is
//! in force as TOML that loads again. Nothing here starts anything.

mod checks;
mod keys;
mod languages;
mod layers;
mod load;
mod problem;
mod redact;
mod render;
mod resolve;
mod settings;
mod types;

#[cfg(test)]
mod tests;

pub use languages::{Language, Languages};
pub use load::{Loaded, Override, Sources, load};
pub use problem::{Origin, Problem, Problems};
pub use redact::{is_secret_name, redact};
pub use render::render;
pub use settings::{
    Debugging, Environment, Execution, HumanEval, Limits, Pipeline, Processors, Python, RabbitMq, Sandbox,
    Settings, Telemetry, Worker,
};
pub use types::{Echo, LogFormat, Secret, SecretUrl, Tier, TierChoice, TopologyMode};

/// The documented defaults: every key with its unit, range and meaning.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// The paths of all keys but those of languages, in the order of [`DEFAULT_TOML`].
pub fn key_paths() -> impl Iterator<Item = &'static str> {
    keys::KEYS.iter().map(|key| key.path)
}
