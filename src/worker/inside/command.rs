//! One command, from its start to the end of its last process.
//!
//! A single poll loop feeds standard input, captures both outputs, watches the main process and the
//! supervisor's socket, and samples the tree against its limits. The command ends with its main
//! process: whatever else still runs is killed, and pipes are drained without waiting for their
//! holders. When [`run`] returns, no process of the command is left, or it says so.
//!
//! Where the kernel counts what the tree uses (`account`), that is asked instead of `/proc`, and once more at the end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::account::{self, Account};
use super::box_dir::BoxDir;
use super::spawn::{SpawnError, Spawner, Started};
use super::tree::{self, Reaped};
use crate::sandbox::{Seen, Shortage};
use crate::worker::protocol::{Ended, Ran, Run, RunLimits, Witness};

/// When the tree is first sampled: most commands are over by then and never pay for it.
const FIRST_SAMPLE: Duration = Duration::from_millis(50);
/// Between two samples, each of which costs a scan of `/proc` where the kernel does not count.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How long the killing of a tree may take.
pub(crate) const KILL_BOUND: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 64 << 10;

/// What came of a command.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ended; the error says which processes could not be removed.
    Ran(Box<Ran>, Result<(), String>),
    /// The supervisor closed its socket; everything has been killed.
    SupervisorGone,
}

