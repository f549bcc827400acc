//! A client of the broker for tests: every wait has a bound, and it declares nothing of the service's.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind,
    PublisherConfirm,
};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::ledger::Ledger;

/// Where predictions go in.
pub(crate) const PREDICTIONS: &str = "evalmill.predictions";
/// Where results come out.
pub(crate) const RESULTS: &str = "evalmill.results";
/// The bound of an operation for which the caller gave none.
const BOUND: Duration = Duration::from_secs(10);
/// How many publishes wait for their confirm at once.
const WINDOW: usize = 64;

/// Why an operation of the client did not do what it says.
#[derive(Debug)]
pub(crate) enum Trouble {
    Amqp(lapin::Error),
    /// Not within its bound.
    Timeout,
    /// The broker refused a publish.
    Nacked,
    /// Nothing takes a publish to this exchange and key. The id is that of the message that came back.
    Unroutable(String),
    /// The broker ended a consumer.
    Cancelled,
}

impl From<lapin::Error> for Trouble {
    fn from(error: lapin::Error) -> Self {
        Trouble::Amqp(error)
    }
}

/// What an operation of the client comes to.
pub(crate) type Outcome<T> = Result<T, Trouble>;

async fn within<T>(bound: Duration, work: impl Future<Output = lapin::Result<T>>) -> Outcome<T> {
    timeout(bound, work).await.map_err(|_| Trouble::Timeout)?.map_err(Trouble::from)
}

/// Waits for the broker's word on a publish.
pub(crate) async fn confirmed(confirm: PublisherConfirm, bound: Duration) -> Outcome<()> {
    match within(bound, confirm).await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) => Err(Trouble::Unroutable(
            returned.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
        )),
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(Trouble::Nacked),
    }
}

/// A message that was read.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) body: Vec<u8>,
    pub(crate) key: String,
    pub(crate) properties: BasicProperties,
}

impl Message {
    fn new(delivery: lapin::message::Delivery) -> Self {
        let key = delivery.routing_key.to_string();
        Message { body: delivery.data, key, properties: delivery.properties }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The id of the input that this is: its `message_id`, else the `id` in its body.
    pub(crate) fn input_id(&self) -> String {
        let in_body = || self.json()["id"].as_str().map(str::to_owned);
        let id = self.properties.message_id().as_ref().map(ToString::to_string);
        id.or_else(in_body).unwrap_or_else(|| panic!("a message without an id: {self:?}"))
    }

    /// The id of the input that this is the result of.
    pub(crate) fn input_of_result(&self) -> String {
        self.json()["id"].as_str().unwrap_or_default().to_owned()
    }

    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// One connection with one channel, which confirms. It does not recover: connect again.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
    pub(crate) url: String,
}

impl Client {
    /// Connects, within 10 s.
    pub(crate) async fn connect(url: &str) -> Outcome<Client> {
        let properties = ConnectionProperties::default().with_connection_name("evalmill-test".into());
        let connection = within(BOUND, Connection::connect(url, properties)).await?;
        let channel = within(BOUND, connection.create_channel()).await?;
        within(BOUND, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Client { connection, channel, url: url.to_owned() })
    }

    /// Connects as soon as the broker takes connections, within `bound`.
    pub(crate) async fn connect_within(url: &str, bound: Duration) -> Outcome<Client> {
        let deadline = Instant::now() + bound;
        loop {
            match Client::connect(url).await {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(100)).await,
                outcome => return outcome,
            }
        }
    }

    /// Sends a persistent JSON message; the answer resolves to the broker's confirm.
    pub(crate) async fn send(
        &self,
        exchange: &str,
        key: &str,
        id: &str,
        body: &[u8],
    ) -> Outcome<PublisherConfirm> {
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_content_type("application/json".into())
            .with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        within(BOUND, self.channel.basic_publish(exchange.into(), key.into(), options, body, properties))
            .await
    }

    /// Publishes one message and waits for its confirm, within 10 s.
    pub(crate) async fn publish(&self, exchange: &str, key: &str, id: &str, body: &[u8]) -> Outcome<()> {
        confirmed(self.send(exchange, key, id, body).await?, BOUND).await
    }

    /// Publishes one prediction and waits for its confirm.
    pub(crate) async fn predict(&self, id: &str, body: &[u8]) -> Outcome<()> {
        self.publish(PREDICTIONS, "default", id, body).await
    }

    /// Publishes predictions, a window of them at once. The answer has each id, in no order, and
    /// whether the broker confirmed it.
    pub(crate) async fn predict_all(&self, inputs: &[(String, Vec<u8>)]) -> Vec<(String, Outcome<()>)> {
        let mut outcomes: Vec<_> = stream::iter(inputs)
            .map(|(id, body)| async move { (id.clone(), self.predict(id, body).await) })
            .buffer_unordered(WINDOW)
            .collect()
            .await;
        // With several in flight, lapin can hand a returned message to the confirm of another.
        let mut returned = BTreeSet::new();
        for (_, outcome) in &mut outcomes {
            if let Err(Trouble::Unroutable(id)) = outcome {
                returned.insert(std::mem::take(id));
                *outcome = Ok(());
            }
        }
        for (id, outcome) in &mut outcomes {
            if returned.contains(id) {
                *outcome = Err(Trouble::Unroutable(id.clone()));
            }
        }
        outcomes
    }

