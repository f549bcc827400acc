//! A preprocessor may give a list: each executable has a box of its own, and the postprocessor sees them all.
//!
//! ```text
//! cargo run --example many_executables
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use evalmill::api::ExecuteOptions;
use evalmill::api::steps::ExecutionConfig;
use evalmill::model::{Command, Executable, ExecutionResult, Stdin};
use evalmill::processors::{Judgement, Prepared};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    let preprocessor = |prediction: &Value| {
        let inputs = prediction["inputs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let program = prediction["program"].as_str().unwrap_or_default();
        let one = |input: &str| {
            let command =
                Command { stdin: Stdin::Text(input.to_owned()), ..Command::new(["sh", "-c", program]) };
            Executable::new(BTreeMap::new(), vec![command]).into()
        };
        Ok(Prepared::Run(inputs.map(one).collect()))
    };
    let postprocessor = |_: &Value, executions: &[ExecutionResult]| {
        let said: Vec<_> = executions.iter().map(|one| one[0].stdout.trim().to_owned()).collect();
        let mut judgement = Judgement { passed: said == ["2", "2", "2"], ..Judgement::default() };
        judgement.output.insert("said".to_owned(), json!(said));
        judgement
    };
    // `touch` leaves a file: each of the boxes has its own.
    let program = "touch $(cat); ls | wc -l; touch another; exit 0";
    let predictions = vec![json!({"program": format!("touch mark; {program}"), "inputs": ["a", "b", "c"]})];
    let settings = ExecutionConfig::new(2).settings()?;
    let runtime = tokio::runtime::Runtime::new()?;
    for preproc_returns_list in [true, false] {
        let options = ExecuteOptions { preproc_returns_list, ..ExecuteOptions::default() };
        let overall = runtime.block_on(evalmill::api::execute_predictions_with(
            settings.clone(),
            predictions.clone(),
            preprocessor,
            postprocessor,
            options,
        ))?;
        let result = &overall.results[0];
        let said = result.output.get("said").unwrap_or(&Value::Null);
        println!("{}: {said} {}", result.verdict.as_str(), result.detail.as_deref().unwrap_or_default());
    }
    Ok(())
}
