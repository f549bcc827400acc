//! Workers by the network that their programs have.
//!
//! A worker's network is decided when it is made, and one launcher makes workers of one kind. So there is a pool for
//! each kind that is wanted: a worker of one never has a job for the other, and what is asked of a kind that
//! there is not is refused. Together they run no more jobs at a time than one of them would.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::Lease;
use super::manager::WorkerPool;
use super::settings::{PoolStats, WorkerError};

/// The pools of this process; clones are handles of the same ones.
#[derive(Debug, Clone)]
pub struct Pools {
    /// Programs have no network.
    closed: Option<WorkerPool>,
    /// Programs have the host's.
    open: Option<WorkerPool>,
    /// Jobs that may still begin, of either kind.
    turns: Arc<Semaphore>,
}

/// The right to run a job, until it is dropped. `None`: the pool alone sees to it.
pub type Turn = Option<OwnedSemaphorePermit>;

impl Pools {
    /// No pool yet. `num_workers`: jobs at the same time, as in the settings of each.
    #[must_use]
    pub fn new(num_workers: usize) -> Self {
        Self { closed: None, open: None, turns: Arc::new(Semaphore::new(num_workers)) }
    }

    /// Adds the pool of a kind. `network`: its programs have the host's.
    #[must_use]
    pub fn with(mut self, network: bool, pool: WorkerPool) -> Self {
        *(if network { &mut self.open } else { &mut self.closed }) = Some(pool);
        self
    }

    /// Waits for a worker whose programs have this network and no other, first come first served.
    ///
    /// # Errors
    /// As [`WorkerPool::lease`]; [`WorkerError::Network`].
    pub async fn lease(&self, network: bool) -> Result<(Turn, Lease), WorkerError> {
        let pool = self.of(network)?;
        if self.all().count() == 1 {
            return Ok((None, pool.lease().await?));
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| WorkerError::ShutDown)?;
        Ok((Some(turn), pool.lease().await?))
    }

    /// The pool of a kind.
    ///
    /// # Errors
    /// [`WorkerError::Network`]: there is none.
    pub fn of(&self, network: bool) -> Result<&WorkerPool, WorkerError> {
        let pool = if network { &self.open } else { &self.closed };
        pool.as_ref().ok_or(WorkerError::Network { network })
    }

    /// Counts since the start, of both.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let mut sum = PoolStats::default();
        for stats in self.all().map(WorkerPool::stats) {
            for (reason, count) in stats.recycled {
                *sum.recycled.entry(reason).or_insert(0) += count;
            }
            sum.launcher_restarts += stats.launcher_restarts;
            sum.workers_started += stats.workers_started;
        }
        sum
    }

    /// As [`WorkerPool::shutdown`], of both at the same time.
    pub async fn shutdown(&self) {
        futures::future::join_all(self.all().map(WorkerPool::shutdown)).await;
    }

    fn all(&self) -> impl Iterator<Item = &WorkerPool> {
        self.closed.iter().chain(&self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kind_that_there_is_not_is_refused() {
        let pools = Pools::new(1);
        for network in [false, true] {
            let error = pools.lease(network).await.unwrap_err();
            assert!(matches!(error, WorkerError::Network { network: asked } if asked == network), "{error}");
        }
    }
}
