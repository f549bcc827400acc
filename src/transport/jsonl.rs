//! JSONL: one message on each line of files and standard streams.

mod input;
mod lines;
mod sink;
mod source;

pub use sink::JsonlSink;
pub use source::JsonlSource;
