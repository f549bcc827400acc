//! The processors, from a row to its result.

mod functions;
mod gsm8k;
mod languages;
mod stdio;

use serde_json::{Value, json};

use crate::support::{Ran, run};

/// Runs these payloads.
fn judge(preprocessor: &str, payloads: &[Value]) -> Ran {
    let rows: String = payloads.iter().map(|payload| format!("{payload}\n")).collect();
    run(&["--preprocessor", preprocessor], rows.as_bytes())
}

/// The result of one payload.
fn one(preprocessor: &str, payload: &Value) -> Value {
    judge(preprocessor, std::slice::from_ref(payload)).one().clone()
}

/// Verdict and explanation.
fn told(result: &Value) -> (&str, &str) {
    (result["verdict"].as_str().unwrap(), result["detail"].as_str().unwrap_or(""))
}

/// The first JSON block below each heading of `docs/processors.md`.
fn documented() -> Vec<(String, Value)> {
    let text = include_str!("../../docs/processors.md");
    let sections = text.split("\n## ").skip(1);
    let example = |section: &str| {
        let block = section.split("```json\n").nth(1)?.split("```").next()?;
        let name = section.lines().next()?.to_owned();
        Some((name, serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"))))
    };
    sections.filter_map(example).collect()
}

#[test]
fn the_examples_of_the_documentation_pass() {
    let examples = documented();
    for name in [
        "function_tests",
        "gsm8k",
        "mbpp",
        "multi_language",
        "python_coverage",
        "python_tests",
        "stdio_tests",
    ] {
        assert!(examples.iter().any(|(own, _)| own == name), "{name} has no example");
    }
    let rows: String = examples
        .iter()
        .map(|(name, payload)| {
            format!("{}\n", json!({"id": name, "preprocessor": name, "prediction": payload}))
        })
        .collect();
    let ran = run(&[], rows.as_bytes());
    assert_eq!(ran.results.len(), examples.len(), "{}", ran.stderr);
    for result in &ran.results {
        assert_eq!(result["verdict"], "passed", "{result}");
    }
}
