//! Predictions that are not worth running are set aside by the preprocessor, and are back in their place in the end.
//!
//! ```text
//! cargo run --example filtered
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use evalmill::api::steps::{ExecutionConfig, default_postprocessor};
use evalmill::model::{BoxPath, Command, Executable, ExecutionResult};
use evalmill::processors::{Prepared, Unusable};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    let preprocessor = |prediction: &Value| {
        let code = prediction["code"].as_str().ok_or(Unusable("code is not a text".to_owned()))?;
        if !code.contains("def ") {
            let detail = Some("there is no function in it".to_owned());
            return Ok(Prepared::Filtered {
                detail,
                output: ExecutionResult::invalid_result("", 1).to_dict(false),
            });
        }
        let path = BoxPath::new("main.py").map_err(|error| Unusable(error.to_string()))?;
        let files = BTreeMap::from([(path, code.into())]);
        let executable = Executable::new(files, vec![Command::new(["python3", "main.py"])]);
        Ok(Prepared::Run(vec![executable.into()]))
    };
    let predictions = vec![
        json!({"id": 1, "code": "I am sorry, I cannot do that."}),
        json!({"id": 2, "code": "def f(): return 2\nprint(f())"}),
        json!({"id": 3}),
    ];
    let settings = ExecutionConfig::new(1).settings()?;
    let overall =
        evalmill::execute_predictions_blocking(settings, predictions, preprocessor, default_postprocessor)?;
    for result in &overall.results {
        let detail = result.detail.as_deref().unwrap_or("");
        let stdout = result.output.get("stdout").unwrap_or(&Value::Null);
        println!("{} {} {stdout} {detail}", result.id, result.verdict.as_str());
    }
    Ok(())
}
