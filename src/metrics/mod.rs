//! Counts and times of many results, in memory that does not grow with them.

mod pass_at_k;
mod stages;
mod summary;

pub use pass_at_k::pass_at_k;
pub use summary::{RunReport, Summary};
