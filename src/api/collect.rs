//! Results from the output exchange to a sink, once each.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::broker;
use super::ledger::{Ledger, Taken};
use crate::config::Settings;
use crate::transport::rabbitmq::{BrokerError, TapEvent, TapSettings, Tapped, tap};
use crate::transport::{Address, Outgoing, Sink, TransportError};

/// Messages that are written and acknowledged together.
const BATCH: usize = 64;

/// When it is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Until {
    /// So many different results and parked predictions are there.
    pub count: Option<u64>,
    /// Nothing came for so long, while there was a link.
    pub idle: Option<Duration>,
}

impl Until {
    /// Whether everything is there.
    #[must_use]
    pub fn complete(&self, ledger: &Ledger) -> bool {
        let ids = ledger.missing().is_some_and(std::collections::HashSet::is_empty);
        ids || self.count.is_some_and(|count| ledger.count() >= count)
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectEnd {
    /// Everything is there.
    Complete,
    /// Nothing came any more.
    Idle,
    /// It was told to stop.
    Stopped,
}

/// It cannot go on.
#[derive(Debug, Error)]
pub enum CollectError {
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The output.
    #[error(transparent)]
    Output(#[from] TransportError),
}

/// What happens meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collecting<'a> {
    /// The queue takes messages from now on.
    Listening(&'a str),
    /// A message was taken.
    Took(&'a Taken),
    /// The link is lost. `kept`: what is published meanwhile waits in the queue.
    Lost {
        /// Whether nothing is lost.
        kept: bool,
    },
}

/// Reads results until everything is there, nothing comes any more, or `stop` is cancelled.
///
/// A message is acknowledged once `sink` has written it; with `file`, once that is on disk. Without a
/// queue's name in `source`, what is published while the link is lost is not seen.
///
/// # Errors
/// The broker cannot be used at the start, or the sink fails.
pub async fn collect(
    settings: &Settings,
    source: TapSettings,
    (sink, file): (&mut impl Sink, Option<File>),
    ledger: &mut Ledger,
    until: Until,
    stop: CancellationToken,
    observe: &mut (dyn FnMut(&Ledger, Collecting<'_>) + Send),
) -> Result<CollectEnd, CollectError> {
    let broker = broker(settings);
    let kept = source.queue.is_some();
    let (tracker, ended) = (TaskTracker::new(), CancellationToken::new());
    let (events, queue) = tokio::select! {
        started = tap(&broker, source, &tracker, &ended) => started?,
        () = stop.cancelled() => return Ok(CollectEnd::Stopped),
    };
    observe(ledger, Collecting::Listening(&queue));
    let mut collector = Collector { sink, file: file.map(Arc::new), ledger, until, kept, observe };
    let end = collector.run(events, stop).await;
    ended.cancel();
    tracker.close();
    tracker.wait().await;
    end
}

struct Collector<'a, S> {
    sink: &'a mut S,
    file: Option<Arc<File>>,
    ledger: &'a mut Ledger,
    until: Until,
    kept: bool,
    observe: &'a mut (dyn FnMut(&Ledger, Collecting<'_>) + Send),
}

impl<S: Sink> Collector<'_, S> {
    async fn run(
        &mut self,
        mut events: mpsc::Receiver<TapEvent>,
        stop: CancellationToken,
    ) -> Result<CollectEnd, CollectError> {
        let mut linked = true;
        let mut since = Instant::now();
        while !self.until.complete(self.ledger) {
            let idle = self.until.idle.filter(|_| linked).map(|idle| since + idle);
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(CollectEnd::Stopped),
                event = events.recv() => event,
                () = sleep_until(idle.unwrap_or(since)), if idle.is_some() => return Ok(CollectEnd::Idle),
            };
            since = Instant::now();
            match event {
                Some(TapEvent::Message(first)) => {
                    let mut batch = vec![first];
                    while batch.len() < BATCH
                        && let Ok(event) = events.try_recv()
                    {
                        match event {
                            TapEvent::Message(next) => batch.push(next),
                            other => self.link(&other, &mut linked),
                        }
                    }
                    self.write(&mut batch).await?;
                }
                Some(other) => self.link(&other, &mut linked),
                None => return Err(BrokerError::Ended("the reading task has ended".to_owned()).into()),
            }
        }
        Ok(CollectEnd::Complete)
    }

    fn link(&mut self, event: &TapEvent, linked: &mut bool) {
        *linked = matches!(event, TapEvent::Back);
        if !*linked {
            (self.observe)(self.ledger, Collecting::Lost { kept: self.kept });
        }
    }

    async fn write(&mut self, batch: &mut [Tapped]) -> Result<(), CollectError> {
        for tapped in batch.iter_mut() {
            let taken = self.ledger.take(&tapped.body);
            if let Taken::Foreign(reason) = &taken {
                let key = &tapped.key;
                tracing::warn!(%key, %reason, "a message that is neither a result nor a notice is left out");
            }
            if matches!(taken, Taken::Result(_) | Taken::Parked) {
                self.sink.deliver(line(std::mem::take(&mut tapped.body))).await?;
            }
            (self.observe)(self.ledger, Collecting::Took(&taken));
        }
        self.sink.flush().await?;
        if let Some(file) = self.file.clone() {
            let name = || "the output".to_owned();
            let failed = |reason: String| TransportError::Write { name: name(), reason };
            let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
            synced.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        }
        // Those of an earlier link come again: the last one stands for its link.
        if let Some(last) = batch.last() {
            last.acknowledge().await;
        }
        Ok(())
    }
}

/// One line. A break is legal only between tokens: inside texts it is escaped.
fn line(mut body: Vec<u8>) -> Outgoing {
    body.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    let to = Address::Results { key: String::new(), message_id: String::new(), schema: "result.v1" };
    Outgoing { body, to, envelope: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_it_is_over() {
        let body = br#"{"schema":"result.v1","result_id":"1","id":"a","verdict":"passed"}"#;
        let mut ledger = Ledger::new(Some(["a".to_owned()].into()));
        let by_ids = Until::default();
        assert!(!by_ids.complete(&ledger));
        ledger.take(body);
        assert!(by_ids.complete(&ledger));
        let mut ledger = Ledger::new(None);
        let by_count = Until { count: Some(1), idle: None };
        assert!(!by_count.complete(&ledger) && !by_ids.complete(&ledger));
        ledger.take(body);
        assert!(by_count.complete(&ledger) && !by_ids.complete(&ledger));
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(line(b"{\r\n\"a\":1}".to_vec()).body, b"{  \"a\":1}");
    }
}
