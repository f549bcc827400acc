//! The output message.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{BoxPath, FileContent, Verdict};

/// How one command ended, as the kernel and the limits saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Termination {
    /// By itself, with an exit code.
    Exited,
    /// By a signal that was not a limit's.
    Signalled,
    /// At the wall limit.
    WallLimit,
    /// At the CPU limit.
    CpuLimit,
    /// At the memory limit.
    MemoryLimit,
    /// At the limit of an output stream.
    OutputLimit,
    /// At the limit of processes and threads.
    ProcessLimit,
    /// The program is missing or not executable.
    NotStarted,
    /// The worker was lost twice while it ran.
    WorkerLost,
    /// We stopped it for reasons of our own, or could not start it.
    Cancelled,
}

impl fmt::Display for Termination {
    /// For people, after "it was …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exited => "ended by itself",
            Self::Signalled => "ended by a signal",
            Self::WallLimit => "stopped at its wall limit",
            Self::CpuLimit => "stopped at its CPU limit",
            Self::MemoryLimit => "stopped at its memory limit",
            Self::OutputLimit => "stopped at the limit of an output stream",
            Self::ProcessLimit => "stopped at its limit of processes and threads",
            Self::NotStarted => "not started",
            Self::WorkerLost => "lost with its worker, twice",
            Self::Cancelled => "given up by us",
        })
    }
}

/// Whether a stream's text is what the program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamEncoding {
    /// Bytes that are not UTF-8 stand as U+FFFD.
    Lossy,
}

/// What came of one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandResult {
    /// Exit code; `null` where a signal ended it or it never ran.
    pub return_code: Option<i32>,
    /// Wall time in seconds, the mean where it was run several times.
    pub runtime: f64,
    /// Standard output after the postprocessor, at most the configured part of it.
    pub stdout: String,
    /// Standard error, at most the configured part of it.
    pub stderr: String,
    /// It hit its wall or CPU limit.
    pub timed_out: bool,
    /// Something of ours went wrong, or the program could not be started.
    pub had_unexpected_error: bool,
    /// Any of: not exit code 0, timed out, unexpected error.
    pub had_error: bool,
    /// How it ended.
    pub termination: Termination,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// User and system time over the process tree, in seconds (the last run's).
    pub cpu_time: f64,
    /// Largest resident size of one of its processes; in tier `full` the most memory of the tree at one time, where
    /// that is more.
    pub max_rss_bytes: u64,
    /// More was written to standard output than stands here.
    pub stdout_truncated: bool,
    /// More was written to standard error than stands here.
    pub stderr_truncated: bool,
    /// Present where standard output was not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_encoding: Option<StreamEncoding>,
    /// Present where standard error was not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_encoding: Option<StreamEncoding>,
    /// Wall time of each run, in seconds.
    pub runtimes: Vec<f64>,
    /// `cold`: a fresh process; `warm`: forked from a started interpreter.
    pub start: String,
    /// Whether the witness came back; absent where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<bool>,
    /// What the program said behind its witness; for the postprocessor, not for the wire.
    #[serde(skip)]
    pub report: Vec<u8>,
    /// It is a command that builds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub build: bool,
    /// Why it could not be started, or was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl CommandResult {
    /// A command that came to no end of its own: no output, no times.
    #[must_use]
    pub fn without_run(termination: Termination) -> Self {
        let timed_out = matches!(termination, Termination::WallLimit | Termination::CpuLimit);
        Self {
            return_code: None,
            runtime: 0.0,
            stdout: String::new(),
            stderr: String::new(),
            timed_out,
            had_unexpected_error: !timed_out,
            had_error: true,
            termination,
            signal: None,
            cpu_time: 0.0,
            max_rss_bytes: 0,
            stdout_truncated: false,
            stderr_truncated: false,
            stdout_encoding: None,
            stderr_encoding: None,
            runtimes: Vec::new(),
            start: "cold".to_owned(),
            witnessed: None,
            report: Vec::new(),
            build: false,
            detail: None,
        }
    }
}

