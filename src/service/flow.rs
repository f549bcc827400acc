//! The loop between a source and a sink.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::InOrder;
use crate::executor::Execute;
use crate::pipeline::{Gate, Incoming, Pipeline, Processed, Turn, decode};
use crate::transport::{Delivery, Outgoing, Settlement, Sink, Source, TransportError};

/// Bounds and order of a flow.
#[derive(Debug, Clone, Copy)]
pub struct FlowSettings {
    /// Results leave in the order of their predictions.
    pub ordered: bool,
    /// Most deliveries that are not settled yet.
    pub max_unsettled: usize,
    /// Most bytes of their bodies, and as many again of results that wait for their turn.
    pub max_unsettled_bytes: usize,
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
    /// Told of each result once it is delivered.
    pub observe: &'a mut (dyn FnMut(&Processed) + Send),
}

/// What a task brings back.
struct Finished {
    /// Without its body, which nobody needs any more.
    delivery: Delivery,
    body_bytes: usize,
    outcome: Outcome,
}

enum Outcome {
    Result(Box<Processed>),
    HasResult,
    NotStarted,
    Panicked,
}

/// Longer messages are decoded off the runtime: a JSON text of this size takes about 0.2 ms.
const DECODE_INLINE_BYTES: usize = 64 << 10;

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
    let result = drive(flow, source, sink, &stop).await;
    drop(guard);
    let flushed = match result {
        Ok(FlowEnd::Forced) => timeout(FORCED_FLUSH, sink.flush()).await.unwrap_or(Ok(())),
        _ => sink.flush().await,
    };
    let end = result?;
    flushed?;
    Ok(end)
}

async fn drive<E, S, K>(
    flow: Flow<'_, E>,
    source: &mut S,
    sink: &mut K,
    stop: &CancellationToken,
) -> Result<FlowEnd, FlowError>
where
    E: Execute + 'static,
    S: Source,
    K: Sink,
{
    let (finished, mut results) = mpsc::channel::<Finished>(flow.settings.max_unsettled.max(1));
    let mut order = InOrder::default();
    let (mut unsettled, mut in_flight) = (0_usize, 0_usize);
    let (mut body_bytes, mut result_bytes) = (0_usize, 0_usize);
    let (mut ended, mut given_back) = (false, false);
    let (gate, turns) = watch::channel(Gate { room: true, next: 0 });
    let late = async {
        flow.forced.cancelled().await;
        tokio::time::sleep(FORCED_FLUSH).await;
    };
    let mut late = std::pin::pin!(late);
    loop {
        let draining = flow.draining.is_cancelled();
        if in_flight == 0 && (ended || draining) {
            break;
        }
        // In order, results wait for the next one: until it is out, only so many bytes may join them.
        let most = flow.settings.max_unsettled_bytes;
        let now = Gate { room: result_bytes < most || !flow.settings.ordered, next: order.next() };
        gate.send_if_modified(|gate| {
            let changed = gate.room != now.room || (!now.room && gate.next != now.next);
            *gate = now;
            changed
        });
        let room = unsettled < flow.settings.max_unsettled && body_bytes + result_bytes < most;
        tokio::select! {
            biased;
            () = flow.forced.cancelled() => break,
            Some(done) = results.recv() => {
                in_flight -= 1;
                // The result stands in for the body from here on: the body is not needed any more.
                body_bytes -= done.body_bytes;
                result_bytes += result_len(&done);
                given_back |= matches!(done.outcome, Outcome::NotStarted);
                let sequence = done.delivery.sequence;
                order.push(sequence, done);
                while let Some(done) = if flow.settings.ordered { order.pop() } else { order.pop_any() } {
                    unsettled -= 1;
                    result_bytes -= result_len(&done);
                    tokio::select! {
                        biased;
                        () = &mut late => return Ok(FlowEnd::Forced),
                        settled = settle(done, source, sink, flow.observe) => settled?,
                    }
                }
            }
            () = flow.draining.cancelled(), if !draining => {}
            next = source.next(), if room && !ended && !draining => match next {
                None => ended = true,
                Some(delivery) => {
                    let delivery = delivery?;
                    unsettled += 1;
                    in_flight += 1;
                    body_bytes += body_len(&delivery);
                    let turn = Turn { sequence: delivery.sequence, gate: turns.clone() };
                    start(&flow, delivery, turn, finished.clone(), stop.clone());
                }
            },
        }
    }
    // What is finished is delivered in any case, over the gaps that the rest leaves.
    while let Ok(done) = results.try_recv() {
        in_flight -= 1;
        given_back |= matches!(done.outcome, Outcome::NotStarted);
        order.push(done.delivery.sequence, done);
    }
    let rest = async {
        let mut result = Ok(());
        while let Some(done) = order.pop_any() {
            // One that is a defect of ours does not take the others with it.
            result = result.and(settle(done, source, sink, flow.observe).await);
        }
        result
    };
    tokio::select! {
        biased;
        settled = rest => settled?,
        () = &mut late => return Ok(FlowEnd::Forced),
    }
    if in_flight > 0 {
        return Ok(FlowEnd::Forced);
    }
    Ok(if given_back || (flow.draining.is_cancelled() && !ended) {
        FlowEnd::Drained
    } else {
        FlowEnd::Complete
    })
}

