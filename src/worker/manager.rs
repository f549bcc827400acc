//! The pool's I/O: one task owns the state machine, the launcher and the sockets of idle workers.
//!
//! - What happens (requests, packets, returned leases, time) becomes an event of
//!   [`Pool`](super::pool::Pool), and its actions are carried out here; no decision is taken here
//!   but when to try the launcher again.
//! - A lease ends by a one-shot channel; its drop is news too, so dropping a lease needs no
//!   runtime.
//! - A launcher that is gone or hangs is replaced. Its workers keep their sockets, finish what they
//!   do and end; nobody else can kill them, so the pool holds a pidfd of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actor::{Actor, Request};
use super::client::Lease;
use super::launch::LauncherProcess;
use super::settings::{PoolSettings, PoolStats, WorkerError};
use crate::config::Tier;
use crate::sandbox::Missing;

/// Requests on their way to the pool's task; those that wait for a worker are in the pool.
const REQUESTS: usize = 64;
/// Bound of [`WorkerPool::shutdown`]; the launcher itself has 5 s of it.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// What anybody may ask about at any time.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) stats: PoolStats,
    pub(crate) pids: BTreeMap<u64, i32>,
}

#[derive(Debug)]
struct Inner {
    requests: mpsc::Sender<Request>,
    report: Arc<Mutex<Report>>,
    stop: CancellationToken,
    stopped: CancellationToken,
    tier: Tier,
    missing: Vec<Missing>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The workers of this process; clones are handles of the same pool, and the last one gone is a
/// shutdown.
#[derive(Debug, Clone)]
pub struct WorkerPool(Arc<Inner>);

impl WorkerPool {
    /// Starts the launcher, and the pool's task on `tracker`. Workers come to life meanwhile.
    ///
    /// # Errors
    /// [`WorkerError::LauncherUnavailable`], [`WorkerError::NoWorkers`], [`WorkerError::Policy`].
    pub async fn start(settings: PoolSettings, tracker: &TaskTracker) -> Result<Self, WorkerError> {
        if settings.num_workers == 0 {
            return Err(WorkerError::NoWorkers);
        }
        let launcher = LauncherProcess::start(&settings).await?;
        let (tier, missing) = (launcher.tier, launcher.missing.clone());
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let report = Arc::new(Mutex::new(Report::default()));
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let actor = Actor::new(settings, Arc::clone(&report), inbox, stop.clone());
        let guard = stopped.clone().drop_guard();
        tracker.spawn(async move {
            actor.run(launcher).await;
            drop(guard);
        });
        Ok(Self(Arc::new(Inner { requests, report, stop, stopped, tier, missing })))
    }

    /// Waits for a worker, first come first served. Dropped, it no longer waits.
    ///
    /// # Errors
    /// [`WorkerError::ShutDown`]; [`WorkerError::LauncherUnavailable`] after several launchers in
    /// a row did not start.
    pub async fn lease(&self) -> Result<Lease, WorkerError> {
        loop {
            let (reply, granted) = oneshot::channel();
            // Dropped with this future: that is how the pool learns that nobody waits.
            let (_waiting, gone) = oneshot::channel();
            let request = Request { reply, gone };
            self.0.requests.send(request).await.map_err(|_| WorkerError::ShutDown)?;
            let lease = granted.await.map_err(|_| WorkerError::ShutDown)??;
            if lease.is_sound() {
                return Ok(lease);
            }
            // It died while idle and the news has not arrived yet.
            lease.discard();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The isolation of every worker, tried at the start.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.0.tier
    }

    /// What keeps the tier from being stronger.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.0.missing
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.0.report.lock().unwrap_or_else(PoisonError::into_inner).stats.clone()
    }

    /// Process ids of the workers that are not known to have ended.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<i32> {
        self.0.report.lock().unwrap_or_else(PoisonError::into_inner).pids.values().copied().collect()
    }

    /// Ends every worker, leased ones too, and the launcher. Returns when they are gone, or after
    /// 10 s. Requests that still wait fail.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.0.stopped.cancelled()).await.is_err() {
            tracing::warn!("the worker pool did not end within {SHUTDOWN_LIMIT:?}");
        }
    }
}
