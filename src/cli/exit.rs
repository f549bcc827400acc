//! Exit codes, in one place.

use std::process::ExitCode;

use thiserror::Error;

use crate::api::{EngineError, ServeError};
use crate::config::Problems;
use crate::service::FlowError;
use crate::transport::rabbitmq::{BrokerError, Fault};
use crate::transport::{OutputError, TransportError};

/// Why the program ends, where it is not success.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// Something that was asked for cannot be: 2.
    #[error("{0}")]
    Usage(String),
    /// The configuration: 78.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The engine cannot start: 69, or 78 where a setting is at fault.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The output cannot be used: 2, 74 or 77.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The flow broke off: 1, or 74 where the output failed.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// The service cannot start: 69 or 78, or what its parts say.
    #[error(transparent)]
    Serve(ServeError),
    /// Input or output of another sort: 74.
    #[error("{0}")]
    Io(String),
    /// The first signal was obeyed: 128 and the signal's number.
    #[error("interrupted: {0}")]
    Signal(String, u8),
    /// A service answers that it is not ready: 1.
    #[error("{0}")]
    NotReady(String),
    /// A service does not answer: 69.
    #[error("{0}")]
    Unreachable(String),
    /// The broker: 69, or 2, 77, 78 where it is no matter of waiting.
    #[error("{error}; {advice}", error = .0, advice = .0.advice())]
    Broker(#[from] BrokerError),
    /// It was done as far as it goes: 1.
    #[error("{0}")]
    Incomplete(String),
    /// Some result is `infra_error`: 1.
    #[error(
        "{0} of the results are infra_error: they say nothing about the programs; `--resume` does them again"
    )]
    Infra(u64),
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Engine(error) => error.into(),
            ServeError::Flow(error) => error.into(),
            ServeError::Setting(problems) => problems.into(),
            other => Self::Serve(other),
        }
    }
}

impl Failure {
    /// The exit code.
    #[must_use]
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Config(_) | Self::Engine(EngineError::Setting(_) | EngineError::Processor(_)) => 78,
            Self::Engine(
                EngineError::Workers(_)
                | EngineError::Interpreter(_)
                | EngineError::Tier(_)
                | EngineError::Program(_)
                | EngineError::Processes { .. },
            ) => 69,
            Self::Broker(error) => match error.fault() {
                Fault::Unreachable => 69,
                Fault::Denied => 77,
                Fault::Configuration => 78,
                Fault::Value => 2,
            },
            Self::Unreachable(_) | Self::Serve(ServeError::Listen(_)) => 69,
            Self::Serve(_) => 78,
            Self::Engine(EngineError::Problems(_)) => 2,
            Self::Engine(EngineError::Scratch { .. } | EngineError::Keep(_)) => 74,
            Self::Output(OutputError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                77
            }
            Self::Output(OutputError::Io { .. }) => 74,
            Self::Output(_) => 2,
            Self::Flow(FlowError::Transport(TransportError::Read { .. })) => 2,
            Self::Flow(FlowError::Transport(TransportError::Write { .. })) | Self::Io(_) => 74,
            Self::Flow(FlowError::Panicked(_)) | Self::Infra(_) | Self::NotReady(_) | Self::Incomplete(_) => {
                1
            }
            Self::Signal(_, signal) => 128 + signal,
        }
    }
}

/// Says what failed, and gives its exit code.
#[must_use]
pub(super) fn conclude(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            crate::telemetry::say(&format!("evalmill: {failure}\n"));
            ExitCode::from(failure.code())
        }
    }
}
