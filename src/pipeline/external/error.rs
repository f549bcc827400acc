//! What can be wrong with a program of the operator's.

use std::time::Duration;

use thiserror::Error;

/// Why there is no answer.
#[derive(Debug, Clone, Error)]
pub enum ExternalError {
    /// It cannot be started.
    #[error(
        "{command:?} cannot be started: {reason}; processors.{name}.command is the program and its arguments"
    )]
    Start {
        /// The processor's name.
        name: String,
        /// The program.
        command: String,
        /// What the system said.
        reason: String,
    },
    /// It ended, or closed its standard output.
    #[error("the program of processor {name} ended ({status}){stderr}")]
    Ended {
        /// The processor's name.
        name: String,
        /// How.
        status: String,
        /// The last lines that it wrote to standard error.
        stderr: Said,
    },
    /// It took too long.
    #[error("the program of processor {name} did not answer within {} s (processors.{name}.timeout); it was killed{stderr}", .limit.as_secs_f64())]
    Timeout {
        /// The processor's name.
        name: String,
        /// How long it had.
        limit: Duration,
        /// The last lines that it wrote to standard error.
        stderr: Said,
    },
    /// Its answer is none.
    #[error(
        "the program of processor {name} answered {answer:?}: {reason}; each request is answered by one line, {{\"items\": […]}}, and nothing else is written to standard output"
    )]
    Answer {
        /// The processor's name.
        name: String,
        /// The beginning of what came.
        answer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It says that it failed.
    #[error("processor {name} failed: {reason}")]
    Failed {
        /// The processor's name.
        name: String,
        /// What it says.
        reason: String,
    },
    /// evalmill is about to end.
    #[error("processor {0} is being shut down")]
    Closed(String),
}

/// The end of a standard error stream.
#[derive(Debug, Clone, Default)]
pub struct Said(pub(super) Vec<String>);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0[..] {
            [] => Ok(()),
            lines => write!(f, "; its last words: {}", lines.join(" | ")),
        }
    }
}
