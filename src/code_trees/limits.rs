//! What a source may cost: its size, its depth, the time it takes.

use std::time::{Duration, Instant};

/// Bounds within which a source is parsed. What exceeds one is a [`Limit`], never a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of UTF-8 in one source.
    pub max_source_bytes: usize,
    /// Levels of the tree, estimated from above before anything recursive is called: each bracket,
    /// operator, trailer, `if … else`, `lambda`, `elif` and indentation that encloses another counts.
    ///
    /// The parser's deepest recursion (contexts of nested targets, and the drop of the tree) takes 2.1 kB
    /// for a level in a debug build; its thread gets 4 KiB for each that the estimate finds. The default
    /// stays below the 2,984 levels at which CPython 3.11 gives up.
    pub max_depth: usize,
    /// Time for one source. It is looked at between tokens, so it can be passed by one token's worth.
    pub max_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_source_bytes: 1 << 20, max_depth: 2_500, max_time: Duration::from_secs(5) }
    }
}

impl Limits {
    /// These limits with at most `max_time` for a source.
    pub fn with_max_time(self, max_time: Duration) -> Self {
        Self { max_time: self.max_time.min(max_time), ..self }
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline { started: Instant::now(), max_time: self.max_time }
    }
}

/// The bound that a source exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// More bytes than `max_source_bytes`.
    #[error("the source has {bytes} bytes, of at most {max} (max_source_bytes)")]
    Size {
        /// Bytes that it has.
        bytes: usize,
        /// Bytes that it may have.
        max: usize,
    },
    /// More levels than `max_depth`.
    #[error("the source is nested {levels} levels deep or more, of at most {max} (max_depth)")]
    Depth {
        /// Levels that were seen when the scan stopped.
        levels: usize,
        /// Levels that it may have.
        max: usize,
    },
    /// More time than `max_time`.
    #[error("the source took longer than {} s to parse (max_time)", max.as_secs_f64())]
    Time {
        /// Time that it had.
        max: Duration,
    },
}

/// When a source's time is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    started: Instant,
    max_time: Duration,
}

impl Deadline {
    pub(super) fn check(self) -> Result<(), Limit> {
        if self.started.elapsed() > self.max_time { Err(Limit::Time { max: self.max_time }) } else { Ok(()) }
    }
}
