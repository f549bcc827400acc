//! Small helpers that know nothing of the rest of the package.

pub mod ceiling;
pub mod natural;
pub mod retry;
