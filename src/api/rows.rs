//! From a line of a file to a prediction message.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::model::parse_strict;
use crate::pipeline::{Framing, id_of};
use crate::service::run_key;

/// AMQP's bound of a routing key and of a message id.
const MAX_SHORT: usize = 255;

/// A prediction message, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The id of the prediction.
    pub id: String,
    /// The property `message_id`: the id, shortened where AMQP does not take it whole. The service looks
    /// at it only where the body has no id.
    pub message_id: String,
    /// The run that it belongs to.
    pub run: Option<String>,
    /// The message.
    pub body: Vec<u8>,
}

#[derive(Serialize)]
struct Wrapped<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    preprocessor: &'a str,
    prediction: &'a RawValue,
}

/// Makes a message of a line: `origin` (`<file>:<line>`) is the id of what has none, `run` the run of
/// what names none.
///
/// # Errors
/// The line is no JSON object, or its id is none; the text says what is wrong with it.
pub fn frame(line: Vec<u8>, origin: &str, framing: &Framing, run: Option<&str>) -> Result<Row, String> {
    let value = parse_strict(&line).map_err(|error| error.to_string())?;
    if !value.is_object() {
        return Err("the line is no JSON object".to_owned());
    }
    let id_field = match framing {
        Framing::Message => "id",
        Framing::Payload { id_field, .. } => id_field,
    };
    let id = id_of(&value, id_field)?.unwrap_or_else(|| origin.to_owned());
    let unreadable = |error: serde_json::Error| error.to_string();
    let (run, body) = match framing {
        Framing::Payload { preprocessor, .. } => {
            let wrapped = Wrapped {
                id: &id,
                run,
                task: value.get("task_id").and_then(Value::as_str),
                preprocessor,
                prediction: serde_json::from_slice(&line).map_err(unreadable)?,
            };
            (run.map(str::to_owned), serde_json::to_vec(&wrapped).map_err(unreadable)?)
        }
        Framing::Message => match (value.get("run"), run) {
            (None | Some(Value::Null), Some(run)) => {
                let mut fields: BTreeMap<Cow<'_, str>, Box<RawValue>> =
                    serde_json::from_slice(&line).map_err(unreadable)?;
                fields.insert("run".into(), serde_json::value::to_raw_value(run).map_err(unreadable)?);
                (Some(run.to_owned()), serde_json::to_vec(&fields).map_err(unreadable)?)
            }
            (own, _) => (own.and_then(Value::as_str).map(str::to_owned), line),
        },
    };
    Ok(Row { message_id: shortened(&id), id, run, body })
}

/// The end of it: that is where an id made of a path differs from the next one.
fn shortened(id: &str) -> String {
    let from = id.len().saturating_sub(MAX_SHORT);
    let from = (from..=id.len()).find(|&at| id.is_char_boundary(at)).unwrap_or(id.len());
    id[from..].to_owned()
}

/// The routing key `<class>[.<run>]`, no longer than AMQP takes.
pub(super) fn input_key(class: &str, run: Option<&str>) -> String {
    let Some(run) = run else { return class.to_owned() };
    let mut key = format!("{class}.{}", run_key(run));
    key.truncate(key.floor_char_boundary(MAX_SHORT.max(class.len())));
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn payload() -> Framing {
        Framing::Payload { preprocessor: "humaneval".into(), id_field: "sample".into() }
    }

    fn framed(line: &str, framing: &Framing, run: Option<&str>) -> Result<(String, String), String> {
        let row = frame(line.as_bytes().to_vec(), "in.jsonl:7", framing, run)?;
        assert_eq!(row.message_id, row.id);
        Ok((row.id, String::from_utf8(row.body).unwrap()))
    }

    #[rstest]
    #[case(r#"{"id": "a",  "prediction": {}}"#, None, "a", r#"{"id": "a",  "prediction": {}}"#)]
    #[case(r#"{"id": 12, "prediction": {}}"#, None, "12", r#"{"id": 12, "prediction": {}}"#)]
    #[case(r#"{"prediction": {}}"#, None, "in.jsonl:7", r#"{"prediction": {}}"#)]
    #[case(
        r#"{"prediction": {"f": 1.10, "big": 123456789012345678901}}"#,
        Some("r"),
        "in.jsonl:7",
        r#"{"prediction":{"f": 1.10, "big": 123456789012345678901},"run":"r"}"#
    )]
    #[case(r#"{"id": "a", "run": null}"#, Some("r\""), "a", r#"{"id":"a","run":"r\""}"#)]
    #[case(r#"{"id": "a", "run": "own"}"#, Some("r"), "a", r#"{"id": "a", "run": "own"}"#)]
    fn messages(#[case] line: &str, #[case] run: Option<&str>, #[case] id: &str, #[case] body: &str) {
        let (found, text) = framed(line, &Framing::Message, run).unwrap();
        assert_eq!((found.as_str(), text.as_str()), (id, body));
    }

    #[rstest]
    #[case(
        r#"{"sample": 3, "task_id": "T/1",  "x": 1.0}"#,
        Some("r"),
        r#"{"id":"3","run":"r","task":"T/1","preprocessor":"humaneval","prediction":{"sample": 3, "task_id": "T/1",  "x": 1.0}}"#
    )]
    #[case(
        r#"{"task_id": 4}"#,
        None,
        r#"{"id":"in.jsonl:7","preprocessor":"humaneval","prediction":{"task_id": 4}}"#
    )]
    fn payloads(#[case] line: &str, #[case] run: Option<&str>, #[case] body: &str) {
        assert_eq!(framed(line, &payload(), run).unwrap().1, body);
    }

    #[rstest]
    #[case("[1]", "no JSON object")]
    #[case("{", "not JSON")]
    #[case(r#"{"id": "a", "id": "b"}"#, "stands twice")]
    #[case(r#"{"id": []}"#, "id is []")]
    fn no_messages(#[case] line: &str, #[case] says: &str) {
        let error = framed(line, &Framing::Message, Some("r")).unwrap_err();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn what_is_too_long_for_amqp_is_shortened() {
        let id = format!("{}é{}", "x".repeat(100), "y".repeat(254));
        let row = frame(format!(r#"{{"id": "{id}"}}"#).into_bytes(), "o", &Framing::Message, None).unwrap();
        assert_eq!((row.id, row.message_id), (id, "y".repeat(254)));
        assert_eq!(input_key("gpu", Some(&"r".repeat(300))).len(), 252);
        assert_eq!(input_key(&"c".repeat(100), Some(&"r".repeat(300))).len(), 255);
        assert_eq!(input_key("gpu", Some("a b")), "gpu.a_b");
        assert_eq!(input_key("gpu", None), "gpu");
    }
}
