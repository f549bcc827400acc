//! `mbpp`: rows of MBPP as published, full or sanitized, with a completion.
//!
//! ```json
//! {"task_id": 2, "text": "Write a function to find the shared elements of two tuples.",
//!  "test_list": ["assert similar((3, 4), (4, 5)) == (4,)"], "test_setup_code": "", "challenge_test_list": [],
//!  "completion": "def similar(a, b):\n    return tuple(set(a) & set(b))\n"}
//! ```
//!
//! `code`, the published solution, stands in for an absent `completion`. `test_imports` and `test_setup_code` are run before
//! the solution. The tests are those of `test_list`, with `"challenge": true` also those of `challenge_test_list`; `text` and `prompt` are not
//! used. Everything else, `test_timeout` and `isolation` among it, is as in [`python_tests`](super::PythonTests), and so is the
//! `output`. The task is `MBPP/<task_id>` where `task_id` is a number.

use serde_json::Value;

use super::python::{Row, TestCase};
use super::python_tests::QUICK_TESTS;
use super::{Prepared, Preprocessor, Unusable};

/// The preprocessor for MBPP; each prediction is a case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mbpp;

impl Preprocessor for Mbpp {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        TestCase::prepared(&Row(payload).mbpp()?, false)
    }

    fn task(&self, payload: &Value) -> Option<String> {
        match payload.get("task_id")? {
            Value::String(task) => Some(task.clone()),
            Value::Number(number) => Some(format!("MBPP/{number}")),
            _ => None,
        }
    }

    fn is_quick(&self, payload: &Value) -> bool {
        let count = |field| payload.get(field).and_then(Value::as_array).map_or(0, Vec::len);
        count("test_list") + count("challenge_test_list") <= QUICK_TESTS
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!(11), Some("MBPP/11"))]
    #[case(json!("Mbpp/11"), Some("Mbpp/11"))]
    #[case(json!(null), None)]
    fn tasks(#[case] task_id: Value, #[case] task: Option<&str>) {
        assert_eq!(Mbpp.task(&json!({"task_id": task_id})).as_deref(), task);
    }

    #[test]
    fn a_row_without_tests_says_so() {
        let error = Mbpp.preprocess(&json!({"code": ""})).err().unwrap().to_string();
        assert!(error.contains("test_list is missing"), "{error}");
    }
}
