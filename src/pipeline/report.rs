//! What a result says, and its bytes.

use serde_json::Map;

use crate::model::{CommandResult, ExecutionResult, ResultMessage, Termination, Verdict};

/// Most bytes of the explanation in a result that is too long.
const MAX_DETAIL_BYTES: usize = 4096;

/// The message and its bytes, within the limit.
pub(super) fn encoded(mut message: ResultMessage, limit: Option<usize>) -> (ResultMessage, Vec<u8>) {
    // Every value in it is a map with text keys, a number or a text: encoding cannot fail.
    let encode = |message: &ResultMessage| serde_json::to_vec(message).unwrap_or_default();
    let body = encode(&message);
    let Some(limit) = limit.filter(|limit| body.len() > *limit) else { return (message, body) };
    if let Some(detail) = &mut message.detail {
        shorten(detail, MAX_DETAIL_BYTES);
    }
    let note = format!("the result had {} bytes, the limit is {limit}: it was shortened", body.len());
    message.detail = Some(message.detail.map_or(note.clone(), |detail| format!("{detail}; {note}")));
    message.prediction = None;
    let commands: usize = message.executions.iter().map(|execution| execution.command_results.len()).sum();
    // A byte of text can take six in JSON.
    let mut room = limit / 16 / commands.max(1);
    for _ in 0..4 {
        for execution in &mut message.executions {
            for (path, content) in &mut execution.tracked_files {
                if content.as_ref().is_some_and(|content| content.0.len() > room) {
                    *content = None;
                    execution.tracked_errors.insert(path.clone(), "dropped: the result is too long".into());
                }
            }
            for command in &mut execution.command_results {
                command.stdout_truncated |= shorten(&mut command.stdout, room);
                command.stderr_truncated |= shorten(&mut command.stderr, room);
            }
        }
        let body = encode(&message);
        if body.len() <= limit {
            return (message, body);
        }
        room /= 8;
        message.metadata = None;
        message.output = Map::new();
    }
    // Thousands of commands with nothing to say.
    message.executions = Vec::new();
    let body = encode(&message);
    (message, body)
}

fn shorten(text: &mut String, room: usize) -> bool {
    let longer = text.len() > room;
    text.truncate(text.floor_char_boundary(room));
    longer
}

/// For people: why the kernel's observation decided.
pub(super) fn reason(verdict: Verdict, executions: &[ExecutionResult]) -> Option<String> {
    let commands = || executions.iter().flat_map(|execution| &execution.command_results);
    // The command that decided: the first that alone gives this verdict.
    let decided = |command: &&CommandResult| match verdict {
        Verdict::TimedOut => command.timed_out,
        Verdict::MemoryExceeded => command.termination == Termination::MemoryLimit,
        Verdict::OutputExceeded => command.termination == Termination::OutputLimit,
        Verdict::Crashed => matches!(
            command.termination,
            Termination::Signalled | Termination::ProcessLimit | Termination::WorkerLost
        ),
        _ => command.had_error,
    };
    let command = commands().find(decided)?;
    match verdict {
        Verdict::TimedOut | Verdict::MemoryExceeded | Verdict::OutputExceeded => {
            Some(format!("{} after {:.3} s", command.termination, command.runtime))
        }
        Verdict::Crashed => Some(match (&command.detail, command.signal, command.termination) {
            (Some(detail), _, _) => detail.clone(),
            (None, Some(signal), Termination::Signalled) => format!("ended by signal {signal}"),
            (None, _, termination) => termination.to_string(),
        }),
        Verdict::Failed => command.detail.clone(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(stdout: usize, commands: usize) -> ResultMessage {
        let golden = include_str!("../../tests/fixtures/wire/v1/result-passed.json");
        let mut message: ResultMessage = serde_json::from_str(golden).unwrap();
        let mut command = message.executions[0].command_results[0].clone();
        command.stdout = "\u{1}é".repeat(stdout / 3);
        message.executions[0].command_results = vec![command; commands];
        message
    }

    #[test]
    fn what_fits_is_left_alone() {
        let (message, body) = encoded(message(300, 1), Some(4096));
        assert!(message.detail.is_none() && body.len() <= 4096);
        assert!(!message.executions[0].command_results[0].stdout_truncated);
    }

    #[test]
    fn an_explanation_that_does_not_fit_is_shortened() {
        let long = ResultMessage { detail: Some("x".repeat(100_000)), ..message(0, 1) };
        let (message, body) = encoded(long, Some(20_000));
        assert!(body.len() <= 20_000);
        assert!(message.detail.unwrap().ends_with("shortened"));
    }

    #[test]
    fn what_does_not_fit_is_shortened_and_says_so() {
        for (stdout, commands) in [(3000, 1), (100_000, 3), (300, 200), (0, 5000)] {
            let (message, body) = encoded(message(stdout, commands), Some(4096));
            assert!(body.len() <= 4096, "{stdout} {commands}: {}", body.len());
            assert!(message.detail.unwrap().contains("shortened"));
            let back: ResultMessage = serde_json::from_slice(&body).unwrap();
            assert_eq!(back.verdict, Verdict::Passed);
        }
    }
}
