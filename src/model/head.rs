//! What counting needs of a line of results; the rest is skipped, and not parsed.

use serde::Deserialize;
use thiserror::Error;

use super::{JsonError, StageTimings, Verdict, parse_strict};

/// One line of what a run or the service writes.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// A result.
    Result(ResultHead),
    /// A notice that a prediction was put aside.
    Parked {
        /// The id that its result would have.
        result_id: String,
        /// The prediction's id.
        id: String,
    },
    /// Another message of the service, with this schema: timings, or a notice of another sort.
    Other(String),
}

/// The part of a result that is counted.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultHead {
    /// The same for every copy of the result.
    pub result_id: String,
    /// The prediction's.
    pub id: String,
    /// The prediction's.
    pub run: Option<String>,
    /// The prediction's.
    pub task: Option<String>,
    /// What is concluded.
    pub verdict: Verdict,
    /// Seconds of each stage.
    pub timings: Option<StageTimings>,
}

/// Why a line is none of these.
#[derive(Debug, Error)]
pub enum LineError {
    /// No JSON.
    #[error(transparent)]
    Json(JsonError),
    /// A field has no such value.
    #[error("the field {path} is wrong: {said}")]
    Field {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        said: serde_json::Error,
    },
    /// A line that is no object.
    #[error("it is no JSON object")]
    NoObject,
    /// A field is missing.
    #[error("it has no {0:?}, and a result has one")]
    Missing(&'static str),
    /// Of a later version.
    #[error(
        "its schema is {0:?}, and this evalmill reads result.v1: take the version that wrote it, or a later one"
    )]
    Newer(String),
    /// Of somebody else.
    #[error("its schema is {0:?}, which is no message of evalmill's (a result has \"result.v1\")")]
    Foreign(String),
}

#[derive(Deserialize)]
struct Wire {
    schema: Option<String>,
    result_id: Option<String>,
    id: Option<String>,
    run: Option<String>,
    task: Option<String>,
    verdict: Option<Verdict>,
    timings: Option<StageTimings>,
}

/// Reads one line. Fields that are not counted may be anything that is JSON.
///
/// # Errors
/// It is no message of ours, or of a later version.
pub fn read_line(line: &[u8]) -> Result<Line, LineError> {
    // An array would be taken for the fields in their order.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(parse_strict(line).map_or_else(LineError::Json, |_| LineError::NoObject));
    }
    let wire: Wire = serde_json::from_slice(line).map_err(|_| what_is_wrong(line))?;
    let schema = wire.schema.ok_or(LineError::Missing("schema"))?;
    match schema.as_str() {
        "result.v1" => Ok(Line::Result(ResultHead {
            result_id: wire.result_id.ok_or(LineError::Missing("result_id"))?,
            id: wire.id.ok_or(LineError::Missing("id"))?,
            run: wire.run,
            task: wire.task,
            verdict: wire.verdict.ok_or(LineError::Missing("verdict"))?,
            timings: wire.timings,
        })),
        "notice.parked" => Ok(Line::Parked {
            result_id: wire.result_id.ok_or(LineError::Missing("result_id"))?,
            id: wire.id.ok_or(LineError::Missing("id"))?,
        }),
        other if other.starts_with("result.") => Err(LineError::Newer(schema)),
        other if other.starts_with("timings.") || other.starts_with("notice.") => Ok(Line::Other(schema)),
        _ => Err(LineError::Foreign(schema)),
    }
}

/// Reads it once more, to say what is wrong in words of ours.
fn what_is_wrong(line: &[u8]) -> LineError {
    if let Err(error) = parse_strict(line) {
        return LineError::Json(error);
    }
    let mut reader = serde_json::Deserializer::from_slice(line);
    match serde_path_to_error::deserialize::<_, Wire>(&mut reader) {
        Err(error) => LineError::Field { path: error.path().to_string(), said: error.into_inner() },
        // What is refused and then read differs in what the strict reader refuses only.
        Ok(_) => LineError::Missing("schema"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[test]
    fn what_is_not_counted_may_be_anything() {
        let line = br#"{"schema":"result.v1","new":[{"x":1}],"result_id":"r","id":"a","run":null,"task":"t",
            "verdict":"timed_out","passed":7,"executions":"none","output":{"verdict":"passed"}}"#;
        let expected = ResultHead {
            result_id: "r".to_owned(),
            id: "a".to_owned(),
            run: None,
            task: Some("t".to_owned()),
            verdict: Verdict::TimedOut,
            timings: None,
        };
        assert_eq!(read_line(line).unwrap(), Line::Result(expected));
    }

    #[rstest]
    #[case(r#"{"schema":"timings.v1","timings":null}"#, Line::Other("timings.v1".to_owned()))]
    #[case(r#"{"schema":"timings.v2"}"#, Line::Other("timings.v2".to_owned()))]
    #[case(r#"{"schema":"notice.lost"}"#, Line::Other("notice.lost".to_owned()))]
    #[case(
        r#"{"schema":"notice.parked","result_id":"r","id":"a","attempts":3}"#,
        Line::Parked { result_id: "r".to_owned(), id: "a".to_owned() }
    )]
    fn other_messages(#[case] line: &str, #[case] expected: Line) {
        assert_eq!(read_line(line.as_bytes()).unwrap(), expected);
    }

    #[rstest]
    #[case("", "not JSON")]
    #[case(r#"{"schema":"result.v1","result_id":"#, "not JSON")]
    #[case("[]", "no JSON object")]
    #[case(r#"["result.v1","r","a",null,null,"passed",null]"#, "no JSON object")]
    #[case("7", "no JSON object")]
    #[case("{}", "it has no \"schema\"")]
    #[case(r#"{"schema":7}"#, "the field schema is wrong: invalid type: integer `7`")]
    #[case(r#"{"schema":"result.v1","id":"a","verdict":"passed"}"#, "it has no \"result_id\"")]
    #[case(r#"{"schema":"result.v1","result_id":"r","verdict":"passed"}"#, "it has no \"id\"")]
    #[case(r#"{"schema":"result.v1","result_id":"r","id":"a"}"#, "it has no \"verdict\"")]
    #[case(
        r#"{"schema":"result.v1","result_id":"r","id":"a","verdict":"great"}"#,
        "the field verdict is wrong: unknown variant `great`, expected one of `passed`"
    )]
    #[case(r#"{"schema":"result.v1","timings":{"queue":"x"}}"#, "the field timings.queue is wrong")]
    #[case(r#"{"schema":"result.v1","id":"a","id":"b"}"#, "\"id\" stands twice")]
    #[case(r#"{"schema":"result.v1","id":NaN}"#, "NaN and Infinity")]
    #[case(r#"{"schema":"result.v2"}"#, "this evalmill reads result.v1")]
    #[case(r#"{"schema":"prediction.v1"}"#, "no message of evalmill's")]
    fn refused(#[case] line: &str, #[case] says: &str) {
        let error = read_line(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    proptest! {
        #[test]
        fn no_line_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read_line(&bytes);
        }
    }
}