fn body_len(delivery: &Delivery) -> usize {
    delivery.body.as_ref().map_or(0, Vec::len)
}

fn result_len(done: &Finished) -> usize {
    match &done.outcome {
        Outcome::Result(processed) => processed.body.len(),
        Outcome::HasResult | Outcome::NotStarted | Outcome::Panicked => 0,
    }
}

/// One task for one delivery, which brings it back whatever happens.
fn start<E: Execute + 'static>(
    flow: &Flow<'_, E>,
    delivery: Delivery,
    mut turn: Turn,
    finished: mpsc::Sender<Finished>,
    stop: CancellationToken,
) {
    let pipeline = Arc::clone(&flow.pipeline);
    let draining = flow.draining.clone();
    let done_already = Arc::clone(&flow.done_already);
    flow.tracker.spawn(async move {
        let body_bytes = body_len(&delivery);
        let Delivery { sequence, origin, body, arrived, attempt, redelivered } = delivery;
        let body = body.map_err(|error| error.to_string());
        let incoming =
            Arc::new(Incoming { sequence, origin: origin.clone(), body, arrived, attempt, redelivered });
        let work = process(&pipeline, &incoming, &draining, &mut turn, &done_already);
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            outcome = std::panic::AssertUnwindSafe(work).catch_unwind() => outcome.unwrap_or(Outcome::Panicked),
        };
        let delivery = Delivery { sequence, origin, body: Ok(Vec::new()), arrived, attempt, redelivered };
        // The channel has room for every delivery in flight; it is closed only where nobody waits.
        let _ = finished.send(Finished { delivery, body_bytes, outcome }).await;
    });
}

async fn process<E: Execute>(
    pipeline: &Pipeline<E>,
    incoming: &Arc<Incoming>,
    draining: &CancellationToken,
    turn: &mut Turn,
    done_already: &Mutex<dyn FnMut(&str) -> bool + Send>,
) -> Outcome {
    let has_result = |id: &str| (done_already.lock().unwrap_or_else(std::sync::PoisonError::into_inner))(id);
    let decoded = if incoming.body.as_ref().map_or(0, Vec::len) < DECODE_INLINE_BYTES {
        decode(incoming, pipeline.framing())
    } else {
        let (incoming, framing) = (Arc::clone(incoming), pipeline.framing().clone());
        match tokio::task::spawn_blocking(move || decode(&incoming, &framing)).await {
            Ok(decoded) => decoded,
            Err(_) => return Outcome::Panicked,
        }
    };
    match decoded {
        Err(undecodable) if has_result(&undecodable.result_id.to_string()) => Outcome::HasResult,
        Err(undecodable) => Outcome::Result(Box::new(pipeline.invalid(incoming, undecodable))),
        Ok(decoded) if has_result(&decoded.result_id.to_string()) => Outcome::HasResult,
        Ok(decoded) => match pipeline.process(incoming, decoded, draining, turn).await {
            Some(processed) => Outcome::Result(Box::new(processed)),
            None => Outcome::NotStarted,
        },
    }
}

async fn settle<S: Source, K: Sink>(
    done: Finished,
    source: &mut S,
    sink: &mut K,
    observe: &mut (dyn FnMut(&Processed) + Send),
) -> Result<(), FlowError> {
    let settlement = match done.outcome {
        Outcome::Result(mut processed) => {
            let body = std::mem::take(&mut processed.body);
            sink.deliver(Outgoing { body }).await?;
            observe(&processed);
            Settlement::Ack
        }
        Outcome::HasResult => Settlement::Ack,
        Outcome::NotStarted => Settlement::Requeue,
        Outcome::Panicked => return Err(FlowError::Panicked(done.delivery.origin)),
    };
    source.settle(done.delivery, settlement).await;
    Ok(())
}
