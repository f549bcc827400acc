//! The tests of a `function_tests` row.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Call, CallSettings, EXACT, Expected, Rule};
use crate::processors::fields::{code, flag, list, seconds, shown, text, tolerances, wrong};
use crate::processors::{Tolerance, Unusable};

/// How far numbers may differ where a test says that they may.
const FLOAT: Tolerance = Tolerance { absolute: 1e-6, relative: 0.0, ignore_case: false };

const RULE: &str = "an object with call (or args) and expected (or expected_code), or a list of call, expected expression and whether floats may differ";

/// What all tests of a row share.
struct Shared<'a> {
    entry_point: Option<&'a str>,
    setup: &'a str,
    inside: bool,
    tolerance: Tolerance,
}

/// Program, calls, and how they are run.
pub(super) fn read(payload: &Value) -> Result<(&str, Vec<Call>, CallSettings), Unusable> {
    let shared = Shared {
        entry_point: text(payload, "entry_point")?,
        setup: text(payload, "setup")?.unwrap_or_default(),
        inside: match text(payload, "compare")? {
            None | Some("outside") => false,
            Some("inside") => true,
            Some(other) => return Err(wrong("compare", &other.into(), "\"outside\" or \"inside\"")),
        },
        tolerance: tolerances(payload, EXACT)?,
    };
    let tests = list(payload, "tests")?
        .ok_or_else(|| Unusable(format!("tests is missing: it must be a list; each test is {RULE}")))?;
    if tests.is_empty() {
        return Err(Unusable("tests holds no test: there must be at least one".to_owned()));
    }
    let mut calls: Vec<Call> = Vec::with_capacity(tests.len());
    let mut names = HashMap::new();
    for (index, test) in tests.iter().enumerate() {
        let call = match test {
            Value::Object(_) => object(test, &shared),
            Value::Array(parts) => tuple(parts, &shared),
            _ => Err(Unusable(format!("it is {}: it must be {RULE}", shown(test)))),
        };
        let call = call.map_err(|error| Unusable(format!("tests[{index}]: {error}")))?;
        if let Some(other) = call.name.clone().and_then(|name| names.insert(name, index)) {
            let name = shown(&test["name"]);
            return Err(Unusable(format!(
                "tests[{index}].name is {name}: tests[{other}] has this name already"
            )));
        }
        calls.push(call);
    }
    let settings = CallSettings {
        setup: shared.setup.to_owned(),
        timeout: seconds(payload, "timeout")?,
        stop_at_first_failure: flag(payload, "stop_at_first_failure")?.unwrap_or(true),
    };
    Ok((code(payload)?, calls, settings))
}

fn object(test: &Value, shared: &Shared<'_>) -> Result<Call, Unusable> {
    let source = text(test, "call")?;
    let mut task = json!({"setup": shared.setup});
    match (source, list(test, "args")?) {
        (Some(source), None) => task["call"] = json!(source),
        (None, Some(arguments)) => {
            let function = shared.entry_point.ok_or_else(|| {
                Unusable("args is there and entry_point is missing: it must name the function".to_owned())
            })?;
            task["function"] = json!(function);
            task["arguments"] = json!(arguments);
        }
        _ => return Err(Unusable("there must be either call or args".to_owned())),
    }
    // Null is a value like any other.
    let expected = match (test.get("expected"), text(test, "expected_code")?) {
        (Some(value), None) => Expected::json(&value.to_string(), Rule::Plain),
        (None, Some(code)) => Expected::Code(code.to_owned()),
        _ => return Err(Unusable("there must be either expected or expected_code".to_owned())),
    };
    let name = text(test, "name")?.map(str::to_owned);
    Ok(call(name, source, task, expected, shared.tolerance, shared.inside))
}

/// The form of the reference: call, expected expression, whether floats may differ.
fn tuple(parts: &[Value], shared: &Shared<'_>) -> Result<Call, Unusable> {
    let (source, code, float) = match parts {
        [Value::String(source), Value::String(code)] => (source, code, false),
        [Value::String(source), Value::String(code), Value::Bool(float)] => (source, code, *float),
        _ => return Err(Unusable(format!("it is a list of {}: it must be {RULE}", parts.len()))),
    };
    let task = json!({"setup": shared.setup, "call": source});
    let tolerance = if float { FLOAT } else { shared.tolerance };
    Ok(call(None, Some(source), task, Expected::Code(code.clone()), tolerance, shared.inside))
}

