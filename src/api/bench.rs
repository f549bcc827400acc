//! How fast the service moves messages, against a bare loop over the same broker in the same run.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServeError;
use super::serve::{Overheads, serve_measured};
use crate::config::{Settings, TopologyMode};
use crate::transport::rabbitmq::{
    Broker, BrokerError, Item, PREDICTIONS, RESULTS, Role, apply, bounded, items, short,
};

const RPC: Duration = Duration::from_secs(10);
/// Bound of one measurement.
const LIMIT: Duration = Duration::from_secs(300);
/// Messages in flight, in the bare loop and when publishing.
const IN_FLIGHT: usize = 256;
const BARE: &str = "evalmill.bench.in";
const OUT: &str = "evalmill.bench.out";

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct BrokerBench {
    /// Consume, publish, confirm, acknowledge, by itself: messages a second.
    pub bare_per_s: f64,
    /// Predictions with an immediate result through the whole service: messages a second.
    pub service_per_s: f64,
    /// At half of that rate, from a prediction's arrival at the service until its result is confirmed,
    /// without its execution: median and 99th percentile, in seconds.
    pub overhead: (f64, f64),
    /// Then, too, from publishing a prediction to having its result.
    pub latency: (f64, f64),
}

/// Measures with `count` messages of `bytes` each. The vhost must be unused: its queues are used up.
///
/// # Errors
/// The broker or the service fails, or something takes longer than five minutes.
pub async fn bench_broker(
    settings: &Settings,
    count: usize,
    bytes: usize,
) -> Result<BrokerBench, ServeError> {
    let broker = Broker::new(settings.rabbitmq.clone(), "bench".to_owned());
    let connection = broker.connect(Role::Admin).await?;
    let channel = open(&connection).await?;
    for queue in [BARE, OUT] {
        let _ = channel.queue_delete(short("a queue", queue)?, QueueDeleteOptions::default()).await;
    }
    let queues = [BARE, OUT].map(|name| Item::Queue { name: name.to_owned(), arguments: Vec::new() });
    apply(&connection, &queues, TopologyMode::Declare).await?;
    let pad = "x".repeat(bytes.saturating_sub(80));
    let body = |id: usize| {
        json!({"id": format!("bench-{id}"), "preprocessor": "nope", "prediction": {"pad": pad}}).to_string()
    };
    publish(&channel, "", BARE, count, None, &body, |_| ()).await?;
    let bare = bare_loop(&connection, count).await?;
    purge(&channel).await?;

    // Everything is there before the service starts, as it was for the bare loop.
    apply(&connection, &items(&settings.rabbitmq), settings.rabbitmq.topology).await?;
    let bind = QueueBindOptions::default();
    let (out, results) = (short("a queue", OUT)?, short("an exchange", RESULTS)?);
    bounded("bind", RPC, channel.queue_bind(out, results, "result.#".into(), bind, FieldTable::default()))
        .await?;
    let class = settings.rabbitmq.classes.first().cloned().unwrap_or_default();
    publish(&channel, PREDICTIONS, &class, count, None, &body, |_| ()).await?;
    let (draining, forced) = (CancellationToken::new(), CancellationToken::new());
    let tracker = TaskTracker::new();
    let mut quiet = settings.clone();
    quiet.telemetry.listen = String::new();
    let (drain, force) = (draining.clone(), forced.clone());
    let overheads = Overheads::default();
    let noted = Some(Arc::clone(&overheads));
    let service = tracker.spawn(async move { serve_measured(&quiet, drain, force, noted).await });
    // What it takes to start is not what a message takes.
    let before = until(&channel, 1).await?;
    let begun = Instant::now();
    let all = until(&channel, count).await?;
    let service_per_s = (all - before) as f64 / begun.elapsed().as_secs_f64();
    purge(&channel).await?;

    let noted = || std::mem::take(&mut *overheads.lock().unwrap_or_else(PoisonError::into_inner));
    drop(noted());
    let latency = latencies(&connection, &class, count.min(20_000), service_per_s / 2.0, &body).await?;
    let overhead = median_and_p99(noted());
    draining.cancel();
    let ended = tokio::time::timeout(LIMIT, service).await;
    let _ = channel.queue_delete(short("a queue", BARE)?, QueueDeleteOptions::default()).await;
    let _ = channel.queue_delete(short("a queue", OUT)?, QueueDeleteOptions::default()).await;
    match ended {
        Ok(Ok(end)) => drop(end?),
        _ => return Err(BrokerError::Ended("the service did not end".into()).into()),
    }
    Ok(BrokerBench { bare_per_s: count as f64 / bare.as_secs_f64(), service_per_s, overhead, latency })
}

