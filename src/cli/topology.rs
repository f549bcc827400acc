//! `evalmill topology`.

use std::path::PathBuf;

use super::client::{block_on, printed, settings};
use super::exit::Failure;
use crate::api::broker;
use crate::config::TopologyMode;
use crate::telemetry::say;
use crate::transport::rabbitmq::{compare, items, prepare};

/// Prints what must be at the broker; with `apply`, declares it there, or checks it.
///
/// # Errors
/// The configuration, the broker, or standard output.
pub(super) fn topology(file: Option<PathBuf>, apply: bool) -> Result<(), Failure> {
    let settings = settings(file, Vec::new())?;
    let text: String = items(&settings.rabbitmq).iter().map(|item| format!("{item}\n")).collect();
    printed(super::print(text.as_bytes()))?;
    if !apply {
        return Ok(());
    }
    let broker = broker(&settings);
    block_on(async { Ok(prepare(&broker).await?) })?;
    if settings.rabbitmq.topology == TopologyMode::Check {
        for difference in block_on(async { Ok(compare(&broker).await?) })? {
            say(&format!("evalmill: there with other arguments, which stay in force: {difference}\n"));
        }
    }
    say(match settings.rabbitmq.topology {
        TopologyMode::Declare => "evalmill: declared\n",
        // AMQP has no way to ask for them.
        TopologyMode::Check => "evalmill: exchanges and queues are there; bindings cannot be checked\n",
    });
    Ok(())
}
