//! `evalmill check-config`.

use std::path::PathBuf;

use super::exit::Failure;
use crate::config::{Sources, load, render};

/// Prints the configuration that is in force, or everything that is wrong with it.
///
/// # Errors
/// There are problems, or standard output cannot be written.
pub(super) fn check_config(file: Option<PathBuf>, show_origin: bool) -> Result<(), Failure> {
    let loaded = load(&Sources::from_process(file))?;
    super::print(render(&loaded, show_origin).as_bytes())
        .map_err(|error| Failure::Io(format!("standard output cannot be written: {error}")))
}
