//! The library: an engine to embed, and the calls that carry the reference's names.
//!
//! ```no_run
//! use evalmill::model::{Command, Executable};
//! use evalmill::processors::{Judgement, Prepared};
//! use serde_json::json;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     evalmill::init(); // first of all: worker processes start here, too
//!     let overall = evalmill::execute_predictions_blocking(
//!         evalmill::config::Settings::default(),
//!         vec![json!({"say": "hello"})],
//!         |payload: &serde_json::Value| {
//!             let say = payload["say"].as_str().unwrap_or_default();
//!             let run = Executable::new(Default::default(), vec![Command::new(["echo", say])]);
//!             Ok(Prepared::Run(vec![run.into()]))
//!         },
//!         |_: &serde_json::Value, executions: &[evalmill::model::ExecutionResult]| Judgement {
//!             passed: executions[0].command_results[0].stdout == "hello\n",
//!             ..Judgement::default()
//!         },
//!     )?;
//!     assert!(overall.results[0].passed);
//!     Ok(())
//! }
//! ```

mod bench;
mod checkpoint;
mod client;
mod collect;
mod doctor;
mod engine;
mod execute;
mod ledger;
mod networks;
mod parallel;
mod programs;
mod publish;
mod results;
mod rows;
mod serve;
pub mod steps;

pub use bench::{BrokerBench, bench_broker};
pub use checkpoint::{Checkpoint, CheckpointError, Snapshot};
pub use client::broker;
pub use collect::{CollectEnd, CollectError, Collecting, Until, collect};
pub use doctor::{Check, DoctorError, Interpreter, Next, Outcome, Report, Required, Toolchain, doctor};
pub use engine::{Engine, EngineError, EngineOptions, RUN_REQUIRES, SERVE_REQUIRES};
pub use execute::{
    ApiError, ExecuteOptions, OverallExecutionResults, execute_predictions, execute_predictions_blocking,
    execute_predictions_with,
};
pub use ledger::{Ledger, Taken, read_ids};
pub use parallel::{ParallelOptions, run_in_parallel};
pub use publish::{PublishError, PublishEvent, PublishOptions, Published, publish};
pub use results::{Reading, ResultsError, aggregate_results};
pub use rows::{Row, frame};
pub use serve::{ServeError, serve};
