//! What has come of the predictions that somebody waits for.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::metrics::{Arrival, Once};
use crate::model::{Line, Verdict, parse_strict, read_line};
use crate::pipeline::id_of;
use crate::transport::{JsonlSource, Source as _, TransportError};

/// What a message came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The first result of its id and body.
    Result(Verdict),
    /// The first notice that it is parked.
    Parked,
    /// It was there already.
    Again,
    /// It is neither a result nor a notice, and why.
    Foreign(String),
}

/// Counts results once each, and knows what is missing.
#[derive(Debug, Default)]
pub struct Ledger {
    once: Once,
    verdicts: BTreeMap<Verdict, u64>,
    missing: Option<HashSet<String>>,
    again: u64,
    foreign: u64,
}

impl Ledger {
    /// Waits for these ids; `None`: nobody knows which will come.
    #[must_use]
    pub fn new(ids: Option<HashSet<String>>) -> Self {
        Self { missing: ids, ..Self::default() }
    }

    /// Takes a message.
    pub fn take(&mut self, body: &[u8]) -> Taken {
        let (id, taken) = match read_line(body) {
            Ok(Line::Result(head)) => match self.once.result(&head.result_id, head.verdict) {
                Arrival::First => {
                    *self.verdicts.entry(head.verdict).or_default() += 1;
                    (head.id, Taken::Result(head.verdict))
                }
                Arrival::Again(_) | Arrival::InPlaceOfInfraError => (head.id, Taken::Again),
            },
            Ok(Line::Parked { result_id, id }) => {
                (id, if self.once.notice(&result_id) { Taken::Parked } else { Taken::Again })
            }
            Ok(Line::Other(schema)) => return self.foreign(format!("its schema is {schema:?}")),
            Err(error) => return self.foreign(error.to_string()),
        };
        if let Some(missing) = &mut self.missing {
            missing.remove(&id);
        }
        self.again += u64::from(taken == Taken::Again);
        taken
    }

    fn foreign(&mut self, reason: String) -> Taken {
        self.foreign += 1;
        Taken::Foreign(reason)
    }

    /// Different results and parked predictions.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.once.results() + self.once.parked()
    }

    /// Predictions that are parked and have no result.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.once.parked()
    }

    /// Ids that have neither; `None` where nobody knows which will come.
    #[must_use]
    pub fn missing(&self) -> Option<&HashSet<String>> {
        self.missing.as_ref()
    }

    /// Results by verdict.
    #[must_use]
    pub fn verdicts(&self) -> &BTreeMap<Verdict, u64> {
        &self.verdicts
    }

    /// Messages that had come before, and were not counted again.
    #[must_use]
    pub fn again(&self) -> u64 {
        self.again
    }

    /// Messages of others, which were left out.
    #[must_use]
    pub fn of_others(&self) -> u64 {
        self.foreign
    }
}

/// The ids in a file: a line is an id, or a JSON object with one in `field`, as it was published.
///
/// # Errors
/// It cannot be read, or a line has no id.
pub async fn read_ids(
    file: PathBuf,
    field: &str,
    max_line_bytes: usize,
) -> Result<HashSet<String>, TransportError> {
    let mut source = JsonlSource::open(&[file], max_line_bytes)?;
    let mut ids = HashSet::new();
    while let Some(delivery) = source.next().await {
        let delivery = delivery?;
        let read = |reason: String| TransportError::Read { name: delivery.origin.clone(), reason };
        let body = delivery.body.as_ref().map_err(|error| read(error.to_string()))?;
        ids.insert(id_in(body, &delivery.origin, field).map_err(read)?);
    }
    Ok(ids)
}

fn id_in(line: &[u8], origin: &str, field: &str) -> Result<String, String> {
    let line = line.trim_ascii();
    if line.first() == Some(&b'{') {
        let value: Value = parse_strict(line).map_err(|error| error.to_string())?;
        // What has none was published with its origin for one.
        return Ok(id_of(&value, field)?.unwrap_or_else(|| origin.to_owned()));
    }
    let text = str::from_utf8(line).map_err(|_| "the id is not UTF-8".to_owned())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn result(result_id: &str, id: &str, verdict: &str) -> Vec<u8> {
        format!(
            r#"{{"schema":"result.v1","result_id":"{result_id}","id":"{id}","verdict":"{verdict}","x":[1]}}"#
        )
        .into_bytes()
    }

    fn notice(result_id: &str, id: &str) -> Vec<u8> {
        format!(r#"{{"schema":"notice.parked","result_id":"{result_id}","id":"{id}","reason":"r"}}"#)
            .into_bytes()
    }

    #[test]
    fn each_is_counted_once() {
        let ids = ["a", "b", "c"].map(str::to_owned).into();
        let mut ledger = Ledger::new(Some(ids));
        assert_eq!(ledger.take(&result("1", "a", "passed")), Taken::Result(Verdict::Passed));
        assert_eq!(ledger.take(&result("1", "a", "passed")), Taken::Again);
        assert_eq!(ledger.take(&notice("2", "b")), Taken::Parked);
        assert_eq!(ledger.take(&notice("2", "b")), Taken::Again);
        assert!(matches!(ledger.take(b"{}"), Taken::Foreign(_)));
        assert!(matches!(ledger.take(br#"{"schema":"timings.v1"}"#), Taken::Foreign(_)));
        assert_eq!((ledger.count(), ledger.parked(), ledger.again(), ledger.of_others()), (2, 1, 2, 2));
        assert_eq!(ledger.missing().unwrap().iter().collect::<Vec<_>>(), ["c"]);
        // It was put back, and got its result.
        assert_eq!(ledger.take(&result("2", "b", "failed")), Taken::Result(Verdict::Failed));
        assert_eq!((ledger.count(), ledger.parked()), (2, 0));
    }

    #[rstest]
    #[case("run-7/T/1", Ok("run-7/T/1"))]
    #[case(" a b ", Ok("a b"))]
    #[case(r#"{"id": "x"}"#, Ok("x"))]
    #[case(r#"{"id": 12}"#, Ok("12"))]
    #[case("{}", Ok("f:3"))]
    #[case(r#"{"id": []}"#, Err("id is []"))]
    #[case("{", Err("not JSON"))]
    fn ids(#[case] line: &str, #[case] expected: Result<&str, &str>) {
        match (id_in(line.as_bytes(), "f:3", "id"), expected) {
            (Ok(id), Ok(expected)) => assert_eq!(id, expected),
            (Err(error), Err(says)) => assert!(error.contains(says), "{error}"),
            (found, _) => panic!("{found:?}"),
        }
    }
}
