//! Files that a program writes come back with its result; one that it does not write is absent.
//!
//! ```text
//! cargo run --example tracked_files
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use evalmill::api::steps::ExecutionConfig;
use evalmill::model::{BoxPath, Command, Executable, ExecutionResult};
use evalmill::processors::{Judgement, Prepared, Unusable};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    let preprocessor = |prediction: &Value| {
        let path = |name: &str| BoxPath::new(name).map_err(|error| Unusable(error.to_string()));
        let code = prediction["code"].as_str().ok_or(Unusable("code is not a text".to_owned()))?;
        let files = BTreeMap::from([(path("main.py")?, code.into())]);
        let mut executable = Executable::new(files, vec![Command::new(["python3", "main.py"])]);
        executable.tracked_files = vec![path("out/answer.json")?, path("absent.txt")?];
        Ok(Prepared::Run(vec![executable.into()]))
    };
    let postprocessor = |_: &Value, executions: &[ExecutionResult]| {
        let mut judgement = Judgement::default();
        for (path, content) in &executions[0].tracked_files {
            let text = content.as_ref().map(|content| String::from_utf8_lossy(&content.0).into_owned());
            judgement.output.insert(path.as_str().to_owned(), json!(text));
        }
        judgement.passed = judgement.output["out/answer.json"] == "[1, 2]";
        judgement
    };
    let code = "import json, os\nos.mkdir('out')\njson.dump([1, 2], open('out/answer.json', 'w'))";
    let overall = evalmill::execute_predictions_blocking(
        ExecutionConfig::new(1).settings()?,
        vec![json!({"code": code})],
        preprocessor,
        postprocessor,
    )?;
    println!("passed: {}", overall.results[0].passed);
    for (path, content) in &overall.results[0].output {
        println!("{path}: {content}");
    }
    Ok(())
}
