//! Who may start: results that wait for their turn must not pile up without bound.

use tokio::sync::watch;

/// What the flow says about starts.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// There is room for further results.
    pub room: bool,
    /// The sequence number whose result everything waits for: it may always start.
    pub next: u64,
}

/// One prediction's view of the gate.
#[derive(Debug)]
pub struct Turn {
    /// The prediction's sequence number.
    pub sequence: u64,
    /// What the flow says.
    pub gate: watch::Receiver<Gate>,
}

impl Turn {
    /// Whether it may start now.
    #[must_use]
    pub fn is_now(&self) -> bool {
        let gate = *self.gate.borrow();
        gate.room || gate.next == self.sequence
    }

    /// Returns once it may start; also where the flow is gone, which cancels what it left.
    pub async fn comes(&mut self) {
        let sequence = self.sequence;
        let _ = self.gate.wait_for(|gate| gate.room || gate.next == sequence).await;
    }
}
