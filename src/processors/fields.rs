//! Fields of payloads, and what is said where one is not as it must be: its name, its value, the rule.

use serde_json::Value;

use super::Unusable;
use super::compare::{Comparator, Tolerance, excerpt};
use crate::model::Seconds;

/// Most characters of a value in a message.
const SHOWN_CHARS: usize = 60;

/// Where a program stands in its row.
const CODE: [&str; 3] = ["code", "completion", "solution"];

/// A value as a message shows it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", excerpt(text, SHOWN_CHARS)),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// `field` is something else than it must be.
pub(super) fn wrong(field: &str, value: &Value, rule: &str) -> Unusable {
    Unusable(format!("{field} is {}: it must be {rule}", shown(value)))
}

/// What stands in a field; null is nothing.
pub(super) fn value<'a>(payload: &'a Value, field: &str) -> Option<&'a Value> {
    payload.get(field).filter(|value| !value.is_null())
}

pub(super) fn text<'a>(payload: &'a Value, field: &str) -> Result<Option<&'a str>, Unusable> {
    match value(payload, field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(field, other, "a string")),
    }
}

pub(super) fn required<'a>(payload: &'a Value, field: &str) -> Result<&'a str, Unusable> {
    text(payload, field)?.ok_or_else(|| Unusable(format!("{field} is missing: it must be a string")))
}

pub(super) fn flag(payload: &Value, field: &str) -> Result<Option<bool>, Unusable> {
    match value(payload, field) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(wrong(field, other, "true or false")),
    }
}

pub(super) fn list<'a>(payload: &'a Value, field: &str) -> Result<Option<&'a [Value]>, Unusable> {
    match value(payload, field) {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => Err(wrong(field, other, "a list")),
    }
}

pub(super) fn texts(payload: &Value, field: &str) -> Result<Vec<String>, Unusable> {
    let items = list(payload, field)?.unwrap_or_default();
    let text = |(index, item): (usize, &Value)| match item {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong(&format!("{field}[{index}]"), other, "a string")),
    };
    items.iter().enumerate().map(text).collect()
}

/// A finite number of at least 0.
pub(super) fn tolerance(payload: &Value, field: &str) -> Result<Option<f64>, Unusable> {
    match value(payload, field) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) if number >= 0.0 && number.is_finite() => Ok(Some(number)),
            _ => Err(wrong(field, value, "a number of at least 0")),
        },
    }
}

pub(super) fn seconds(payload: &Value, field: &str) -> Result<Option<Seconds>, Unusable> {
    let Some(value) = value(payload, field) else { return Ok(None) };
    let number = value.as_f64().ok_or_else(|| wrong(field, value, "a number of seconds"))?;
    Seconds::new(number).map(Some).map_err(|error| Unusable(format!("{field}: {error}")))
}

/// The program of a row.
pub(super) fn code(payload: &Value) -> Result<&str, Unusable> {
    for field in CODE {
        if let Some(code) = text(payload, field)? {
            return Ok(code);
        }
    }
    Err(Unusable(format!("the program is missing: give it as a string in {}", CODE.join(", or "))))
}

/// How far numbers may differ, where the row says so.
pub(super) fn tolerances(payload: &Value, otherwise: Tolerance) -> Result<Tolerance, Unusable> {
    let absolute = tolerance(payload, "absolute_tolerance")?;
    let relative = tolerance(payload, "relative_tolerance")?;
    Ok(match (absolute, relative) {
        (None, None) => otherwise,
        // What is said of one is no reason to allow the other.
        (absolute, relative) => {
            Tolerance { absolute: absolute.unwrap_or(0.0), relative: relative.unwrap_or(0.0), ..otherwise }
        }
    })
}

/// The comparator of a row.
pub(super) fn comparator(payload: &Value, otherwise: Comparator) -> Result<Comparator, Unusable> {
    let usual = match otherwise {
        Comparator::Float(tolerance) => tolerance,
        _ => Tolerance { absolute: 1e-6, relative: 1e-6, ignore_case: false },
    };
    let tolerance = tolerances(payload, usual)?;
    match text(payload, "comparator")? {
        None => Ok(match otherwise {
            Comparator::Float(_) => Comparator::Float(tolerance),
            other => other,
        }),
        Some(name) => Comparator::named(name, tolerance).ok_or_else(|| {
            let known = format!("one of {}", Comparator::NAMES.join(", "));
            wrong("comparator", &Value::from(name), &known)
        }),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"timeout": "2"}), "timeout is \"2\": it must be a number of seconds")]
    #[case(json!({"timeout": -1}), "timeout: -1 is no time limit")]
    #[case(json!({"comparator": "fuzzy"}), "comparator is \"fuzzy\": it must be one of exact, tokens")]
    #[case(json!({"comparator": 1}), "comparator is 1: it must be a string")]
    #[case(json!({"absolute_tolerance": -1}), "absolute_tolerance is -1: it must be a number of at least 0")]
    #[case(json!({"flag": [1, 2]}), "flag is a list of 2: it must be true or false")]
    #[case(json!({"texts": ["a", {}]}), "texts[1] is an object: it must be a string")]
    #[case(json!({"code": 1}), "code is 1: it must be a string")]
    #[case(json!({}), "the program is missing: give it as a string in code, or completion, or solution")]
    fn what_is_wrong_is_said(#[case] payload: Value, #[case] says: &str) {
        let read = || -> Result<(), Unusable> {
            seconds(&payload, "timeout")?;
            comparator(&payload, Comparator::Tokens)?;
            flag(&payload, "flag")?;
            texts(&payload, "texts")?;
            code(&payload).map(drop)
        };
        let error = read().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn a_tolerance_said_replaces_both() {
        let usual = Comparator::Float(Tolerance { absolute: 1.0, relative: 1.0, ignore_case: true });
        let read = comparator(&json!({"absolute_tolerance": 0.5}), usual).unwrap();
        assert_eq!(read, Comparator::Float(Tolerance { absolute: 0.5, relative: 0.0, ignore_case: true }));
    }
}
