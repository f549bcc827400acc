//! The messages that a result becomes.

use super::settlement::{Disposition, RetryRule, dispose, parked_key, result_key};
use crate::model::{NoticeSchema, ParkedNotice};
use crate::pipeline::Processed;
use crate::transport::{Address, Delivery, Outgoing};

/// Most bytes of the reason in a notice.
const MAX_REASON_BYTES: usize = 4096;

/// What goes out for a result; the body goes along.
pub(super) fn messages(
    processed: &mut Processed,
    delivery: &mut Delivery,
    rule: Option<RetryRule>,
) -> Vec<Outgoing> {
    let envelope = delivery.envelope.clone();
    let run = processed.run.as_deref();
    let result_id = processed.result_id.to_string();
    let body = std::mem::take(&mut processed.body);
    let input = || delivery.body.as_ref().cloned().unwrap_or_default();
    match dispose(processed.verdict, delivery.attempt, rule) {
        Disposition::Publish => {
            let key = result_key(run, processed.verdict);
            let to = Address::Results { key, message_id: result_id, schema: "result.v1" };
            vec![Outgoing { body, to, envelope }]
        }
        Disposition::Retry { attempt } => {
            vec![Outgoing { body: input(), to: Address::Retry { attempt }, envelope }]
        }
        Disposition::Park => {
            let mut reason = processed.detail.clone().unwrap_or_default();
            reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
            let attempts = delivery.attempt;
            let notice = ParkedNotice {
                schema: NoticeSchema::Parked,
                result_id: processed.result_id,
                id: processed.id.clone(),
                run: processed.run.clone(),
                task: processed.task.clone(),
                reason: reason.clone(),
                attempts,
            };
            let to = Address::Results {
                key: parked_key(run),
                message_id: format!("parked:{result_id}"),
                schema: "notice.parked",
            };
            // Text and numbers: encoding cannot fail.
            let told = Outgoing { body: serde_json::to_vec(&notice).unwrap_or_default(), to, envelope: None };
            vec![Outgoing { body: input(), to: Address::Parking { reason, attempts }, envelope }, told]
        }
    }
}