    /// A queue of this connection alone, bound to the results with these keys, and read from now on.
    pub(crate) async fn results(&self, keys: &[&str]) -> Outcome<Tap> {
        let options = QueueDeclareOptions::exclusive().auto_delete();
        let declare = self.channel.queue_declare("".into(), options, FieldTable::default());
        let queue = within(BOUND, declare).await?.name().clone();
        self.bind(queue.as_str(), RESULTS, keys).await?;
        self.consume(queue).await
    }

    /// A durable quorum queue, bound to an exchange with these keys: it outlives connections and
    /// restarts of the broker.
    pub(crate) async fn keep(&self, queue: &str, exchange: &str, keys: &[&str]) -> Outcome<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let declare = self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments);
        within(BOUND, declare).await?;
        self.bind(queue, exchange, keys).await
    }

    async fn bind(&self, queue: &str, exchange: &str, keys: &[&str]) -> Outcome<()> {
        for &key in keys {
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            let bind = self.channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments);
            within(BOUND, bind).await?;
        }
        Ok(())
    }

    async fn consume(&self, queue: ShortString) -> Outcome<Tap> {
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consume = self.channel.basic_consume(queue, "".into(), options, FieldTable::default());
        Ok(Tap { consumer: within(BOUND, consume).await? })
    }

    /// Takes what is ready in a queue. What another consumer holds is not.
    pub(crate) async fn drain(&self, queue: &str) -> Outcome<Vec<Message>> {
        let mut messages = Vec::new();
        let mut acks = FuturesUnordered::new();
        while let Some(got) =
            within(BOUND, self.channel.basic_get(queue.into(), BasicGetOptions::default())).await?
        {
            let acker = got.delivery.acker.clone();
            acks.push(async move { acker.ack(BasicAckOptions::default()).await });
            messages.push(Message::new(got.delivery));
        }
        while let Some(acked) = within(BOUND, async { acks.next().await.transpose() }).await? {
            assert!(acked, "an ack that did not reach the broker");
        }
        Ok(messages)
    }

    /// Waits until a queue exists, within `bound`; how many messages are ready in it.
    pub(crate) async fn wait_for_queue(&self, queue: &str, bound: Duration) -> Outcome<u32> {
        self.until(bound, async |channel| {
            let passive = QueueDeclareOptions::default().passive();
            let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
            Ok(found.message_count())
        })
        .await
    }

    /// Waits until so many messages or more are ready in a queue, within `bound`.
    pub(crate) async fn wait_for_messages(&self, queue: &str, count: u32, bound: Duration) -> Outcome<()> {
        let deadline = Instant::now() + bound;
        while self.wait_for_queue(queue, bound).await? < count {
            if Instant::now() > deadline {
                return Err(Trouble::Timeout);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until an exchange exists, within `bound`.
    pub(crate) async fn wait_for_exchange(&self, exchange: &str, bound: Duration) -> Outcome<()> {
        self.until(bound, async |channel| {
            let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
            let table = FieldTable::default();
            channel.exchange_declare(exchange.into(), ExchangeKind::Topic, passive, table).await
        })
        .await
    }

    /// Tries until it works. A check that fails closes its channel, so that each has one of its own.
    async fn until<T>(
        &self,
        bound: Duration,
        check: impl AsyncFn(&Channel) -> lapin::Result<T>,
    ) -> Outcome<T> {
        let deadline = Instant::now() + bound;
        loop {
            let channel = within(BOUND, self.connection.create_channel()).await?;
            match within(BOUND, check(&channel)).await {
                Ok(found) => {
                    within(BOUND, channel.close(200, "".into())).await?;
                    return Ok(found);
                }
                Err(Trouble::Amqp(error)) if error.is_amqp_soft_error() && Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

/// Publishes predictions until the broker confirmed each, on as many connections as that takes, all
/// within `bound`. The answer is how many publishes had no confirm: so many duplicates there may be.
pub(crate) async fn produce(
    url: &str,
    inputs: &[(String, Vec<u8>)],
    ledger: &mut Ledger,
    bound: Duration,
) -> Outcome<usize> {
    let deadline = Instant::now() + bound;
    let mut left = inputs.to_vec();
    let mut unsure = 0;
    left.iter().for_each(|(id, _)| ledger.send(id));
    while !left.is_empty() {
        let rest = deadline.checked_duration_since(Instant::now()).ok_or(Trouble::Timeout)?;
        let client = Client::connect_within(url, rest).await?;
        let outcomes = client.predict_all(&left).await;
        let confirmed: BTreeSet<_> =
            outcomes.into_iter().filter(|(_, outcome)| outcome.is_ok()).map(|(id, _)| id).collect();
        left.retain(|(id, _)| !confirmed.contains(id));
        unsure += left.len();
        confirmed.into_iter().for_each(|id| ledger.confirm(id));
    }
    Ok(unsure)
}

/// Messages as they arrive.
pub(crate) struct Tap {
    consumer: Consumer,
}

impl Tap {
    /// The next message, within `bound`.
    pub(crate) async fn next(&mut self, bound: Duration) -> Outcome<Message> {
        let next = timeout(bound, self.consumer.next()).await.map_err(|_| Trouble::Timeout)?;
        Ok(Message::new(next.ok_or(Trouble::Cancelled)??))
    }

    /// The next `count` messages, all within `bound`.
    pub(crate) async fn take(&mut self, count: usize, bound: Duration) -> Outcome<Vec<Message>> {
        let deadline = Instant::now() + bound;
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            messages.push(self.next(deadline.saturating_duration_since(Instant::now())).await?);
        }
        Ok(messages)
    }
}
