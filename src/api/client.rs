//! What the clients of a broker have in common.

use super::engine::instance;
use crate::config::Settings;
use crate::service::parked_key;
use crate::transport::rabbitmq::Broker;

/// The broker that the settings name.
#[must_use]
pub fn broker(settings: &Settings) -> Broker {
    Broker { settings: settings.rabbitmq.clone(), instance: instance() }
}

/// A run as it stands in routing keys.
#[must_use]
pub fn run_key(run: &str) -> String {
    let key = parked_key(Some(run));
    key.strip_prefix("parked.").unwrap_or(&key).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("run-7", "run-7")]
    #[case("a.b c", "a_b_c")]
    #[case("", "-")]
    fn runs_in_keys(#[case] run: &str, #[case] key: &str) {
        assert_eq!(run_key(run), key);
    }
}
