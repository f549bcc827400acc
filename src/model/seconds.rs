//! Durations on the wire.

use std::borrow::Cow;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A time limit: seconds as a float, finite and above zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Seconds(f64);

/// The number is no time limit.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{0} is no time limit: it must be a finite number of seconds above 0 and at most 1000000000")]
pub struct SecondsError(f64);

impl Seconds {
    /// Checks a number of seconds.
    ///
    /// # Errors
    /// It is not finite, not above zero, or above 10⁹.
    pub fn new(seconds: f64) -> Result<Self, SecondsError> {
        if seconds.is_finite() && seconds > 0.0 && seconds <= 1e9 {
            Ok(Self(seconds))
        } else {
            Err(SecondsError(seconds))
        }
    }

    /// The number of seconds.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_secs_f64(seconds.0)
    }
}

impl From<Seconds> for f64 {
    fn from(seconds: Seconds) -> Self {
        seconds.0
    }
}

impl TryFrom<f64> for Seconds {
    type Error = SecondsError;

    fn try_from(seconds: f64) -> Result<Self, SecondsError> {
        Self::new(seconds)
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "exclusiveMinimum": 0, "maximum": 1e9, "description": "Seconds."})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_finite_numbers() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(Seconds::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Duration::from(Seconds::new(0.25).unwrap()), Duration::from_millis(250));
    }
}
