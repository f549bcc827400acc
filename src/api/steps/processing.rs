//! Predictions to executables, and results to what is said of them.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::model::ExecutionResult;
use crate::processors::{Judgement, Postprocessor, Prepared, Preprocessor, Task, Unusable};

/// Which executable: the number of its prediction, and its own within that.
pub type ExecutionKey = (usize, usize);

/// What preprocessing came to.
#[derive(Debug, Default)]
pub struct Preprocessed {
    /// To be run.
    pub to_run: Vec<(ExecutionKey, Task)>,
    /// Predictions that are deliberately not run: why, and what goes into their results.
    pub filtered: BTreeMap<usize, (Option<String>, Map<String, Value>)>,
    /// Predictions that cannot be used, and why.
    pub unusable: BTreeMap<usize, Unusable>,
    /// Seconds of preprocessing, of each prediction.
    pub preprocess_time: Vec<f64>,
}

/// Seconds of what is done to a prediction beside running it, in the order of the predictions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PredTimingsCollection {
    /// Preprocessing.
    pub preprocess_time: Vec<f64>,
    /// Writing files.
    pub writing_time: Vec<f64>,
    /// Cleaning up.
    pub cleanup_time: Vec<f64>,
}

/// Has each prediction prepared.
pub fn preprocess_commands(predictions: &[Value], preprocessor: &impl Preprocessor) -> Preprocessed {
    let mut all = Preprocessed::default();
    for (index, prediction) in predictions.iter().enumerate() {
        let started = Instant::now();
        let prepared = preprocessor.preprocess(prediction);
        all.preprocess_time.push(started.elapsed().as_secs_f64());
        match prepared {
            Ok(Prepared::Run(tasks) | Prepared::Case(tasks, _)) => {
                all.to_run.extend((0..).zip(tasks).map(|(sub, task)| ((index, sub), task)));
            }
            Ok(Prepared::Filtered { detail, output }) => {
                all.filtered.insert(index, (detail, output));
            }
            Err(unusable) => {
                all.unusable.insert(index, unusable);
            }
        }
    }
    all
}

/// What is said of each prediction, in their order: what `postprocessor` puts out, with `passed`, `postprocess_time` and, where
/// they are known, the other times. A prediction without results keeps what preprocessing said of it.
pub fn postprocess_commands(
    predictions: &[Value],
    preprocessed: &Preprocessed,
    results: &BTreeMap<ExecutionKey, ExecutionResult>,
    postprocessor: &impl Postprocessor,
    timings: &PredTimingsCollection,
) -> Vec<Value> {
    let one = |(index, prediction): (usize, &Value)| {
        let started = Instant::now();
        let of_it: Vec<_> =
            results.range((index, 0)..=(index, usize::MAX)).map(|(_, result)| result.clone()).collect();
        let mut output = if of_it.is_empty() {
            set_aside(index, preprocessed)
        } else {
            let Judgement { passed, detail, mut output } = postprocessor.postprocess(prediction, &of_it);
            output.insert("passed".to_owned(), json!(passed));
            if let Some(detail) = detail {
                output.insert("detail".to_owned(), json!(detail));
            }
            output
        };
        output.insert("postprocess_time".to_owned(), json!(started.elapsed().as_secs_f64()));
        for (name, times) in [
            ("preprocess_time", &timings.preprocess_time),
            ("writing_time", &timings.writing_time),
            ("cleanup_time", &timings.cleanup_time),
        ] {
            if let Some(time) = times.get(index) {
                output.insert(name.to_owned(), json!(time));
            }
        }
        Value::Object(output)
    };
    predictions.iter().enumerate().map(one).collect()
}

fn set_aside(index: usize, preprocessed: &Preprocessed) -> Map<String, Value> {
    let (verdict, detail, mut output) =
        match (preprocessed.filtered.get(&index), preprocessed.unusable.get(&index)) {
            (Some((detail, output)), _) => ("filtered", detail.clone(), output.clone()),
            (None, Some(unusable)) => ("invalid", Some(unusable.to_string()), Map::new()),
            (None, None) => ("infra_error", Some("it was not executed".to_owned()), Map::new()),
        };
    output.insert("passed".to_owned(), json!(false));
    output.insert("verdict".to_owned(), json!(verdict));
    output.insert("detail".to_owned(), json!(detail));
    output
}

/// `{**prediction, **result.to_dict()}`; it passed when no command had an error. Of several results, `results`
/// is the list of those dictionaries.
#[must_use]
pub fn default_postprocessor(prediction: &Value, executions: &[ExecutionResult]) -> Judgement {
    let mut output = prediction.as_object().cloned().unwrap_or_default();
    match executions {
        [one] => output.extend(one.to_dict(false)),
        many => {
            let many = many.iter().map(|one| Value::Object(one.to_dict(false)));
            output.insert("results".to_owned(), many.collect());
        }
    }
    let passed = executions.iter().all(|execution| !execution.had_error);
    Judgement { passed, detail: None, output }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Command, CommandResult, Executable, Termination};

    fn prepare(prediction: &Value) -> Result<Prepared, Unusable> {
        let run = || Task::from(Executable::new(BTreeMap::new(), vec![Command::new(["true"])]));
        match prediction["do"].as_str() {
            Some("run") => Ok(Prepared::Run(vec![run(), run()])),
            Some("filter") => Ok(Prepared::Filtered { detail: Some("why".to_owned()), output: Map::new() }),
            _ => Err(Unusable("do is missing".to_owned())),
        }
    }

    #[test]
    fn what_is_not_run_is_merged_back_in_order() {
        let predictions = [json!({"do": "filter"}), json!({"do": "run", "id": 7}), json!({})];
        let preprocessed = preprocess_commands(&predictions, &prepare);
        let keys: Vec<_> = preprocessed.to_run.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [(1, 0), (1, 1)]);
        let done = CommandResult {
            return_code: Some(0),
            had_error: false,
            ..CommandResult::without_run(Termination::Exited)
        };
        let result = ExecutionResult { command_results: vec![done], ..ExecutionResult::default() };
        let results = keys.into_iter().map(|key| (key, result.clone())).collect();
        let timings = PredTimingsCollection {
            preprocess_time: preprocessed.preprocess_time.clone(),
            ..PredTimingsCollection::default()
        };
        let said =
            postprocess_commands(&predictions, &preprocessed, &results, &default_postprocessor, &timings);
        assert_eq!((&said[0]["verdict"], &said[0]["detail"]), (&json!("filtered"), &json!("why")));
        assert_eq!((&said[1]["passed"], &said[1]["id"]), (&json!(true), &json!(7)));
        assert_eq!(said[1]["results"].as_array().unwrap().len(), 2);
        assert_eq!(said[2]["detail"], "do is missing");
        assert!(
            said.iter().all(|one| one["postprocess_time"].is_number() && one["preprocess_time"].is_number())
        );
    }
}
