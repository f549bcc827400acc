//! One executable in a leased box, command by command.
//!
//! Everything that is expected of a program stays on this side: early stop, the repetition of a
//! command, and the postprocessors of standard output are decided here, after each command, and
//! never enter the worker. What a program does is data; a failure of ours is retried and then
//! reported as [`ExecutionResult::infra_error`](crate::model::ExecutionResult), never as a wrong
//! answer.

mod execute;
mod outcome;
mod rate;
mod rules;

pub use execute::{Execute, Executed, ExecutorSettings, Job, PoolExecutor};
pub use rate::StartRate;
pub use rules::Rules;
