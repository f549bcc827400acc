//! Rows to the input exchange, at least once each.

use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::client::broker;
use super::rows::{Row, frame, input_key};
use crate::config::{Settings, TopologyMode};
use crate::pipeline::Framing;
use crate::transport::rabbitmq::{Broker, BrokerError, Fault, PredictionSink, prepare, publish_predictions};
use crate::transport::{BodyError, Delivery, Source, TransportError};
use crate::util::ceiling::Ceiling;

/// Between two writes of the progress file, and two predictions that must reach a queue.
const TICK: Duration = Duration::from_secs(1);
/// How long confirms are waited for once it is told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// How far behind its rate it may be and still catch up: timers are no finer than milliseconds.
const CATCH_UP: Duration = Duration::from_millis(50);

/// What is published, and how.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// The class of input.
    pub class: String,
    /// The run of what names none.
    pub run: Option<String>,
    /// What the lines are.
    pub framing: Framing,
    /// Predictions each second, at most.
    pub rate: Option<f64>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Confirmed by the broker.
    pub confirmed: u64,
    /// Confirmed in an earlier run.
    pub skipped: u64,
    /// Lines that are no predictions, or cannot be read.
    pub unreadable: u64,
    /// Sent and not confirmed when it was told to stop: the broker may have them.
    pub unconfirmed: u64,
    /// The broker refused them for a while.
    pub refused: u64,
    /// The link was lost so often.
    pub losses: u64,
    /// It was told to stop before the end of the input.
    pub stopped: bool,
}

/// It cannot be published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The input.
    #[error(transparent)]
    Input(#[from] TransportError),
    /// The progress file.
    #[error(transparent)]
    Progress(#[from] CheckpointError),
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishEvent<'a> {
    /// One more is confirmed.
    Confirmed,
    /// A line is no prediction.
    Unreadable {
        /// The line.
        origin: &'a str,
        /// What is wrong with it.
        reason: &'a str,
    },
}

/// Publishes every row of `source` until its end, or until `draining` is cancelled; then confirms are
/// waited for, for a while, or until `forced` is cancelled.
///
/// A broker that is lost on the way is waited for, and what it has not confirmed is sent again: a row can
/// arrive twice, and has the same id then. Once a second one has to reach a queue, and at the end the queue
/// has to be there: where somebody deletes it on the way, what was confirmed since the last such look can be
/// gone with it.
///
/// # Errors
/// The broker cannot be used at the start, the input breaks off, or the progress file cannot be written.
pub async fn publish(
    settings: &Settings,
    options: &PublishOptions,
    source: &mut impl Source,
    checkpoint: &mut Checkpoint,
    (draining, forced): (CancellationToken, CancellationToken),
    observe: &mut (dyn FnMut(PublishEvent<'_>) + Send),
) -> Result<Published, PublishError> {
    let mut broker = broker(settings);
    broker.settings.classes = vec![options.class.clone()];
    tokio::select! {
        ready = prepare(&broker) => ready?,
        () = draining.cancelled() => return Ok(Published { stopped: true, ..Published::default() }),
    }
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let capacity = usize::from(broker.settings.confirm_window) * 2;
    let sink = publish_predictions(&broker, capacity, &tracker, &stop);
    let mut publishing = Publishing {
        options,
        sink: &sink,
        max_body: broker.max_message_bytes.clone(),
        observe,
        checkpoint,
        published: Published::default(),
        probed: [None; 2],
    };
    let max_bytes = (settings.pipeline.max_unsettled_mb as usize) << 20;
    let end = publishing.all(source, (capacity, max_bytes), draining, forced).await;
    let mut published = publishing.published;
    (published.refused, published.losses) = (sink.refused(), sink.losses());
    // Its link says goodbye to the broker.
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    // What is confirmed is remembered even where something else broke off.
    save(checkpoint).await.and(end)?;
    if !published.stopped && published.confirmed > 0 {
        still_there(broker).await?;
    }
    Ok(published)
}

/// A queue that was deleted on the way took with it what it held: then there is something to say.
async fn still_there(mut broker: Broker) -> Result<(), BrokerError> {
    broker.settings.topology = TopologyMode::Check;
    match prepare(&broker).await {
        Err(error) if error.fault() == Fault::Unreachable => {
            tracing::warn!(%error, "all is confirmed; whether the queue is still there could not be seen");
            Ok(())
        }
        checked => checked,
    }
}

struct Publishing<'a> {
    options: &'a PublishOptions,
    sink: &'a PredictionSink,
    max_body: Ceiling,
    observe: &'a mut (dyn FnMut(PublishEvent<'_>) + Send),
    checkpoint: &'a mut Checkpoint,
    published: Published,
    /// When one had to reach a queue last: without a run in its key, and with one.
    probed: [Option<Instant>; 2],
}

