//! The loop between a source and a sink.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::InOrder;
use super::in_flight::InFlight;
use super::outgoing::messages;
use super::settlement::{Disposition, RetryRule, dispose};
use super::task::{Finished, Outcome, body_len, result_len, start};
use crate::executor::Execute;
use crate::pipeline::{Gate, Pipeline, Processed, Turn};
use crate::transport::{Delivery, Ending, Receipt, Settlement, Sink, Source, TransportError};

/// Bounds and order of a flow.
#[derive(Debug, Clone, Copy)]
pub struct FlowSettings {
    /// Results leave in the order of their predictions.
    pub ordered: bool,
    /// Most deliveries that are not settled yet.
    pub max_unsettled: usize,
    /// Most bytes of their bodies, and as many again of results that wait for their turn.
    pub max_unsettled_bytes: usize,
    /// How failures of ours are tried again. With it, a second delivery of a message that is in flight
    /// waits for the first; without it, each delivery is a prediction of its own.
    pub retry: Option<RetryRule>,
}

/// How a flow came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEnd {
    /// The input is used up and every delivery has its result.
    Complete,
    /// It was told to drain: what had started was finished, the rest given back.
    Drained,
    /// It was told to stop at once: what ran was given up.
    Forced,
}

/// A flow that cannot go on. What was delivered before stays delivered.
#[derive(Debug, Error)]
pub enum FlowError {
    /// The source or the sink failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A task of ours panicked.
    #[error("a task of ours failed while it processed {0}: this is a defect of evalmill")]
    Panicked(String),
}

/// Asked with a result id: whether that result is there already.
pub type DoneAlready = Arc<Mutex<dyn FnMut(&str) -> bool + Send>>;

/// What a flow needs beside source and sink.
pub struct Flow<'a, E> {
    /// The stages.
    pub pipeline: Arc<Pipeline<E>>,
    /// Bounds and order.
    pub settings: FlowSettings,
    /// Whose tasks they are.
    pub tracker: TaskTracker,
    /// Take nothing new, give back what has not started, finish the rest.
    pub draining: CancellationToken,
    /// Give up.
    pub forced: CancellationToken,
    /// Asked with each result id before the prediction is run.
    pub done_already: DoneAlready,
    /// Told of each result, and what became of it, once that is safely out.
    pub observe: &'a mut (dyn FnMut(Settled<'_>) + Send),
}

/// A prediction whose messages are safely out.
#[derive(Debug, Clone, Copy)]
pub struct Settled<'a> {
    /// Its result.
    pub processed: &'a Processed,
    /// What became of it.
    pub disposition: Disposition,
    /// Since it arrived.
    pub age: Duration,
}

/// How long the output may take once the flow was told to stop at once, for what is finished and then
/// for what is buffered: whoever forces does not wait for a reader that has stopped.
const FORCED_FLUSH: Duration = Duration::from_secs(2);