/// What came of one executable.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ExecutionResult {
    /// `<prediction>.<executable>`: two numbers.
    pub key: String,
    /// Commands that it has; fewer results mean an early stop.
    pub expected_num_commands: usize,
    /// Seconds from the first command's start to the last one's end.
    pub elapsed: f64,
    /// The box's path.
    pub cwd: String,
    /// Any command timed out.
    pub timed_out: bool,
    /// Any command had an error, or none ran.
    pub had_error: bool,
    /// Seconds of preprocessing (of the whole prediction).
    pub preprocess_time: f64,
    /// Seconds of writing files.
    pub writing_time: f64,
    /// Seconds of cleaning up.
    pub cleanup_time: f64,
    /// Contents of the tracked files; `null` where absent or refused.
    pub tracked_files: BTreeMap<BoxPath, Option<FileContent>>,
    /// Why tracked files were refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tracked_errors: BTreeMap<BoxPath, String>,
    /// One for each command that ran.
    pub command_results: Vec<CommandResult>,
    /// Our own failure, after every retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra_error: Option<String>,
}

impl ExecutionResult {
    /// The last command that ran.
    #[must_use]
    pub fn last_command(&self) -> Option<&CommandResult> {
        self.command_results.last()
    }

    /// Whether every command that ran had this exit code.
    #[must_use]
    pub fn all_had_return_code(&self, return_code: i32) -> bool {
        self.command_results.iter().all(|command| command.return_code == Some(return_code))
    }

    /// Commands that ran.
    #[must_use]
    pub fn len(&self) -> usize {
        self.command_results.len()
    }

    /// Whether no command ran.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.command_results.is_empty()
    }

    /// The fields of it and of its last command in one dictionary, the commands on demand.
    #[must_use]
    pub fn to_dict(&self, include_command_results: bool) -> Map<String, Value> {
        let fields = |value: serde_json::Result<Value>| match value {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let mut whole = fields(serde_json::to_value(self));
        let commands = whole.remove("command_results");
        // What both have is said of the whole.
        for (name, value) in
            self.last_command().map(|last| fields(serde_json::to_value(last))).unwrap_or_default()
        {
            whole.entry(name).or_insert(value);
        }
        if let Some(commands) = commands.filter(|_| include_command_results) {
            whole.insert("command_results".to_owned(), commands);
        }
        whole
    }

    /// A result for a program that is not worth running, as the reference's `invalid_result` with its defaults: what a
    /// preprocessor may give with [`Prepared::Filtered`](crate::processors::Prepared).
    #[must_use]
    pub fn invalid_result(key: &str, num_commands: usize) -> Self {
        let command = CommandResult {
            return_code: Some(1),
            runtime: 10.0,
            stdout: "SyntaxError".to_owned(),
            stderr: "Invalid".to_owned(),
            had_unexpected_error: false,
            ..CommandResult::without_run(Termination::Exited)
        };
        Self {
            key: key.to_owned(),
            expected_num_commands: num_commands,
            elapsed: 10.0,
            had_error: true,
            command_results: vec![command; num_commands],
            ..Self::default()
        }
    }
}

impl std::ops::Index<usize> for ExecutionResult {
    type Output = CommandResult;

    fn index(&self, index: usize) -> &CommandResult {
        &self.command_results[index]
    }
}

/// Seconds of each stage of one prediction, from a monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StageTimings {
    /// Arrival to the start of preprocessing.
    pub queue: f64,
    /// Preprocessing.
    pub preprocess: f64,
    /// Writing files, over all executables.
    pub write: f64,
    /// Waiting for a worker or a permit.
    pub wait: f64,
    /// Running commands.
    pub execute: f64,
    /// Reading files back and cleaning up.
    pub cleanup: f64,
    /// Postprocessing.
    pub postprocess: f64,
    /// Arrival to the result.
    pub net: f64,
}

impl StageTimings {
    /// How many stages there are, `net` among them.
    pub const STAGES: usize = 8;

    /// Each stage by its name on the wire.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, f64); Self::STAGES] {
        [
            ("queue", self.queue),
            ("preprocess", self.preprocess),
            ("write", self.write),
            ("wait", self.wait),
            ("execute", self.execute),
            ("cleanup", self.cleanup),
            ("postprocess", self.postprocess),
            ("net", self.net),
        ]
    }

    /// Seconds in the hands of the workers: from waiting for one to its being clean again.
    #[must_use]
    pub fn in_worker(&self) -> f64 {
        self.wait + self.write + self.execute + self.cleanup
    }
}

