//! Plain values, which are also the wire contract (version 1).
//!
//! A [`Prediction`] comes in, becomes [`Executable`]s, and leaves as a [`ResultMessage`]. Times on
//! the wire are seconds as floats; sizes carry their unit in their name. Readers ignore fields that
//! they do not know. This module does no I/O and starts nothing.

mod content;
mod early_stop;
mod executable;
mod head;
mod json;
mod notice;
mod path;
mod prediction;
mod result;
mod seconds;
mod timings;
mod verdict;

pub use content::FileContent;
pub use early_stop::{EarlyStop, StdoutPostprocessor, TextRule};
pub use executable::{Command, Executable, InvalidExecutable, MAX_BOX_FILES, Stdin};
pub use head::{Line, LineError, ResultHead, read_line};
pub use json::{JsonError, parse_strict, single_line};
pub use notice::{NoticeSchema, ParkedNotice};
pub use path::{BoxPath, BoxPathError};
pub use prediction::{Prediction, PredictionLimits};
pub use result::{
    CommandResult, ExecutionResult, ResultMessage, ResultSchema, StageTimings, StreamEncoding, Termination,
    WorkerStamp, result_id,
};
pub use seconds::{Seconds, SecondsError};
pub use timings::{StageSummary, TimingsMessage, TimingsSchema};
pub use verdict::{Judged, Verdict, judge};