fn call(
    name: Option<String>,
    source: Option<&str>,
    mut task: Value,
    expected: Expected,
    tolerance: Tolerance,
    inside: bool,
) -> Call {
    let expected = match (inside, expected) {
        (false, expected) => expected,
        (true, Expected::Code(code)) => {
            task["inside"] = json!(code);
            Expected::Inside
        }
        (true, Expected::Json { text, .. }) => {
            task["inside"] = json!(format!("__import__('json').loads({})", Value::from(text)));
            Expected::Inside
        }
        (true, Expected::Inside) => Expected::Inside,
    };
    let source = source.map(str::to_owned);
    Call { name, task: task.to_string(), source, expected, tolerance }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn row(test: Value) -> Value {
        json!({"code": "", "tests": [test]})
    }

    #[rstest]
    #[case(json!({"code": ""}), "tests is missing: it must be a list")]
    #[case(json!({"code": "", "tests": "x"}), "tests is \"x\": it must be a list")]
    #[case(json!({"code": "", "tests": []}), "tests holds no test")]
    #[case(json!({"tests": [["f()", "1"]]}), "the program is missing")]
    #[case(row(json!(3)), "tests[0]: it is 3: it must be an object with call")]
    #[case(row(json!(["f()"])), "tests[0]: it is a list of 1: it must be")]
    #[case(row(json!(["f()", 1])), "tests[0]: it is a list of 2: it must be")]
    #[case(row(json!({"call": "f()"})), "tests[0]: there must be either expected or expected_code")]
    #[case(row(json!({"call": "f()", "expected": 1, "expected_code": "1"})), "either expected or expected_code")]
    #[case(row(json!({"call": 1, "expected": 1})), "tests[0]: call is 1: it must be a string")]
    #[case(row(json!({"expected": 1})), "tests[0]: there must be either call or args")]
    #[case(row(json!({"args": [1], "expected": 1})), "entry_point is missing")]
    #[case(row(json!({"args": 1, "expected": 1})), "tests[0]: args is 1: it must be a list")]
    #[case(
        json!({"code": "", "tests": [{"name": "a", "call": "f()", "expected": 1}, {"name": "a", "call": "f()", "expected": 1}]}),
        "tests[1].name is \"a\": tests[0] has this name already"
    )]
    #[case(json!({"code": "", "compare": "x", "tests": [["f()", "1"]]}), "compare is \"x\": it must be")]
    #[case(json!({"code": "", "timeout": 0, "tests": [["f()", "1"]]}), "timeout: 0 is no time limit")]
    fn unusable(#[case] payload: Value, #[case] says: &str) {
        let error = read(&payload).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn the_forms_of_a_test() {
        let payload = json!({
            "code": "",
            "entry_point": "f",
            "tests": [
                {"call": "f(1)", "expected": null},
                {"args": [1], "expected_code": "(1,)"},
                ["f(1)", "0.5", true],
            ],
        });
        let (_, calls, settings) = read(&payload).unwrap();
        assert_eq!(calls[0].expected, Expected::json("null", Rule::Plain));
        assert_eq!(
            (calls[1].source.as_deref(), &calls[1].expected),
            (None, &Expected::Code("(1,)".to_owned()))
        );
        assert_eq!(calls[2].tolerance, FLOAT);
        assert!(settings.stop_at_first_failure);
    }

    #[test]
    fn what_is_compared_inside_is_said_to_the_program() {
        let payload = json!({"code": "", "compare": "inside", "tests": [["f()", "X"]]});
        let (_, calls, _) = read(&payload).unwrap();
        assert_eq!(calls[0].expected, Expected::Inside);
        assert!(calls[0].task.contains("\"inside\":\"X\""), "{}", calls[0].task);
        let (_, calls, _) = read(&json!({"code": "", "tests": [["f()", "X"]]})).unwrap();
        assert!(!calls[0].task.contains('X'), "what is expected stays outside");
    }
}
