//! `python_tests`: Python code and a list of tests, each with an outcome of its own.
//!
//! ```json
//! {"code": "def add(a, b):\n    return a + b\n",
//!  "tests": ["assert add(1, 2) == 3", ["add(2, 2)", "4"], ["add(0.1, 0.2)", "0.3", true],
//!            {"name": "text", "call": "add('a', 'b')", "output": "'ab'"}],
//!  "imports": ["import math"], "entry_point": "add", "test_timeout": 1.0}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `code` | the solution; `completion` or `solution` stand in for it |
//! | `tests` | each of them statements (text, or `{"test": …}`) that raise where they fail, or a call and the expression that its value must equal: `[call, output]`, `[call, output, requires_float]` (with `true`, a difference below 10⁻⁶ is none), or an object with `call`, `output`, `requires_float`. Objects may have a `name`. A call may have statements before it; where it is an `assert`, that stays as it is |
//! | `imports` | lines, or a text; run before the solution, in its namespace |
//! | `entry_point` | what the solution has to define; tests may call it `candidate`, too |
//! | `test_timeout` | seconds for each test. Without it, and for loading, there is only `timeout`, the limit of the whole |
//! | `early_stop` | `true`: what follows the first test that does not pass is not run |
//! | `isolation` | `"test"` or `"process"`, see below |
//! | `entry_file`, `files` | the solution's file (`solution.py`), and others beside it |
//!
//! The solution is loaded once, as the module that its file is called after; each test then runs in its namespace, in
//! a process of its own, forked from there. So no test sees what another has done, and what one does to its process
//! is its own loss. A solution that starts threads while it is loaded has none of them in the tests.
//!
//! `output` of the result: `outcome` of the whole (`passed`, `failed`, `timed_out`, `compile_error`; where the report is not as
//! the runner writes it, `missing_info`, `duplicate_tests`, `unknown_tests`), `share_passed`, `num_passed`, `num_tests`, the
//! `runtime` and `max_rss_bytes` of the tests, `load`, and for each of the `tests` its `outcome`: `passed`, `failed`,
//! `exception` (with its type and message), `timed_out`, `exited` (its process ended before it did), `memory_exceeded` or
//! `output_exceeded` (with which all of it ended), `not_run`. The verdict is `passed` where all tests are. What is no
//! Python among tests and expected values makes the prediction `invalid`; what is not certain without an interpreter, the
//! one in the box decides before any test is run.
//!
//! # What an outcome can be trusted with
//! The solution's code is never in the process that judges, and no test is in a process or a file that it can read
//! while it is loaded. Outcomes leave the box over a descriptor that it does not have, so what it prints, closes, patches or
//! exits with passes no test. Python's own builtins, and no tracing, are in force when a test begins, and `assert` is compiled as
//! such whatever the flags of the interpreter.
//!
//! With `isolation = "test"` a test shares its process with what it tests. An object that equals everything then
//! passes, as does a name of the solution's that hides one of Python's; and code that looks through
//! the frames and descriptors of its own process on purpose can sign an outcome. With `"process"` the value of a call is sent to the
//! judge as plain data (`None`, numbers, text, bytes, lists, tuples, sets and dicts of those; what derives from them, and numpy's arrays and
//! numbers, count as what they hold) and compared there, with an expected value that is nowhere else. A value that is something
//! else fails, an expected one is `invalid`. A lone `assert call == expected` counts as a call where the expected value is
//! plain without the solution; other statements run as they are: a test that is to be withstood is a
//! call. In the tier `none` nothing keeps code from the memory of other processes.

use serde_json::Value;

use super::python::{Row, TestCase};
use super::{Prepared, Preprocessor, Unusable};

/// The preprocessor for solutions and their tests; each prediction is a case.
#[derive(Debug, Clone, Copy, Default)]
pub struct PythonTests;

/// Most tests that are looked at on the runtime: each takes some microseconds.
pub(super) const QUICK_TESTS: usize = 8;

impl Preprocessor for PythonTests {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        TestCase::prepared(&Row(payload).plan()?, false)
    }

    fn task(&self, payload: &Value) -> Option<String> {
        payload.get("task_id").and_then(Value::as_str).map(str::to_owned)
    }

    fn is_quick(&self, payload: &Value) -> bool {
        let tests = payload.get("tests").or_else(|| payload.get("test_cases"));
        tests.and_then(Value::as_array).is_none_or(|tests| tests.len() <= QUICK_TESTS)
    }
}
