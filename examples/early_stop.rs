//! A closure decides after each command whether the remaining ones are left out.
//!
//! ```text
//! cargo run --example early_stop
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use evalmill::api::steps::{ExecutionConfig, default_should_early_stop, early_stop};
use evalmill::model::{Command, CommandResult, Executable, ExecutionResult};
use evalmill::processors::{Hooks, Judgement, Prepared, Task};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    let preprocessor = |prediction: &Value| {
        let words = prediction["words"].as_array().into_iter().flatten();
        let commands = words.map(|word| Command::new(["echo", word.as_str().unwrap_or_default()])).collect();
        let executable = Executable::new(BTreeMap::new(), commands);
        // The default rule, and one word more.
        let rule = |command: usize, result: &CommandResult| {
            default_should_early_stop(command, result, Some(0), true) || result.stdout == "stop\n"
        };
        let hooks = Hooks { early_stop: Some(early_stop(rule)), ..Hooks::default() };
        Ok(Prepared::Run(vec![Task { executable, hooks }]))
    };
    let postprocessor = |_: &Value, executions: &[ExecutionResult]| Judgement {
        passed: executions[0].len() == executions[0].expected_num_commands,
        ..Judgement::default()
    };
    let predictions = vec![json!({"words": ["go", "go", "go"]}), json!({"words": ["go", "stop", "go"]})];
    let settings = ExecutionConfig::new(2).settings()?;
    let overall = evalmill::execute_predictions_blocking(settings, predictions, preprocessor, postprocessor)?;
    for result in &overall.results {
        let execution = &result.executions[0];
        println!("{} of {} commands ran", execution.len(), execution.expected_num_commands);
    }
    Ok(())
}
