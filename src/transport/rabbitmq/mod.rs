//! RabbitMQ: at least once, by two connections that are rebuilt for ever.
//!
//! One connection consumes, one publishes: a broker in need blocks every write of a connection that
//! publishes, acknowledgements included. Each is owned by one task (`consumer`, `publisher`) that
//! connects, works until anything at all is wrong, drops everything, waits with jitter, and starts
//! again. lapin's own recovery is off: a consumer that it recovers can hang without an error.
//!
//! Nothing is acknowledged before what it came to is confirmed by the broker. An outgoing message
//! stays in the publisher's outbox until then, over any number of connections. A delivery that is
//! dropped was never acknowledged: the broker hands it over again.
//!
//! Every call is bounded in time ([`bounded`]). No text of a message can become a name or key
//! that AMQP does not take: `ShortString` panics above 255 bytes, so it is made by
//! [`short`] alone.

mod broker;
mod consumer;
mod endpoint;
mod fault;
mod files;
mod link;
mod parking;
mod predictions;
mod properties;
mod publisher;
mod ramp;
mod settle;
mod tap;
mod tls;
mod topology;

pub use broker::{Broker, BrokerError, Role, bounded, short};
pub use endpoint::{RabbitMqSink, RabbitMqSource, Stats, connect};
pub use fault::{Fault, compare, prepare};
pub use link::{Link, LinkState};
pub use parking::{Parked, ParkingLot, Requeued};
pub use predictions::{PredictionSink, publish_predictions};
pub use properties::attempt_of;
pub use tap::{TapEvent, TapSettings, Tapped, tap};
pub use topology::{
    DEAD, Item, PARKING, PREDICTIONS, RESULTS, UNROUTED, apply, items, retry_queue, work_queue,
};
