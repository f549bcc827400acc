//! One delivery, one task: decode, attach or process, and come back.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Flow;
use super::in_flight::InFlight;
use crate::executor::Execute;
use crate::model::Verdict;
use crate::pipeline::{Decoded, Incoming, Pipeline, Processed, Turn, Undecodable, decode};
use crate::transport::Delivery;

/// What a task brings back.
pub(super) struct Finished {
    /// Without its body, unless it has to be sent again.
    pub(super) delivery: Delivery,
    pub(super) body_bytes: usize,
    pub(super) outcome: Outcome,
}

/// What a delivery came to.
pub(super) enum Outcome {
    Result(Box<Processed>),
    HasResult,
    /// The delivery of this sequence makes the same result.
    Attached(u64),
    /// It must run alone, and nobody makes its result; it has its body.
    Suspect,
    NotStarted,
    Panicked,
}

/// Longer messages are decoded off the runtime: a JSON text of this size takes about 0.2 ms.
const DECODE_INLINE_BYTES: usize = 64 << 10;

pub(super) fn body_len(delivery: &Delivery) -> usize {
    delivery.body.as_ref().map_or(0, Vec::len)
}

pub(super) fn result_len(done: &Finished) -> usize {
    match &done.outcome {
        Outcome::Result(processed) => processed.body.len(),
        Outcome::HasResult
        | Outcome::Attached(_)
        | Outcome::Suspect
        | Outcome::NotStarted
        | Outcome::Panicked => 0,
    }
}

/// One task for one delivery, which brings it back whatever happens.
pub(super) fn start<E: Execute + 'static>(
    flow: &Flow<'_, E>,
    delivery: Delivery,
    mut turn: Turn,
    finished: mpsc::Sender<Finished>,
    stop: CancellationToken,
    in_flight: Option<InFlight>,
    suspect: bool,
) {
    let pipeline = Arc::clone(&flow.pipeline);
    let draining = flow.draining.clone();
    let done_already = Arc::clone(&flow.done_already);
    flow.tracker.spawn(async move {
        let body_bytes = body_len(&delivery);
        let Delivery { sequence, origin, body, arrived, attempt, redelivered, envelope } = delivery;
        let fallback_id = match &envelope {
            Some(envelope) => envelope.message_id.clone(),
            None => Some(origin.clone()),
        };
        let body = body.map_err(|error| error.to_string());
        let incoming = Arc::new(Incoming { sequence, fallback_id, body, arrived, attempt, redelivered });
        let work = async {
            let decoded = match decoded(&pipeline, &incoming).await {
                Ok(decoded) => decoded,
                Err(outcome) => return outcome,
            };
            if let Some(outcome) = made_already(&incoming, &decoded, in_flight.as_ref(), suspect) {
                return outcome;
            }
            process(&pipeline, &incoming, decoded, &draining, &mut turn, &done_already).await
        };
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            outcome = std::panic::AssertUnwindSafe(work).catch_unwind() => outcome.unwrap_or(Outcome::Panicked),
        };
        // Only what may have to be sent again keeps its body.
        let again = match &outcome {
            Outcome::Result(done) => done.verdict == Verdict::InfraError && in_flight.is_some(),
            Outcome::Suspect => true,
            _ => false,
        };
        let body = match Arc::try_unwrap(incoming) {
            Ok(Incoming { body: Ok(body), .. }) if again => body,
            Err(shared) if again => shared.body.clone().unwrap_or_default(),
            _ => Vec::new(),
        };
        let delivery = Delivery { sequence, origin, body: Ok(body), arrived, attempt, redelivered, envelope };
        // The channel has room for every delivery in flight; it is closed only where nobody waits.
        let _ = finished.send(Finished { delivery, body_bytes, outcome }).await;
    });
}

type Decoding = Result<Decoded, Undecodable>;

async fn decoded<E: Execute>(pipeline: &Pipeline<E>, incoming: &Arc<Incoming>) -> Result<Decoding, Outcome> {
    if incoming.body.as_ref().map_or(0, Vec::len) < DECODE_INLINE_BYTES {
        return Ok(decode(incoming, pipeline.framing()));
    }
    let (incoming, framing) = (Arc::clone(incoming), pipeline.framing().clone());
    tokio::task::spawn_blocking(move || decode(&incoming, &framing)).await.map_err(|_| Outcome::Panicked)
}

fn result_id(decoded: &Decoding) -> Uuid {
    match decoded {
        Ok(decoded) => decoded.result_id,
        Err(undecodable) => undecodable.result_id,
    }
}

/// What becomes of a delivery whose result is being made, or is out; or which must not run yet.
fn made_already(
    incoming: &Incoming,
    decoded: &Decoding,
    in_flight: Option<&InFlight>,
    suspect: bool,
) -> Option<Outcome> {
    let (all, result) = (in_flight?, result_id(decoded));
    if let Err(first) = all.begin(result, incoming.sequence) {
        return Some(Outcome::Attached(first));
    }
    if incoming.redelivered && all.take_known(result) {
        return Some(Outcome::HasResult);
    }
    suspect.then(|| {
        all.end(incoming.sequence);
        Outcome::Suspect
    })
}

async fn process<E: Execute>(
    pipeline: &Pipeline<E>,
    incoming: &Arc<Incoming>,
    decoded: Decoding,
    draining: &CancellationToken,
    turn: &mut Turn,
    done_already: &Mutex<dyn FnMut(&str) -> bool + Send>,
) -> Outcome {
    let has_result = |id: &str| (done_already.lock().unwrap_or_else(PoisonError::into_inner))(id);
    match decoded {
        decoded if has_result(&result_id(&decoded).to_string()) => Outcome::HasResult,
        Err(undecodable) => Outcome::Result(Box::new(pipeline.invalid(incoming, undecodable))),
        Ok(decoded) => match pipeline.process(incoming, decoded, draining, turn).await {
            Some(processed) => Outcome::Result(Box::new(processed)),
            None => Outcome::NotStarted,
        },
    }
}
