//! The queue of what was put aside: looking at it, and sending from it to the input again.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};

use super::broker::{Broker, BrokerError, RPC_LIMIT, Role, bounded, short};
use super::properties::{TRACE, header_text, number};
use super::topology::{PARKING, PREDICTIONS, work_queue};

/// How long the broker may take to confirm.
const CONFIRM_LIMIT: Duration = Duration::from_secs(30);

/// A prediction that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its property `message_id`.
    pub message_id: Option<String>,
    /// The class of input that it came from, as far as that can be told.
    pub class: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// How often it was tried.
    pub attempts: Option<u32>,
    /// The message.
    pub body: Vec<u8>,
}

/// What became of sending one again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requeued {
    /// It is in its class's queue, and no longer here.
    Done,
    /// It stays here, and why.
    Stays(String),
}

/// The queue, with what was taken from it: that is given back in the end, also where the connection breaks.
pub struct ParkingLot {
    connection: Connection,
    channel: Channel,
    limit: Duration,
    count: u32,
    last: Option<Delivery>,
}

impl ParkingLot {
    /// Connects to it.
    ///
    /// # Errors
    /// The broker cannot be reached, or there is no such queue.
    pub async fn open(broker: &Broker) -> Result<Self, BrokerError> {
        let connection = broker.connect(Role::Admin).await?;
        let channel = bounded("open a channel", RPC_LIMIT, connection.create_channel()).await?;
        let passive = QueueDeclareOptions::default().passive();
        let look = channel.queue_declare(PARKING.into(), passive, FieldTable::default());
        let found = bounded(&format!("look for the queue {PARKING}"), RPC_LIMIT, look).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        bounded("ask for confirms", RPC_LIMIT, select).await?;
        let count = found.message_count();
        Ok(Self { connection, channel, limit: broker.write_limit(), count, last: None })
    }

    /// How many there were when it was opened.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Takes the next one; `None` where there is none that nobody else holds.
    ///
    /// # Errors
    /// The broker.
    pub async fn next(&mut self) -> Result<Option<Parked>, BrokerError> {
        let get = self.channel.basic_get(PARKING.into(), BasicGetOptions::default());
        // A body comes in many frames.
        let got = bounded(&format!("get from {PARKING}"), RPC_LIMIT + self.limit, get).await?;
        Ok(got.map(|got| {
            let mut delivery = got.delivery;
            let body = std::mem::take(&mut delivery.data);
            let parked = parked(&delivery.properties, body);
            self.last = Some(delivery);
            parked
        }))
    }

    /// Sends the one that was taken last to the queue of its class; it leaves this queue once the broker
    /// has it there.
    ///
    /// # Errors
    /// The broker.
    pub async fn requeue(&mut self, parked: &Parked) -> Result<Requeued, BrokerError> {
        let Some(delivery) = self.last.take() else {
            return Ok(Requeued::Stays("it is not held".to_owned()));
        };
        let Some(class) = &parked.class else {
            let what = "nothing says which class it is of (no header x-class, no x-death of a work queue)";
            return Ok(Requeued::Stays(what.to_owned()));
        };
        let key = short("a routing key", class)?;
        let properties = as_new(&delivery.properties);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let publish = self.channel.basic_publish(PREDICTIONS.into(), key, options, &parked.body, properties);
        let confirm = bounded("publish", self.limit, publish).await?;
        // One at a time: with several, it is not certain whose returned message it is.
        match bounded("confirm", CONFIRM_LIMIT, confirm).await? {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(_)) => {
                let why = format!("no queue takes class {class:?}: {} is missing", work_queue(class));
                return Ok(Requeued::Stays(why));
            }
            Confirmation::Nack(_) => {
                return Ok(Requeued::Stays(format!("{} is full, or has no majority", work_queue(class))));
            }
            Confirmation::NotRequested => {
                return Err(BrokerError::Ended("the channel does not confirm what is published".into()));
            }
        }
        let ack = delivery.acker.ack(BasicAckOptions::default());
        if bounded("acknowledge", self.limit, ack).await? {
            Ok(Requeued::Done)
        } else {
            let why = "it was sent, and could not be taken from here: it is there twice, with one id";
            Err(BrokerError::Ended(why.to_owned()))
        }
    }

    /// Gives back everything that is still held.
    ///
    /// # Errors
    /// The broker; then it gives it back to itself.
    pub async fn close(self) -> Result<(), BrokerError> {
        // 0 is all of them.
        let options = BasicNackOptions { multiple: true, requeue: true };
        bounded("give back", self.limit, self.channel.basic_nack(0, options)).await?;
        bounded("close", RPC_LIMIT, self.connection.close(200, "done".into())).await
    }
}

