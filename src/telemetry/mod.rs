//! Logging, metrics and health. It observes and decides nothing.
//!
//! Standard output belongs to results: everything else goes to standard error.

mod health;
mod meter;
mod metrics;
mod server;

pub use health::{Health, Readiness, Stage};
pub use meter::{Meter, ProgressKind, REDRAW, bar};
pub use metrics::{Link, Metrics, PublishedAs, SettledAs};
pub use server::{ListenError, Refresh, listen, serve_http};

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Starts logging to standard error. A second call does nothing.
///
/// # Errors
/// `filter` is no filter directive; the text says why.
pub fn start_logging(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lines).with_target(false);
    // A log that cannot be written is no reason to panic.
    let lines = lines.log_internal_errors(false);
    // A subscriber that the embedding program has set stays.
    let _ = match format {
        LogFormat::Text => lines.with_ansi(colour).finish().try_init(),
        LogFormat::Json => lines.json().finish().try_init(),
    };
    Ok(())
}

/// Logs what evalmill does from this level on, to standard error, with times in UTC (RFC 3339). A second
/// call does nothing, nor does the first one where the program has set a subscriber.
pub fn configure_logging(level: LevelFilter, format: LogFormat) {
    // A level is a directive.
    let _ = start_logging(&format!("evalmill={level}"), format);
}

/// What is drawn on standard error at the moment.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Says what is drawn on standard error from now on: log lines and [`say`] are written above it.
pub fn drawn(bar: Option<ProgressBar>) {
    *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Writes to standard error; where that cannot be written, nobody is left to be told.
pub fn say(text: &str) {
    let _ = Lines.write_all(text.as_bytes());
}

/// Standard error, with what is drawn on it out of the way.
struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bar = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
