//! A client's way in: predictions to the input exchange, each confirmed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broker::{Broker, BrokerError, short};
use super::endpoint::Stats;
use super::link::Link;
use super::properties::Message;
use super::publisher::{Order, Publisher};
use super::topology::PREDICTIONS;

const PERSISTENT: u8 = 2;

/// Where a client's predictions go.
#[derive(Debug)]
pub struct PredictionSink {
    orders: mpsc::Sender<Order>,
    stats: Arc<Stats>,
    link: Link,
}

/// Starts a publishing link, to be ended by `stop`; it is rebuilt whenever it is lost, and what was not
/// confirmed is sent again then. `capacity`: predictions that are not confirmed, at most.
#[must_use]
pub fn publish_predictions(
    broker: &Broker,
    capacity: usize,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> PredictionSink {
    let stats = Arc::new(Stats::default());
    let (set, link) = Link::new();
    let (orders, received) = mpsc::channel(capacity.max(1));
    let publisher = Publisher::new(broker.clone(), received, set, Arc::clone(&stats), stop.clone(), 1);
    tracker.spawn(publisher.run());
    PredictionSink { orders, stats, link }
}

impl PredictionSink {
    /// Sends one prediction; the answer comes once the broker has it on disk.
    ///
    /// `routed`: it must reach a queue, or the link is rebuilt and it is sent again. Nothing else is on
    /// its way meanwhile, so this is for one of many.
    ///
    /// # Errors
    /// The key or the id is longer than AMQP takes, or the link's task has ended.
    pub async fn send(
        &self,
        key: &str,
        message_id: &str,
        body: Vec<u8>,
        routed: bool,
    ) -> Result<oneshot::Receiver<()>, BrokerError> {
        let message = message(key, message_id, body, routed)?;
        let (done, receipt) = oneshot::channel();
        let ended = |_| BrokerError::Ended("the publishing task has ended".to_owned());
        self.orders.send(Order { message, done }).await.map_err(ended)?;
        Ok(receipt)
    }

    /// How often the broker refused a prediction, which was then sent again.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.stats.nacked.load(Ordering::Relaxed)
    }

    /// How often the link was lost.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.stats.publish_losses.load(Ordering::Relaxed)
    }

    /// The state of the link.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.clone()
    }
}

fn message(key: &str, message_id: &str, body: Vec<u8>, routed: bool) -> Result<Message, BrokerError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_type("prediction.v1".into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now)
        .with_app_id("evalmill".into())
        .with_message_id(short("a message_id", message_id)?);
    Ok(Message {
        exchange: PREDICTIONS.into(),
        key: short("a routing key", key)?,
        properties,
        body: body.into(),
        mandatory: routed,
        reply_to: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::ShortString;

    #[test]
    fn what_travels_beside_a_prediction() {
        let message = message("gpu.r", "a", b"{}".to_vec(), true).unwrap();
        let properties = message.properties;
        let text = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
        assert_eq!((message.exchange.as_str(), message.key.as_str()), (PREDICTIONS, "gpu.r"));
        assert_eq!(text(properties.message_id()).as_deref(), Some("a"));
        assert_eq!(text(properties.kind()).as_deref(), Some("prediction.v1"));
        assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert!(message.mandatory);
    }

    #[test]
    fn long_names_are_errors() {
        let long = "x".repeat(256);
        assert!(message(&long, "a", Vec::new(), false).is_err());
        assert!(message("k", &long, Vec::new(), false).is_err());
    }
}
