//! JSON as messages carry it: strict where a lenient reader would lose something silently.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use thiserror::Error;

/// Most values in one text: each takes some 32 bytes, however short it is written.
const MAX_VALUES: usize = 4_000_000;

/// Why a text is not accepted as JSON.
#[derive(Debug, Error)]
pub enum JsonError {
    /// The bytes are not UTF-8.
    #[error("the text is not UTF-8 (at byte {0})")]
    NotUtf8(usize),
    /// `NaN` or `Infinity`, which Python's `json.dumps` writes.
    #[error("NaN and Infinity are no JSON numbers ({0}); Python writes them unless `allow_nan=False`")]
    NotFinite(serde_json::Error),
    /// Half of a surrogate pair.
    #[error("a lone surrogate escape (\\ud800…\\udfff) is no character ({0})")]
    LoneSurrogate(serde_json::Error),
    /// More than 127 levels.
    #[error("arrays and objects are nested more than 127 deep ({0})")]
    TooDeep(serde_json::Error),
    /// Anything else, duplicate keys included.
    #[error("not JSON: {0}")]
    Syntax(serde_json::Error),
}

/// Parses `bytes`, refusing what a lenient parser would repair or drop: duplicate keys, numbers that
/// are not finite, lone surrogates, trailing text.
///
/// # Errors
/// The first thing that is wrong, by name.
pub fn parse_strict(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8(error.valid_up_to()))?;
    let seen = Cell::new(0);
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = StrictSeed(&seen).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| classify(error, text))
}

fn classify(error: serde_json::Error, text: &str) -> JsonError {
    let message = error.to_string();
    if message.starts_with("recursion limit") {
        return JsonError::TooDeep(error);
    }
    if message.contains("surrogate") || message.contains("unexpected end of hex escape") {
        return JsonError::LoneSurrogate(error);
    }
    let at = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
    let from = error.column().saturating_sub(2).min(at.len());
    let near = at.as_bytes()[from..].get(..10).unwrap_or(&at.as_bytes()[from..]);
    let near = String::from_utf8_lossy(near);
    if ["NaN", "Inf", "-Inf"].iter().any(|name| near.contains(name)) {
        return JsonError::NotFinite(error);
    }
    JsonError::Syntax(error)
}

/// `raw` without line breaks, so that it can stand inside a JSONL line.
#[must_use]
pub fn single_line(raw: Box<RawValue>) -> Box<RawValue> {
    if !raw.get().contains(['\n', '\r']) {
        return raw;
    }
    // Line breaks are legal only between tokens: inside strings they are escaped.
    let joined = raw.get().replace(['\n', '\r'], " ");
    RawValue::from_string(joined).unwrap_or(raw)
}

/// Counts the values of one text.
#[derive(Clone, Copy)]
struct StrictSeed<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for StrictSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > MAX_VALUES {
            return Err(de::Error::custom(format!("more than {MAX_VALUES} values in one text")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format!("the key {key:?} stands twice in one object")));
            }
            let value = entries.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(br#"{"a": 1, "a": 2}"#, "\"a\" stands twice")]
    #[case(br#"{"a": [{"b": 1, "b": 1}]}"#, "\"b\" stands twice")]
    #[case(br#"{"a": NaN}"#, "NaN and Infinity")]
    #[case(br#"{"a": -Infinity}"#, "NaN and Infinity")]
    #[case(br#"{"a": "\ud800"}"#, "lone surrogate")]
    #[case(br#"{"a": "\udc00"}"#, "lone surrogate")]
    #[case(b"{\"a\": \"\xff\"}", "not UTF-8")]
    #[case(b"{} x", "not JSON")]
    #[case(b"", "not JSON")]
    fn refused(#[case] text: &[u8], #[case] says: &str) {
        let error = parse_strict(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn a_text_of_countless_values_is_refused() {
        let text = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(parse_strict(text.as_bytes()).unwrap_err().to_string().contains("more than 4000000 values"));
    }

    #[test]
    fn deep_nesting_is_refused_by_name() {
        let text = "[".repeat(200_000);
        assert!(parse_strict(text.as_bytes()).unwrap_err().to_string().contains("127 deep"));
    }

    #[test]
    fn raw_values_lose_their_line_breaks_only() {
        let raw = RawValue::from_string("{\n \"a\": \"x\\n\"\r\n}".to_owned()).unwrap();
        assert_eq!(single_line(raw).get(), "{  \"a\": \"x\\n\"  }");
    }

    proptest! {
        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_strict(&bytes);
        }

        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\"a0-9. \\\\ud-]{0,30}") {
            if let Ok(value) = parse_strict(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
