//! What becomes of a delivery: one total function.

use std::fmt::Write as _;

use crate::model::Verdict;

/// How often a prediction is tried again where the failure is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRule {
    /// Attempts in all, at least one.
    pub max_attempts: u32,
}

/// What becomes of a delivery whose prediction was seen to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Its result goes out, and it is acknowledged.
    Publish,
    /// It is sent to the input again, to come back later as this attempt; then it is acknowledged.
    Retry {
        /// The number of the next attempt, from 2.
        attempt: u32,
    },
    /// It is put aside with a notice; then it is acknowledged.
    Park,
}

/// What becomes of a prediction with this verdict, at this attempt (from 1). Without a rule every
/// result goes out: who reads it can do it again.
#[must_use]
pub fn dispose(verdict: Verdict, attempt: u32, rule: Option<RetryRule>) -> Disposition {
    match (verdict, rule) {
        (Verdict::InfraError, Some(rule)) if attempt < rule.max_attempts => {
            Disposition::Retry { attempt: attempt.saturating_add(1).max(2) }
        }
        (Verdict::InfraError, Some(_)) => Disposition::Park,
        _ => Disposition::Publish,
    }
}

/// The longest routing key that AMQP takes.
const MAX_KEY_BYTES: usize = 255;

/// The routing key `result.<run>.<verdict>`.
#[must_use]
pub fn result_key(run: Option<&str>, verdict: Verdict) -> String {
    let verdict = verdict.to_string();
    let room = MAX_KEY_BYTES - "result..".len() - verdict.len();
    format!("result.{}.{verdict}", key_part(run, room))
}

/// The routing key `parked.<run>`.
#[must_use]
pub fn parked_key(run: Option<&str>) -> String {
    format!("parked.{}", run_key(run.unwrap_or_default()))
}

/// A run as it stands in routing keys, with room for one more part of the length of `parked`.
#[must_use]
pub fn run_key(run: &str) -> String {
    key_part(Some(run), MAX_KEY_BYTES - "parked.".len())
}

/// The routing key `timings.<instance>`.
#[must_use]
pub fn timings_key(instance: &str) -> String {
    format!("timings.{}", key_part(Some(instance), MAX_KEY_BYTES - "timings.".len()))
}

/// Text as one part of a key: what is not a letter, digit, `_` or `-` becomes `_`.
fn key_part(text: Option<&str>, room: usize) -> String {
    let mut part = String::new();
    for c in text.unwrap_or_default().chars().take(room) {
        let plain = if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        // A string takes everything.
        let _ = part.write_char(plain);
    }
    if part.is_empty() { "-".to_owned() } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Verdict::InfraError, 1, Some(3), Disposition::Retry { attempt: 2 })]
    #[case(Verdict::InfraError, 2, Some(3), Disposition::Retry { attempt: 3 })]
    #[case(Verdict::InfraError, 3, Some(3), Disposition::Park)]
    #[case(Verdict::InfraError, u32::MAX, Some(3), Disposition::Park)]
    #[case(Verdict::InfraError, 1, Some(1), Disposition::Park)]
    #[case(Verdict::InfraError, 0, Some(3), Disposition::Retry { attempt: 2 })]
    #[case(Verdict::InfraError, 1, None, Disposition::Publish)]
    fn ours(
        #[case] verdict: Verdict,
        #[case] attempt: u32,
        #[case] max_attempts: Option<u32>,
        #[case] expected: Disposition,
    ) {
        let rule = max_attempts.map(|max_attempts| RetryRule { max_attempts });
        assert_eq!(dispose(verdict, attempt, rule), expected);
    }

    #[test]
    fn everything_else_goes_out_at_any_attempt() {
        for verdict in Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::InfraError) {
            for attempt in [1, 2, 99] {
                assert_eq!(
                    dispose(verdict, attempt, Some(RetryRule { max_attempts: 3 })),
                    Disposition::Publish
                );
            }
        }
    }

    #[rstest]
    #[case(Some("run-7"), "result.run-7.passed")]
    #[case(None, "result.-.passed")]
    #[case(Some(""), "result.-.passed")]
    #[case(Some("a.b*#é x"), "result.a_b____x.passed")]
    fn keys(#[case] run: Option<&str>, #[case] expected: &str) {
        assert_eq!(result_key(run, Verdict::Passed), expected);
    }

    #[rstest]
    #[case("run-7", "run-7")]
    #[case("a.b c", "a_b_c")]
    #[case("", "-")]
    fn runs_in_keys(#[case] run: &str, #[case] key: &str) {
        assert_eq!(run_key(run), key);
    }

    #[test]
    fn keys_fit() {
        let long = "é".repeat(1000);
        for verdict in Verdict::ALL {
            assert_eq!(result_key(Some(&long), verdict).len(), 255);
        }
        assert_eq!((parked_key(Some(&long)).len(), timings_key(&long).len()), (255, 255));
    }
}