/// Who made a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStamp {
    /// Host and process.
    pub instance: String,
    /// evalmill's version.
    pub version: String,
    /// The sandbox tier in force.
    pub tier: String,
    /// Isolation layers that were tried or wanted and are missing, or that the configuration opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// A wall limit was extended because the machine was busy.
    pub contended: bool,
}

/// The schema name of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ResultSchema {
    /// Version 1.
    #[default]
    #[serde(rename = "result.v1")]
    V1,
}

/// The one answer to one prediction.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ResultMessage {
    /// `result.v1`.
    pub schema: ResultSchema,
    /// The same for every delivery of the same body: count it once.
    #[schemars(with = "String")]
    pub result_id: Uuid,
    /// The prediction's.
    pub id: String,
    /// The prediction's.
    pub run: Option<String>,
    /// The prediction's.
    pub task: Option<String>,
    /// What is concluded.
    pub verdict: Verdict,
    /// The verdict is `passed`.
    pub passed: bool,
    /// Why, for people.
    pub detail: Option<String>,
    /// Echo of the payload, as configured.
    #[schemars(with = "Option<Value>")]
    pub prediction: Option<Box<RawValue>>,
    /// Echo of the metadata.
    #[schemars(with = "Option<Value>")]
    pub metadata: Option<Box<RawValue>>,
    /// One for each executable.
    pub executions: Vec<ExecutionResult>,
    /// What the postprocessor adds.
    pub output: Map<String, Value>,
    /// Seconds of each stage.
    pub timings: StageTimings,
    /// Which try at the prediction this is.
    pub attempt: u32,
    /// The broker has delivered it before.
    pub redelivered: bool,
    /// Who made it.
    pub worker: WorkerStamp,
}

/// The id of the result for a prediction `id` with this `body`: every delivery gives the same.
#[must_use]
pub fn result_id(id: &str, body: &[u8]) -> Uuid {
    let mut name = Vec::with_capacity(id.len() + 33);
    name.extend_from_slice(id.as_bytes());
    name.push(0);
    name.extend_from_slice(blake3::hash(body).as_bytes());
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_ids_are_stable_and_distinct() {
        assert_eq!(result_id("a", b"x"), result_id("a", b"x"));
        assert_ne!(result_id("a", b"x"), result_id("a", b"y"));
        assert_ne!(result_id("a", b"x"), result_id("b", b"x"));
        assert_eq!(result_id("a", b"x").to_string(), "0db94ae0-ade1-579e-8fb1-cf857a56519f");
    }

    #[test]
    fn a_result_as_a_dictionary() {
        let result = ExecutionResult { cwd: "/box".to_owned(), ..ExecutionResult::invalid_result("1.0", 2) };
        let whole = result.to_dict(false);
        let said = |name: &str| whole[name].clone();
        assert_eq!(
            (said("key"), said("cwd"), said("stdout")),
            ("1.0".into(), "/box".into(), "SyntaxError".into())
        );
        assert_eq!(
            (said("return_code"), said("elapsed"), said("had_error")),
            (1.into(), 10.0.into(), true.into())
        );
        assert!(!whole.contains_key("command_results"));
        assert_eq!(result.to_dict(true)["command_results"].as_array().unwrap().len(), 2);
        assert!(result.all_had_return_code(1) && !result.all_had_return_code(0));
        assert_eq!((result.len(), result[1].return_code, result.is_empty()), (2, Some(1), false));
    }

    #[test]
    fn the_stages_are_the_fields_on_the_wire() {
        let fields = ["queue", "preprocess", "write", "wait", "execute", "cleanup", "postprocess", "net"];
        let values = fields.iter().zip(1..).map(|(name, value)| ((*name).to_owned(), value.into()));
        let wire: Map<String, Value> = values.collect();
        let timings: StageTimings = serde_json::from_value(Value::Object(wire)).unwrap();
        assert_eq!(timings.parts().map(|(name, _)| name), fields);
        assert_eq!(timings.parts().map(|(_, value)| value), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(serde_json::to_value(timings).unwrap().as_object().unwrap().len(), fields.len());
    }
}