/// One captured stream.
struct Capture {
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Capture {
    fn new(pipe: Option<OwnedFd>, limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { pipe, kept: Vec::new(), limit, truncated: false }
    }

    /// Takes what is there; stops at the limit, at the end, or when the pipe is empty.
    fn drain(&mut self, chunk: &mut [u8]) {
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut *chunk) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let keep = count.min(self.limit - self.kept.len());
                    self.kept.extend_from_slice(chunk.get(..keep).unwrap_or_default());
                    if keep < count {
                        self.truncated = true;
                        self.pipe = None;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

/// Writes what fits; drops the pipe when everything is written or nobody reads it any more.
fn feed(pipe: &mut Option<OwnedFd>, input: &[u8], written: &mut usize) {
    while let Some(open) = pipe {
        let rest = input.get(*written..).unwrap_or_default();
        if rest.is_empty() {
            *pipe = None;
            return;
        }
        match rustix::io::write(open, rest) {
            Ok(count) => *written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return,
            Err(_) => *pipe = None,
        }
    }
}

/// Runs one command in a box, watching `control` for the supervisor's end.
pub(crate) fn run(
    spawner: &mut Spawner,
    run: &Run,
    in_box: &BoxDir,
    control: &UnixStream,
    chunk: &mut Vec<u8>,
) -> Outcome {
    chunk.resize(CHUNK_BYTES, 0);
    let begun = Instant::now();
    let not_run = |ended: Ended, clean| {
        let witnessed = run.witness.as_ref().map(|_| false);
        let ran = Ran { ended, elapsed: begun.elapsed(), witnessed, ..nothing() };
        Outcome::Ran(Box::new(ran), clean)
    };
    if let Some(Err(error)) = spawner.account.as_mut().map(|account| account.begin(&run.limits)) {
        // Something of an earlier program is still there, or the group is not.
        return not_run(Ended::Failed(error.to_string()), Err(error.to_string()));
    }
    let before = spawner.shortage.now();
    let started = match spawner.start(run, in_box) {
        Ok(started) => started,
        Err(SpawnError::NotStarted(reason)) => return not_run(Ended::NotStarted(reason), Ok(())),
        // Full with files of the command before it.
        Err(SpawnError::Failed(_)) if spawner.account.as_ref().is_some_and(Account::was_full) => {
            return not_run(Ended::MemoryLimit, Ok(()));
        }
        Err(SpawnError::Failed(reason)) => return not_run(Ended::Failed(reason), Ok(())),
    };
    let Started { pid, pidfd, stdin, stdout, stderr, witness } = started;
    let mut job = Job {
        limits: &run.limits,
        account: spawner.account.as_ref(),
        shortage: &spawner.shortage,
        before,
        // The program's time begins with it, not with its preparation.
        begun: Instant::now(),
        reaped: Reaped::new(pid),
        stdin: Some(stdin),
        written: 0,
        stdout: Capture::new(Some(stdout), run.limits.output_bytes),
        stderr: Capture::new(Some(stderr), run.limits.output_bytes),
        witness: Capture::new(witness, run.witness.as_ref().map_or(0, most_bytes)),
        wall: run.limits.wall,
        contended: false,
        next_sample: FIRST_SAMPLE,
    };
    let stop = job.watch(&run.stdin, pidfd.as_fd(), control.as_fd(), chunk);
    let elapsed = begun.elapsed();
    tree::kill_main_group(&job.reaped);
    // The usual end: the main process was the last, and two wait4 say so.
    let clean = if job.reaped.reap() { Ok(()) } else { tree::kill_all(&mut job.reaped, KILL_BOUND) };
    let limit = match stop {
        Stop::SupervisorGone => return Outcome::SupervisorGone,
        Stop::MainEnded => None,
        Stop::Limit(ended) => Some(ended),
    };
    job.stdout.drain(chunk);
    job.stderr.drain(chunk);
    job.witness.drain(chunk);
    let ran = job.report(limit, elapsed, run.witness.as_ref());
    Outcome::Ran(Box::new(ran), clean)
}

enum Stop {
    MainEnded,
    Limit(Ended),
    SupervisorGone,
}

struct Job<'a> {
    limits: &'a RunLimits,
    /// Where the kernel counts; else the tree is looked at.
    account: Option<&'a Account>,
    /// Whether the machine had enough, and what it said before.
    shortage: &'a Shortage,
    before: Seen,
    begun: Instant,
    reaped: Reaped,
    stdin: Option<OwnedFd>,
    written: usize,
    stdout: Capture,
    stderr: Capture,
    witness: Capture,
    /// The wall limit in force, extensions included.
    wall: Duration,
    contended: bool,
    next_sample: Duration,
}

impl Job<'_> {
    fn watch(
        &mut self,
        input: &[u8],
        main: BorrowedFd<'_>,
        control: BorrowedFd<'_>,
        chunk: &mut [u8],
    ) -> Stop {
        feed(&mut self.stdin, input, &mut self.written);
        loop {
            let timeout = self.wall.min(self.next_sample).saturating_sub(self.begun.elapsed());
            // Which of the six are open changes; the order does not.
            let (mut main_ended, mut gone, mut ready) = (false, false, [false; 4]);
            {
                let mut fds = Vec::with_capacity(6);
                fds.push(PollFd::from_borrowed_fd(main, PollFlags::IN));
                fds.push(PollFd::from_borrowed_fd(control, PollFlags::RDHUP));
                let pipes = [
                    (&self.stdin, PollFlags::OUT),
                    (&self.stdout.pipe, PollFlags::IN),
                    (&self.stderr.pipe, PollFlags::IN),
                    (&self.witness.pipe, PollFlags::IN),
                ];
                let mut which = [0; 4];
                for (at, (pipe, flags)) in pipes.into_iter().enumerate() {
                    if let Some(pipe) = pipe {
                        which[at] = fds.len();
                        fds.push(PollFd::new(pipe, flags));
                    }
                }
                // A time that does not fit is far away: wait a bounded time instead.
                let time = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
                match rustix::event::poll(&mut fds, Some(&time)) {
                    Ok(_) => {
                        let fired = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                        (main_ended, gone) = (fired(0), fired(1));
                        ready = which.map(|at| at != 0 && fired(at));
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Stop::Limit(Ended::Failed(format!("poll: {error}"))),
                }
            }
            if gone {
                return Stop::SupervisorGone;
            }
            if main_ended {
                return Stop::MainEnded;
            }
            if ready[0] {
                feed(&mut self.stdin, input, &mut self.written);
            }
            if ready[1] {
                self.stdout.drain(chunk);
            }
            if ready[2] {
                self.stderr.drain(chunk);
            }
            if ready[3] {
                self.witness.drain(chunk);
            }
            if self.stdout.truncated || self.stderr.truncated {
                return Stop::Limit(Ended::OutputLimit);
            }
            let now = self.begun.elapsed();
            if (now >= self.wall || now >= self.next_sample)
                && let Some(stop) = self.sample(now >= self.wall)
            {
                return stop;
            }
        }
    }

    /// Compares the tree with its limits, and time with the wall limit.
    fn sample(&mut self, at_wall: bool) -> Option<Stop> {
        // Orphans come to us as zombies; a farm of them must not grow.
        self.reaped.reap();
        if self.reaped.status.is_some() {
            return Some(Stop::MainEnded);
        }
        let limits = self.limits;
        let mut tree = None;
        let (cpu, ended) = match self.account.map(Account::usage) {
            Some(Ok(usage)) => (usage.cpu, account::over(&usage, limits)),
            Some(Err(error)) => (Duration::ZERO, Some(Ended::Failed(error.to_string()))),
            None => {
                let usage = tree.insert(tree::usage());
                let cpu = usage.cpu + self.reaped.cpu;
                (cpu, over(usage, cpu, limits))
            }
        };
        if let Some(ended) = ended {
            return Some(Stop::Limit(ended));
        }
        if at_wall {
            let delay = tree.unwrap_or_else(tree::usage).run_delay();
            match extended(limits.wall, self.wall, cpu, delay) {
                Some(wall) => (self.wall, self.contended) = (wall, true),
                None => return Some(Stop::Limit(Ended::WallLimit)),
            }
        }
        self.next_sample = self.begun.elapsed() + SAMPLE_EVERY;
        None
    }

    fn report(self, limit: Option<Ended>, elapsed: Duration, asked: Option<&Witness>) -> Ran {
        let status = self.reaped.status.map(ExitStatus::from_raw);
        let (exit_code, signal) = (status.and_then(|s| s.code()), status.and_then(|s| s.signal()));
        let overflowed = self.stdout.truncated || self.stderr.truncated;
        let ended = match (limit, exit_code, signal) {
            (Some(limit), ..) => limit,
            // The flood may have been found only when the pipes were drained.
            (None, ..) if overflowed => Ended::OutputLimit,
            // RLIMIT_CPU, the backstop, came before a sample; a signal sent by anybody else came
            // without the CPU time.
            (None, _, Some(libc::SIGXCPU | libc::SIGKILL)) if self.reaped.main_cpu >= self.limits.cpu => {
                Ended::CpuLimit
            }
            // The kernel's own killer came between two samples.
            (None, _, Some(libc::SIGKILL)) if self.reaped.max_rss_bytes > self.limits.memory_bytes => {
                Ended::MemoryLimit
            }
            (None, Some(code), _) => Ended::Exited(code),
            (None, None, Some(signal)) => Ended::Signalled(signal),
            (None, None, None) => Ended::Failed("the process ended without a status".to_owned()),
        };
        let (mut cpu, mut max_rss_bytes) = (self.reaped.cpu, self.reaped.max_rss_bytes);
        let mut ended = ended;
        if let Some(account) = self.account {
            match account.usage() {
                Ok(usage) => {
                    cpu = usage.cpu;
                    let too_many =
                        || account.was_full_of_processes().unwrap_or(!self.shortage.ever_of_processes());
                    ended = account::judged(ended, &usage, || account.was_full(), too_many);
                }
                Err(error) => ended = Ended::Failed(error.to_string()),
            }
            max_rss_bytes = max_rss_bytes.max(account.peak_bytes());
        }
        let (witnessed, report) = match asked.map(|asked| came_back(self.witness.kept, asked)) {
            Some((witnessed, report)) => (Some(witnessed), report),
            None => (None, Vec::new()),
        };
        let ended = account::excused(ended, self.shortage.since(self.before));
        Ran {
            ended,
            exit_code,
            signal,
            elapsed,
            cpu,
            max_rss_bytes,
            stdout: self.stdout.kept,
            stderr: self.stderr.kept,
            stdout_truncated: self.stdout.truncated,
            stderr_truncated: self.stderr.truncated,
            witnessed,
            report,
            contended: self.contended,
        }
    }
}

/// The limit that a tree is over, where it has to be looked at.
fn over(usage: &tree::Usage, cpu: Duration, limits: &RunLimits) -> Option<Ended> {
    if usage.count > u64::from(limits.processes) {
        Some(Ended::ProcessLimit)
    } else if cpu > limits.cpu {
        Some(Ended::CpuLimit)
    } else if usage.rss_bytes + usage.table_bytes > limits.memory_bytes
        && usage.own_memory_bytes() > limits.memory_bytes
    {
        Some(Ended::MemoryLimit)
    } else {
        None
    }
}

/// The new wall limit, where the time that a thread waited for a CPU explains the lateness.
///
/// Nothing is given to a tree that has had its time on a CPU, or that hardly waited for one; and
/// never more than twice the limit. Where a thread may be waiting at this moment, which is counted once the wait
/// is over, there is another look soon.
fn extended(
    wall: Duration,
    in_force: Duration,
    cpu: Duration,
    (delay, runnable): (Duration, bool),
) -> Option<Duration> {
    if cpu >= wall {
        return None;
    }
    let hardly = Duration::from_millis(10).max(wall / 100);
    let mut new = if delay < hardly { wall } else { wall + delay.min(wall) };
    if runnable && cpu < wall - wall / 20 {
        new = new.max((in_force + hardly).min(wall * 2));
    }
    // Smaller steps would cost more in sampling than they give.
    (new >= in_force + Duration::from_millis(1)).then_some(new)
}

/// Most bytes that are read from a witness: one more than it should be where no report is wanted, so that
/// it is seen.
fn most_bytes(asked: &Witness) -> u64 {
    asked.nonce.len() as u64 + asked.report_bytes.max(1)
}

/// Whether the program wrote back the nonce with nothing but a report behind it, and the report.
fn came_back(mut kept: Vec<u8>, asked: &Witness) -> (bool, Vec<u8>) {
    let nonce = asked.nonce.as_bytes();
    if !kept.starts_with(nonce) {
        return (false, Vec::new());
    }
    kept.drain(..nonce.len());
    if asked.report_bytes == 0 { (kept.is_empty(), Vec::new()) } else { (true, kept) }
}

/// The report of a command that never was.
pub(crate) fn nothing() -> Ran {
    Ran {
        ended: Ended::Failed(String::new()),
        exit_code: None,
        signal: None,
        elapsed: Duration::ZERO,
        cpu: Duration::ZERO,
        max_rss_bytes: 0,
        stdout: Vec::new(),
        stderr: Vec::new(),
        stdout_truncated: false,
        stderr_truncated: false,
        witnessed: None,
        report: Vec::new(),
        contended: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    // Milliseconds: limit, limit in force, CPU, delay, and the new limit.
    #[rstest]
    #[case::sleeper(1000, 1000, 0, 0, None)]
    #[case::hardly_waited(1000, 1000, 500, 9, None)]
    #[case::below_one_percent(10_000, 10_000, 500, 99, None)]
    #[case::waited(1000, 1000, 600, 400, Some(1400))]
    #[case::waited_more(1000, 1400, 700, 700, Some(1700))]
    #[case::waited_no_more(1000, 1400, 900, 400, None)]
    #[case::had_its_cpu(1000, 1000, 1000, 400, None)]
    #[case::never_beyond_twice(1000, 1700, 100, 5000, Some(2000))]
    #[case::at_twice(1000, 2000, 100, 5000, None)]
    fn wall_extension(
        #[case] wall: u64,
        #[case] in_force: u64,
        #[case] cpu: u64,
        #[case] delay: u64,
        #[case] expected: Option<u64>,
    ) {
        let ms = Duration::from_millis;
        assert_eq!(extended(ms(wall), ms(in_force), ms(cpu), (ms(delay), false)), expected.map(ms));
    }

    #[rstest]
    #[case::waits_now(1000, 100, 0, Some(1010))]
    #[case::waited_before(1000, 100, 400, Some(1400))]
    #[case::never_beyond_twice(2000, 100, 0, None)]
    #[case::runs_all_the_time(1000, 950, 0, None)]
    fn another_look(
        #[case] in_force: u64,
        #[case] cpu: u64,
        #[case] delay: u64,
        #[case] expected: Option<u64>,
    ) {
        let ms = Duration::from_millis;
        assert_eq!(extended(ms(1000), ms(in_force), ms(cpu), (ms(delay), true)), expected.map(ms));
    }

    #[rstest]
    #[case::nothing("", 0, false, "")]
    #[case::the_nonce("abc", 0, true, "")]
    #[case::a_part_of_it("ab", 9, false, "")]
    #[case::more_than_it("abcx", 0, false, "")]
    #[case::something_else("xabc", 9, false, "")]
    #[case::a_report("abcx", 9, true, "x")]
    fn witnesses(
        #[case] kept: &str,
        #[case] report_bytes: u64,
        #[case] witnessed: bool,
        #[case] report: &str,
    ) {
        let asked = Witness { nonce: "abc".to_owned(), report_bytes };
        assert_eq!(came_back(kept.into(), &asked), (witnessed, report.into()));
    }

    #[test]
    fn capture_keeps_its_limit() {
        for (written, truncated) in [(10, false), (11, true)] {
            let (read, write) = std::io::pipe().unwrap();
            std::io::Write::write_all(&mut &write, &vec![b'x'; written]).unwrap();
            drop(write);
            let mut capture = Capture::new(Some(read.into()), 10);
            capture.drain(&mut [0; 4]);
            assert_eq!((capture.kept.len(), capture.truncated), (10, truncated));
        }
    }

    #[test]
    fn capture_takes_all_packets() {
        use rustix::pipe::{PipeFlags, pipe_with};
        // What a program makes of its end by fcntl: each read gives what one write wrote.
        let (read, write) = pipe_with(PipeFlags::DIRECT | PipeFlags::NONBLOCK).unwrap();
        (0..3).for_each(|_| assert_eq!(rustix::io::write(&write, b"ab"), Ok(2)));
        let mut capture = Capture::new(Some(read), 10);
        capture.drain(&mut [0; 64]);
        assert_eq!(capture.kept, b"ababab");
    }
}
