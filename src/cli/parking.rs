//! `evalmill parking`: what was put aside.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::client::{block_on, printed, settings};
use super::client_args::ParkingCommand;
use super::exit::Failure;
use super::one_line;
use super::signals::Signals;
use crate::api::broker;
use crate::telemetry::say;
use crate::transport::rabbitmq::{Broker, Parked, ParkingLot, Requeued};

/// Shows what is parked, or sends it to the service again.
///
/// # Errors
/// See the exit codes.
pub(super) fn parking(file: Option<PathBuf>, what: &ParkingCommand) -> Result<(), Failure> {
    let settings = settings(file, Vec::new())?;
    let broker = broker(&settings);
    block_on(async {
        let (stop, forced) = (CancellationToken::new(), CancellationToken::new());
        let signals = Signals::listen(stop.clone(), forced)?;
        let done = match what {
            ParkingCommand::List { limit, json } => list(&broker, limit.get(), *json, &stop).await,
            ParkingCommand::Requeue { ids, .. } => requeue(&broker, ids, &stop).await,
        };
        match signals.stop().await {
            Some((name, number)) => {
                done.and(Err(Failure::Signal(format!("{name}: the rest stays parked"), number)))
            }
            None => done,
        }
    })
}

#[derive(Debug, Serialize)]
struct Shown {
    id: Option<String>,
    class: Option<String>,
    attempts: Option<u32>,
    reason: Option<String>,
    bytes: usize,
}

impl Shown {
    fn of(parked: &Parked) -> Self {
        Self {
            id: id(parked),
            class: parked.class.clone(),
            attempts: parked.attempts,
            reason: parked.reason.clone(),
            bytes: parked.body.len(),
        }
    }

    /// One line, whatever the texts are: they come from others.
    fn line(&self) -> String {
        let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), one_line);
        let attempts = self.attempts.map_or_else(|| "-".to_owned(), |attempts| attempts.to_string());
        let (id, class, reason) = (text(&self.id), text(&self.class), text(&self.reason));
        format!("{id:<32}  {class:<12}  {attempts:>8}  {reason}\n")
    }
}

/// The property counts, as it does for the service where the body has none.
fn id(parked: &Parked) -> Option<String> {
    let in_body = || match serde_json::from_slice::<Value>(&parked.body).ok()?.get("id")? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    };
    in_body().or_else(|| parked.message_id.clone())
}

async fn list(broker: &Broker, limit: u64, json: bool, stop: &CancellationToken) -> Result<(), Failure> {
    let mut lot = ParkingLot::open(broker).await?;
    let (count, mut text, mut shown) = (u64::from(lot.count()), String::new(), 0);
    if !json && count > 0 {
        text += &format!("{:<32}  {:<12}  {:>8}  {}\n", "id", "class", "attempts", "reason");
    }
    while shown < limit.min(count) && !stop.is_cancelled() {
        let Some(parked) = lot.next().await? else { break };
        shown += 1;
        let one = Shown::of(&parked);
        text += &if json { serde_json::to_string(&one).unwrap_or_default() + "\n" } else { one.line() };
    }
    // They are given back before anybody is told.
    lot.close().await?;
    printed(super::print(text.as_bytes()))?;
    if !json {
        say(&format!("evalmill: {shown} of {count} parked predictions\n"));
    }
    Ok(())
}

/// Without ids, all of them.
async fn requeue(broker: &Broker, ids: &[String], stop: &CancellationToken) -> Result<(), Failure> {
    let mut missing: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let wanted = missing.clone();
    let mut lot = ParkingLot::open(broker).await?;
    let (mut done, mut stayed) = (0, 0);
    // What is parked from now on is not looked at: it could come back for ever.
    for _ in 0..lot.count() {
        if stop.is_cancelled() {
            break;
        }
        let Some(parked) = lot.next().await? else { break };
        let id = id(&parked).unwrap_or_else(|| "-".to_owned());
        if !wanted.is_empty() && !wanted.contains(id.as_str()) {
            continue;
        }
        missing.remove(id.as_str());
        match lot.requeue(&parked).await? {
            Requeued::Done => done += 1,
            Requeued::Stays(why) => {
                stayed += 1;
                say(&format!("evalmill: {} stays parked: {why}\n", one_line(&id)));
            }
        }
    }
    lot.close().await?;
    say(&format!("evalmill: {done} sent again\n"));
    let mut trouble = Vec::new();
    if stayed > 0 {
        trouble.push(format!("{stayed} predictions stay parked"));
    }
    if !missing.is_empty() && !stop.is_cancelled() {
        let names: Vec<_> = missing.into_iter().collect();
        trouble.push(format!("not parked: {}; `evalmill parking list` shows what is", names.join(", ")));
    }
    if trouble.is_empty() { Ok(()) } else { Err(Failure::Incomplete(trouble.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parked(message_id: Option<&str>, body: &str) -> Parked {
        let message_id = message_id.map(str::to_owned);
        let reason = Some("no\nspace".to_owned());
        Parked { message_id, class: None, reason, attempts: Some(3), body: body.into() }
    }

    #[rstest]
    #[case(Some("m"), r#"{"id": "b"}"#, Some("b"))]
    #[case(Some("m"), r#"{"id": null}"#, Some("m"))]
    #[case(Some("m"), "junk", Some("m"))]
    #[case(None, r#"{"id": 7}"#, Some("7"))]
    #[case(None, "[]", None)]
    fn ids(#[case] message_id: Option<&str>, #[case] body: &str, #[case] expected: Option<&str>) {
        assert_eq!(id(&parked(message_id, body)).as_deref(), expected);
    }

    #[test]
    fn one_line_each() {
        let line = Shown::of(&parked(Some("m"), "")).line();
        assert_eq!(line, format!("{:<32}  {:<12}  {:>8}  no space\n", "m", "-", 3));
    }
}
