//! Notices: what happened to a prediction that has no result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Name of the schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoticeSchema {
    /// The only one so far.
    #[default]
    #[serde(rename = "notice.parked")]
    Parked,
}

/// A prediction was put aside after its last attempt. An ending, but no result: it can be put back and
/// then gets its one result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedNotice {
    /// Always `notice.parked`.
    pub schema: NoticeSchema,
    /// The id that its result would have.
    #[schemars(with = "String")]
    pub result_id: Uuid,
    /// The prediction's id.
    pub id: String,
    /// Its run.
    #[serde(default)]
    pub run: Option<String>,
    /// Its task.
    #[serde(default)]
    pub task: Option<String>,
    /// Why it was put aside.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}
