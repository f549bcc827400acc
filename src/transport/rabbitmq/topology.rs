//! Exchanges, queues and bindings: what must be there, declared or checked.

use std::fmt;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::broker::{BrokerError, RPC_LIMIT, bounded, short};
use super::fault::{ACCESS_REFUSED, PRECONDITION_FAILED};
use crate::config::{RabbitMq, TopologyMode};

/// Where predictions come in: a topic exchange, the key is `<class>[.<run>]`.
pub const PREDICTIONS: &str = "evalmill.predictions";
/// Where results go: a topic exchange.
pub const RESULTS: &str = "evalmill.results";
/// What nobody wanted of [`RESULTS`]: an exchange and a queue.
pub const UNROUTED: &str = "evalmill.unrouted";
/// Where the broker sends what it gives up.
pub const DEAD: &str = "evalmill.dead";
/// What was put aside: a queue behind [`DEAD`].
pub const PARKING: &str = "evalmill.parking";

/// A delivery limit that nobody reaches: a queue that people look into counts each look, and newer brokers
/// would drop what was looked at 20 times.
pub(super) const NEVER: i64 = 1_000_000_000;

/// The queue of a class of input.
#[must_use]
pub fn work_queue(class: &str) -> String {
    format!("evalmill.work.{class}")
}

/// The queue in which a class's predictions wait for their next attempt.
#[must_use]
pub fn retry_queue(class: &str) -> String {
    format!("evalmill.retry.{class}")
}

/// An argument of a queue or an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
}

/// One thing that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A durable exchange.
    Exchange {
        /// Its name.
        name: &'static str,
        /// `topic` or `fanout`.
        kind: &'static str,
        /// Where it sends what it cannot route.
        alternate: Option<&'static str>,
    },
    /// A durable quorum queue: other queues confirm before the message is on disk.
    Queue {
        /// Its name.
        name: String,
        /// Its arguments beside the type.
        arguments: Vec<(&'static str, Argument)>,
    },
    /// A binding.
    Binding {
        /// The queue.
        queue: String,
        /// The exchange.
        exchange: &'static str,
        /// The key.
        key: String,
    },
}

/// Everything that must be there, in an order in which it can be declared.
#[must_use]
pub fn items(settings: &RabbitMq) -> Vec<Item> {
    let classes = settings.classes.iter().flat_map(|class| class_items(settings, class));
    common_items(settings).into_iter().chain(classes).collect()
}

fn text(text: &str) -> Argument {
    Argument::Text(text.to_owned())
}

fn bind(queue: &str, exchange: &'static str, key: &str) -> Item {
    Item::Binding { queue: queue.to_owned(), exchange, key: key.to_owned() }
}

fn max_bytes(settings: &RabbitMq) -> Argument {
    Argument::Number(i64::try_from(settings.max_queue_mb << 20).unwrap_or(i64::MAX))
}

/// What every class needs, and what is published.
pub(super) fn common_items(settings: &RabbitMq) -> Vec<Item> {
    let exchange = |name, kind, alternate| Item::Exchange { name, kind, alternate };
    vec![
        exchange(UNROUTED, "fanout", None),
        exchange(DEAD, "fanout", None),
        exchange(RESULTS, "topic", Some(UNROUTED)),
        exchange(PREDICTIONS, "topic", None),
        Item::Queue {
            name: UNROUTED.to_owned(),
            arguments: vec![
                ("x-delivery-limit", Argument::Number(NEVER)),
                ("x-max-length-bytes", max_bytes(settings)),
                ("x-overflow", text("reject-publish")),
            ],
        },
        bind(UNROUTED, UNROUTED, ""),
        Item::Queue {
            name: PARKING.to_owned(),
            arguments: vec![("x-delivery-limit", Argument::Number(NEVER))],
        },
        bind(PARKING, DEAD, ""),
    ]
}

