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

use super::prepare::{Judge, Next, Ready, Stage, Work, checked, preprocess, stage};
use super::processors::Who;
use super::report::{encoded, reason};
use super::{Decoded, Framing, Incoming, Keep, LimitSettings, Processors, Program, Turn, Undecodable};
use crate::config::Echo;
use crate::executor::{Execute, Executed, Job};
use crate::model::{
    ExecutionResult, Judged, ResultMessage, ResultSchema, StageTimings, Verdict, WorkerStamp, judge,
};
use crate::processors::{Judgement, Task, Undecided, UnknownProcessor};
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
    processors: Processors,
    settings: Arc<PipelineSettings>,
    slots: Semaphore,
    preprocessing: Semaphore,
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
    pub fn new(executor: E, processors: Processors, settings: PipelineSettings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            executor,
            processors,
            slots: Semaphore::new(settings.slots.max(1)),
            preprocessing: Semaphore::new(cores),
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
        self.processors.knows(name)
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

    /// Runs one executable with the configured limits, without a prediction around it. Our own failure is data in
    /// the result.
    ///
    /// # Errors
    /// It cannot be run as it stands; the text names the field, its value and the rule.
    pub async fn run(&self, key: String, task: Task) -> Result<ExecutionResult, String> {
        let ready = checked(vec![task], &self.settings.limits)?;
        let (executable, rules) = ready.into_iter().next().ok_or("there is nothing to run")?;
        let Ok(_slot) = self.slots.acquire().await else {
            return Err("the engine is being shut down".to_owned());
        };
        let limits = self.settings.limits.defaults;
        let (network, budget) = (self.settings.walls.network, self.settings.limits.max_prediction_time);
        let job = Job { key, executable, rules: Arc::new(rules), limits, network, budget };
        Ok(self.executed(job).await.result)
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
        let (stage, task) = self.preprocess(name, &decoded, draining).await?;
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
            Stage::Run(Work { tasks, limits, judge }) => {
                let waiting = Instant::now();
                let slot = tokio::select! {
                    biased;
                    () = draining.cancelled() => return None,
                    slot = self.slot(turn) => slot?,
                    () = until(self.settings.max_wait.map(|wait| incoming.arrived + wait)) => return None,
                };
                timings.wait = waiting.elapsed().as_secs_f64();
                let network = walls.network;
                let mut stages = Stages { incoming, limits, network, timings: &mut timings };
                let budget = self.settings.limits.max_prediction_time;
                let executed = self.execute(&mut stages, 0, tasks, budget).await;
                // Who may have more to run keeps its slot for it.
                let slot = judge.may_follow_up().then_some(slot);
                self.conclude(&mut stages, &decoded, judge, executed, slot).await
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

    /// `None`: `draining` was cancelled before it began.
    async fn preprocess(
        &self,
        name: &str,
        decoded: &Arc<Decoded>,
        draining: &CancellationToken,
    ) -> Option<(Stage, Option<String>)> {
        let limits = self.settings.limits;
        let (processor, program) = match self.processors.get(name) {
            Ok(Who::Builtin(processor)) => (Arc::clone(processor), None),
            Ok(Who::Program(program)) => match &program.preprocessor {
                Some(processor) => (Arc::clone(processor), Some(program)),
                None => {
                    let prepared = tokio::select! {
                        prepared = program.preprocess(decoded) => prepared,
                        () = draining.cancelled() => return None,
                    };
                    let stage = match prepared {
                        Ok(prepared) => stage(prepared, program.judge(), decoded, &limits),
                        Err(error) => Stage::OurFault(error.to_string()),
                    };
                    return Some((stage, None));
                }
            },
            Err(error) => return Some((Stage::Invalid(error.to_string()), None)),
        };
        let _permit = tokio::select! {
            permit = self.preprocessing.acquire() => permit.ok()?,
            () = draining.cancelled() => return None,
        };
        // A processor is somebody's code over untrusted text: a panic ends here.
        let judge = program.map_or_else(|| Judge::Processor(Arc::clone(&processor)), Program::judge);
        Some(match preprocess(processor, judge, Arc::clone(decoded), limits).await {
            Ok(done) => done,
            Err(error) => (Stage::OurFault(format!("the preprocessor {name} failed: {error}")), None),
        })
    }

    /// Runs these as the executables from number `first` on, one after another: predictions fill the
    /// slots, and a prediction's time is its own.
    async fn execute(
        &self,
        stages: &mut Stages<'_>,
        first: usize,
        tasks: Vec<Ready>,
        mut budget: Duration,
    ) -> Vec<Executed> {
        let &mut Stages { incoming, limits, network, ref mut timings } = stages;
        let mut all = Vec::with_capacity(tasks.len());
        for (sub, (executable, rules)) in (first..).zip(tasks) {
            let kept = self.settings.keep.keeps_files().then(|| executable.clone());
            let key = format!("{}.{sub}", incoming.sequence);
            let job = Job { key, executable, rules: Arc::new(rules), limits, network, budget };
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

    /// From what came of the executables to a verdict, with what has to be run for it.
    async fn conclude(
        &self,
        stages: &mut Stages<'_>,
        decoded: &Arc<Decoded>,
        judge: Judge,
        executed: Vec<Executed>,
        slot: Option<SemaphorePermit<'_>>,
    ) -> Ending {
        let started = Instant::now();
        let mut contended = executed.iter().any(|executed| executed.contended);
        let executions: Arc<Vec<_>> =
            Arc::new(executed.into_iter().map(|executed| executed.result).collect());
        if let Some(reason) = executions.iter().find_map(|execution| execution.infra_error.clone()) {
            return Ending::undecided(Undecided::Fault(reason), executions, contended);
        }
        let next = judge.clone().next(decoded, &executions, self.settings.limits).await;
        stages.timings.postprocess = started.elapsed().as_secs_f64();
        let judged = match next {
            Ok(Next::Judged(judged)) => Ok(judged),
            Ok(Next::Further(tasks)) => {
                let budget = self.further_budget(&executions);
                let further = self.execute(stages, executions.len(), tasks, budget).await;
                drop(slot);
                let started = Instant::now();
                contended |= further.iter().any(|executed| executed.contended);
                let further: Vec<_> = further.into_iter().map(|executed| executed.result).collect();
                let judged = judge.last(&executions, further).await;
                stages.timings.postprocess += started.elapsed().as_secs_f64();
                judged
            }
            Err(error) => Err(error),
        };
        match judged {
            Ok(Ok(judgement)) => Ending::judged(judgement, executions, contended),
            Ok(Err(undecided)) => Ending::undecided(undecided, executions, contended),
            Err(error) => {
                let fault = Undecided::Fault(format!("the postprocessor failed: {error}"));
                Ending::undecided(fault, Arc::default(), contended)
            }
        }
    }

    /// Time for what judges: what the program has left, but not so little that nothing can be judged.
    fn further_budget(&self, executions: &[ExecutionResult]) -> Duration {
        let most = self.settings.limits.max_prediction_time;
        let spent: f64 = executions.iter().map(|execution| execution.elapsed).sum();
        most.saturating_sub(Duration::from_secs_f64(spent)).max(most / 4)
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

/// One prediction on its way through the stages.
struct Stages<'a> {
    incoming: &'a Incoming,
    limits: RunLimits,
    /// Of the host.
    network: bool,
    timings: &'a mut StageTimings,
}

impl Ending {
    fn judged(judgement: Judgement, executions: Arc<Vec<ExecutionResult>>, contended: bool) -> Self {
        let Judgement { passed, detail, output } = judgement;
        let verdict = judge(Judged::Ran { executions: &executions, rule: passed });
        let detail = reason(verdict, &executions).or(detail);
        Self {
            verdict: Some(verdict),
            detail,
            output,
            executions: Arc::unwrap_or_clone(executions),
            contended,
        }
    }

    fn undecided(undecided: Undecided, executions: Arc<Vec<ExecutionResult>>, contended: bool) -> Self {
        let verdict = Some(judge(match undecided {
            Undecided::Unusable(_) => Judged::Unusable,
            Undecided::Fault(_) => Judged::OurFault,
        }));
        let (detail, executions) = (Some(undecided.to_string()), Arc::unwrap_or_clone(executions));
        Self { verdict, detail, executions, contended, ..Self::default() }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
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
