//! What `execute_predictions` does in one call, step by step; and directories of one's own.
//!
//! ```text
//! cargo run --example steps
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use evalmill::api::steps::{
    CommandsToRun, ExecutionConfig, FilesToWrite, PredTimingsCollection, batched_execute_code, cleanup,
    default_postprocessor, execute_commands, postprocess_commands, preprocess_commands, safe_execute,
    write_executables,
};
use evalmill::api::{Engine, EngineOptions};
use evalmill::model::{BoxPath, Command, Executable};
use evalmill::pipeline::Framing;
use evalmill::processors::{Prepared, Registry, Unusable};
use evalmill::util::get_pred_dir;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    evalmill::init();
    tokio::runtime::Runtime::new()?.block_on(steps())
}

async fn steps() -> Result<(), Box<dyn Error>> {
    let settings = ExecutionConfig { default_timeout: 5.0, ..ExecutionConfig::new(2) }.settings()?;
    let options = EngineOptions::new(Framing::Message);
    let engine = Engine::start_with(&settings, options, Registry::default()).await?;

    // From predictions to what is said of them.
    let preprocessor = |prediction: &Value| {
        let word = prediction["say"].as_str().ok_or(Unusable("say is not a text".to_owned()))?;
        Ok(Prepared::Run(vec![Executable::new(BTreeMap::new(), vec![Command::new(["echo", word])]).into()]))
    };
    let predictions = [json!({"say": "one"}), json!({"say": 2}), json!({"say": "three"})];
    let mut preprocessed = preprocess_commands(&predictions, &preprocessor);
    let executed = execute_commands(&engine, std::mem::take(&mut preprocessed.to_run)).await?;
    let results = executed.results.into_iter().collect();
    let timings = PredTimingsCollection::default();
    for said in postprocess_commands(&predictions, &preprocessed, &results, &default_postprocessor, &timings)
    {
        println!("{} {}", said["passed"], said.get("stdout").unwrap_or(&said["detail"]));
    }

    // Directories: written, run, removed.
    let scratch = tempfile::tempdir()?;
    let file = |text: &str| BoxPath::new("main.py").map(|path| BTreeMap::from([(path, text.into())]));
    let mut executables = Vec::new();
    for (index, text) in (0..).zip(["print('a')", "open('kept.txt', 'w').write('b')"]) {
        executables.push(FilesToWrite { dir: get_pred_dir(index, scratch.path()), files: file(text)? });
    }
    write_executables(&executables, 768).await?;
    let to_run = executables.iter().enumerate().map(|(index, executable)| {
        let command = Command::new(["python3", "main.py"]);
        let kept = BoxPath::new("kept.txt")?;
        let sample =
            CommandsToRun { tracked_files: vec![kept], ..CommandsToRun::new(&executable.dir, vec![command]) };
        Ok(((index, 0), sample))
    });
    let to_run = to_run.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    for (key, result) in batched_execute_code(&engine, to_run).await? {
        let kept = result.tracked_files.values().flatten().map(|content| String::from_utf8_lossy(&content.0));
        println!("{key:?} {:?} {:?}", result[0].stdout, kept.collect::<Vec<_>>());
    }
    // What commands write stays in their box.
    println!("left: {}", std::fs::read_dir(&executables[1].dir)?.count());
    cleanup(&executables, 768).await?;
    println!("left: {}", std::fs::read_dir(scratch.path())?.count());

    // One command, three times.
    let words = ["cat"];
    let cat = safe_execute(&engine, &words, scratch.path(), Some(2.0), 3, Some("hello"), None).await?;
    println!("{} {} times", cat.stdout, cat.runtimes.len());
    engine.shutdown().await;
    Ok(())
}
