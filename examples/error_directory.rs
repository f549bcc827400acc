//! What could not be run for reasons of ours, here a preprocessor with a defect, is kept with its prediction;
//! all others have their results.
//!
//! ```text
//! cargo run --example error_directory
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use evalmill::api::ExecuteOptions;
use evalmill::api::steps::{ExecutionConfig, default_postprocessor};
use evalmill::model::{Command, Executable};
use evalmill::processors::Prepared;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    let preprocessor = |prediction: &Value| {
        let words: Vec<_> = prediction["say"].as_str().expect("say is a text").split(' ').collect();
        let command = Command::new([["echo"].as_slice(), &words].concat());
        Ok(Prepared::Run(vec![Executable::new(BTreeMap::new(), vec![command]).into()]))
    };
    let dir = tempfile::tempdir()?;
    let options =
        ExecuteOptions { error_directory: Some(dir.path().to_owned()), ..ExecuteOptions::default() };
    let predictions = vec![json!({"say": "one"}), json!({"say": 2}), json!({"say": "three"})];
    let runtime = tokio::runtime::Runtime::new()?;
    let settings = ExecutionConfig::new(1).settings()?;
    let call = evalmill::api::execute_predictions_with(
        settings,
        predictions,
        preprocessor,
        default_postprocessor,
        options,
    );
    for result in runtime.block_on(call)?.results {
        println!("{}", result.verdict.as_str());
    }
    for line in std::fs::read_to_string(dir.path().join("errors.jsonl"))?.lines() {
        let error: Value = serde_json::from_str(line)?;
        println!("kept: {} {}", error["prediction"], error["error"]);
    }
    Ok(())
}
