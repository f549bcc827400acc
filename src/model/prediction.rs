//! The input message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Seconds;

/// One model output, with what is needed to judge it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Prediction {
    /// Unique within its producer; a whole number is read as text.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text_or_number")]
    pub id: Option<String>,
    /// Groups predictions for metrics and routing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The task that was solved: pass@k needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Registered name; the configured default where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessor: Option<String>,
    /// What the preprocessor takes, echoed as it came.
    #[schemars(with = "serde_json::Value")]
    pub prediction: Box<RawValue>,
    /// Tightened (or, within the configuration's maxima, widened) limits.
    #[serde(default)]
    pub limits: PredictionLimits,
    /// Comes back untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub metadata: Option<Box<RawValue>>,
}

/// Limits of one prediction; what is absent is the configuration's.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PredictionLimits {
    /// Wall limit of each command that has none of its own, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
    /// CPU time of each command, summed over its process tree, in seconds; absent: as its wall limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<Seconds>,
    /// Resident memory of the process tree, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Bytes of each output stream, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_mb: Option<u64>,
    /// Largest single file, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mb: Option<u64>,
    /// Open descriptors of each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
}

/// An id is text; producers that number their rows are understood.
fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Signed(i64),
        Unsigned(u64),
    }
    Ok(Option::<Id>::deserialize(deserializer)?.map(|id| match id {
        Id::Text(text) => text,
        Id::Signed(number) => number.to_string(),
        Id::Unsigned(number) => number.to_string(),
    }))
}
