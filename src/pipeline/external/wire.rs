//! Requests and answers.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::model::{Executable, ExecutionResult};

/// The version of the protocol.
const VERSION: u32 = 1;

/// One line to the program.
#[derive(Debug, Serialize)]
struct Request<'a> {
    version: u32,
    items: &'a [&'a RawValue],
}

/// One line from it.
#[derive(Debug, Deserialize)]
struct Response {
    items: Vec<Box<RawValue>>,
}

/// What is asked for one prediction.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Asked<'a> {
    /// What is to be run?
    Preprocess { prediction: &'a Value },
    /// What follows from what came of it?
    Postprocess { prediction: &'a Value, results: &'a [ExecutionResult] },
}

/// The answer to [`Asked::Preprocess`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Prepared {
    Run(Executables),
    Filtered {
        #[serde(default)]
        detail: Option<String>,
        #[serde(default)]
        output: Map<String, Value>,
    },
    Invalid(String),
    Error(String),
}

/// One, or a list of them. Not an untagged enum: its errors do not say what is wrong.
#[derive(Debug)]
pub(in super::super) struct Executables(pub(in super::super) Vec<Executable>);

impl<'de> Deserialize<'de> for Executables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany)
    }
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Executables;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an executable, or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Executables, A::Error> {
        Executable::deserialize(MapAccessDeserializer::new(map)).map(|one| Executables(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Executables, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Executables)
    }
}

/// The answer to [`Asked::Postprocess`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Judged {
    Judged {
        passed: bool,
        #[serde(default)]
        detail: Option<String>,
        #[serde(default)]
        output: Map<String, Value>,
    },
    Error(String),
}

/// The line that asks these.
pub(super) fn request(items: &[&RawValue]) -> serde_json::Result<String> {
    serde_json::to_string(&Request { version: VERSION, items })
}

/// The answers on `line`, one for each of `count` items.
pub(super) fn response(line: &str, count: usize) -> Result<Vec<Box<RawValue>>, String> {
    let Response { items } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if items.len() == count {
        Ok(items)
    } else {
        Err(format!("{} items for {count} of the request", items.len()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_request_is_one_line() {
        // Whatever space there was between its parts: a raw one could hold line breaks.
        let prediction: Value = serde_json::from_str("{\n\"code\":\n\"a\\nb\"}").unwrap();
        let asked = serde_json::value::to_raw_value(&Asked::Preprocess { prediction: &prediction }).unwrap();
        assert_eq!(
            request(&[&asked]).unwrap(),
            r#"{"version":1,"items":[{"preprocess":{"prediction":{"code":"a\nb"}}}]}"#
        );
        assert_eq!(request(&[]).unwrap(), r#"{"version":1,"items":[]}"#);
    }

    #[rstest]
    #[case::none(r#"{"items": []}"#, 0, Ok(0))]
    #[case::more(r#"{"items": [1, 2], "note": "x"}"#, 2, Ok(2))]
    #[case::fewer(r#"{"items": [1]}"#, 2, Err("1 items for 2 of the request"))]
    #[case::text("Loading...", 0, Err("expected value at line 1 column 1"))]
    #[case::else_where(r#"{"results": []}"#, 0, Err("missing field `items` at line 1 column 15"))]
    fn a_response(#[case] line: &str, #[case] count: usize, #[case] wanted: Result<usize, &str>) {
        let got = response(line, count).map(|items| items.len());
        assert_eq!(got, wanted.map_err(str::to_owned));
    }

    #[rstest]
    #[case(r#"{"run": {"commands": [{"command": ["true"]}]}}"#, "Run")]
    #[case(r#"{"run": [{"commands": [{"command": ["true"]}]}]}"#, "Run")]
    #[case(r#"{"filtered": {}}"#, "Filtered")]
    #[case(r#"{"invalid": "no code"}"#, "Invalid")]
    #[case(r#"{"error": "KeyError"}"#, "Error")]
    fn prepared(#[case] text: &str, #[case] variant: &str) {
        let prepared: Prepared = serde_json::from_str(text).unwrap();
        assert!(format!("{prepared:?}").starts_with(variant));
    }

    #[rstest]
    #[case::files(r#"{"run": {"files": 5, "commands": []}}"#, "run.files: invalid type: integer `5`")]
    #[case::path(r#"{"run": [{"files": {"../x": ""}, "commands": []}]}"#, "contains `..`")]
    #[case::commands(
        r#"{"run": [{"commands": [{"command": "true"}]}]}"#,
        "run[0].commands[0].command: invalid type"
    )]
    #[case::text(
        r#"{"run": "true"}"#,
        "run: invalid type: string \"true\", expected an executable, or a list of them"
    )]
    fn an_error_names_what_is_wrong(#[case] text: &str, #[case] says: &str) {
        let mut text = serde_json::Deserializer::from_str(text);
        let error = serde_path_to_error::deserialize::<_, Prepared>(&mut text).unwrap_err();
        let said = format!("{}: {}", error.path(), error.inner());
        assert!(said.contains(says), "{said}");
    }
}
