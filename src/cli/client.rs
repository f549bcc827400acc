//! What the commands that talk to the broker have in common.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use super::exit::Failure;
use super::run::runtime;
use crate::config::{Loaded, Override, Settings, Sources, load};
use crate::telemetry::start_logging;

/// The settings that are in force, and logging as they say.
pub(super) fn settings(file: Option<PathBuf>, overrides: Vec<Override>) -> Result<Settings, Failure> {
    Ok(loaded(file, overrides)?.settings)
}

/// The same, with where each came from.
pub(super) fn loaded(file: Option<PathBuf>, overrides: Vec<Override>) -> Result<Loaded, Failure> {
    let mut sources = Sources::from_process(file);
    sources.overrides = overrides;
    let loaded = load(&sources)?;
    let settings = &loaded.settings;
    // What the AMQP library logs as errors, the commands say themselves, once. Who names it gets it.
    let filter = format!("lapin=off,{}", settings.telemetry.log);
    start_logging(&filter, settings.telemetry.log_format).map_err(Failure::Usage)?;
    Ok(loaded)
}

/// Runs `work` on a runtime of its own.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime(1).map_err(|error| Failure::Io(format!("no runtime can be started: {error}")))?;
    let result = runtime.block_on(work);
    // A read of standard input cannot be interrupted: nobody waits for it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Standard output that cannot be written.
pub(super) fn printed(result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::Io(format!("standard output cannot be written: {error}")))
}
