//! A function over many values in parallel, with progress.

use std::num::NonZeroUsize;

use crate::telemetry::{Meter, ProgressKind};
use crate::util::{Parallel, ParallelError, parallel_map};

/// How a function is used on many values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParallelOptions {
    /// Threads at the same time.
    pub num_workers: usize,
    /// What progress calls the values.
    pub desc: Option<String>,
    /// Calls after which a thread is replaced by a new one; see [`parallel_map`] for what that gives back.
    pub max_tasks_per_process: Option<usize>,
    /// Shows no bar where standard error is a terminal, but log lines.
    pub disable_tqdm: bool,
    /// Values that a thread takes at once.
    pub chunk_size: usize,
    /// Values between two log lines, where there is no bar; 0: none.
    pub log_freq: usize,
}

impl Default for ParallelOptions {
    fn default() -> Self {
        Self {
            num_workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            desc: None,
            max_tasks_per_process: None,
            disable_tqdm: false,
            chunk_size: 1,
            log_freq: 500,
        }
    }
}

/// `target` of each of `args`, in their order. Blocking.
///
/// A target that gives several results for each is flattened by the caller.
///
/// # Errors
/// An option is 0, or `target` panicked: then nothing new is started.
pub fn run_in_parallel<A: Send, R: Send>(
    target: impl Fn(A) -> R + Sync,
    args: Vec<A>,
    options: &ParallelOptions,
) -> Result<Vec<R>, ParallelError> {
    let some = |number, name| NonZeroUsize::new(number).ok_or(ParallelError::Zero { name });
    let parallel = Parallel {
        num_workers: some(options.num_workers, "num_workers")?,
        chunk_size: some(options.chunk_size, "chunk_size")?,
        max_tasks_per_process: options
            .max_tasks_per_process
            .map(|most| some(most, "max_tasks_per_process"))
            .transpose()?,
    };
    let kind = if options.disable_tqdm { ProgressKind::Log } else { ProgressKind::Auto };
    let what = options.desc.as_deref().unwrap_or("done");
    let mut meter = Meter::new(kind, what, Some(args.len() as u64), options.log_freq as u64);
    let mut before = 0;
    let results = parallel_map(target, args, parallel, &mut |done| {
        (before..done).for_each(|position| meter.tick(position as u64 + 1));
        before = done;
    });
    meter.finish();
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_in_order_and_options_that_cannot_be() {
        let options = ParallelOptions { num_workers: 3, chunk_size: 2, ..ParallelOptions::default() };
        let found = run_in_parallel(|x| x + 1, (0..100).collect(), &options).unwrap();
        assert_eq!(found, (1..101).collect::<Vec<_>>());
        for (options, name) in [
            (ParallelOptions { num_workers: 0, ..options.clone() }, "num_workers"),
            (ParallelOptions { chunk_size: 0, ..options.clone() }, "chunk_size"),
            (ParallelOptions { max_tasks_per_process: Some(0), ..options.clone() }, "max_tasks_per_process"),
        ] {
            let error = run_in_parallel(|x: u8| x, vec![1], &options).unwrap_err();
            assert_eq!(error, ParallelError::Zero { name });
        }
    }
}
