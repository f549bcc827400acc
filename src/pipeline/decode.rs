//! Bytes to a prediction.

use std::time::Instant;

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::{Prediction, PredictionLimits, parse_strict, result_id, single_line};

/// One message as it came, whatever carried it.
#[derive(Debug)]
pub struct Incoming {
    /// Its position in the input, from 0.
    pub sequence: u64,
    /// The id of a prediction that has none; `None`: it must have one.
    pub fallback_id: Option<String>,
    /// Its bytes, or why there are none.
    pub body: Result<Vec<u8>, String>,
    /// When it came.
    pub arrived: Instant,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// It came before.
    pub redelivered: bool,
}

/// What the bytes of a message are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// A whole prediction message.
    Message,
    /// The payload alone; the rest is given here.
    Payload {
        /// The preprocessor's name.
        preprocessor: String,
        /// The payload's field that holds the id.
        id_field: String,
    },
}

/// Most bytes of an id, a run or a task: each stands in every message about the prediction.
const MAX_NAME_BYTES: usize = 1024;

/// A prediction, ready to be preprocessed.
#[derive(Debug)]
pub struct Decoded {
    /// The prediction's id.
    pub id: String,
    /// The same for every delivery of these bytes.
    pub result_id: Uuid,
    /// Groups predictions.
    pub run: Option<String>,
    /// The task, where the message names one.
    pub task: Option<String>,
    /// The preprocessor, where the message names one.
    pub preprocessor: Option<String>,
    /// The payload as it came.
    pub raw: Box<RawValue>,
    /// The payload.
    pub payload: Value,
    /// Its limits.
    pub limits: PredictionLimits,
    /// Comes back untouched.
    pub metadata: Option<Box<RawValue>>,
}

/// A message that is no prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// The id, as far as it could be read; else the origin.
    pub id: String,
    /// Whether the id stood in the message.
    pub own_id: bool,
    /// The same for every delivery of these bytes.
    pub result_id: Uuid,
    /// What is wrong, for people.
    pub reason: String,
}

/// Decodes one message.
///
/// # Errors
/// It is no prediction; the error carries the reason and the best id there is.
pub fn decode(incoming: &Incoming, framing: &Framing) -> Result<Decoded, Undecodable> {
    let fail = |id: Option<String>, body: &[u8], reason: String| {
        let own_id = id.is_some();
        let named = id.or_else(|| incoming.fallback_id.clone());
        let id = named.unwrap_or_else(|| format!("body:{}", &blake3::hash(body).to_hex()[..32]));
        Undecodable { result_id: result_id(&id, body), id, own_id, reason }
    };
    let body = incoming.body.as_ref().map_err(|reason| fail(None, b"", reason.clone()))?;
    let mut value = parse_strict(body).map_err(|error| fail(None, body, error.to_string()))?;
    if !value.is_object() {
        let kind = kind(&value);
        return Err(fail(None, body, format!("the line is {kind}: it must be a JSON object")));
    }
    let id_field = match framing {
        Framing::Message => "id",
        Framing::Payload { id_field, .. } => id_field,
    };
    let own_id = id_of(&value, id_field).map_err(|reason| fail(None, body, reason))?;
    let Some(id) = own_id.clone().or_else(|| incoming.fallback_id.clone()) else {
        let reason = format!("{id_field} is missing: give it, or the message property message_id");
        return Err(fail(None, body, reason));
    };
    let result_id = result_id(&id, body);
    match framing {
        Framing::Payload { preprocessor, .. } => {
            let raw = serde_json::from_slice(body).map_err(|error| fail(own_id, body, error.to_string()))?;
            Ok(Decoded {
                id,
                result_id,
                run: None,
                task: None,
                preprocessor: Some(preprocessor.clone()),
                raw: single_line(raw),
                payload: value,
                limits: PredictionLimits::default(),
                metadata: None,
            })
        }
        Framing::Message => {
            let mut reader = serde_json::Deserializer::from_slice(body);
            let prediction: Prediction = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
                let path = error.path().to_string();
                let reason = error.into_inner().to_string();
                let reason = if path == "." { reason } else { format!("{path}: {reason}") };
                fail(own_id.clone(), body, reason)
            })?;
            for (name, text) in [("run", &prediction.run), ("task", &prediction.task)] {
                let bytes = text.as_ref().map_or(0, String::len);
                if bytes > MAX_NAME_BYTES {
                    let reason = format!("{name} has {bytes} bytes: at most {MAX_NAME_BYTES} are allowed");
                    return Err(fail(own_id, body, reason));
                }
            }
            let payload = value.get_mut("prediction").map(Value::take).unwrap_or_default();
            if !payload.is_object() {
                let reason = format!("prediction is {}: it must be a JSON object", kind(&payload));
                return Err(fail(own_id, body, reason));
            }
            Ok(Decoded {
                id,
                result_id,
                run: prediction.run,
                task: prediction.task,
                preprocessor: prediction.preprocessor,
                raw: single_line(prediction.prediction),
                payload,
                limits: prediction.limits,
                metadata: prediction.metadata.map(single_line),
            })
        }
    }
}

