//! The stages, one after another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::report::{encoded, reason};
use super::{Decoded, Framing, Incoming, Keep, LimitSettings, Turn, Undecodable};
use crate::config::Echo;
use crate::executor::{Execute, Executed, Job, Rules};
use crate::model::{
    Executable, ExecutionResult, Judged, ResultMessage, ResultSchema, StageTimings, Verdict, WorkerStamp,
    judge,
};
use crate::processors::{Judgement, Prepared, Processor, Registry, Task, UnknownProcessor};
use crate::util::ceiling::Ceiling;
use crate::worker::protocol::RunLimits;

/// What the pipeline is told.
#[derive(Debug)]
pub struct PipelineSettings {
    /// What the bytes of a message are.
    pub framing: Framing,
    /// For messages that name none.
    pub default_preprocessor: String,
    /// Defaults and maxima.
    pub limits: LimitSettings,
    /// How much of a payload comes back.
    pub echo: Echo,
    /// Predictions executed at the same time.
    pub slots: usize,
    /// What has not begun so long after it came is given back; `None`: it may wait for ever.
    pub max_wait: Option<Duration>,
    /// Most bytes of an encoded result: what does not fit loses its echo, outputs and files.
    pub max_result_bytes: Option<Ceiling>,
    /// Who makes the results.
    pub instance: String,
    /// What programs are behind.
    pub walls: Walls,
    /// The same of single processors, by their names.
    pub walls_of: BTreeMap<String, Walls>,
    /// What is kept for people.
    pub keep: Keep,
}

/// What programs are behind.
#[derive(Debug, Clone, Default)]
pub struct Walls {
    /// They have the host's network.
    pub network: bool,
    /// The sandbox tier in force.
    pub tier: String,
    /// Names of the isolation layers that are missing.
    pub missing: Vec<String>,
}

/// A result, encoded, with what aggregation needs.
#[derive(Debug, Clone)]
pub struct Processed {
    /// The encoded [`ResultMessage`].
    pub body: Vec<u8>,
    /// The same for every delivery of the same message.
    pub result_id: Uuid,
    /// The prediction's id.
    pub id: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// What is said about it for people.
    pub detail: Option<String>,
    /// Its task.
    pub task: Option<String>,
    /// Its run.
    pub run: Option<String>,
    /// Its stages.
    pub timings: StageTimings,
}

/// The stages, with what they need.
#[derive(Debug)]
pub struct Pipeline<E> {
    executor: E,
    registry: Registry,
    settings: Arc<PipelineSettings>,
    slots: Semaphore,
    preprocessing: Arc<Semaphore>,
}

/// Most bytes of what a processor sees where it works on the runtime.
const INLINE_BYTES: usize = 64 << 10;

/// A preprocessed prediction.
enum Stage {
    Run { processor: Arc<dyn Processor>, tasks: Vec<Ready>, limits: RunLimits },
    Filtered { detail: Option<String>, output: Map<String, Value> },
    Invalid(String),
    OurFault(String),
}

/// What is said in the end.
#[derive(Default)]
struct Ending {
    verdict: Option<Verdict>,
    detail: Option<String>,
    output: Map<String, Value>,
    executions: Vec<ExecutionResult>,
    contended: bool,
}

