//! Python solutions and their tests: what `python_tests`, `python_coverage` and `mbpp` have in common.
//!
//! A [`Plan`] is what a row asks for; a [`TestCase`] concludes from what the runner (`runner/`, Python) reports. The
//! runner's processes:
//!
//! ```text
//! judge    the command: reads the tests from standard input, keeps the time, reports on descriptor 3
//! └─ loader   forked before that: loads the solution, and then forks
//!    ├─ test     one process for each test, which is sent it with a nonce
//!    └─ test
//! ```
//!
//! The solution's code runs in the last two kinds only, and they have neither standard input nor descriptor 3.

mod outcome;
mod plan;

pub(super) use outcome::TestCase;
pub(super) use plan::{Plan, Row};
