//! `evalmill check-config`.

use std::path::PathBuf;

use super::exit::Failure;
use crate::config::{Problems, Sources, load, render};

/// Prints the configuration that is in force, or everything that is wrong with it.
///
/// # Errors
/// There are problems, or standard output cannot be written.
pub(super) fn check_config(file: Option<PathBuf>, show_origin: bool) -> Result<(), Failure> {
    let loaded = load(&Sources::from_process(file))?;
    super::processors_are_known(&loaded)?;
    let rabbitmq = &loaded.settings.rabbitmq;
    // Where no broker is named, nothing is served, and a prediction may take as long as it likes.
    if !(rabbitmq.url.reveal().is_empty() && rabbitmq.url_file.is_empty()) {
        loaded.held_long_enough().map_err(|problem| Problems(vec![problem]))?;
    }
    super::print(render(&loaded, show_origin).as_bytes())
        .map_err(|error| Failure::Io(format!("standard output cannot be written: {error}")))
}
