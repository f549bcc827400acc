//! Bytes in, bytes out: where predictions come from and where results go.
//!
//! A [`Source`] yields [`Delivery`]s, a [`Sink`] takes [`Outgoing`] results. Neither knows what a
//! prediction is. Settling is an ownership: a [`Delivery`] that is dropped unsettled was never
//! acknowledged.

mod jsonl;
mod memory;
mod resume;

use std::future::Future;
use std::time::Instant;

use thiserror::Error;

pub use jsonl::{JsonlSink, JsonlSource};
pub use memory::{MemorySink, MemorySource, Settled};
pub use resume::{DoneIds, OutputError, OutputMode, Prepared, Resumed, prepare_output, stdout_is_input};

/// One hand-over of one message.
#[derive(Debug)]
pub struct Delivery {
    /// Position among all deliveries of this source, from 0 without gaps.
    pub sequence: u64,
    /// For people, and the id of a prediction that has none: `<file>:<line>`.
    pub origin: String,
    /// The message, or why it could not be read; the deliveries after it are good all the same.
    pub body: Result<Vec<u8>, BodyError>,
    /// When it was handed over.
    pub arrived: Instant,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// It was handed over before.
    pub redelivered: bool,
}

/// Why one message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// It is longer than allowed.
    #[error("the line is longer than {limit} bytes (pipeline.max_line_mb)")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The input broke off or is damaged here; what follows in this input cannot be read.
    #[error("{0}")]
    Damaged(String),
}

/// The one ending of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Its result is safely out.
    Ack,
    /// Give it back: somebody else, or we later, shall do it.
    Requeue,
    /// It cannot be done: park it, with the reason.
    DeadLetter(String),
}

/// One result on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Encoded result, without a line break.
    pub body: Vec<u8>,
}

/// A transport that cannot go on.
#[derive(Debug, Error)]
pub enum TransportError {
    /// An input could not be opened or read.
    #[error("cannot read {name}: {reason}")]
    Read {
        /// The input.
        name: String,
        /// What the system said.
        reason: String,
    },
    /// The output could not be written.
    #[error("cannot write {name}: {reason}")]
    Write {
        /// The output.
        name: String,
        /// What the system said.
        reason: String,
    },
}

/// Where deliveries come from.
pub trait Source: Send {
    /// The next delivery; `None` at the end. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Result<Delivery, TransportError>>> + Send;

    /// Ends a delivery.
    fn settle(&mut self, delivery: Delivery, settlement: Settlement) -> impl Future<Output = ()> + Send {
        drop((delivery, settlement));
        std::future::ready(())
    }
}

/// Where results go.
pub trait Sink: Send {
    /// Takes one result. Back-pressure: it returns once there is room for the next.
    fn deliver(&mut self, result: Outgoing) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// Returns once everything delivered so far is safely out.
    fn flush(&mut self) -> impl Future<Output = Result<(), TransportError>> + Send;
}
