//! What a processor is.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::model::{CommandResult, Executable, ExecutionResult};

/// Decides after a command whether the remaining ones are left out: `(command index, result)`.
pub type EarlyStopFn = dyn Fn(usize, &CommandResult) -> bool + Send + Sync;
/// Rewrites standard output before it is compared and reported.
pub type StdoutFn = dyn Fn(String) -> String + Send + Sync;

/// Closures of a library user, asked beside the rules that an executable carries as data.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Replaces the executable's own early-stop rule.
    pub early_stop: Option<Arc<EarlyStopFn>>,
    /// Applied after the executable's own stdout postprocessor.
    pub stdout: Option<Arc<StdoutFn>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("early_stop", &self.early_stop.is_some())
            .field("stdout", &self.stdout.is_some())
            .finish()
    }
}

/// One executable to run, with its closures.
#[derive(Debug, Clone)]
pub struct Task {
    /// What is run.
    pub executable: Executable,
    /// Closures of a library user.
    pub hooks: Hooks,
}

impl From<Executable> for Task {
    fn from(executable: Executable) -> Self {
        Self { executable, hooks: Hooks::default() }
    }
}

/// What preprocessing came to.
#[derive(Clone)]
pub enum Prepared {
    /// To be run, in this order.
    Run(Vec<Task>),
    /// To be run, in this order, and judged by the case, not by the postprocessor.
    Case(Vec<Task>, Arc<dyn Case>),
    /// Deliberately not run.
    Filtered {
        /// Why, for people.
        detail: Option<String>,
        /// Goes into the result as it is.
        output: Map<String, Value>,
    },
}

/// One prediction between preprocessing and judgement: for processors that look at each command while the
/// executable runs (see [`Hooks`]), or need a second run to judge the first.
pub trait Case: Send + Sync {
    /// What is to be run beside, given what came of the tasks: asked once, unless a failure of ours ended
    /// them. What comes of it is about the judging and not about the program: it stands in no result, and no
    /// verdict follows from it by itself.
    fn follow_up(&self, executions: &[ExecutionResult]) -> Vec<Task> {
        let _ = executions;
        Vec::new()
    }

    /// Concludes, as [`Postprocessor::postprocess`] does; `further` is what came of the follow-up, and may
    /// hold failures of ours.
    ///
    /// # Errors
    /// Nothing can be said about the program.
    fn judge(
        &self,
        executions: &[ExecutionResult],
        further: &[ExecutionResult],
    ) -> Result<Judgement, Undecided>;
}

/// Why a case cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Undecided {
    /// The payload turned out to be unusable: the verdict is `invalid`.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// What judges failed: the verdict is `infra_error`.
    #[error("{0}")]
    Fault(String),
}

/// The postprocessor beside a preprocessor of which every prediction is a [`Case`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ByCase;

impl Postprocessor for ByCase {
    fn postprocess(&self, _: &Value, _: &[ExecutionResult]) -> Judgement {
        let detail = Some("the preprocessor gave no case to judge by".to_owned());
        Judgement { detail, ..Judgement::default() }
    }
}

/// A prediction that cannot be used; the text names the field, its value and the rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// What a postprocessor concludes. It decides only what the kernel has not decided already: see
/// [`judge`](crate::model::judge).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judgement {
    /// The program does what was asked.
    pub passed: bool,
    /// Why not, for people.
    pub detail: Option<String>,
    /// Goes into the result as it is.
    pub output: Map<String, Value>,
}

/// Prediction → executables.
pub trait Preprocessor: Send + Sync {
    /// Turns a payload (a JSON object) into what is run.
    ///
    /// # Errors
    /// The payload cannot be used; the verdict is `invalid`.
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable>;

    /// The task that the payload names, for predictions whose message names none.
    fn task(&self, payload: &Value) -> Option<String> {
        let _ = payload;
        None
    }

    /// Whether pre- and postprocessing of this payload, of at most a few ten KiB, never block and take
    /// less than the way to another thread, some ten microseconds. Then they are done on the runtime.
    fn is_quick(&self, payload: &Value) -> bool {
        let _ = payload;
        false
    }
}

/// Prediction + results → judgement.
pub trait Postprocessor: Send + Sync {
    /// Concludes from what was observed. `executions` is never empty and holds no failure of ours.
    fn postprocess(&self, payload: &Value, executions: &[ExecutionResult]) -> Judgement;
}

/// Both.
pub trait Processor: Preprocessor + Postprocessor {}

impl<P: Preprocessor + Postprocessor> Processor for P {}

impl<F> Preprocessor for F
where
    F: Fn(&Value) -> Result<Prepared, Unusable> + Send + Sync,
{
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        self(payload)
    }
}

impl<F> Postprocessor for F
where
    F: Fn(&Value, &[ExecutionResult]) -> Judgement + Send + Sync,
{
    fn postprocess(&self, payload: &Value, executions: &[ExecutionResult]) -> Judgement {
        self(payload, executions)
    }
}

/// A preprocessor and a postprocessor that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Pair<Pre, Post>(pub Pre, pub Post);

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(tasks) => f.debug_tuple("Run").field(tasks).finish(),
            Self::Case(tasks, _) => f.debug_tuple("Case").field(tasks).finish_non_exhaustive(),
            Self::Filtered { detail, .. } => f.debug_tuple("Filtered").field(detail).finish(),
        }
    }
}

impl<Pre: Preprocessor, Post: Send + Sync> Preprocessor for Pair<Pre, Post> {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        self.0.preprocess(payload)
    }

    fn task(&self, payload: &Value) -> Option<String> {
        self.0.task(payload)
    }

    fn is_quick(&self, payload: &Value) -> bool {
        self.0.is_quick(payload)
    }
}

impl<Pre: Send + Sync, Post: Postprocessor> Postprocessor for Pair<Pre, Post> {
    fn postprocess(&self, payload: &Value, executions: &[ExecutionResult]) -> Judgement {
        self.1.postprocess(payload, executions)
    }
}
