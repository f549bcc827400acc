//! What preprocessing for `python_tests` takes: 10,000 predictions with 20 tests each, on one core.

use std::hint::black_box;
use std::time::Instant;

use evalmill::processors::{Preprocessor, PythonTests};
use serde_json::{Value, json};

const PREDICTIONS: u32 = 10_000;
const TESTS: u32 = 20;

/// Asserts, calls and statements, none of which stands in another prediction.
fn prediction(number: u32) -> Value {
    let tests = (0..TESTS).map(|test| {
        let (a, b) = (number + test, test * 7);
        match test % 4 {
            0 => json!(format!("assert add({a}, {b}) == {}", a + b)),
            1 => json!([format!("add({a}, {b})"), (a + b).to_string()]),
            2 => json!([format!("add({a}.5, {b})"), format!("{}.5", a + b), true]),
            _ => json!(format!(
                "values = [({a}, {b}), (0, 1)]\nassert [add(*v) for v in values] == [{}, 1]",
                a + b
            )),
        }
    });
    let tests: Vec<_> = tests.collect();
    json!({"code": "def add(a, b):\n    return a + b\n", "tests": tests, "imports": ["import math"]})
}

fn main() {
    // `cargo test --benches` only wants to see that it works.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let count = if is_measured { PREDICTIONS } else { 10 };
    let predictions: Vec<_> = (0..count).map(prediction).collect();
    let started = Instant::now();
    for prediction in &predictions {
        black_box(PythonTests.preprocess(prediction).unwrap_or_else(|error| panic!("{error}")));
    }
    let elapsed = started.elapsed();
    println!(
        "{count} predictions of {TESTS} tests: {:.3} s, {:.1} µs each",
        elapsed.as_secs_f64(),
        elapsed.as_secs_f64() * 1e6 / f64::from(count)
    );
}
