//! The periodic timings message, and the summary of a run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Verdict;

/// The schema name of a timings message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TimingsSchema {
    /// Version 1.
    #[default]
    #[serde(rename = "timings.v1")]
    V1,
}

/// Distribution of one stage, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StageSummary {
    /// Half are faster.
    pub p50: f64,
    /// 95 % are faster.
    pub p95: f64,
    /// 99 % are faster.
    pub p99: f64,
}

/// What one instance did in one window. Times are seconds, summed over predictions unless said otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TimingsMessage {
    /// `timings.v1`.
    pub schema: TimingsSchema,
    /// Host and process.
    pub instance: String,
    /// When the window ended, RFC 3339 in UTC.
    pub timestamp: String,
    /// Results in the window.
    pub num_results: u64,
    /// Results by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Wall time of the window.
    pub net_time: f64,
    /// Running commands alone.
    pub pure_exec_time: f64,
    /// Waiting for a worker, writing, running and cleaning up.
    pub execution_time: f64,
    /// Writing files.
    pub writing_time: f64,
    /// Preprocessing.
    pub preprocessing_time: f64,
    /// Postprocessing.
    pub postprocessing_time: f64,
    /// Each stage's distribution, by its name in a result's `timings`.
    pub stages: BTreeMap<String, StageSummary>,
    /// Workers replaced, by reason.
    pub recycled: BTreeMap<String, u64>,
    /// Workers that run something at the window's end.
    pub busy_slots: u64,
    /// Predictions in each second of the window.
    pub rate: f64,
}