impl<E: Execute> Pipeline<E> {
    /// A pipeline over `executor`.
    #[must_use]
    pub fn new(executor: E, registry: Registry, settings: PipelineSettings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            executor,
            registry,
            slots: Semaphore::new(settings.slots.max(1)),
            preprocessing: Arc::new(Semaphore::new(cores)),
            settings: Arc::new(settings),
        }
    }

    /// What the bytes of a message are.
    #[must_use]
    pub fn framing(&self) -> &Framing {
        &self.settings.framing
    }

    /// Whether there is a processor of this name.
    ///
    /// # Errors
    /// There is none; the error lists the known ones.
    pub fn knows(&self, name: &str) -> Result<(), UnknownProcessor> {
        self.registry.get(name).map(drop)
    }

    /// Predictions that are executed at the moment.
    #[must_use]
    pub fn busy_slots(&self) -> usize {
        self.settings.slots.max(1) - self.slots.available_permits()
    }

    /// Who makes the results.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.settings.instance
    }

    /// The result for a message that is no prediction.
    #[must_use]
    pub fn invalid(&self, incoming: &Incoming, undecodable: Undecodable) -> Processed {
        let net = incoming.arrived.elapsed().as_secs_f64();
        let timings = StageTimings { queue: net, net, ..StageTimings::default() };
        let subject = Subject { id: undecodable.id, result_id: undecodable.result_id, ..Subject::default() };
        let ending =
            Ending { verdict: Some(Verdict::Invalid), detail: Some(undecodable.reason), ..Ending::default() };
        self.encode(subject, incoming, ending, timings, &self.settings.walls)
    }

    /// The processor that is meant, and what its programs are behind.
    fn processor<'a>(&'a self, decoded: &'a Decoded) -> (&'a str, &'a Walls) {
        let name = decoded.preprocessor.as_deref().unwrap_or(&self.settings.default_preprocessor);
        (name, self.settings.walls_of.get(name).unwrap_or(&self.settings.walls))
    }

    /// Sees one prediction to its result. `None`: `draining` was cancelled before it was started.
    pub async fn process(
        &self,
        incoming: &Incoming,
        decoded: Decoded,
        draining: &CancellationToken,
        turn: &mut Turn,
    ) -> Option<Processed> {
        let started = Instant::now();
        let mut timings =
            StageTimings { queue: (started - incoming.arrived).as_secs_f64(), ..Default::default() };
        let decoded = Arc::new(decoded);
        let (name, walls) = self.processor(&decoded);
        let permit = tokio::select! {
            permit = Arc::clone(&self.preprocessing).acquire_owned() => permit.ok()?,
            () = draining.cancelled() => return None,
        };
        let (stage, task) = self.preprocess(name, &decoded).await;
        drop(permit);
        timings.preprocess = started.elapsed().as_secs_f64();
        let ending = match stage {
            Stage::Invalid(reason) => {
                Ending { verdict: Some(judge(Judged::Unusable)), detail: Some(reason), ..Ending::default() }
            }
            Stage::OurFault(reason) => {
                Ending { verdict: Some(judge(Judged::OurFault)), detail: Some(reason), ..Ending::default() }
            }
            Stage::Filtered { detail, output } => {
                Ending { verdict: Some(judge(Judged::Filtered)), detail, output, ..Ending::default() }
            }
            Stage::Run { processor, tasks, limits } => {
                let waiting = Instant::now();
                let slot = tokio::select! {
                    biased;
                    () = draining.cancelled() => return None,
                    slot = self.slot(turn) => slot?,
                    () = until(self.settings.max_wait.map(|wait| incoming.arrived + wait)) => return None,
                };
                timings.wait = waiting.elapsed().as_secs_f64();
                let executed = self.execute(incoming, tasks, (limits, walls.network), &mut timings).await;
                drop(slot);
                self.postprocess(&decoded, processor, executed, &mut timings).await
            }
        };
        if matches!(ending.verdict, Some(Verdict::InfraError)) {
            self.keep_error(&decoded, ending.detail.as_deref().unwrap_or("infra_error")).await;
        }
        timings.net = incoming.arrived.elapsed().as_secs_f64();
        let subject = Subject {
            id: decoded.id.clone(),
            result_id: decoded.result_id,
            run: decoded.run.clone(),
            task: decoded.task.clone().or(task),
            prediction: self.echo(&decoded),
            metadata: decoded.metadata.clone(),
        };
        Some(self.encode(subject, incoming, ending, timings, walls))
    }

    /// A slot, once it is this prediction's turn. No slot is held while it is not: whose turn it is
    /// always gets one.
    async fn slot(&self, turn: &mut Turn) -> Option<SemaphorePermit<'_>> {
        loop {
            let slot = self.slots.acquire().await.ok()?;
            if turn.is_now() {
                return Some(slot);
            }
            drop(slot);
            turn.comes().await;
        }
    }

    async fn preprocess(&self, name: &str, decoded: &Arc<Decoded>) -> (Stage, Option<String>) {
        let processor = match self.registry.get(name) {
            Ok(processor) => Arc::clone(processor),
            Err(error) => return (Stage::Invalid(error.to_string()), None),
        };
        let (decoded, settings) = (Arc::clone(decoded), Arc::clone(&self.settings));
        let quick = decoded.raw.get().len() <= INLINE_BYTES && processor.is_quick(&decoded.payload);
        // A processor is somebody's code over untrusted text: a panic ends here.
        let done = apart(quick, move || {
            let task = processor.task(&decoded.payload);
            let stage = match prepare(&*processor, &decoded, &settings.limits) {
                Ok(Ok((tasks, limits))) => Stage::Run { processor, tasks, limits },
                Ok(Err((detail, output))) => Stage::Filtered { detail, output },
                Err(reason) => Stage::Invalid(reason),
            };
            (stage, task)
        });
        match done.await {
            Ok(done) => done,
            Err(error) => (Stage::OurFault(format!("the preprocessor {name} failed: {error}")), None),
        }
    }

    async fn execute(
        &self,
        incoming: &Incoming,
        tasks: Vec<Ready>,
        (limits, network): (RunLimits, bool),
        timings: &mut StageTimings,
    ) -> Vec<Executed> {
        let mut budget = self.settings.limits.max_prediction_time;
        let mut all = Vec::with_capacity(tasks.len());
        // One after another: predictions fill the slots, and a prediction's time is its own.
        for (sub, (executable, rules)) in tasks.into_iter().enumerate() {
            let kept = self.settings.keep.keeps_files().then(|| executable.clone());
            let key = format!("{}.{sub}", incoming.sequence);
            let job = Job { key, executable, rules, limits, network, budget };
            let mut executed = self.executed(job).await;
            executed.result.preprocess_time = timings.preprocess;
            budget = budget.saturating_sub(Duration::from_secs_f64(executed.result.elapsed));
            timings.wait += executed.wait.as_secs_f64();
            timings.write += executed.result.writing_time;
            timings.execute += executed.result.elapsed;
            timings.cleanup += executed.result.cleanup_time;
            if let Some(executable) = kept {
                let (settings, result) = (Arc::clone(&self.settings), executed.result.clone());
                let sequence = incoming.sequence;
                let done = tokio::task::spawn_blocking(move || {
                    settings.keep.files(sequence, sub, &executable, &result)
                });
                if let Ok(Err(error)) = done.await {
                    tracing::error!(%error, sequence, "the debug directory cannot be written");
                }
            }
            all.push(executed);
        }
        all
    }

    /// Runs one executable. A library user's closure that panics costs its own prediction's verdict.
    async fn executed(&self, job: Job) -> Executed {
        let key = job.key.clone();
        let run = std::panic::AssertUnwindSafe(self.executor.execute(job)).catch_unwind();
        run.await.unwrap_or_else(|_| {
            let infra_error = Some("a closure for early stop or standard output panicked".to_owned());
            let result = ExecutionResult { key, infra_error, had_error: true, ..ExecutionResult::default() };
            Executed { result, ..Executed::default() }
        })
    }

    async fn postprocess(
        &self,
        decoded: &Arc<Decoded>,
        processor: Arc<dyn Processor>,
        executed: Vec<Executed>,
        timings: &mut StageTimings,
    ) -> Ending {
        let started = Instant::now();
        let contended = executed.iter().any(|executed| executed.contended);
        let executions: Vec<_> = executed.into_iter().map(|executed| executed.result).collect();
        if let Some(reason) = executions.iter().find_map(|execution| execution.infra_error.clone()) {
            let verdict = Some(judge(Judged::OurFault));
            return Ending { verdict, detail: Some(reason), executions, contended, ..Ending::default() };
        }
        let decoded = Arc::clone(decoded);
        let bytes: usize = executions.iter().map(output_bytes).sum();
        let quick = bytes + decoded.raw.get().len() <= INLINE_BYTES && processor.is_quick(&decoded.payload);
        let done = apart(quick, move || {
            let judgement = processor.postprocess(&decoded.payload, &executions);
            (judgement, executions)
        });
        let ending = match done.await {
            Ok((Judgement { passed, detail, output }, executions)) => {
                let verdict = judge(Judged::Ran { executions: &executions, rule: passed });
                let detail = reason(verdict, &executions).or(detail);
                Ending { verdict: Some(verdict), detail, output, executions, contended }
            }
            Err(error) => Ending {
                verdict: Some(judge(Judged::OurFault)),
                detail: Some(format!("the postprocessor failed: {error}")),
                contended,
                ..Ending::default()
            },
        };
        timings.postprocess = started.elapsed().as_secs_f64();
        ending
    }

    async fn keep_error(&self, decoded: &Arc<Decoded>, reason: &str) {
        let (settings, decoded, reason) =
            (Arc::clone(&self.settings), Arc::clone(decoded), reason.to_owned());
        let done = tokio::task::spawn_blocking(move || settings.keep.error(&decoded, &reason)).await;
        if let Ok(Err(error)) = done {
            tracing::error!(%error, "the error directory cannot be written");
        }
    }

    fn echo(&self, decoded: &Decoded) -> Option<Box<RawValue>> {
        match &self.settings.echo {
            Echo::All => Some(decoded.raw.clone()),
            Echo::None => None,
            Echo::Fields(fields) => {
                let kept: Map<String, Value> = fields
                    .iter()
                    .filter_map(|field| Some((field.clone(), decoded.payload.get(field)?.clone())))
                    .collect();
                serde_json::value::to_raw_value(&kept).ok()
            }
        }
    }

    fn encode(
        &self,
        subject: Subject,
        incoming: &Incoming,
        ending: Ending,
        timings: StageTimings,
        walls: &Walls,
    ) -> Processed {
        let verdict = ending.verdict.unwrap_or(Verdict::InfraError);
        let message = ResultMessage {
            schema: ResultSchema::V1,
            result_id: subject.result_id,
            id: subject.id,
            run: subject.run,
            task: subject.task,
            verdict,
            passed: verdict == Verdict::Passed,
            detail: ending.detail,
            prediction: subject.prediction,
            metadata: subject.metadata,
            executions: ending.executions,
            output: ending.output,
            timings,
            attempt: incoming.attempt,
            redelivered: incoming.redelivered,
            worker: WorkerStamp {
                instance: self.settings.instance.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                tier: walls.tier.clone(),
                missing: walls.missing.clone(),
                contended: ending.contended,
            },
        };
        let (message, body) = encoded(message, self.settings.max_result_bytes.as_ref().map(Ceiling::get));
        Processed {
            body,
            result_id: message.result_id,
            id: message.id,
            verdict,
            detail: message.detail,
            task: message.task,
            run: message.run,
            timings,
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Runs a processor's code, which may panic: what is quick here, the rest off the runtime.
async fn apart<T: Send + 'static>(
    quick: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    if !quick {
        return tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string());
    }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("it panicked: {}", text.unwrap_or_default())
    })
}

