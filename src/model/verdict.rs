//! What is concluded from what was observed: one total function.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CommandResult, ExecutionResult, Termination};

/// The conclusion about one prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does what was asked.
    Passed,
    /// It does not.
    Failed,
    /// It hit its wall or CPU limit.
    TimedOut,
    /// It hit its memory limit.
    MemoryExceeded,
    /// It wrote more than it may.
    OutputExceeded,
    /// A command marked as building failed.
    CompileError,
    /// A signal ended it.
    Crashed,
    /// Deliberately not run.
    Filtered,
    /// Not runnable as it came.
    Invalid,
    /// Our own failure: says nothing about the program.
    InfraError,
}

impl Verdict {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::Passed,
        Self::Failed,
        Self::TimedOut,
        Self::MemoryExceeded,
        Self::OutputExceeded,
        Self::CompileError,
        Self::Crashed,
        Self::Filtered,
        Self::Invalid,
        Self::InfraError,
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::MemoryExceeded => "memory_exceeded",
            Self::OutputExceeded => "output_exceeded",
            Self::CompileError => "compile_error",
            Self::Crashed => "crashed",
            Self::Filtered => "filtered",
            Self::Invalid => "invalid",
            Self::InfraError => "infra_error",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What there is to judge.
#[derive(Debug, Clone, Copy)]
pub enum Judged<'a> {
    /// The message or the prediction cannot be used.
    Unusable,
    /// The preprocessor decided not to run it.
    Filtered,
    /// Something of ours failed, after every retry.
    OurFault,
    /// It was run.
    Ran {
        /// One for each executable.
        executions: &'a [ExecutionResult],
        /// The processor's own rule; asked last.
        rule: bool,
    },
}

/// The verdict: the first row of the table that matches.
#[must_use]
pub fn judge(judged: Judged<'_>) -> Verdict {
    let (executions, rule) = match judged {
        Judged::Unusable => return Verdict::Invalid,
        Judged::Filtered => return Verdict::Filtered,
        Judged::OurFault => return Verdict::InfraError,
        Judged::Ran { executions, rule } => (executions, rule),
    };
    let any = |found: fn(&CommandResult) -> bool| {
        executions.iter().flat_map(|execution| &execution.command_results).any(found)
    };
    if executions.is_empty()
        || executions.iter().any(|execution| execution.infra_error.is_some())
        || any(|command| command.termination == Termination::Cancelled)
    {
        Verdict::InfraError
    } else if any(|command| command.termination == Termination::MemoryLimit) {
        Verdict::MemoryExceeded
    } else if any(|command| command.termination == Termination::OutputLimit) {
        Verdict::OutputExceeded
    } else if any(|command| matches!(command.termination, Termination::WallLimit | Termination::CpuLimit)) {
        Verdict::TimedOut
    } else if any(|command| {
        matches!(
            command.termination,
            Termination::WorkerLost | Termination::Signalled | Termination::ProcessLimit
        )
    }) {
        Verdict::Crashed
    } else if any(|command| {
        command.build && command.termination == Termination::Exited && command.return_code != Some(0)
    }) {
        Verdict::CompileError
    } else if any(|command| command.termination == Termination::NotStarted) || !rule {
        Verdict::Failed
    } else {
        Verdict::Passed
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn ran(terminations: &[Termination]) -> Vec<ExecutionResult> {
        let command_results = terminations
            .iter()
            .map(|&termination| CommandResult {
                return_code: (termination == Termination::Exited).then_some(0),
                ..CommandResult::without_run(termination)
            })
            .collect();
        vec![ExecutionResult { command_results, ..ExecutionResult::default() }]
    }

    use Termination as T;

    #[rstest]
    #[case(&[T::Exited], true, Verdict::Passed)]
    #[case(&[T::Exited], false, Verdict::Failed)]
    #[case(&[T::Exited, T::NotStarted], true, Verdict::Failed)]
    #[case(&[T::Signalled, T::NotStarted], true, Verdict::Crashed)]
    #[case(&[T::ProcessLimit], true, Verdict::Crashed)]
    #[case(&[T::WorkerLost], true, Verdict::Crashed)]
    #[case(&[T::Signalled, T::WallLimit], true, Verdict::TimedOut)]
    #[case(&[T::CpuLimit], true, Verdict::TimedOut)]
    #[case(&[T::CpuLimit, T::OutputLimit], true, Verdict::OutputExceeded)]
    #[case(&[T::OutputLimit, T::MemoryLimit], true, Verdict::MemoryExceeded)]
    #[case(&[T::MemoryLimit, T::Cancelled], true, Verdict::InfraError)]
    fn first_match_wins(#[case] terminations: &[T], #[case] rule: bool, #[case] verdict: Verdict) {
        let executions = ran(terminations);
        assert_eq!(judge(Judged::Ran { executions: &executions, rule }), verdict);
    }

    #[test]
    fn what_was_not_run() {
        assert_eq!(judge(Judged::Unusable), Verdict::Invalid);
        assert_eq!(judge(Judged::Filtered), Verdict::Filtered);
        assert_eq!(judge(Judged::OurFault), Verdict::InfraError);
        assert_eq!(judge(Judged::Ran { executions: &[], rule: true }), Verdict::InfraError);
    }

    #[test]
    fn a_failed_build_is_a_compile_error() {
        let mut executions = ran(&[T::Exited]);
        executions[0].command_results[0].build = true;
        executions[0].command_results[0].return_code = Some(1);
        let mut missing = executions.clone();
        missing[0].command_results[0].termination = Termination::NotStarted;
        assert_eq!(judge(Judged::Ran { executions: &missing, rule: false }), Verdict::Failed);
        assert_eq!(judge(Judged::Ran { executions: &executions, rule: false }), Verdict::CompileError);
    }

    #[test]
    fn names_are_the_wire_names() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.as_str());
        }
    }
}
