//! Results that are there already, line by line.

use thiserror::Error;

use crate::metrics::Aggregate;
use crate::model::{JsonError, LineError, read_line};
use crate::transport::{Source, TransportError};

const GZIP: &[u8] = b"\x1f\x8b";
/// Bytes of a line that are shown where it cannot be read.
const SHOWN: usize = 60;

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading<'a> {
    /// A line was taken.
    Line,
    /// A line is no result and is left out.
    Bad {
        /// `<file>:<line>`.
        origin: &'a str,
        /// What is wrong with it.
        reason: &'a str,
    },
}

/// Why there is no sum of the results.
#[derive(Debug, Error)]
pub enum ResultsError {
    /// A line is no result.
    #[error("{origin} is no result: {reason}")]
    BadLine {
        /// `<file>:<line>`.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The input.
    #[error(transparent)]
    Input(#[from] TransportError),
}

/// Takes every line of `source` into `aggregate`: results count, other messages of the service are left
/// out. With `skip_bad`, so is what is neither.
///
/// # Errors
/// The input fails, or a line is no message and shall not be left out.
pub async fn aggregate_results(
    source: &mut impl Source,
    aggregate: &mut Aggregate,
    skip_bad: bool,
    observe: &mut (dyn FnMut(Reading<'_>) + Send),
) -> Result<(), ResultsError> {
    while let Some(delivery) = source.next().await {
        let delivery = delivery?;
        let read = match &delivery.body {
            Ok(body) => read_line(body).map_err(|error| describe(&error, body)),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(line) => {
                aggregate.add(&line);
                observe(Reading::Line);
            }
            Err(reason) if skip_bad => {
                aggregate.add_bad();
                observe(Reading::Bad { origin: &delivery.origin, reason: &reason });
            }
            Err(reason) => return Err(ResultsError::BadLine { origin: delivery.origin, reason }),
        }
    }
    Ok(())
}

/// What is wrong, how the line begins, and what to do where that can be told.
fn describe(error: &LineError, line: &[u8]) -> String {
    if line.starts_with(GZIP) {
        return "it is compressed by gzip: give the file a name that ends in `.gz`, or pipe it through \
                `zcat`"
            .to_owned();
    }
    let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
    let dots = if line.len() > SHOWN { "…" } else { "" };
    let torn = match error {
        LineError::Json(JsonError::Syntax(error)) if error.is_eof() => {
            "; it breaks off, as the last line of an interrupted run does, which `evalmill run --resume` puts \
             right"
        }
        _ => "",
    };
    format!("{error}{torn} (it begins with {shown:?}{dots})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"\x1f\x8b\x08junk", "ends in `.gz`")]
    #[case(br#"{"schema":"result.v1","id":"a"#, "it breaks off")]
    #[case(b"{\"a\" 1}", "(it begins with \"{\\\"a\\\" 1}\")")]
    #[case(b"\xff\xfe\x00", "not UTF-8")]
    fn what_is_said_of_a_bad_line(#[case] line: &[u8], #[case] says: &str) {
        let text = describe(&read_line(line).unwrap_err(), line);
        assert!(text.contains(says), "{text}");
    }
}
