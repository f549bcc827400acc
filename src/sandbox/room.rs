//! How many processes the user's own limit (RLIMIT_NPROC, `ulimit -u`) leaves for programs.
//!
//! The kernel counts the threads of all processes of a user, whatever they are, and what it refuses a program for that
//! reason is counted nowhere: it would look like the program's doing. So it is reckoned before: at start for each
//! worker, with what the user has running then.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the service has running beside its workers: threads, at most, and some room.
const OWN: u64 = 24;
/// What each worker has running beside its program.
const OF_WORKER: u64 = 3;

/// Processes that each of `workers` can give its program; `None`: no limit.
#[must_use]
pub fn of_workers(workers: usize) -> Option<u64> {
    let most = getrlimit(Resource::Nproc).maximum?;
    let uid = rustix::process::getuid();
    if uid.is_root() {
        // Root has no such limit. Its programs have: they are users of their own, with nothing else running.
        return Some(most);
    }
    Some(share(most, running(uid.as_raw()), workers as u64))
}

fn share(most: u64, running: u64, workers: u64) -> u64 {
    (most.saturating_sub(running + OWN) / workers.max(1)).saturating_sub(OF_WORKER)
}

/// Takes for this process, and all below it, as much as it may have.
pub fn raise() {
    let limit = getrlimit(Resource::Nproc);
    // A limit that is not raised is reckoned with by nobody but the kernel: then it is as it was.
    let _ = setrlimit(Resource::Nproc, Rlimit { current: limit.maximum, ..limit });
}

/// Threads of this user, as far as they are seen.
fn running(uid: u32) -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let pids =
        entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let statuses = pids.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    statuses.filter_map(|status| threads(&status, uid)).sum()
}

/// The threads of a process, if it is this user's.
fn threads(status: &str, uid: u32) -> Option<u64> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()
    };
    (field("Uid:")?.parse() == Ok(uid)).then(|| field("Threads:")?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1000, 76, 9, 97)]
    #[case(100, 76, 9, 0)]
    #[case(10, 76, 9, 0)]
    fn each_worker_has_its_share(
        #[case] most: u64,
        #[case] running: u64,
        #[case] workers: u64,
        #[case] each: u64,
    ) {
        assert_eq!(share(most, running, workers), each);
    }

    #[test]
    fn only_a_users_own_threads_count() {
        let status = "Name:\tx\nUid:\t65534\t0\t0\t0\nThreads:\t7\n";
        assert_eq!((threads(status, 65534), threads(status, 0), threads("", 0)), (Some(7), None, None));
        assert!(running(rustix::process::getuid().as_raw()) >= 1);
    }
}
