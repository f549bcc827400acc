//! What travels beside a body: properties and headers, read and written.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::broker::{BrokerError, short};
use super::topology::{DEAD, RESULTS, retry_queue};
use crate::transport::{Address, Envelope, Outgoing};

const ATTEMPT: &str = "x-attempt";
pub(super) const TRACE: [&str; 2] = ["traceparent", "tracestate"];
const PERSISTENT: u8 = 2;
/// Properties and headers share one frame of 128 KiB with everything else in it.
const MAX_REASON_BYTES: usize = 1024;
/// What W3C asks everybody to take.
const MAX_TRACE_BYTES: usize = 512;

/// A message, ready to be published.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Arc<[u8]>,
    /// It must reach a queue: no alternate exchange catches it.
    pub(super) mandatory: bool,
    /// A queue that gets a copy, if it can.
    pub(super) reply_to: Option<ShortString>,
}

/// What came with a delivery.
pub(super) fn envelope(class: &str, delivery: &Delivery) -> Envelope {
    let text = |text: &Option<ShortString>| {
        text.as_ref().map(|text| text.as_str().to_owned()).filter(|text| !text.is_empty())
    };
    let properties = &delivery.properties;
    let headers = properties.headers();
    // Longer ones are no trace context, and must not make a result too large for a frame.
    let trace = |name| header_text(headers.as_ref(), name).filter(|text| text.len() <= MAX_TRACE_BYTES);
    let [parent, state] = TRACE.map(trace);
    // Only the broker counts hand-overs: at the first one, it is the producer's.
    let count = headers.as_ref().filter(|_| delivery.redelivered);
    let count = count.and_then(|table| number(table, "x-delivery-count"));
    Envelope {
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        class: class.to_owned(),
        routing_key: delivery.routing_key.as_str().to_owned(),
        handed_over: count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        trace: (parent, state),
    }
}

/// Which attempt a message is, from 1; what is no sensible number counts as the first.
#[must_use]
pub fn attempt_of(properties: &BasicProperties) -> u32 {
    let attempt = properties.headers().as_ref().and_then(|headers| number(headers, ATTEMPT));
    attempt.and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(1).max(1)
}

pub(super) fn number(table: &FieldTable, name: &str) -> Option<i64> {
    match table.inner().get(name)? {
        AMQPValue::ShortShortInt(value) => Some((*value).into()),
        AMQPValue::ShortShortUInt(value) => Some((*value).into()),
        AMQPValue::ShortInt(value) => Some((*value).into()),
        AMQPValue::ShortUInt(value) => Some((*value).into()),
        AMQPValue::LongInt(value) => Some((*value).into()),
        AMQPValue::LongUInt(value) => Some((*value).into()),
        AMQPValue::LongLongInt(value) => Some(*value),
        _ => None,
    }
}

