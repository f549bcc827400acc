//! Bytes in, bytes out: where predictions come from and where results go.
//!
//! A [`Source`] yields [`Delivery`]s, a [`Sink`] takes [`Outgoing`] results. Neither knows what a
//! prediction is. Settling is an ownership: a [`Delivery`] that is dropped unsettled was never
//! acknowledged.

mod jsonl;
mod memory;
pub mod rabbitmq;
mod resume;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use tokio::sync::oneshot;

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
    /// What came with it, where a broker carried it.
    pub envelope: Option<Arc<Envelope>>,
}

/// What a message carries beside its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The producer's name for it: the id of a prediction that has none.
    pub message_id: Option<String>,
    /// Comes back with the result.
    pub correlation_id: Option<String>,
    /// A queue that wants the result, too.
    pub reply_to: Option<String>,
    /// The class of input, which has its own queue.
    pub class: String,
    /// The key that it was published with.
    pub routing_key: String,
    /// How often it was handed over without being settled, as the broker counts it.
    pub handed_over: u32,
    /// W3C trace context: `traceparent` and `tracestate`.
    pub trace: (Option<String>, Option<String>),
}

/// A message that was handed over so often without being settled may be the one that takes services
/// down.
const SUSPECT_AFTER: u32 = 3;

impl Envelope {
    /// Whether it must be taken and run with no other beside it: where it takes the service down, its
    /// neighbours would be counted as handed over again, too, and in the end be given up with it.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.handed_over >= SUSPECT_AFTER
    }
}

/// Why one message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// It is longer than allowed.
    #[error("it is longer than {limit} bytes ({setting})")]
    TooLong {
        /// The limit.
        limit: usize,
        /// The setting that says so.
        setting: &'static str,
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
}

/// One message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Encoded, without a line break.
    pub body: Vec<u8>,
    /// Where it goes; a file has one place only.
    pub to: Address,
    /// What came with the delivery that it is about.
    pub envelope: Option<Arc<Envelope>>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// To whoever wants results with this routing key.
    Results {
        /// The routing key.
        key: String,
        /// What identifies the message: the same for every copy of it.
        message_id: String,
        /// The name and version of its schema.
        schema: &'static str,
    },
    /// Back to the input, after a delay.
    Retry {
        /// Which try it will be.
        attempt: u32,
    },
    /// Aside, until somebody looks at it.
    Parking {
        /// Why.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
}

/// When an outgoing message is safely out.
#[derive(Debug)]
pub enum Receipt {
    /// As far as the sink can tell, it is; [`Sink::flush`] makes sure.
    Now,
    /// Once this says so; where it ends without saying so, the sink has given up.
    Later(oneshot::Receiver<()>),
}

/// Whether a delivery is ended; `false`: it cannot be any more, and will be handed over again.
#[derive(Debug)]
pub enum Ending {
    /// It is known.
    Now(bool),
    /// It will be told; where that ends without a word, the delivery is not ended.
    Later(oneshot::Receiver<bool>),
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
    fn settle(&mut self, delivery: Delivery, settlement: Settlement) -> impl Future<Output = Ending> + Send {
        drop((delivery, settlement));
        std::future::ready(Ending::Now(true))
    }

    /// This suspect delivery is of a message that runs already, and did no harm: others of its class may
    /// be taken beside it.
    fn vouch(&mut self, delivery: &Delivery) {
        let _ = delivery;
    }

    /// Takes nothing new, and gives back what was taken and not yielded yet.
    fn drain(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Where results go.
pub trait Sink: Send {
    /// Takes one message. Back-pressure: it returns once there is room for the next.
    fn deliver(&mut self, outgoing: Outgoing)
    -> impl Future<Output = Result<Receipt, TransportError>> + Send;

    /// Returns once everything delivered so far is safely out.
    fn flush(&mut self) -> impl Future<Output = Result<(), TransportError>> + Send;
}
