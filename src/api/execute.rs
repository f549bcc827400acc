//! `execute_predictions`: everything in one call.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, EngineOptions};
use crate::config::Settings;
use crate::metrics::{RunReport, Summary};
use crate::model::{ResultMessage, StageTimings};
use crate::pipeline::Framing;
use crate::processors::{Pair, Postprocessor, Prepared, Preprocessor, Processor, Registry, Unusable};
use crate::service::{self, Flow, FlowError, Settled};
use crate::transport::{MemorySink, MemorySource};

/// The name under which a caller's own processor is registered.
const OWN: &str = "library";

/// What a call came to. Times are in seconds; those of a stage are summed up over all predictions, of which several
/// are at work at a time.
#[derive(Debug, Clone)]
pub struct OverallExecutionResults {
    /// One for each prediction, in their order.
    pub results: Vec<ResultMessage>,
    /// Counts and times.
    pub report: RunReport,
    /// The whole call.
    pub net_time: f64,
    /// Commands alone.
    pub pure_exec_time: f64,
    /// In the hands of workers: waiting for one, writing, commands, cleaning up.
    pub execution_time: f64,
    /// Writing files.
    pub writing_time: f64,
    /// Postprocessing.
    pub postprocessing_time: f64,
    /// Preprocessing.
    pub preprocessing_time: f64,
    /// When the call ended, in UTC.
    pub timestamp: String,
}

impl OverallExecutionResults {
    fn new(results: Vec<ResultMessage>, report: RunReport, net: Duration) -> Self {
        let sum = |time: fn(&StageTimings) -> f64| results.iter().map(|result| time(&result.timings)).sum();
        Self {
            net_time: net.as_secs_f64(),
            pure_exec_time: sum(|timings| timings.execute),
            execution_time: sum(StageTimings::in_worker),
            writing_time: sum(|timings| timings.write),
            postprocessing_time: sum(|timings| timings.postprocess),
            preprocessing_time: sum(|timings| timings.preprocess),
            timestamp: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            results,
            report,
        }
    }

    /// The times by their names.
    #[must_use]
    pub fn timing_dict(&self) -> Map<String, Value> {
        let times = [
            ("net_time", self.net_time),
            ("pure_exec_time", self.pure_exec_time),
            ("execution_time", self.execution_time),
            ("writing_time", self.writing_time),
            ("postprocessing_time", self.postprocessing_time),
            ("preprocessing_time", self.preprocessing_time),
        ];
        let mut all: Map<_, _> =
            times.into_iter().map(|(name, time)| (name.to_owned(), time.into())).collect();
        all.insert("timestamp".to_owned(), self.timestamp.as_str().into());
        all
    }

    /// What the postprocessor put out for each prediction, with its `postprocess_time`: the reference's `results`.
    #[must_use]
    pub fn to_dicts(&self) -> Vec<Map<String, Value>> {
        let dict = |result: &ResultMessage| {
            let mut output = result.output.clone();
            output.insert("postprocess_time".to_owned(), result.timings.postprocess.into());
            output
        };
        self.results.iter().map(dict).collect()
    }
}

/// What a call does beside running predictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecuteOptions {
    /// Keeps each executable's files, and what came back, in `pred<index>.<executable>/`.
    pub debug_dir: Option<PathBuf>,
    /// Gets `errors.jsonl`: predictions that could not be run for reasons of ours.
    pub error_directory: Option<PathBuf>,
    /// Whether the preprocessor may give more than one executable; otherwise a prediction with more is `invalid`.
    pub preproc_returns_list: bool,
    /// Predictions that the preprocessor gets at once. Only 1 means something for closures, which are called in
    /// this process, so that nothing is saved; external processors have `processors.NAME.batch_size`. It is taken
    /// whatever it is, so that calls carry over.
    pub preproc_batch_size: usize,
}

impl Default for ExecuteOptions {
    fn default() -> Self {
        Self { debug_dir: None, error_directory: None, preproc_returns_list: true, preproc_batch_size: 1 }
    }
}

/// Refuses more than one executable.
struct Single<P>(P);

impl<P: Preprocessor> Preprocessor for Single<P> {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        match self.0.preprocess(payload)? {
            Prepared::Run(tasks) | Prepared::Case(tasks, _) if tasks.len() > 1 => Err(Unusable(format!(
                "the preprocessor gave {} executables: preproc_returns_list is false, so it may give one",
                tasks.len()
            ))),
            prepared => Ok(prepared),
        }
    }

    fn task(&self, payload: &Value) -> Option<String> {
        self.0.task(payload)
    }
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
    /// A directory's name is not UTF-8, as every setting is.
    #[error("the directory {} cannot be used: its name is not UTF-8", .0.display())]
    Directory(PathBuf),
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
    let options = ExecuteOptions::default();
    execute_predictions_with(config, predictions, preprocessor, postprocessor, options).await
}

/// [`execute_predictions`] with all that the reference's call takes. Its `config` is
/// [`ExecutionConfig::settings`](super::steps::ExecutionConfig::settings), and its default postprocessor
/// [`default_postprocessor`](super::steps::default_postprocessor).
///
/// # Errors
/// As there; also where a directory cannot be written.
pub async fn execute_predictions_with<Pre, Post>(
    mut config: Settings,
    predictions: Vec<Value>,
    preprocessor: Pre,
    postprocessor: Post,
    options: ExecuteOptions,
) -> Result<OverallExecutionResults, ApiError>
where
    Pre: Preprocessor + 'static,
    Post: Postprocessor + 'static,
{
    let ExecuteOptions { debug_dir, error_directory, preproc_returns_list, preproc_batch_size: _ } = options;
    for (dir, setting) in [(debug_dir, &mut config.debug.dir), (error_directory, &mut config.debug.error_dir)]
    {
        if let Some(dir) = dir {
            *setting = dir.into_os_string().into_string().map_err(|dir| ApiError::Directory(dir.into()))?;
        }
    }
    let processor: Arc<dyn Processor> = if preproc_returns_list {
        Arc::new(Pair(preprocessor, postprocessor))
    } else {
        Arc::new(Pair(Single(preprocessor), postprocessor))
    };
    run(&config, &predictions, processor).await
}

async fn run(
    config: &Settings,
    predictions: &[Value],
    processor: Arc<dyn Processor>,
) -> Result<OverallExecutionResults, ApiError> {
    let started = Instant::now();
    let mut registry = Registry::default();
    registry.add(OWN, processor);
    let framing = Framing::Payload { preprocessor: OWN.to_owned(), id_field: "id".to_owned() };
    let engine = Engine::start_with(config, EngineOptions::new(framing), registry).await?;
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
    let net = started.elapsed();
    Ok(OverallExecutionResults::new(results, summary.report(net), net))
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
