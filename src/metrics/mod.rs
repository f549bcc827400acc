//! Counts and times of many results, in memory that does not grow with them.

mod pass_at_k;
mod stages;
mod summary;
mod window;

pub use pass_at_k::pass_at_k;
pub use summary::{RunReport, Summary};
pub use window::Window;
