//! Several commands in one box: the first one writes what the second one reads.
//!
//! ```text
//! cargo run --example multiple_commands
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use evalmill::api::steps::{ExecutionConfig, default_postprocessor};
use evalmill::model::{BoxPath, Command, Executable};
use evalmill::processors::{Prepared, Unusable};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    let preprocessor = |prediction: &Value| {
        let path = |name: &str| BoxPath::new(name).map_err(|error| Unusable(error.to_string()));
        let code = prediction["code"].as_str().ok_or(Unusable("code is not a text".to_owned()))?;
        let files = BTreeMap::from([
            (path("setup.py")?, "open('number.txt', 'w').write('41')".into()),
            (path("main.py")?, code.into()),
        ]);
        let commands = vec![Command::new(["python3", "setup.py"]), Command::new(["python3", "main.py"])];
        Ok(Prepared::Run(vec![Executable::new(files, commands).into()]))
    };
    let predictions = vec![
        json!({"id": "reads", "code": "print(int(open('number.txt').read()) + 1)"}),
        json!({"id": "fails", "code": "open('other.txt')"}),
    ];
    let settings = ExecutionConfig::new(2).settings()?;
    let overall =
        evalmill::execute_predictions_blocking(settings, predictions, preprocessor, default_postprocessor)?;
    for output in overall.to_dicts() {
        println!("{}: exit code {}, {}", output["id"], output["return_code"], output["stdout"]);
    }
    Ok(())
}