impl std::fmt::Debug for ParkingLot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkingLot").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Ours say it in headers of their own; of what the broker gave up, it says so in `x-death`.
fn parked(properties: &BasicProperties, body: Vec<u8>) -> Parked {
    let headers = properties.headers().as_ref();
    let death = headers.and_then(newest_death);
    let class_of_queue = |queue: String| queue.strip_prefix(&work_queue("")).map(str::to_owned);
    let attempts = ["x-attempts", "x-delivery-count"]
        .iter()
        .find_map(|name| headers.and_then(|table| number(table, name)));
    let reason = || header_text(death, "reason").map(|reason| format!("given up by the broker: {reason}"));
    Parked {
        message_id: properties.message_id().as_ref().map(|id| id.as_str().to_owned()),
        class: header_text(headers, "x-class")
            .or_else(|| header_text(death, "queue").and_then(class_of_queue)),
        reason: header_text(headers, "x-reason").or_else(reason),
        attempts: attempts.and_then(|attempts| u32::try_from(attempts).ok()),
        body,
    }
}

fn newest_death(headers: &FieldTable) -> Option<&FieldTable> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    match deaths.as_slice().first()? {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    }
}

/// What its producer gave it, and nothing of what happened to it since.
fn as_new(properties: &BasicProperties) -> BasicProperties {
    let mut headers = FieldTable::default();
    for name in TRACE {
        if let Some(value) = properties.headers().as_ref().and_then(|table| table.inner().get(name)) {
            headers.insert(ShortString::from(name), value.clone());
        }
    }
    let mut new = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
    // Not its user_id: the broker takes that from nobody but that user.
    if let Some(value) = properties.content_type().clone() {
        new = new.with_content_type(value);
    }
    if let Some(value) = properties.message_id().clone() {
        new = new.with_message_id(value);
    }
    if let Some(value) = properties.correlation_id().clone() {
        new = new.with_correlation_id(value);
    }
    if let Some(value) = properties.reply_to().clone() {
        new = new.with_reply_to(value);
    }
    if let Some(value) = properties.kind().clone() {
        new = new.with_type(value);
    }
    if let Some(value) = *properties.timestamp() {
        new = new.with_timestamp(value);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn table(rows: &[(&'static str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in rows {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn told(rows: &[(&'static str, AMQPValue)]) -> (Option<String>, Option<String>, Option<u32>) {
        let properties = BasicProperties::default().with_headers(table(rows));
        let Parked { class, reason, attempts, .. } = parked(&properties, Vec::new());
        (class, reason, attempts)
    }

    fn deaths(queues: &[&str]) -> AMQPValue {
        let death = |queue: &&str| {
            AMQPValue::FieldTable(table(&[("queue", text(queue)), ("reason", text("delivery_limit"))]))
        };
        AMQPValue::FieldArray(queues.iter().map(death).collect::<Vec<_>>().into())
    }

    #[test]
    fn why_it_is_here() {
        let ours = [
            ("x-class", text("gpu")),
            ("x-reason", text("no space")),
            ("x-attempts", AMQPValue::LongLongInt(3)),
            ("x-death", deaths(&["evalmill.retry.gpu"])),
        ];
        assert_eq!(told(&ours), (Some("gpu".into()), Some("no space".into()), Some(3)));
        let brokers = [
            ("x-death", deaths(&["evalmill.work.a.b", "evalmill.retry.c"])),
            ("x-delivery-count", AMQPValue::LongLongInt(21)),
        ];
        let reason = "given up by the broker: delivery_limit";
        assert_eq!(told(&brokers), (Some("a.b".into()), Some(reason.into()), Some(21)));
        assert_eq!(told(&[("x-death", deaths(&["other"]))]), (None, Some(reason.into()), None));
        assert_eq!(told(&[("x-death", text("odd"))]), (None, None, None));
        assert_eq!(told(&[]), (None, None, None));
    }

    #[test]
    fn what_is_sent_again_is_as_it_was_at_first() {
        let old = BasicProperties::default()
            .with_message_id("m".into())
            .with_reply_to("answers".into())
            .with_headers(table(&[
                ("x-attempt", AMQPValue::LongLongInt(3)),
                ("x-class", text("gpu")),
                ("x-death", deaths(&["q"])),
                ("traceparent", text("t")),
            ]));
        let new = as_new(&old);
        assert_eq!((new.message_id(), new.reply_to()), (old.message_id(), old.reply_to()));
        assert_eq!(new.headers(), &Some(table(&[("traceparent", text("t"))])));
    }
}
