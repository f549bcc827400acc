//! What the clients of a broker have in common.

use super::engine::instance;
use crate::config::Settings;
use crate::transport::rabbitmq::Broker;

/// The broker that the settings name.
#[must_use]
pub fn broker(settings: &Settings) -> Broker {
    Broker::new(settings.rabbitmq.clone(), instance())
}
