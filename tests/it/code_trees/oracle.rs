//! Whoever is asked what cannot be known without an interpreter: here, a CPython beside the test.

use std::sync::Mutex;

use evalmill::code_trees::{
    OracleError, SourceOracle, TreeError, ask_convert_call_to_assert, ask_is_valid_python, normalize,
};
use futures::future::{BoxFuture, FutureExt as _, ready};
use serde_json::{Value, json};

use super::python::Python;

/// CPython, and what it was asked.
struct Interpreter(Mutex<(Python, Vec<Value>)>);

impl Interpreter {
    fn ask(&self, request: Value) -> Value {
        let mut inner = self.0.lock().unwrap();
        inner.1.push(request.clone());
        inner.0.ask(&[request]).remove(0)
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }
}

impl SourceOracle for Interpreter {
    fn is_valid<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<bool, OracleError>> {
        let answer = self.ask(json!({"op": "valid", "code": code}));
        ready(Ok(answer["compiles"] == true)).boxed()
    }

    fn normalize<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<Option<String>, OracleError>> {
        let answer = self.ask(json!({"op": "normalize", "code": code}));
        ready(Ok(answer.as_str().map(str::to_owned))).boxed()
    }

    fn convert_call_to_assert<'a>(
        &'a self,
        call: &'a str,
        expected: &'a str,
        float: bool,
    ) -> BoxFuture<'a, Result<Option<String>, OracleError>> {
        let answer = self.ask(json!({"op": "convert", "call": call, "expected": expected, "float": float}));
        ready(Ok(answer.as_str().map(str::to_owned))).boxed()
    }
}

#[tokio::test]
async fn only_what_is_unknown_is_asked() {
    let oracle = Interpreter(Mutex::new((Python::start(), Vec::new())));
    assert!(ask_is_valid_python("print(1)", &oracle).await.unwrap());
    assert!(!ask_is_valid_python("print(1", &oracle).await.unwrap());
    assert_eq!(oracle.asked(), 0);
    assert!(!ask_is_valid_python("return 1", &oracle).await.unwrap());
    assert!(ask_is_valid_python("def f():\n global x\n x = 1", &oracle).await.unwrap());
    assert_eq!(oracle.asked(), 2);
    assert_eq!(normalize("x   = (1)  # one", &oracle).await.unwrap().as_deref(), Some("x = 1"));
    assert_eq!(normalize("x = (", &oracle).await.unwrap(), None);
    assert_eq!(oracle.asked(), 3);
    let known = ask_convert_call_to_assert("f(1)", "2", false, &oracle).await.unwrap();
    assert_eq!(known.as_deref(), Ok("assert f(1) == 2"));
    assert_eq!(oracle.asked(), 3);
    let unknown =
        ask_convert_call_to_assert("f('\\N{DASH}')", "'\\N{HYPHEN}'", false, &oracle).await.unwrap();
    assert!(matches!(unknown, Err(TreeError::Unknown { .. })), "there is no such character: {unknown:?}");
    let asked = ask_convert_call_to_assert("f('\\N{BACKSPACE}')", "1", true, &oracle).await.unwrap();
    assert_eq!(asked.as_deref(), Ok("assert abs(f('\\x08') - 1) < 1e-06"));
    assert_eq!(oracle.asked(), 5);
}