async fn open(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = bounded("open a channel", RPC, connection.create_channel()).await?;
    bounded("ask for confirms", RPC, channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

async fn purge(channel: &Channel) -> Result<(), BrokerError> {
    bounded("purge", RPC, channel.queue_purge(OUT.into(), Default::default())).await.map(drop)
}

/// Waits until there are so many results; answers how many there are then.
async fn until(channel: &Channel, count: usize) -> Result<usize, BrokerError> {
    let end = Instant::now() + LIMIT;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    loop {
        let name = short("a queue", OUT)?;
        let found = bounded("look", RPC, channel.queue_declare(name, options, FieldTable::default())).await?;
        let found = found.message_count() as usize;
        if found >= count {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(BrokerError::Timeout { what: format!("{count} results"), limit: LIMIT });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes `count` messages, at `rate` a second where there is one; `sent` is told of each before.
async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    count: usize,
    rate: Option<f64>,
    body: &impl Fn(usize) -> String,
    mut sent: impl FnMut(usize),
) -> Result<(), BrokerError> {
    let (exchange, key) = (short("an exchange", exchange)?, short("a key", key)?);
    let mut confirms = FuturesUnordered::new();
    let begun = tokio::time::Instant::now();
    for id in 0..count {
        if let Some(rate) = rate {
            tokio::time::sleep_until(begun + Duration::from_secs_f64(id as f64 / rate)).await;
        }
        sent(id);
        let body = body(id);
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let publish =
            channel.basic_publish(exchange.clone(), key.clone(), options, body.as_bytes(), properties);
        confirms.push(bounded("publish", RPC, publish).await?);
        while confirms.len() >= IN_FLIGHT {
            confirms.next().await;
        }
    }
    while let Some(confirm) = confirms.next().await {
        confirm.map_err(|source| BrokerError::Call { what: "publish".into(), source })?;
    }
    Ok(())
}

/// Moves every message from one queue to another: what the broker and the client allow.
async fn bare_loop(connection: &Connection, count: usize) -> Result<Duration, BrokerError> {
    let (input, output) = (open(connection).await?, open(connection).await?);
    let prefetch = u16::try_from(IN_FLIGHT).unwrap_or(u16::MAX);
    bounded("set the prefetch", RPC, input.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions::default();
    let consume = input.basic_consume(BARE.into(), "bench".into(), options, FieldTable::default());
    let mut deliveries = bounded("consume", RPC, consume).await?;
    let begun = Instant::now();
    let mut moving = FuturesUnordered::new();
    let (mut taken, mut done) = (0, 0);
    let failed = |source| BrokerError::Call { what: "bare loop".into(), source };
    while done < count {
        tokio::select! {
            Some(delivery) = deliveries.next(), if taken < count && moving.len() < IN_FLIGHT => {
                let delivery = delivery.map_err(failed)?;
                taken += 1;
                let output = &output;
                moving.push(async move {
                    let properties = BasicProperties::default().with_delivery_mode(2);
                    let options = BasicPublishOptions::default();
                    let publish =
                        output.basic_publish("".into(), OUT.into(), options, &delivery.data, properties);
                    publish.await?.await?;
                    delivery.acker.ack(BasicAckOptions::default()).await
                });
            }
            Some(moved) = moving.next() => {
                moved.map_err(failed)?;
                done += 1;
            }
            () = tokio::time::sleep(LIMIT) => {
                return Err(BrokerError::Timeout { what: "bare loop".into(), limit: LIMIT });
            }
        }
    }
    Ok(begun.elapsed())
}

/// Median and 99th percentile of the time from publishing to the result.
async fn latencies(
    connection: &Connection,
    class: &str,
    count: usize,
    rate: f64,
    body: &impl Fn(usize) -> String,
) -> Result<(f64, f64), BrokerError> {
    let (input, output) = (open(connection).await?, open(connection).await?);
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consume = output.basic_consume(OUT.into(), "bench-out".into(), options, FieldTable::default());
    let mut results = bounded("consume", RPC, consume).await?;
    let mut sent = HashMap::with_capacity(count);
    let mut times = Vec::with_capacity(count);
    let (sends, mut told) = tokio::sync::mpsc::channel(IN_FLIGHT * 4);
    let publishing = publish(&input, PREDICTIONS, class, count, Some(rate), body, |id| {
        // Full only where the reader below has stopped.
        let _ = sends.try_send((id, Instant::now()));
    });
    let reading = async {
        while times.len() < count {
            let Some(Ok(delivery)) = results.next().await else { break };
            let now = Instant::now();
            while let Ok((id, at)) = told.try_recv() {
                sent.insert(format!("bench-{id}"), at);
            }
            let id = serde_json::from_slice::<serde_json::Value>(&delivery.data).unwrap_or_default();
            if let Some(at) = id["id"].as_str().and_then(|id| sent.remove(id)) {
                times.push((now - at).as_secs_f64());
            }
        }
    };
    let both = async { tokio::join!(publishing, tokio::time::timeout(LIMIT, reading)) };
    let (published, _) = both.await;
    published?;
    Ok(median_and_p99(times))
}

fn median_and_p99(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    (at(0.5), at(0.99))
}
