//! A function over many values, on several threads.
//!
//! A thread is replaced by a new one after so many calls: what it keeps for itself (its stack, what is
//! `thread_local!`) starts anew. That is all that replacing means here: memory that the function leaks
//! stays leaked, and a call that does not return is not ended. Where that is needed, it takes a
//! process: workers and external processors are processes.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use thiserror::Error;

/// How many threads, and how they take what there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallel {
    /// Threads at the same time.
    pub num_workers: NonZeroUsize,
    /// Values that a thread takes at once: more are cheaper where a call is short.
    pub chunk_size: NonZeroUsize,
    /// Calls after which a thread is replaced.
    pub max_tasks_per_process: Option<NonZeroUsize>,
}

/// The function could not be used on every value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParallelError {
    /// It panicked; of several such values this is the first one.
    #[error("it panicked at value {index} (from 0): {message}")]
    Panicked {
        /// Which value.
        index: usize,
        /// What it said.
        message: String,
    },
    /// An option has a value that it cannot have.
    #[error("{name} is 0: it must be 1 or more")]
    Zero {
        /// The option.
        name: &'static str,
    },
}

/// Values that are done, or the first panic of a chunk, with the index of the first of them.
type Done<R> = (usize, Result<Vec<R>, (usize, Box<dyn Any + Send>)>);

/// What the threads share.
struct Work<'env, I, F> {
    values: Mutex<Values<I>>,
    target: &'env F,
    parallel: Parallel,
}

struct Values<I> {
    left: I,
    next: usize,
    stopped: bool,
}

impl<A, I: Iterator<Item = A>, F> Work<'_, I, F> {
    /// At most so many values, and the index of the first one.
    fn take(&self, most: usize) -> (usize, Vec<A>) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let first = values.next;
        if values.stopped {
            return (first, Vec::new());
        }
        let taken: Vec<A> = values.left.by_ref().take(most).collect();
        values.next += taken.len();
        (first, taken)
    }

    fn stop(&self) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
    }
}

/// `target` of each of `values`, in their order. `on_done` is told how many are done, on this thread.
///
/// Panics of `target` are caught: nothing new is started then, and the others that run are waited for.
///
/// # Errors
/// `target` panicked.
pub fn parallel_map<A, R, I, F>(
    target: F,
    values: I,
    parallel: Parallel,
    on_done: &mut dyn FnMut(usize),
) -> Result<Vec<R>, ParallelError>
where
    A: Send,
    R: Send,
    I: IntoIterator<Item = A>,
    I::IntoIter: Send,
    F: Fn(A) -> R + Sync,
{
    let values = Values { left: values.into_iter(), next: 0, stopped: false };
    let workers = parallel.num_workers.get().min(values.left.size_hint().1.unwrap_or(usize::MAX));
    let work = Work { values: Mutex::new(values), target: &target, parallel };
    let mut results = BTreeMap::new();
    let mut panics = BTreeMap::new();
    std::thread::scope(|scope| {
        let (sender, done) = sync_channel::<Done<R>>(workers);
        for _ in 0..workers {
            start(scope, &work, sender.clone());
        }
        drop(sender);
        let mut count = 0;
        for (first, chunk) in done {
            match chunk {
                Ok(chunk) => {
                    count += chunk.len();
                    on_done(count);
                    results.insert(first, chunk);
                }
                Err((index, panic)) => {
                    work.stop();
                    panics.insert(index, panic);
                }
            }
        }
    });
    match panics.pop_first() {
        None => Ok(results.into_values().flatten().collect()),
        Some((index, panic)) => Err(ParallelError::Panicked { index, message: message(&*panic) }),
    }
}