/// The queues of one class of input.
pub(super) fn class_items(settings: &RabbitMq, class: &str) -> Vec<Item> {
    let (work, retry) = (work_queue(class), retry_queue(class));
    let delay = Argument::Number((settings.retry_seconds * 1000.0) as i64);
    vec![
        Item::Queue {
            name: work.clone(),
            // The defaults of these differ between versions of the broker: each is given.
            arguments: vec![
                ("x-delivery-limit", Argument::Number(settings.delivery_limit.into())),
                ("x-dead-letter-exchange", text(DEAD)),
                ("x-dead-letter-strategy", text("at-least-once")),
                ("x-overflow", text("reject-publish")),
                ("x-max-length-bytes", max_bytes(settings)),
            ],
        },
        bind(&work, PREDICTIONS, class),
        bind(&work, PREDICTIONS, &format!("{class}.#")),
        Item::Queue {
            name: retry,
            arguments: vec![
                ("x-message-ttl", delay),
                // Straight back to its queue: nobody else that listens to the input sees it twice.
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&work)),
                ("x-dead-letter-strategy", text("at-least-once")),
                ("x-overflow", text("reject-publish")),
            ],
        },
    ]
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange { name, kind, alternate } => {
                write!(f, "exchange {name} {kind} durable")?;
                alternate.map_or(Ok(()), |alternate| write!(f, " alternate-exchange={alternate:?}"))
            }
            Self::Queue { name, arguments } => {
                write!(f, "queue    {name} quorum durable")?;
                arguments.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
            }
            Self::Binding { queue, exchange, key } => write!(f, "binding  {exchange} -> {queue} key={key:?}"),
        }
    }
}

/// Declares everything, or checks that it is there.
///
/// # Errors
/// Something is missing, or is there with another argument: the error names it.
pub async fn apply(connection: &Connection, items: &[Item], mode: TopologyMode) -> Result<(), BrokerError> {
    let channel = bounded("open a channel", RPC_LIMIT, connection.create_channel()).await?;
    for item in items {
        match mode {
            TopologyMode::Declare => declare(&channel, item).await?,
            TopologyMode::Check => check(&channel, item).await?,
        }
    }
    bounded("close a channel", RPC_LIMIT, channel.close(200, "done".into())).await
}

/// Keeps what must be there: declares it or looks whether it is there, again and again, on a channel of
/// its own.
pub(super) struct Upkeep<'a> {
    connection: &'a Connection,
    settings: &'a RabbitMq,
    /// Until the broker closes it for something that it refuses.
    channel: Option<Channel>,
    /// Comparing arguments takes the right to declare, which whoever only checks may not have.
    may_compare: bool,
}

impl<'a> Upkeep<'a> {
    pub(super) fn new(connection: &'a Connection, settings: &'a RabbitMq) -> Self {
        Self { connection, settings, channel: None, may_compare: settings.topology == TopologyMode::Check }
    }

    /// What every class needs.
    pub(super) async fn common(&mut self) -> Result<(), BrokerError> {
        let items = common_items(self.settings);
        self.all(&items).await?;
        for item in &items {
            if let Item::Exchange { alternate: Some(_), .. } = item {
                self.same_alternate(item).await?;
            }
        }
        Ok(())
    }

    /// All of it; what the broker refuses of single classes is the answer.
    pub(super) async fn all_classes(&mut self) -> Result<Vec<String>, BrokerError> {
        self.common().await?;
        let mut refusals = Vec::new();
        for class in &self.settings.classes {
            match self.all(&class_items(self.settings, class)).await {
                Err(error) if error.is_refusal() => refusals.push(error.to_string()),
                done => done?,
            }
        }
        Ok(refusals)
    }

    /// Queues that are there with other arguments than the settings say: theirs are in force.
    pub(super) async fn differences(&mut self) -> Result<Vec<String>, BrokerError> {
        let mut differences = Vec::new();
        for item in items(self.settings) {
            if matches!(item, Item::Queue { .. })
                && let Some(difference) = self.difference(&item).await?
            {
                differences.push(difference.to_string());
            }
        }
        Ok(differences)
    }

