//! `python_coverage`: the tests of `python_tests`, and which lines of the solution they reach.
//!
//! ```json
//! {"code": "def sign(x):\n    if x < 0:\n        return -1\n    return 1\n",
//!  "tests": ["assert sign(3) == 1"]}
//! ```
//!
//! The same fields as in [`python_tests`](super::PythonTests). To its `output` come `percent_covered` and `missing_lines`, from
//! the file `coverage.json` that the package `coverage` writes in the box, for the solution's file alone; both are null where there
//! is no such file, as for a solution that does not load. Lines that only a test reached which did not end by itself do not count.
//!
//! The interpreter in the box needs the package `coverage`: without it the verdict is `infra_error`. The verdict is that of
//! the tests; the figures are measured in the processes that run the solution, so it can falsify them, and coverage's own tracing
//! is in force in the tests.

use serde_json::Value;

use super::python::{Row, TestCase};
use super::{Prepared, Preprocessor, PythonTests, Unusable};

/// The preprocessor for solutions whose coverage is measured; each prediction is a case.
#[derive(Debug, Clone, Copy, Default)]
pub struct PythonCoverage;

impl Preprocessor for PythonCoverage {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        TestCase::prepared(&Row(payload).plan()?, true)
    }

    fn task(&self, payload: &Value) -> Option<String> {
        PythonTests.task(payload)
    }
}
