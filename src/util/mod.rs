//! Small helpers that know nothing of the rest of the package.

pub mod ceiling;
mod human;
pub mod natural;
mod parallel;
mod python;
pub mod retry;
mod time_limit;

pub use human::{get_pred_dir, seconds_to_human, sizeof_fmt};
pub use parallel::{
    Parallel, ParallelError, Processed, get_results_from_generator, parallel_map, wrap_processor,
};
pub use python::{UnknownModule, get_mem_limit_code, get_module_and_call};
pub use time_limit::{ContextTimeLimitException, TimeoutContext, time_limit, timeout_decorator};
