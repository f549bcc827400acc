//! Everything that was written into boxes is kept for looking into.
//!
//! ```text
//! cargo run --example debug_directory
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use evalmill::api::ExecuteOptions;
use evalmill::api::steps::{ExecutionConfig, default_postprocessor};
use evalmill::model::{BoxPath, Command, Executable};
use evalmill::processors::{Prepared, Unusable};
use evalmill::util::get_pred_dir;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    let preprocessor = |prediction: &Value| {
        let path = BoxPath::new("main.py").map_err(|error| Unusable(error.to_string()))?;
        let code = prediction["code"].as_str().ok_or(Unusable("code is not a text".to_owned()))?;
        let files = BTreeMap::from([(path, code.into())]);
        let executable = Executable::new(files, vec![Command::new(["python3", "main.py"])]);
        Ok(Prepared::Run(vec![executable.into()]))
    };
    let dir = tempfile::tempdir()?;
    let options = ExecuteOptions { debug_dir: Some(dir.path().to_owned()), ..ExecuteOptions::default() };
    let predictions = vec![json!({"code": "print(1)"}), json!({"code": "print(2)"})];
    let runtime = tokio::runtime::Runtime::new()?;
    let settings = ExecutionConfig::new(1).settings()?;
    let call = evalmill::api::execute_predictions_with(
        settings,
        predictions,
        preprocessor,
        default_postprocessor,
        options,
    );
    runtime.block_on(call)?;
    for index in 0..2 {
        // The executable's number within its prediction stands behind.
        let file = get_pred_dir(index, dir.path()).with_extension("0").join("main.py");
        let name = file.strip_prefix(dir.path())?.display();
        println!("{name}: {}", std::fs::read_to_string(&file)?);
    }
    Ok(())
}