/// Runs until the source ends, or it is told to stop.
///
/// # Errors
/// Source or sink failed; everything that was delivered stays delivered.
pub async fn run<E, S, K>(flow: Flow<'_, E>, source: &mut S, sink: &mut K) -> Result<FlowEnd, FlowError>
where
    E: Execute + 'static,
    S: Source,
    K: Sink,
{
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let (finished, results) = mpsc::channel(flow.settings.max_unsettled.max(1));
    let result = Driver::new(flow, source, sink, stop, finished).drive(results).await;
    drop(guard);
    let flushed = match result {
        Ok(FlowEnd::Forced) => timeout(FORCED_FLUSH, sink.flush()).await.unwrap_or(Ok(())),
        _ => sink.flush().await,
    };
    let end = result?;
    flushed?;
    Ok(end)
}

/// Waits for a delivery's message to be safely out; `false`: it will not be.
type Confirmed = BoxFuture<'static, (Finished, bool)>;

struct Driver<'a, 'f, E, S, K> {
    flow: Flow<'f, E>,
    source: &'a mut S,
    sink: &'a mut K,
    stop: CancellationToken,
    finished: mpsc::Sender<Finished>,
    order: InOrder<Finished>,
    in_flight: InFlight,
    /// Deliveries that are being processed.
    running: usize,
    /// Deliveries whose messages are on their way out.
    confirming: FuturesUnordered<Confirmed>,
    /// Deliveries whose settlement is on its way.
    ending: FuturesUnordered<BoxFuture<'static, (u64, Settlement, bool)>>,
    /// Deliveries that wait for another one's end, by the sequence of that one.
    attached: HashMap<u64, Vec<Delivery>>,
    /// Deliveries that are run alone, one after another.
    suspects: VecDeque<Delivery>,
    /// A suspect is being processed.
    alone: bool,
    unsettled: usize,
    body_bytes: usize,
    result_bytes: usize,
    given_back: bool,
}

impl<'a, 'f, E, S, K> Driver<'a, 'f, E, S, K>
where
    E: Execute + 'static,
    S: Source,
    K: Sink,
{
    fn new(
        flow: Flow<'f, E>,
        source: &'a mut S,
        sink: &'a mut K,
        stop: CancellationToken,
        finished: mpsc::Sender<Finished>,
    ) -> Self {
        Self {
            flow,
            source,
            sink,
            stop,
            finished,
            order: InOrder::default(),
            in_flight: InFlight::default(),
            running: 0,
            confirming: FuturesUnordered::new(),
            ending: FuturesUnordered::new(),
            attached: HashMap::new(),
            suspects: VecDeque::new(),
            alone: false,
            unsettled: 0,
            body_bytes: 0,
            result_bytes: 0,
            given_back: false,
        }
    }

    async fn drive(mut self, mut results: mpsc::Receiver<Finished>) -> Result<FlowEnd, FlowError> {
        let (gate, turns) = watch::channel(Gate { room: true, next: 0 });
        let (mut ended, mut drained) = (false, false);
        let forced = self.flow.forced.clone();
        let late = {
            let forced = forced.clone();
            async move {
                forced.cancelled().await;
                tokio::time::sleep(FORCED_FLUSH).await;
            }
        };
        let mut late = std::pin::pin!(late);
        loop {
            let draining = self.flow.draining.is_cancelled();
            if draining && !drained {
                drained = true;
                self.source.drain().await;
                self.give_back_suspects().await;
            }
            self.start_suspect(&turns);
            if self.running == 0 && self.confirming.is_empty() && (ended || draining) {
                break;
            }
            self.open_gate(&gate);
            let room = self.has_room();
            tokio::select! {
                biased;
                () = forced.cancelled() => break,
                Some((done, out)) = self.confirming.next() => self.confirmed(done, out).await,
                Some((sequence, settlement, done)) = self.ending.next() => {
                    self.ended(sequence, settlement, done).await;
                }
                Some(done) = results.recv() => {
                    self.came_back(done);
                    while let Some(done) = self.next_result() {
                        tokio::select! {
                            biased;
                            () = &mut late => return Ok(FlowEnd::Forced),
                            settled = self.deliver(done) => settled?,
                        }
                    }
                }
                () = self.flow.draining.cancelled(), if !draining => {}
                next = self.source.next(), if room && !ended && !draining => match next {
                    None => ended = true,
                    Some(delivery) => self.took(delivery?, &turns),
                },
            }
        }
        // What is finished is delivered in any case, over the gaps that the rest leaves.
        while let Ok(done) = results.try_recv() {
            self.came_back(done);
        }
        tokio::select! {
            biased;
            settled = self.deliver_rest() => settled?,
            () = &mut late => return Ok(FlowEnd::Forced),
        }
        Ok(if self.running > 0 {
            FlowEnd::Forced
        } else if self.given_back || (self.flow.draining.is_cancelled() && !ended) {
            FlowEnd::Drained
        } else {
            FlowEnd::Complete
        })
    }

    /// In order, results wait for the next one: until it is out, only so many bytes may join them.
    fn open_gate(&self, gate: &watch::Sender<Gate>) {
        let room = self.result_bytes < self.flow.settings.max_unsettled_bytes || !self.flow.settings.ordered;
        let now = Gate { room, next: self.order.next() };
        gate.send_if_modified(|gate| {
            let changed = gate.room != now.room || (!now.room && gate.next != now.next);
            *gate = now;
            changed
        });
    }

    fn has_room(&self) -> bool {
        let settings = &self.flow.settings;
        self.unsettled < settings.max_unsettled
            && self.body_bytes + self.result_bytes < settings.max_unsettled_bytes
            && self.suspects.is_empty()
            && !self.alone
    }

    fn took(&mut self, delivery: Delivery, turns: &watch::Receiver<Gate>) {
        self.unsettled += 1;
        self.body_bytes += body_len(&delivery);
        // One whose result is being made only waits for that; the others come back.
        let suspect = delivery.envelope.as_ref().is_some_and(|envelope| envelope.is_suspect());
        self.start(delivery, turns, suspect);
    }

    /// Runs the next suspect once nothing else runs.
    fn start_suspect(&mut self, turns: &watch::Receiver<Gate>) {
        if self.running > 0 {
            return;
        }
        self.alone = false;
        if let Some(delivery) = self.suspects.pop_front() {
            tracing::warn!(origin = delivery.origin, "was handed over again and again: it runs alone");
            self.alone = true;
            self.start(delivery, turns, false);
        }
    }

    async fn give_back_suspects(&mut self) {
        for delivery in std::mem::take(&mut self.suspects) {
            self.unsettled -= 1;
            self.body_bytes -= body_len(&delivery);
            self.given_back = true;
            self.source.settle(delivery, Settlement::Requeue).await;
        }
    }

    fn start(&mut self, delivery: Delivery, turns: &watch::Receiver<Gate>, suspect: bool) {
        self.running += 1;
        let turn = Turn { sequence: delivery.sequence, gate: turns.clone() };
        let in_flight = self.flow.settings.retry.is_some().then(|| self.in_flight.clone());
        start(&self.flow, delivery, turn, self.finished.clone(), self.stop.clone(), in_flight, suspect);
    }

    fn came_back(&mut self, done: Finished) {
        self.running -= 1;
        if matches!(done.outcome, Outcome::Suspect) {
            // Its body still counts.
            self.suspects.push_back(done.delivery);
            return;
        }
        // The result stands in for the body from here on: the body is not needed any more.
        self.body_bytes -= done.body_bytes;
        self.result_bytes += result_len(&done);
        self.given_back |= matches!(done.outcome, Outcome::NotStarted);
        self.order.push(done.delivery.sequence, done);
    }

    fn next_result(&mut self) -> Option<Finished> {
        let done = if self.flow.settings.ordered { self.order.pop() } else { self.order.pop_any() }?;
        self.result_bytes -= result_len(&done);
        Some(done)
    }

    /// Sends out what a delivery came to, and settles it where that is all.
    async fn deliver(&mut self, mut done: Finished) -> Result<(), FlowError> {
        let settlement = match &mut done.outcome {
            Outcome::Result(processed) => {
                let outgoing = messages(processed, &mut done.delivery, self.flow.settings.retry);
                let mut receipts = Vec::new();
                for message in outgoing {
                    if let Receipt::Later(receipt) = self.sink.deliver(message).await? {
                        receipts.push(receipt);
                    }
                }
                if receipts.is_empty() {
                    self.confirmed(done, true).await;
                } else {
                    let all = futures::future::try_join_all(receipts);
                    self.confirming.push(all.map(move |all| (done, all.is_ok())).boxed());
                }
                return Ok(());
            }
            Outcome::HasResult => Settlement::Ack,
            Outcome::NotStarted => Settlement::Requeue,
            Outcome::Attached(first) if self.in_flight.is_running(*first) => {
                if done.delivery.envelope.as_ref().is_some_and(|envelope| envelope.is_suspect()) {
                    self.source.vouch(&done.delivery);
                }
                self.attached.entry(*first).or_default().push(done.delivery);
                return Ok(());
            }
            // The first one was settled meanwhile; whether with a result, nobody knows any more.
            Outcome::Attached(_) => Settlement::Requeue,
            // Put aside when it came back.
            Outcome::Suspect => return Ok(()),
            Outcome::Panicked => return Err(FlowError::Panicked(done.delivery.origin)),
        };
        self.settle(done.delivery, settlement).await;
        Ok(())
    }

    /// What a delivery came to is safely out, or (`out` is false) will not be.
    async fn confirmed(&mut self, done: Finished, out: bool) {
        if let (Outcome::Result(processed), true) = (&done.outcome, out) {
            let disposition = dispose(processed.verdict, done.delivery.attempt, self.flow.settings.retry);
            let age = done.delivery.arrived.elapsed();
            (self.flow.observe)(Settled { processed, disposition, age });
        }
        self.settle(done.delivery, if out { Settlement::Ack } else { Settlement::Requeue }).await;
    }

    /// Ends a delivery, and those that wait for it.
    async fn settle(&mut self, delivery: Delivery, settlement: Settlement) {
        self.settle_attached(delivery.sequence, &settlement).await;
        self.unsettled -= 1;
        let sequence = delivery.sequence;
        match self.source.settle(delivery, settlement.clone()).await {
            Ending::Now(done) => self.ended(sequence, settlement, done).await,
            Ending::Later(done) => {
                let done = done.map(move |done| (sequence, settlement, done.unwrap_or(false)));
                self.ending.push(done.boxed());
            }
        }
    }

    /// Whether there were any. Where one of them comes again, it makes its result again.
    async fn settle_attached(&mut self, sequence: u64, settlement: &Settlement) -> bool {
        let attached = self.attached.remove(&sequence).unwrap_or_default();
        let any = !attached.is_empty();
        for other in attached {
            self.unsettled -= 1;
            self.source.settle(other, settlement.clone()).await;
        }
        any
    }

    /// A delivery was ended, or (`done` is false) will be handed over again.
    async fn ended(&mut self, sequence: u64, settlement: Settlement, done: bool) {
        // What came while its acknowledgement was on its way: it may be this delivery, handed over again.
        let came = self.settle_attached(sequence, &settlement).await;
        if !done && !came && settlement == Settlement::Ack {
            self.in_flight.comes_again(sequence);
        }
        self.in_flight.end(sequence);
    }

    /// Delivers all that came back, and settles what is confirmed of it.
    async fn deliver_rest(&mut self) -> Result<(), FlowError> {
        let mut result = Ok(());
        while let Some(done) = self.order.pop_any() {
            // One that is a defect of ours does not take the others with it.
            result = result.and(self.deliver(done).await);
        }
        while let Some((done, out)) = self.confirming.next().await {
            self.confirmed(done, out).await;
        }
        result
    }
}
