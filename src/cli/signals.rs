//! What a terminal or an operator sends to stop the program.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exit::Failure;
use crate::telemetry::say;

/// How long what runs may take to finish after the first signal.
const DRAIN_LIMIT: Duration = Duration::from_secs(3600);

/// The first SIGINT or SIGTERM drains, a second one forces.
pub(super) struct Signals {
    tracker: TaskTracker,
    ended: CancellationToken,
    seen: Arc<Mutex<Option<(&'static str, u8)>>>,
}

impl Signals {
    pub(super) fn listen(draining: CancellationToken, forced: CancellationToken) -> Result<Self, Failure> {
        let fail = |error: std::io::Error| Failure::Io(format!("signals cannot be received: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
        let (tracker, ended) = (TaskTracker::new(), CancellationToken::new());
        let seen = Arc::new(Mutex::new(None));
        let (first, stop) = (Arc::clone(&seen), ended.clone());
        tracker.spawn(async move {
            for times in 0..2 {
                let name = tokio::select! {
                    _ = interrupt.recv() => ("SIGINT", 2),
                    _ = terminate.recv() => ("SIGTERM", 15),
                    () = tokio::time::sleep(DRAIN_LIMIT), if times > 0 => ("SIGTERM", 15),
                    () = stop.cancelled() => return,
                };
                if times > 0 {
                    return forced.cancel();
                }
                *first.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
                draining.cancel();
                say(&format!("evalmill: {}: finishing what runs; once more gives it up\n", name.0));
            }
        });
        Ok(Self { tracker, ended, seen })
    }

    /// Stops listening; the first signal, where there was one.
    pub(super) async fn stop(self) -> Option<(&'static str, u8)> {
        self.ended.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
