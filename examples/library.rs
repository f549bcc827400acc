//! evalmill as a library: a processor of your own as two closures, and hooks for each executable.
//!
//! ```text
//! cargo run --example library
//! ```
//! Every prediction is a small Python program that is run once for each test, as standard input and
//! the output that is expected. One closure prepares that, one stops after the first test that goes
//! wrong, one trims what was printed, and the last one judges. What is expected stays in this process.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use evalmill::api::OverallExecutionResults;
use evalmill::config::Settings;
use evalmill::model::{BoxPath, Command, CommandResult, Executable, ExecutionResult, Stdin};
use evalmill::processors::{Hooks, Judgement, Prepared, Task, Unusable};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    // First of all, before any thread exists: worker processes start here, too.
    evalmill::init();

    let mut settings = Settings::default();
    settings.limits.default_timeout = 2.0;

    let preprocessor = |payload: &Value| {
        let program = payload["program"].as_str().ok_or(Unusable("program is not a text".to_owned()))?;
        let main = BoxPath::new("main.py").map_err(|error| Unusable(error.to_string()))?;
        let (inputs, expected): (Vec<_>, Vec<_>) = tests(payload)?.into_iter().unzip();
        let commands = inputs
            .into_iter()
            .map(|input| Command { stdin: Stdin::Text(input), ..Command::new(["python3", "main.py"]) })
            .collect();
        let executable = Executable::new(BTreeMap::from([(main, program.into())]), commands);
        let hooks = Hooks {
            early_stop: Some(Arc::new(move |command: usize, result: &CommandResult| {
                result.had_error || expected.get(command) != Some(&result.stdout)
            })),
            stdout: Some(Arc::new(|stdout: String| stdout.trim().to_owned())),
        };
        Ok(Prepared::Run(vec![Task { executable, hooks }]))
    };

    let postprocessor = |payload: &Value, executions: &[ExecutionResult]| {
        let tests = tests(payload).unwrap_or_default();
        let right = executions
            .iter()
            .flat_map(|execution| &execution.command_results)
            .zip(&tests)
            .filter(|(command, (_, expected))| !command.had_error && command.stdout == *expected)
            .count();
        let mut judgement = Judgement { passed: right == tests.len(), ..Judgement::default() };
        judgement.output.insert("tests_passed".to_owned(), json!(right));
        judgement
    };

    // Where there is no runtime.
    let overall =
        evalmill::execute_predictions_blocking(settings.clone(), predictions(), preprocessor, postprocessor)?;
    print_table("blocking", &overall);

    // Where there is one.
    let runtime = tokio::runtime::Runtime::new()?;
    let overall = runtime.block_on(async {
        evalmill::execute_predictions(settings, predictions(), preprocessor, postprocessor).await
    })?;
    print_table("async", &overall);
    Ok(())
}

/// Programs that should print the double of a number.
fn predictions() -> Vec<Value> {
    let tests = json!([["1", "2"], ["21", "42"], ["-4", "-8"]]);
    vec![
        json!({"id": "right", "tests": tests, "program": "print(2 * int(input()))"}),
        json!({"id": "wrong", "tests": tests, "program": "print(1 + int(input()))"}),
        json!({"id": "crash", "tests": tests, "program": "raise SystemExit(1)"}),
        json!({"id": "endless", "tests": tests, "program": "while True: pass"}),
        json!({"id": "unusable", "tests": tests}),
    ]
}

/// Input and expected output of each test.
fn tests(payload: &Value) -> Result<Vec<(String, String)>, Unusable> {
    serde_json::from_value(payload["tests"].clone())
        .map_err(|error| Unusable(format!("tests is not a list of pairs of texts: {error}")))
}

fn print_table(title: &str, overall: &OverallExecutionResults) {
    println!("{title}");
    println!("  {:<10} {:<10} {:>12} {:>8}  detail", "id", "verdict", "tests passed", "commands");
    for result in &overall.results {
        let commands: usize = result.executions.iter().map(|one| one.command_results.len()).sum();
        println!(
            "  {:<10} {:<10} {:>12} {commands:>8}  {}",
            result.id,
            result.verdict.as_str(),
            result.output.get("tests_passed").map_or("-".to_owned(), Value::to_string),
            result.detail.as_deref().unwrap_or(""),
        );
    }
}
