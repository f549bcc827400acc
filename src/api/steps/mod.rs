//! The reference's calls, one by one: what `execute_predictions` does in a single call, in steps.
//!
//! ```text
//! preprocess_commands → execute_commands (execute_single, serial_execute_code, safe_execute) → postprocess_commands
//! write_executables → [`CommandsToRun`] → batched_execute_code, threaded_execution → cleanup
//! ```
//! The names and the order are the reference's. What runs, runs in a worker of an [`Engine`], within its limits and behind
//! its walls: where a call has a working directory, the box gets a copy of it, and what the commands
//! change there stays in the box but for the tracked files.

mod commands;
mod config;
mod files;
mod processing;

pub use commands::{
    CommandsError, CommandsToRun, ExecutedCommands, batched_execute_code, default_should_early_stop,
    early_stop, execute_commands, execute_single, safe_execute, serial_execute_code, threaded_execution,
};
pub use config::ExecutionConfig;
pub use files::{FilesToWrite, WritingFailure, cleanup, write_executables};
pub use processing::{
    ExecutionKey, PredTimingsCollection, Preprocessed, default_postprocessor, postprocess_commands,
    preprocess_commands,
};

#[cfg(doc)]
use super::Engine;