/// Everything that a postprocessor may want to read.
fn output_bytes(execution: &ExecutionResult) -> usize {
    let streams = execution.command_results.iter().map(|command| command.stdout.len() + command.stderr.len());
    let files = execution.tracked_files.values().flatten().map(|content| content.0.len());
    streams.chain(files).sum()
}

/// Whom a result is about.
#[derive(Default)]
struct Subject {
    id: String,
    result_id: Uuid,
    run: Option<String>,
    task: Option<String>,
    prediction: Option<Box<RawValue>>,
    metadata: Option<Box<RawValue>>,
}

/// An executable that can be run as it stands, with its rules.
type Ready = (Executable, Rules);
type Filtered = (Option<String>, Map<String, Value>);

/// Preprocesses and checks: what comes out of here can be run as it stands.
fn prepare(
    processor: &dyn Processor,
    decoded: &Decoded,
    settings: &LimitSettings,
) -> Result<Result<(Vec<Ready>, RunLimits), Filtered>, String> {
    let limits = settings.for_prediction(&decoded.limits)?;
    let tasks = match processor.preprocess(&decoded.payload).map_err(|error| error.to_string())? {
        Prepared::Run(tasks) => tasks,
        Prepared::Filtered { detail, output } => return Ok(Err((detail, output))),
    };
    if tasks.is_empty() || tasks.len() > settings.max_executables {
        let most = settings.max_executables;
        return Err(format!("{} executables; limits.max_executables allows 1 to {most}", tasks.len()));
    }
    let many = tasks.len() > 1;
    let mut ready = Vec::with_capacity(tasks.len());
    for (index, Task { executable, hooks }) in tasks.into_iter().enumerate() {
        let checked = executable.validate().map_err(|error| error.to_string());
        let checked = checked.and_then(|()| settings.check(&executable));
        let compiled = checked.and_then(|()| {
            let stdout = executable.stdout_postprocessor.as_ref();
            Rules::new(executable.early_stop.clone(), stdout, hooks).map_err(|error| error.to_string())
        });
        let rules = compiled
            .map_err(|reason| if many { format!("executables[{index}]: {reason}") } else { reason })?;
        ready.push((executable, rules));
    }
    Ok(Ok((ready, limits)))
}
