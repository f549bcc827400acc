//! The state of one connection, as the rest of the service sees it.

use tokio::sync::watch;

/// What a link is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// It is not connected, and why.
    Down {
        /// The last failure; `starting` before the first attempt.
        reason: String,
        /// Failures in a row.
        failures: u32,
    },
    /// It works.
    Up {
        /// Why the broker takes nothing from it at the moment.
        blocked: Option<String>,
        /// Why the broker refuses what is published.
        refused: Option<String>,
    },
}

/// What happens to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkEvent {
    Connected,
    Lost(String),
    Blocked(String),
    Unblocked,
    Refused(String),
    Accepted,
}

impl LinkState {
    fn initial() -> Self {
        Self::Down { reason: "starting".to_owned(), failures: 0 }
    }

    /// The state after an event. What does not fit the state (an unblocking after the loss) is ignored.
    pub(super) fn after(self, event: LinkEvent) -> Self {
        match (self, event) {
            (_, LinkEvent::Connected) => Self::Up { blocked: None, refused: None },
            (Self::Down { failures, .. }, LinkEvent::Lost(reason)) => {
                Self::Down { reason, failures: failures.saturating_add(1) }
            }
            (Self::Up { .. }, LinkEvent::Lost(reason)) => Self::Down { reason, failures: 1 },
            (Self::Up { refused, .. }, LinkEvent::Blocked(reason)) => {
                Self::Up { blocked: Some(reason), refused }
            }
            (Self::Up { refused, .. }, LinkEvent::Unblocked) => Self::Up { blocked: None, refused },
            (Self::Up { blocked, .. }, LinkEvent::Refused(reason)) => {
                Self::Up { blocked, refused: Some(reason) }
            }
            (Self::Up { blocked, .. }, LinkEvent::Accepted) => Self::Up { blocked, refused: None },
            (down @ Self::Down { .. }, _) => down,
        }
    }

    /// Whether it works, and why not.
    ///
    /// # Errors
    /// It is down, blocked or refused.
    pub fn ready(&self) -> Result<(), String> {
        match self {
            Self::Down { reason, .. } => Err(reason.clone()),
            Self::Up { blocked: Some(reason), .. } => Err(format!("blocked by the broker: {reason}")),
            Self::Up { refused: Some(reason), .. } => Err(format!("refused by the broker: {reason}")),
            Self::Up { blocked: None, refused: None } => Ok(()),
        }
    }

    /// Whether it is connected.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// Whether the broker takes nothing from it.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        matches!(self, Self::Up { blocked: Some(_), .. })
    }
}

/// The state of a link, to be read and waited for.
#[derive(Debug, Clone)]
pub struct Link(watch::Receiver<LinkState>);

impl Link {
    pub(super) fn new() -> (LinkSetter, Self) {
        let (sender, receiver) = watch::channel(LinkState::initial());
        (LinkSetter(sender), Self(receiver))
    }

    /// Its state now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.0.borrow().clone()
    }

    /// Returns once it is ready; never where its task has ended.
    pub async fn until_ready(&mut self) {
        if self.0.wait_for(|state| state.ready().is_ok()).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns at the next change; never where its task has ended.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Where a link's task says what happens to it.
#[derive(Debug)]
pub(super) struct LinkSetter(watch::Sender<LinkState>);

impl LinkSetter {
    pub(super) fn tell(&self, event: LinkEvent) {
        self.0.send_if_modified(|state| {
            let after = state.clone().after(event);
            let changed = *state != after;
            *state = after;
            changed
        });
    }

    pub(super) fn state(&self) -> LinkState {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn up(blocked: Option<&str>, refused: Option<&str>) -> LinkState {
        LinkState::Up { blocked: blocked.map(str::to_owned), refused: refused.map(str::to_owned) }
    }

    fn down(failures: u32) -> LinkState {
        LinkState::Down { reason: "x".to_owned(), failures }
    }

    #[rstest]
    #[case(down(0), LinkEvent::Connected, up(None, None))]
    #[case(down(4), LinkEvent::Lost("x".into()), down(5))]
    #[case(up(Some("m"), Some("r")), LinkEvent::Lost("x".into()), down(1))]
    #[case(up(None, Some("r")), LinkEvent::Blocked("m".into()), up(Some("m"), Some("r")))]
    #[case(up(Some("m"), Some("r")), LinkEvent::Unblocked, up(None, Some("r")))]
    #[case(up(Some("m"), None), LinkEvent::Refused("r".into()), up(Some("m"), Some("r")))]
    #[case(up(Some("m"), Some("r")), LinkEvent::Accepted, up(Some("m"), None))]
    #[case(down(2), LinkEvent::Unblocked, down(2))]
    #[case(down(2), LinkEvent::Blocked("m".into()), down(2))]
    #[case(down(2), LinkEvent::Accepted, down(2))]
    fn transitions(#[case] state: LinkState, #[case] event: LinkEvent, #[case] after: LinkState) {
        assert_eq!(state.after(event), after);
    }

    fn events() -> impl Strategy<Value = Vec<LinkEvent>> {
        let one = prop_oneof![
            Just(LinkEvent::Connected),
            Just(LinkEvent::Lost("l".into())),
            Just(LinkEvent::Blocked("b".into())),
            Just(LinkEvent::Unblocked),
            Just(LinkEvent::Refused("r".into())),
            Just(LinkEvent::Accepted),
        ];
        prop::collection::vec(one, 0..40)
    }

    proptest! {
        #[test]
        fn a_loss_is_never_ready_and_a_connection_always_is(events in events()) {
            let state = events.into_iter().fold(LinkState::initial(), LinkState::after);
            prop_assert!(state.clone().after(LinkEvent::Lost("x".into())).ready().is_err());
            prop_assert!(state.clone().after(LinkEvent::Connected).ready().is_ok());
            prop_assert!(!state.is_blocked() || state.ready().is_err());
        }
    }
}
