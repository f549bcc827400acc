//! Leaving out codes whose trees are too deep, or take too long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::answer::{TreeError, Unknown};
use super::limits::Limits;
use super::tree::{Tree, safe_ast_parse_within};

/// How [`remove_trees_from_lists`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoveTrees {
    /// Time for one code.
    pub timeout: Duration,
    /// Threads.
    pub num_workers: usize,
    /// Lists that a thread takes at once.
    pub batch_size: usize,
}

impl Default for RemoveTrees {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(2), num_workers: 4, batch_size: 100 }
    }
}

/// Parses `code` within the default limits and `timeout`. `Ok(None)` is for what the parser does not know
/// although it is neither too deep nor invalid: that is no reason to leave it out.
pub fn default_tree_process_func(code: &str, timeout: Duration) -> Result<Option<Tree>, TreeError> {
    match safe_ast_parse_within(code, &Limits::default().with_max_time(timeout)) {
        Ok(tree) => Ok(Some(tree)),
        Err(TreeError::Unknown {
            unknown: Unknown::Refused { .. } | Unknown::Newer { .. } | Unknown::Judgement { .. },
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Those of `code_lines` that `tree_process_func` processes without an error within `timeout`, in order.
///
/// A thread cannot be stopped from outside: `tree_process_func` is told its time and has to keep to it.
/// What takes longer is left out all the same.
pub fn remove_deep_trees<T, E>(
    code_lines: &[String],
    tree_process_func: impl Fn(&str, Duration) -> Result<T, E>,
    timeout: Duration,
) -> Vec<String> {
    let processed = code_lines.iter().filter(|code| {
        let started = Instant::now();
        tree_process_func(code, timeout).is_ok() && started.elapsed() <= timeout
    });
    processed.cloned().collect()
}

/// [`remove_deep_trees`] for each list, several at a time. The order of lists and codes is kept; a list of
/// which nothing is left stays, empty.
pub fn remove_trees_from_lists<T, E>(
    codes: &[Vec<String>],
    tree_process_func: impl Fn(&str, Duration) -> Result<T, E> + Sync,
    options: RemoveTrees,
) -> Vec<Vec<String>> {
    let next = AtomicUsize::new(0);
    let batches: Vec<&[Vec<String>]> = codes.chunks(options.batch_size.max(1)).collect();
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = batches.get(index) else { return done };
            let lists = batch.iter().map(|list| remove_deep_trees(list, &tree_process_func, options.timeout));
            done.push((index, lists.collect::<Vec<_>>()));
        }
    };
    let mut done = thread::scope(|scope| {
        // This thread is one of them, so nothing is lost where no other can be had.
        let others = (1..options.num_workers.min(batches.len()))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
        let others: Vec<_> = others.collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(lists) => done.extend(lists),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().flat_map(|(_, lists)| lists).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}1{}", "-(".repeat(levels), ")".repeat(levels))
    }

    #[test]
    fn deep_and_invalid_codes_are_left_out() {
        let codes = ["x = 1", "(", "f'{a[\"b\"]}'", "a b"].map(str::to_owned).to_vec();
        let kept = remove_deep_trees(&codes, default_tree_process_func, Duration::from_secs(60));
        assert_eq!(kept, ["x = 1", "f'{a[\"b\"]}'", "a b"], "unknown is neither deep nor invalid");
        let codes = [nested(5_000), nested(10)];
        let kept = remove_deep_trees(&codes, default_tree_process_func, Duration::from_secs(60));
        assert_eq!(kept, codes[1..]);
    }

    #[test]
    fn lists_keep_their_order() {
        let codes: Vec<Vec<String>> = (0..57).map(|i| vec![format!("x = {i}"), nested(i * 100)]).collect();
        let options = RemoveTrees { num_workers: 3, batch_size: 2, timeout: Duration::from_secs(60) };
        let kept = remove_trees_from_lists(&codes, default_tree_process_func, options);
        assert_eq!(kept.len(), codes.len());
        for (kept, codes) in kept.iter().zip(&codes) {
            assert_eq!(kept[0], codes[0]);
        }
        assert_eq!((kept[1].len(), kept[56].len()), (2, 1));
        assert!(remove_trees_from_lists(&[], default_tree_process_func, options).is_empty());
    }

    #[test]
    fn what_takes_too_long_is_left_out() {
        let codes = ["x".to_owned()];
        assert!(remove_deep_trees(&codes, |_, _| Ok::<_, ()>(()), Duration::ZERO).is_empty());
        let error = default_tree_process_func(&"x = 1\n".repeat(100), Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("max_time"), "{error}");
    }
}
