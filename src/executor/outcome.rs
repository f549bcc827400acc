//! From what a worker reports to a [`CommandResult`].

use crate::executor::Rules;
use crate::model::{Command, CommandResult, StreamEncoding, Termination};
use crate::worker::protocol::{Ended, Ran};

/// The result of a command's runs: the last one's, with every runtime.
pub(super) fn command_result(
    command: &Command,
    rules: &Rules,
    ran: Ran,
    runtimes: Vec<f64>,
) -> CommandResult {
    let (termination, detail) = match ran.ended {
        Ended::Exited(_) => (Termination::Exited, None),
        Ended::Signalled(_) => (Termination::Signalled, None),
        Ended::WallLimit => (Termination::WallLimit, None),
        Ended::CpuLimit => (Termination::CpuLimit, None),
        Ended::MemoryLimit => (Termination::MemoryLimit, None),
        Ended::OutputLimit => (Termination::OutputLimit, None),
        Ended::ProcessLimit => (Termination::ProcessLimit, None),
        Ended::NotStarted(reason) => (Termination::NotStarted, Some(reason)),
        Ended::Failed(reason) => (Termination::Cancelled, Some(reason)),
    };
    let (stdout, stdout_encoding) = text(ran.stdout);
    let (stderr, stderr_encoding) = text(ran.stderr);
    let mut result = CommandResult {
        return_code: ran.exit_code,
        runtime: runtimes.iter().sum::<f64>() / (runtimes.len().max(1)) as f64,
        stdout: rules.stdout(stdout),
        stderr,
        timed_out: matches!(termination, Termination::WallLimit | Termination::CpuLimit),
        had_unexpected_error: matches!(termination, Termination::NotStarted | Termination::Cancelled),
        had_error: false,
        termination,
        signal: ran.signal,
        cpu_time: ran.cpu.as_secs_f64(),
        max_rss_bytes: ran.max_rss_bytes,
        stdout_truncated: ran.stdout_truncated,
        stderr_truncated: ran.stderr_truncated,
        stdout_encoding,
        stderr_encoding,
        runtimes,
        start: "cold".to_owned(),
        witnessed: ran.witnessed,
        report: ran.report,
        build: command.build,
        detail,
    };
    result.had_error = termination != Termination::Exited || result.return_code != Some(0);
    result
}

/// A command that never came to run to an end of its own.
pub(super) fn without_run(command: &Command, termination: Termination, detail: String) -> CommandResult {
    CommandResult { build: command.build, detail: Some(detail), ..CommandResult::without_run(termination) }
}

/// Cuts both streams down to what a result carries, at a character's border.
pub(super) fn carry(result: &mut CommandResult, most_bytes: usize) {
    for (stream, truncated) in [
        (&mut result.stdout, &mut result.stdout_truncated),
        (&mut result.stderr, &mut result.stderr_truncated),
    ] {
        if stream.len() > most_bytes {
            stream.truncate(stream.floor_char_boundary(most_bytes));
            stream.shrink_to_fit();
            *truncated = true;
        }
    }
}

fn text(bytes: Vec<u8>) -> (String, Option<StreamEncoding>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(StreamEncoding::Lossy)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::EarlyStop;
    use crate::processors::Hooks;

    pub(crate) fn ran(code: i32, stdout: &[u8]) -> Ran {
        Ran {
            ended: Ended::Exited(code),
            exit_code: Some(code),
            signal: None,
            elapsed: Duration::from_millis(5),
            cpu: Duration::ZERO,
            max_rss_bytes: 0,
            stdout: stdout.to_vec(),
            stderr: Vec::new(),
            stdout_truncated: false,
            stderr_truncated: false,
            witnessed: None,
            report: Vec::new(),
            contended: false,
        }
    }

    pub(crate) fn result(code: i32, stdout: &str) -> CommandResult {
        let rules = Rules::new(EarlyStop::default(), None, Hooks::default()).unwrap();
        command_result(&Command::new(["x"]), &rules, ran(code, stdout.as_bytes()), vec![0.5, 1.5])
    }

    #[test]
    fn the_runtime_is_the_mean() {
        let result = result(0, "");
        assert_eq!((result.runtime, result.runtimes.as_slice()), (1.0, [0.5, 1.5].as_slice()));
        assert!(!result.had_error);
    }

    #[test]
    fn bytes_that_are_no_text_are_marked() {
        assert_eq!(text(vec![b'a', 0xff]), ("a\u{fffd}".to_owned(), Some(StreamEncoding::Lossy)));
    }

    #[test]
    fn carried_text_ends_at_a_character() {
        let mut result = result(0, "aé");
        carry(&mut result, 2);
        assert_eq!(
            (result.stdout.as_str(), result.stdout_truncated, result.stderr_truncated),
            ("a", true, false)
        );
    }
}