/// Starts a thread that takes values until there are none, or it is time for the next one.
fn start<'scope, 'env, A, R, I, F>(
    scope: &'scope Scope<'scope, 'env>,
    work: &'scope Work<'_, I, F>,
    sender: SyncSender<Done<R>>,
) where
    A: Send + 'scope,
    R: Send + 'scope,
    I: Iterator<Item = A> + Send + 'scope,
    F: Fn(A) -> R + Sync,
{
    scope.spawn(move || {
        let mut left = work.parallel.max_tasks_per_process.map_or(usize::MAX, NonZeroUsize::get);
        while left > 0 {
            let (first, chunk) = work.take(work.parallel.chunk_size.get().min(left));
            if chunk.is_empty() {
                return;
            }
            left -= chunk.len();
            let mut results = Vec::with_capacity(chunk.len());
            let call = AssertUnwindSafe(|| {
                chunk.into_iter().for_each(|value| results.push((work.target)(value)));
            });
            let outcome = catch_unwind(call);
            let index = first + results.len();
            let done = outcome.map(|()| results).map_err(|panic| (index, panic));
            // The other end is there as long as the scope is.
            drop(sender.send((first, done)));
        }
        start(scope, work, sender);
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// All that `generator` gives, and how long that took; every `log_freq` of them a line in the log
/// (0: none), with `total`.
pub fn get_results_from_generator<R>(
    generator: impl Iterator<Item = R>,
    total: usize,
    log_freq: usize,
) -> (Duration, Vec<R>) {
    let started = Instant::now();
    let mut results = Vec::new();
    for result in generator {
        results.push(result);
        let done = results.len();
        if log_freq > 0 && done.is_multiple_of(log_freq) {
            tracing::debug!("{done} of {total} done");
        }
    }
    (started.elapsed(), results)
}

/// Something that came of a value, when it is known which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processed<R> {
    /// The value's index, and the result's among those of that value.
    pub key: (usize, usize),
    /// How long the call took, with all its results.
    pub elapsed: Duration,
    /// The result.
    pub result: R,
}

/// `processor` for batches: it takes values with their indices, and gives every result with its key and
/// its time. A processor with one result gives a list of one.
pub fn wrap_processor<A, R>(
    processor: impl Fn(A) -> Vec<R>,
) -> impl Fn(Vec<(usize, A)>) -> Vec<Processed<R>> {
    move |batch| {
        let mut out = Vec::with_capacity(batch.len());
        for (idx, value) in batch {
            let started = Instant::now();
            let results = processor(value);
            let elapsed = started.elapsed();
            let keyed = results.into_iter().enumerate();
            out.extend(keyed.map(|(sub, result)| Processed { key: (idx, sub), elapsed, result }));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Barrier;
    use std::thread::{ThreadId, current};

    use proptest::prelude::*;

    use super::*;

    fn parallel(num_workers: usize, chunk_size: usize, most: Option<usize>) -> Parallel {
        let some = |number| NonZeroUsize::new(number).unwrap();
        Parallel {
            num_workers: some(num_workers),
            chunk_size: some(chunk_size),
            max_tasks_per_process: most.map(some),
        }
    }

    proptest! {
        #[test]
        fn it_is_map(values in 0..60_u32, workers in 1..5_usize, chunk in 1..9_usize, most in proptest::option::of(1..7_usize)) {
            let mut told = Vec::new();
            let found = parallel_map(|x| x * 3, 0..values, parallel(workers, chunk, most), &mut |done| told.push(done));
            prop_assert_eq!(found.unwrap(), (0..values).map(|x| x * 3).collect::<Vec<_>>());
            prop_assert!(told.is_sorted());
            prop_assert_eq!(told.last().copied().unwrap_or(0), values as usize);
        }
    }

    #[test]
    fn as_many_run_at_once_as_there_are_workers() {
        // Each waits for three others: with fewer threads it would never end.
        let barrier = Barrier::new(4);
        let target = |_| barrier.wait().is_leader();
        let found = parallel_map(target, 0..8, parallel(4, 1, Some(1)), &mut |_| {}).unwrap();
        assert_eq!(found.into_iter().filter(|&leader| leader).count(), 2);
    }

    #[test]
    fn a_thread_is_replaced_and_starts_anew() {
        thread_local!(static CALLS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
        let target = |_| {
            CALLS.set(CALLS.get() + 1);
            (current().id(), CALLS.get())
        };
        let found = parallel_map(target, 0..50, parallel(2, 5, Some(3)), &mut |_| {}).unwrap();
        let mut calls: HashMap<ThreadId, u32> = HashMap::new();
        for (thread, nth) in found {
            let calls = calls.entry(thread).or_default();
            *calls += 1;
            assert!(nth <= 3 && *calls <= 3);
        }
        assert!(calls.len() >= 17, "{calls:?}");
        let found = parallel_map(target, 0..50, parallel(1, 5, None), &mut |_| {}).unwrap();
        assert_eq!(found.last().unwrap().1, 50, "one thread does all of it");
    }

    #[test]
    fn the_first_panic_is_the_error_and_ends_it() {
        let calls = Mutex::new(0);
        let target = |x: u32| {
            *calls.lock().unwrap() += 1;
            assert!(x < 7, "no {x}");
            x
        };
        let error = parallel_map(target, 0..1_000_000, parallel(1, 4, None), &mut |_| {}).unwrap_err();
        assert_eq!(error, ParallelError::Panicked { index: 7, message: "no 7".to_owned() });
        assert!(*calls.lock().unwrap_or_else(PoisonError::into_inner) < 1_000_000);
    }

    #[test]
    fn results_of_a_generator() {
        let (elapsed, found) = get_results_from_generator((0..5).map(|x| x * x), 5, 2);
        assert_eq!(found, [0, 1, 4, 9, 16]);
        assert!(elapsed < Duration::from_secs(60));
        assert_eq!(get_results_from_generator(std::iter::empty::<()>(), 0, 0).1, []);
    }

    #[test]
    fn a_processor_in_batches() {
        let letters = wrap_processor(|word: &str| word.chars().collect());
        let found: Vec<_> = letters(vec![(4, "ab"), (5, ""), (6, "c")])
            .into_iter()
            .map(|one| (one.key, one.result))
            .collect();
        assert_eq!(found, [((4, 0), 'a'), ((4, 1), 'b'), ((6, 0), 'c')]);
    }
}