/// The id in a message or payload: text, or a whole number as text.
///
/// # Errors
/// It is something else.
pub fn id_of(value: &Value, field: &str) -> Result<Option<String>, String> {
    match value.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.len() > MAX_NAME_BYTES => {
            Err(format!("{field} has {} bytes: at most {MAX_NAME_BYTES} are allowed", id.len()))
        }
        Some(Value::String(id)) if !id.is_empty() => Ok(Some(id.clone())),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(Some(id.to_string())),
        Some(other) => {
            let shown: String = other.to_string().chars().take(60).collect();
            Err(format!("{field} is {shown}: an id is a text that is not empty, or a whole number"))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn incoming(body: &str) -> Incoming {
        Incoming {
            sequence: 0,
            fallback_id: Some("in.jsonl:7".to_owned()),
            body: Ok(body.as_bytes().to_vec()),
            arrived: Instant::now(),
            attempt: 1,
            redelivered: false,
        }
    }

    fn payload() -> Framing {
        Framing::Payload { preprocessor: "humaneval".to_owned(), id_field: "id".to_owned() }
    }

    #[rstest]
    #[case("{", "in.jsonl:7", "not JSON")]
    #[case("[1]", "in.jsonl:7", "an array")]
    #[case(r#"{"id": "a"}"#, "a", "missing field `prediction`")]
    #[case(r#"{"id": "a", "prediction": 3}"#, "a", "prediction is a number")]
    #[case(
        r#"{"id": "a", "prediction": {}, "limits": {"timeout": -1}}"#,
        "a",
        "limits.timeout: -1 is no time limit"
    )]
    #[case(r#"{"id": [], "prediction": {}}"#, "in.jsonl:7", "id is []")]
    #[case(r#"{"id": "a", "prediction": {}, "run": 3}"#, "a", "run: invalid type")]
    fn undecodable(#[case] body: &str, #[case] id: &str, #[case] says: &str) {
        let error = decode(&incoming(body), &Framing::Message).unwrap_err();
        assert_eq!(error.id, id);
        assert!(error.reason.contains(says), "{}", error.reason);
    }

    #[rstest]
    #[case(r#"{"id": "a"}"#, "a")]
    #[case(r#"{"id": 12}"#, "12")]
    #[case(r#"{"x": 1}"#, "in.jsonl:7")]
    fn ids_of_payloads(#[case] body: &str, #[case] id: &str) {
        assert_eq!(decode(&incoming(body), &payload()).unwrap().id, id);
    }

    #[rstest]
    #[case(r#"{"id": 12, "prediction": {}}"#, "12")]
    #[case(r#"{"prediction": {}, "metadata": {"big": 123456789012345678901234567890}}"#, "in.jsonl:7")]
    fn ids_of_messages(#[case] body: &str, #[case] id: &str) {
        assert_eq!(decode(&incoming(body), &Framing::Message).unwrap().id, id);
    }

    #[test]
    fn metadata_comes_back_untouched() {
        let body = r#"{"prediction": {}, "metadata": {"big": 123456789012345678901234567890, "f": 1.10}}"#;
        let decoded = decode(&incoming(body), &Framing::Message).unwrap();
        assert_eq!(decoded.metadata.unwrap().get(), r#"{"big": 123456789012345678901234567890, "f": 1.10}"#);
    }
}
