//! What is at fault where the broker does not do what it should, and what to do about it.

use lapin::ErrorKind;

use super::broker::{Broker, BrokerError, RPC_LIMIT, Role, bounded};
use super::topology::{Upkeep, apply, items};

/// Reply codes of AMQP.
pub(super) const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
pub(super) const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// What is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A setting, or what is at the broker does not go with the settings.
    Configuration,
    /// The broker refuses this user.
    Denied,
    /// A value that was given for this call.
    Value,
    /// The broker or the way to it: the same call can work later.
    Unreachable,
}

impl BrokerError {
    /// What is at fault.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match (self, self.code()) {
            (
                Self::NoUrl
                | Self::File { .. }
                | Self::BadUrl { .. }
                | Self::Certificate { .. }
                | Self::NoAuthorities
                | Self::NoAlternate { .. },
                _,
            )
            | (_, Some(NOT_FOUND | PRECONDITION_FAILED | NOT_ALLOWED)) => Fault::Configuration,
            (_, Some(ACCESS_REFUSED)) => Fault::Denied,
            (Self::TooLong { .. }, _) => Fault::Value,
            _ => Fault::Unreachable,
        }
    }

    /// The way out, for people.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match (self.fault(), self.code()) {
            (_, Some(NOT_FOUND)) => {
                "declare what is missing: `EVALMILL__RABBITMQ__TOPOLOGY=declare evalmill topology --apply`"
            }
            (_, Some(PRECONDITION_FAILED)) => {
                "it is there with other arguments: use the settings that it was declared with, or delete it while it is empty, or set rabbitmq.topology to \"check\""
            }
            (_, Some(NOT_ALLOWED)) => "the vhost is the path of rabbitmq.url; `/` is written %2f",
            (Fault::Denied, _) => {
                "check the user, the password and the vhost (rabbitmq.url, or rabbitmq.user and rabbitmq.password, or their files), and the user's permissions"
            }
            _ if matches!(self, Self::NoAlternate { .. }) => {
                "delete the exchange and have it declared with that argument (`EVALMILL__RABBITMQ__TOPOLOGY=declare evalmill topology --apply`), and bind your queues again; a policy cannot be seen over AMQP"
            }
            (Fault::Configuration, _) => {
                "`evalmill check-config --show-origin` says where a setting comes from"
            }
            (Fault::Value, _) => "give a shorter one",
            (Fault::Unreachable, _) => {
                "rabbitmq.url (or rabbitmq.url_file) says where the broker is: is it running, and reachable from here?"
            }
        }
    }

    /// The most bytes that the broker takes, where it closed the channel over a longer message. It says
    /// so in its text only.
    pub(super) fn size_limit(&self) -> Option<usize> {
        let Self::Call { source, .. } = self else { return None };
        let ErrorKind::ProtocolError(error) = source.kind() else { return None };
        let (_, limit) = error.get_message().as_str().split_once("max size ")?;
        limit.parse().ok().filter(|_| self.code() == Some(PRECONDITION_FAILED))
    }

    /// The reply code, where the broker itself gave one.
    pub(super) fn code(&self) -> Option<u16> {
        let Self::Call { source, .. } = self else { return None };
        match source.kind() {
            ErrorKind::ProtocolError(error) => Some(error.get_id()),
            _ => None,
        }
    }
}

/// Connects once and declares or checks everything that the settings name.
///
/// # Errors
/// The broker cannot be reached, or something is missing or different there.
pub async fn prepare(broker: &Broker) -> Result<(), BrokerError> {
    let connection = broker.connect(Role::Admin).await?;
    apply(&connection, &items(&broker.settings), broker.settings.topology).await?;
    bounded("close", RPC_LIMIT, connection.close(200, "done".into())).await
}

/// Connects once and compares what is there with what would be declared. The answer is which queues have
/// other arguments, as far as this user may see.
///
/// # Errors
/// The broker cannot be reached, or what is different there would lose results.
pub async fn compare(broker: &Broker) -> Result<Vec<String>, BrokerError> {
    let connection = broker.connect(Role::Admin).await?;
    let mut upkeep = Upkeep::new(&connection, &broker.settings);
    upkeep.common().await?;
    let differences = upkeep.differences().await?;
    bounded("close", RPC_LIMIT, connection.close(200, "done".into())).await?;
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lapin::protocol::{AMQPError, AMQPHardError, AMQPSoftError};
    use rstest::rstest;

    use super::*;

    fn refused(error: AMQPError) -> BrokerError {
        BrokerError::Call { what: "x".into(), source: ErrorKind::ProtocolError(error).into() }
    }

    #[rstest]
    #[case("PRECONDITION_FAILED - message size 20 is larger than configured max size 16", Some(16))]
    #[case("PRECONDITION_FAILED - message size 20 is larger than max size 16", Some(16))]
    #[case("PRECONDITION_FAILED - message size 20 is larger than max size x", None)]
    #[case("PRECONDITION_FAILED - inequivalent arg 'x-max-length'", None)]
    fn too_long_for_the_broker(#[case] text: &str, #[case] limit: Option<usize>) {
        let said = |code: AMQPSoftError| refused(AMQPError::new(code.into(), text.into())).size_limit();
        assert_eq!(said(AMQPSoftError::PRECONDITIONFAILED), limit);
        assert_eq!(said(AMQPSoftError::NOTFOUND), None);
    }

    #[rstest]
    #[case(BrokerError::NoUrl, Fault::Configuration, "check-config")]
    #[case(BrokerError::BadUrl { from: "z".into(), url: "x".into(), reason: "y".into() }, Fault::Configuration, "check-config")]
    #[case(BrokerError::NoAlternate { reason: "x".into() }, Fault::Configuration, "bind your queues again")]
    #[case(BrokerError::TooLong { what: "a key", bytes: 300 }, Fault::Value, "shorter")]
    #[case(BrokerError::Ended("x".into()), Fault::Unreachable, "running")]
    #[case(BrokerError::Timeout { what: "x".into(), limit: Duration::ZERO }, Fault::Unreachable, "running")]
    #[case(refused(AMQPError::new(AMQPSoftError::NOTFOUND.into(), "".into())), Fault::Configuration, "--apply")]
    #[case(
        refused(AMQPError::new(AMQPSoftError::PRECONDITIONFAILED.into(), "".into())),
        Fault::Configuration,
        "other arguments"
    )]
    #[case(refused(AMQPError::new(AMQPSoftError::ACCESSREFUSED.into(), "".into())), Fault::Denied, "password")]
    #[case(refused(AMQPError::new(AMQPHardError::NOTALLOWED.into(), "".into())), Fault::Configuration, "vhost")]
    #[case(
        refused(AMQPError::new(AMQPHardError::CONNECTIONFORCED.into(), "".into())),
        Fault::Unreachable,
        "running"
    )]
    fn faults(#[case] error: BrokerError, #[case] fault: Fault, #[case] advice: &str) {
        assert_eq!(error.fault(), fault);
        assert!(error.advice().contains(advice), "{}", error.advice());
    }
}