pub(super) fn header_text(table: Option<&FieldTable>, name: &str) -> Option<String> {
    match table?.inner().get(name)? {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// An outgoing message with everything that AMQP wants.
pub(super) fn message(outgoing: Outgoing) -> Result<Message, BrokerError> {
    let Outgoing { body, to, envelope } = outgoing;
    let envelope = envelope.as_deref().cloned().unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut headers = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    for (name, value) in TRACE.into_iter().zip([&envelope.trace.0, &envelope.trace.1]) {
        if let Some(value) = value {
            headers.insert(name.into(), text(value));
        }
    }
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now)
        .with_app_id("evalmill".into());
    if let Some(id) = &envelope.correlation_id {
        properties = properties.with_correlation_id(short("a correlation_id", id)?);
    }
    let reply_to = envelope.reply_to.as_deref().map(|queue| short("a reply_to", queue)).transpose()?;
    let (exchange, key, mandatory, copy) = match to {
        Address::Results { key, message_id, schema } => {
            properties =
                properties.with_message_id(short("a message_id", &message_id)?).with_type(schema.into());
            // Our own queues are not for replies.
            let copy = reply_to.filter(|queue| !queue.as_str().starts_with("evalmill."));
            (RESULTS.to_owned(), key, false, copy)
        }
        Address::Retry { attempt } => {
            headers.insert(ATTEMPT.into(), AMQPValue::LongLongInt(attempt.into()));
            properties = as_input(properties, &envelope, reply_to)?;
            (String::new(), retry_queue(&envelope.class), true, None)
        }
        Address::Parking { reason, attempts } => {
            let end = reason.floor_char_boundary(MAX_REASON_BYTES);
            headers.insert("x-reason".into(), text(reason.get(..end).unwrap_or_default()));
            headers.insert("x-attempts".into(), AMQPValue::LongLongInt(attempts.into()));
            headers.insert("x-class".into(), text(&envelope.class));
            properties = as_input(properties, &envelope, reply_to)?;
            (DEAD.to_owned(), envelope.class.clone(), true, None)
        }
    };
    Ok(Message {
        exchange: short("an exchange's name", &exchange)?,
        key: short("a routing key", &key)?,
        properties: properties.with_headers(headers),
        body: body.into(),
        mandatory,
        reply_to: copy,
    })
}

/// A prediction that is sent on keeps what its producer gave it.
fn as_input(
    properties: BasicProperties,
    envelope: &Envelope,
    reply_to: Option<ShortString>,
) -> Result<BasicProperties, BrokerError> {
    let mut properties = properties.with_type("prediction.v1".into());
    if let Some(id) = &envelope.message_id {
        properties = properties.with_message_id(short("a message_id", id)?);
    }
    if let Some(queue) = reply_to {
        properties = properties.with_reply_to(queue);
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn outgoing(to: Address) -> Outgoing {
        let envelope = Envelope {
            message_id: Some("m".into()),
            correlation_id: Some("c".into()),
            reply_to: Some("answers".into()),
            class: "gpu".into(),
            trace: (Some("t".into()), None),
            ..Envelope::default()
        };
        Outgoing { body: b"{}".to_vec(), to, envelope: Some(Arc::new(envelope)) }
    }

    #[test]
    fn a_result_goes_to_the_results_and_to_whoever_asked() {
        let to =
            Address::Results { key: "result.-.passed".into(), message_id: "r".into(), schema: "result.v1" };
        let message = message(outgoing(to)).unwrap();
        assert_eq!((message.exchange.as_str(), message.key.as_str()), (RESULTS, "result.-.passed"));
        assert_eq!(message.reply_to.as_ref().map(ShortString::as_str), Some("answers"));
        let properties = message.properties;
        assert_eq!(properties.message_id().as_ref().map(ShortString::as_str), Some("r"));
        assert_eq!(properties.correlation_id().as_ref().map(ShortString::as_str), Some("c"));
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(header_text(properties.headers().as_ref(), "traceparent").as_deref(), Some("t"));
        assert!(!message.mandatory);
    }

    #[test]
    fn what_is_tried_again_keeps_what_it_came_with() {
        let message = message(outgoing(Address::Retry { attempt: 2 })).unwrap();
        assert_eq!((message.exchange.as_str(), message.key.as_str()), ("", "evalmill.retry.gpu"));
        assert_eq!(attempt_of(&message.properties), 2);
        assert_eq!(message.properties.message_id().as_ref().map(ShortString::as_str), Some("m"));
        assert_eq!(message.properties.reply_to().as_ref().map(ShortString::as_str), Some("answers"));
        assert!(message.mandatory && message.reply_to.is_none());
    }

    #[test]
    fn what_is_parked_says_why() {
        let message = message(outgoing(Address::Parking { reason: "é".repeat(1000), attempts: 3 })).unwrap();
        let headers = message.properties.headers().clone();
        assert_eq!(header_text(headers.as_ref(), "x-reason").unwrap().len(), MAX_REASON_BYTES);
        assert_eq!(headers.as_ref().and_then(|table| number(table, "x-attempts")), Some(3));
        assert_eq!(message.exchange.as_str(), DEAD);
    }

    #[rstest]
    #[case("evalmill.work.default")]
    #[case("evalmill.")]
    fn our_queues_get_no_replies(#[case] queue: &str) {
        let mut outgoing =
            outgoing(Address::Results { key: "k".into(), message_id: "r".into(), schema: "result.v1" });
        let envelope = Envelope { reply_to: Some(queue.into()), ..Envelope::default() };
        outgoing.envelope = Some(Arc::new(envelope));
        assert!(message(outgoing).unwrap().reply_to.is_none());
    }

    #[test]
    fn attempts_are_sensible() {
        for (value, attempt) in [
            (AMQPValue::LongLongInt(3), 3),
            (AMQPValue::LongInt(-3), 1),
            (AMQPValue::LongLongInt(0), 1),
            (AMQPValue::LongLongInt(i64::MAX), 1),
            (AMQPValue::LongString("3".into()), 1),
        ] {
            let mut headers = FieldTable::default();
            headers.insert(ATTEMPT.into(), value);
            assert_eq!(attempt_of(&BasicProperties::default().with_headers(headers)), attempt);
        }
        assert_eq!(attempt_of(&BasicProperties::default()), 1);
    }
}
