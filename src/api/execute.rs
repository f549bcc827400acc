//! `execute_predictions`: everything in one call.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, EngineOptions};
use crate::config::Settings;
use crate::metrics::{RunReport, Summary};
use crate::model::ResultMessage;
use crate::pipeline::Framing;
use crate::processors::{Pair, Postprocessor, Preprocessor, Registry};
use crate::service::{self, Flow, FlowError, Settled};
use crate::transport::{MemorySink, MemorySource};

/// The name under which a caller's own processor is registered.
const OWN: &str = "library";

/// What a call came to.
#[derive(Debug, Clone)]
pub struct OverallExecutionResults {
    /// One for each prediction, in their order.
    pub results: Vec<ResultMessage>,
    /// Counts and times.
    pub report: RunReport,
}

/// A call that could not be carried out.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The flow broke off.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// No runtime can be made.
    #[error("no runtime can be started: {0}")]
    Runtime(std::io::Error),
    /// Encoding or decoding failed.
    #[error("a result of ours cannot be read: {0}")]
    Result(#[from] serde_json::Error),
    /// The call's thread panicked.
    #[error("the call failed: this is a defect of evalmill")]
    Panicked,
}

/// Runs every prediction (a JSON object each) and gives the results in their order.
///
/// # Errors
/// The engine cannot start, or breaks off. What a program does is never an error: it is a result.
pub async fn execute_predictions<Pre, Post>(
    config: Settings,
    predictions: Vec<Value>,
    preprocessor: Pre,
    postprocessor: Post,
) -> Result<OverallExecutionResults, ApiError>
where
    Pre: Preprocessor + 'static,
    Post: Postprocessor + 'static,
{
    let started = Instant::now();
    let mut registry = Registry::default();
    registry.add(OWN, Arc::new(Pair(preprocessor, postprocessor)));
    let framing = Framing::Payload { preprocessor: OWN.to_owned(), id_field: "id".to_owned() };
    let engine = Engine::start_with(&config, EngineOptions::new(framing), registry).await?;
    let mut source = MemorySource::new(predictions.iter().map(|row| row.to_string().into_bytes()));
    let mut sink = MemorySink::default();
    let mut summary = Summary::default();
    let flow = Flow {
        pipeline: engine.pipeline(),
        settings: config.flow(true),
        tracker: engine.tracker(),
        draining: CancellationToken::new(),
        forced: CancellationToken::new(),
        done_already: Arc::new(Mutex::new(|_: &str| false)),
        observe: &mut |Settled { processed: done, .. }| {
            summary.add_parts(done.verdict, done.task.as_deref(), done.run.as_deref(), &done.timings);
        },
    };
    let end = service::run(flow, &mut source, &mut sink).await;
    engine.shutdown().await;
    end?;
    let lines = sink.results();
    let results = lines.iter().map(|line| serde_json::from_slice(line)).collect::<Result<_, _>>()?;
    Ok(OverallExecutionResults { results, report: summary.report(started.elapsed()) })
}

/// [`execute_predictions`] for code without a runtime; inside one it works too, and blocks.
///
/// # Errors
/// As there.
pub fn execute_predictions_blocking<Pre, Post>(
    config: Settings,
    predictions: Vec<Value>,
    preprocessor: Pre,
    postprocessor: Post,
) -> Result<OverallExecutionResults, ApiError>
where
    Pre: Preprocessor + 'static,
    Post: Postprocessor + 'static,
{
    // A thread of its own: a runtime cannot be entered from inside another one.
    let call = std::thread::Builder::new().spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ApiError::Runtime)?;
        runtime.block_on(execute_predictions(config, predictions, preprocessor, postprocessor))
    });
    call.map_err(ApiError::Runtime)?.join().map_err(|_| ApiError::Panicked)?
}