impl Publishing<'_> {
    async fn all(
        &mut self,
        source: &mut impl Source,
        (capacity, max_bytes): (usize, usize),
        draining: CancellationToken,
        forced: CancellationToken,
    ) -> Result<(), PublishError> {
        let mut waiting = FuturesUnordered::new();
        let (mut bytes, mut ended) = (0, false);
        let mut next: Option<(String, Row)> = None;
        let mut pace = Pace::new(self.options.rate);
        let mut deadline = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(ended && next.is_none() && waiting.is_empty()) {
            let room = waiting.len() < capacity && bytes < max_bytes;
            tokio::select! {
                biased;
                () = forced.cancelled() => break,
                () = draining.cancelled(), if deadline.is_none() => {
                    self.published.stopped = !ended || next.is_some();
                    (ended, next) = (true, None);
                    deadline = Some(Instant::now() + DRAIN_LIMIT);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
                Some(done) = waiting.next(), if !waiting.is_empty() => {
                    let (origin, size, receipt): (String, usize, _) = done;
                    bytes -= size;
                    self.settled(&origin, size, receipt)?;
                }
                _ = tick.tick() => save(self.checkpoint).await?,
                () = sleep_until(pace.at()), if next.is_some() && room => {
                    let Some((origin, row)) = next.take() else { continue };
                    let size = row.body.len();
                    let receipt = self.send(row).await?;
                    pace.took();
                    bytes += size;
                    waiting.push(receipt.map(move |receipt| (origin, size, receipt)));
                }
                delivery = source.next(), if !ended && next.is_none() => match delivery {
                    Some(delivery) => next = self.row(delivery?),
                    None => ended = true,
                },
            }
        }
        self.published.unconfirmed = waiting.len() as u64;
        Ok(())
    }

    /// The message that a line is; `None`: there is none to be published.
    fn row(&mut self, delivery: Delivery) -> Option<(String, Row)> {
        let Delivery { origin, body, .. } = delivery;
        // What follows a damaged place was never read: another run shall try it again.
        let damaged = matches!(body, Err(BodyError::Damaged(_)));
        if !damaged && self.checkpoint.begin(&origin) {
            self.published.skipped += 1;
            return None;
        }
        let row = body.map_err(|error| error.to_string()).and_then(|line| {
            let row = frame(line, &origin, &self.options.framing, self.options.run.as_deref())?;
            self.fits(row.body.len())?;
            Ok(row)
        });
        match row {
            Ok(row) => Some((origin, row)),
            Err(reason) => {
                self.unreadable(&origin, &reason);
                if !damaged {
                    self.checkpoint.settle(&origin, true);
                }
                None
            }
        }
    }

    fn fits(&self, size: usize) -> Result<(), String> {
        let limit = self.max_body.get();
        if size <= limit {
            return Ok(());
        }
        let rule = "the service or the broker takes no more (rabbitmq.max_message_mb)";
        Err(format!("the message has {size} bytes, more than {limit}: {rule}"))
    }

    fn unreadable(&mut self, origin: &str, reason: &str) {
        self.published.unreadable += 1;
        (self.observe)(PublishEvent::Unreadable { origin, reason });
    }

    async fn send(&mut self, row: Row) -> Result<tokio::sync::oneshot::Receiver<()>, BrokerError> {
        let key = input_key(&self.options.class, row.run.as_deref());
        // An exchange takes what no queue is bound to, and drops it: one in a while has to arrive.
        let probed = &mut self.probed[usize::from(row.run.is_some())];
        let routed = probed.is_none_or(|at| at.elapsed() >= TICK);
        if routed {
            *probed = Some(Instant::now());
        }
        self.sink.send(&key, &row.message_id, row.body, routed).await
    }

    fn settled<E>(&mut self, origin: &str, size: usize, receipt: Result<(), E>) -> Result<(), PublishError> {
        if receipt.is_err() {
            // Given up: the broker has said meanwhile that it takes none of this size.
            let Err(reason) = self.fits(size) else {
                return Err(BrokerError::Ended("the publishing task has ended".to_owned()).into());
            };
            self.unreadable(origin, &reason);
            self.checkpoint.settle(origin, true);
            return Ok(());
        }
        self.checkpoint.settle(origin, false);
        self.published.confirmed += 1;
        (self.observe)(PublishEvent::Confirmed);
        Ok(())
    }
}

async fn save(checkpoint: &Checkpoint) -> Result<(), PublishError> {
    let Some(snapshot) = checkpoint.snapshot() else { return Ok(()) };
    match tokio::task::spawn_blocking(move || snapshot.write()).await {
        Ok(written) => Ok(written?),
        // The runtime is shutting down.
        Err(_) => Ok(()),
    }
}

/// Spaces what is sent.
struct Pace {
    gap: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: Option<f64>) -> Self {
        let gap = per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Self { gap, next: Instant::now() }
    }

    /// When the next may be sent.
    fn at(&self) -> Instant {
        self.next
    }

    fn took(&mut self) {
        let now = Instant::now();
        self.next = self.next.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + self.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept() {
        for (rate, count) in [(20.0, 30), (5000.0, 7500)] {
            let (mut pace, start) = (Pace::new(Some(rate)), Instant::now());
            for _ in 0..count {
                sleep_until(pace.at()).await;
                pace.took();
            }
            let elapsed = start.elapsed().as_secs_f64();
            assert!((1.4..1.55).contains(&elapsed), "{rate}: {elapsed}");
        }
        let free = Pace::new(None);
        assert!(free.at() <= Instant::now());
    }
}
