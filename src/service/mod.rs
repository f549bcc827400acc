//! From a source to a sink: intake, what is in flight, outlet, settlement, drain.
//!
//! One loop owns source and sink. Each delivery is processed by one tracked task and comes back to
//! the loop, which delivers its result and only then settles it. What is unsettled is bounded in
//! count and bytes, however long the input is: at the bound, the loop takes nothing new.

mod flow;
mod in_flight;
mod order;
mod outgoing;
mod settlement;
mod task;

pub use flow::{DoneAlready, Flow, FlowEnd, FlowError, FlowSettings, Settled, run};
pub use order::InOrder;
pub use settlement::{Disposition, RetryRule, dispose, parked_key, result_key, run_key, timings_key};
