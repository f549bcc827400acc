//! Counts and times of many results, and metrics over them.
//!
//! [`Summary`] and [`Window`] take the results of a run as they come, in memory that does not grow with
//! them; [`Aggregate`] takes results that are there already, each once, and keeps some 100 bytes for each
//! and for each task.

mod aggregate;
mod bootstrap;
mod once;
mod pass_at_k;
mod question;
mod samples;
mod stages;
mod summary;
mod window;

pub use aggregate::{Aggregate, AggregateOptions, LeftOut, ResultsReport, RunRow, Tally, TaskRow};
pub use bootstrap::Bootstrap;
pub use once::{Arrival, Once};
pub use pass_at_k::pass_at_k;
pub use question::{
    QuestionError, QuestionMetric, QuestionPrediction, calc_question_metric, naive_process_result,
};
pub use samples::{Interval, PassAtK};
pub use summary::{RunReport, Summary};
pub use window::Window;
