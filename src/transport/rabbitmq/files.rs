//! Files that settings name, read with a bound: a mount that hangs and a pipe that nobody writes to never
//! answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::broker::BrokerError;

/// Bound of reading one.
const LIMIT: Duration = Duration::from_secs(10);
/// Reads that may hang at once: they do not become more with each try.
const MOST: usize = 8;

/// Reads files; clones share the bound of what hangs.
#[derive(Debug, Clone)]
pub(super) struct Files(Arc<Semaphore>);

impl Default for Files {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

impl Files {
    /// What the file of a setting holds, without the line break at its end.
    pub(super) async fn read(
        &self,
        setting: &'static str,
        file: &str,
        what: &'static str,
    ) -> Result<String, BrokerError> {
        let unusable = |reason: String| BrokerError::File { setting, file: file.to_owned(), reason, what };
        let path = file.to_owned();
        let text = self.bounded(move || std::fs::read_to_string(path)).await.map_err(unusable)?;
        let text = text.map_err(|error| unusable(error.to_string()))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.trim().is_empty() {
            return Err(unusable("it is empty".to_owned()));
        }
        Ok(text.to_owned())
    }

    /// Reads on a thread of its own: at its end, the runtime would wait for one of its own.
    pub(super) async fn bounded<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let all = async {
            let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|error| error.to_string())?;
            let (done, answer) = oneshot::channel();
            let work = move || {
                let read = read();
                drop(permit);
                // Whoever asked may have given up.
                let _ = done.send(read);
            };
            let named = std::thread::Builder::new().name("evalmill-read".to_owned());
            named.spawn(work).map_err(|error| error.to_string())?;
            answer.await.map_err(|_| "reading it failed".to_owned())
        };
        match tokio::time::timeout(LIMIT, all).await {
            Ok(read) => read,
            Err(_) if self.0.available_permits() == 0 => Err(format!(
                "it could not be read within {LIMIT:?}: {MOST} reads hang already; end what they wait for, or restart"
            )),
            Err(_) => Err(format!("it could not be read within {LIMIT:?}")),
        }
    }
}
