//! Time limits of our own code. Programs that are judged have limits that do not need their consent.
//!
//! A thread cannot be interrupted from outside: what is over time is no longer waited for, and ends
//! where it asks its [`TimeoutContext`] the next time. What never asks goes on, and keeps what it holds.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// The work did not end in time, or was not started.
#[derive(Debug, Error)]
pub enum ContextTimeLimitException {
    /// It takes longer.
    #[error("it did not end within {:?}", .0)]
    Exceeded(Duration),
    /// There is no thread for it.
    #[error("no thread can be started for it: {0}")]
    NoThread(#[from] io::Error),
}

/// A moment until which something must be done, for the work to look at.
#[derive(Debug, Clone, Copy)]
pub struct TimeoutContext {
    limit: Option<Duration>,
    started: Instant,
}

impl TimeoutContext {
    /// From now on; without a limit it is never over.
    #[must_use]
    pub fn new(limit: Option<Duration>) -> Self {
        Self { limit, started: Instant::now() }
    }

    /// How much time is left; none where there is no limit.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.started.elapsed()))
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// There is none.
    pub fn check(&self) -> Result<(), ContextTimeLimitException> {
        match (self.limit, self.remaining()) {
            (Some(limit), Some(Duration::ZERO)) => Err(ContextTimeLimitException::Exceeded(limit)),
            _ => Ok(()),
        }
    }
}

/// Does `work` on a thread of its own, and waits for it no longer than `limit`; without one, for ever.
///
/// # Errors
/// It takes longer, or there is no thread for it.
///
/// # Panics
/// As `work` does.
pub fn time_limit<T: Send + 'static>(
    limit: Option<Duration>,
    work: impl FnOnce(&TimeoutContext) -> T + Send + 'static,
) -> Result<T, ContextTimeLimitException> {
    let context = TimeoutContext::new(limit);
    let (sender, receiver) = sync_channel(1);
    thread::Builder::new().name("time-limit".into()).spawn(move || {
        let done = catch_unwind(AssertUnwindSafe(|| work(&context)));
        // What looked at its context, and gave up for it, is late as well, however fast it is here. Where
        // nobody waits any more, it is dropped.
        drop(sender.send((done, context.check())));
    })?;
    let done = match context.remaining() {
        Some(left) => receiver.recv_timeout(left),
        None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match (done, limit) {
        (Ok((Ok(value), in_time)), _) => in_time.map(|()| value),
        (Ok((Err(panic), _)), _) => resume_unwind(panic),
        // The thread sends whatever happens: it is late.
        (Err(_), limit) => Err(ContextTimeLimitException::Exceeded(limit.unwrap_or_default())),
    }
}

/// `work` with [`time_limit`] around each call.
pub fn timeout_decorator<A, T, F>(
    limit: Duration,
    work: F,
) -> impl Fn(A) -> Result<T, ContextTimeLimitException> + Clone
where
    A: Send + 'static,
    T: Send + 'static,
    F: Fn(A) -> T + Send + Sync + 'static,
{
    let work = Arc::new(work);
    move |argument| {
        let work = Arc::clone(&work);
        time_limit(Some(limit), move |_| work(argument))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;
    use std::sync::{Mutex, mpsc};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    /// Waits until it is told to end, or nobody can tell it any more.
    fn endless() -> (Sender<()>, impl Fn(()) + Send + Sync + 'static) {
        #[expect(clippy::disallowed_methods, reason = "nothing is ever sent")]
        let (sender, receiver) = mpsc::channel::<()>();
        let receiver = Mutex::new(receiver);
        (sender, move |()| drop(receiver.lock().map(|receiver| receiver.recv())))
    }

    #[test]
    fn what_ends_in_time_gives_its_value() {
        for limit in [None, Some(LONG)] {
            let left = time_limit(limit, TimeoutContext::remaining).unwrap();
            assert_eq!(left.is_some(), limit.is_some());
        }
        let double = timeout_decorator(LONG, |x: u32| x * 2);
        assert_eq!((double(3).unwrap(), double.clone()(4).unwrap()), (6, 8));
    }

    #[test]
    fn what_does_not_is_not_waited_for() {
        let (end, work) = endless();
        let limited = timeout_decorator(SHORT, work);
        let error = limited(()).unwrap_err();
        assert!(matches!(error, ContextTimeLimitException::Exceeded(SHORT)), "{error}");
        drop(end);
    }

    #[test]
    fn work_that_asks_ends_by_itself() {
        #[expect(clippy::disallowed_methods, reason = "one message")]
        let (ended, when) = mpsc::channel();
        let work = move |context: &TimeoutContext| {
            while context.check().is_ok() {
                thread::yield_now();
            }
            ended.send(()).unwrap();
        };
        assert!(time_limit(Some(SHORT), work).is_err());
        when.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn a_panic_comes_through() {
        let caught = catch_unwind(|| time_limit(None, |_| panic!("as it is"))).unwrap_err();
        assert_eq!(caught.downcast_ref(), Some(&"as it is"));
    }

    #[test]
    fn a_context_without_a_limit_is_never_over() {
        let context = TimeoutContext::new(None);
        assert!(context.check().is_ok() && context.remaining().is_none());
        assert!(TimeoutContext::new(Some(Duration::ZERO)).check().is_err());
    }
}