    async fn all(&mut self, items: &[Item]) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        for item in items {
            match self.settings.topology {
                TopologyMode::Declare => declare(&channel, item).await?,
                TopologyMode::Check => check(&channel, item).await?,
            }
        }
        self.channel = Some(channel);
        Ok(())
    }

    async fn channel(&mut self) -> Result<Channel, BrokerError> {
        match self.channel.take() {
            Some(channel) if channel.status().connected() => Ok(channel),
            _ => bounded("open a channel", RPC_LIMIT, self.connection.create_channel()).await,
        }
    }

    /// Without it, results that nobody has bound a queue for would be lost.
    async fn same_alternate(&mut self, item: &Item) -> Result<(), BrokerError> {
        match self.difference(item).await? {
            Some(BrokerError::Call { source, .. }) => {
                Err(BrokerError::NoAlternate { reason: source.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// How this item, where it is there, differs from what would be declared, where the broker says so.
    async fn difference(&mut self, item: &Item) -> Result<Option<BrokerError>, BrokerError> {
        if !self.may_compare {
            return Ok(None);
        }
        let channel = self.channel().await?;
        // Comparing is declaring, which would make what is not there.
        match check(&channel, item).await {
            Err(error) if error.is_refusal() => return Ok(None),
            done => done?,
        }
        match declare(&channel, item).await {
            Ok(()) => {
                self.channel = Some(channel);
                Ok(None)
            }
            Err(error) if error.code() == Some(PRECONDITION_FAILED) => Ok(Some(error)),
            Err(error) if error.code() == Some(ACCESS_REFUSED) => {
                tracing::info!(%error, "arguments cannot be compared: this user may not declare");
                self.may_compare = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

async fn declare(channel: &Channel, item: &Item) -> Result<(), BrokerError> {
    let what = format!("declare {item}");
    match item {
        Item::Exchange { name, kind, alternate } => {
            let kind = if *kind == "fanout" { ExchangeKind::Fanout } else { ExchangeKind::Topic };
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let mut arguments = FieldTable::default();
            if let Some(alternate) = alternate {
                arguments.insert("alternate-exchange".into(), AMQPValue::LongString((*alternate).into()));
            }
            let name = short("an exchange's name", name)?;
            bounded(&what, RPC_LIMIT, channel.exchange_declare(name, kind, options, arguments)).await
        }
        Item::Queue { name, arguments } => {
            let mut table = FieldTable::default();
            table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            for (key, value) in arguments {
                let value = match value {
                    Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
                    Argument::Number(number) => AMQPValue::LongLongInt(*number),
                };
                table.insert((*key).into(), value);
            }
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let name = short("a queue's name", name)?;
            bounded(&what, RPC_LIMIT, channel.queue_declare(name, options, table)).await.map(drop)
        }
        Item::Binding { queue, exchange, key } => {
            let (queue, exchange) = (short("a queue's name", queue)?, short("an exchange's name", exchange)?);
            let key = short("a routing key", key)?;
            let table = FieldTable::default();
            let bind = channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), table);
            bounded(&what, RPC_LIMIT, bind).await
        }
    }
}

async fn check(channel: &Channel, item: &Item) -> Result<(), BrokerError> {
    let what = format!("check {item}");
    let table = FieldTable::default();
    match item {
        Item::Exchange { name, .. } => {
            let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let name = short("an exchange's name", name)?;
            let call = channel.exchange_declare(name, ExchangeKind::Topic, options, table);
            bounded(&what, RPC_LIMIT, call).await
        }
        Item::Queue { name, .. } => {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let name = short("a queue's name", name)?;
            bounded(&what, RPC_LIMIT, channel.queue_declare(name, options, table)).await.map(drop)
        }
        // AMQP has no way to ask for a binding.
        Item::Binding { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it() {
        let settings = RabbitMq { classes: vec!["default".into(), "gpu".into()], ..RabbitMq::default() };
        let text: String = items(&settings).iter().map(|item| format!("{item}\n")).collect();
        insta::assert_snapshot!(text);
    }
}
