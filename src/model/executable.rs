//! What is run: files, commands, tracked files.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{BoxPath, EarlyStop, FileContent, Seconds, StdoutPostprocessor};

/// Most files of one executable: as many inodes as a box has, less room for what it writes.
pub const MAX_BOX_FILES: usize = 5_000;

/// Files, the commands to run beside them, and the files to read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Executable {
    /// Files to write, by relative path.
    #[serde(default)]
    pub files: BTreeMap<BoxPath, FileContent>,
    /// Commands, run one after another in the box.
    pub commands: Vec<Command>,
    /// Files to read back at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tracked_files: Vec<BoxPath>,
    /// When to leave out the remaining commands.
    #[serde(default)]
    pub early_stop: EarlyStop,
    /// What is done to standard output before it is compared and reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_postprocessor: Option<StdoutPostprocessor>,
    /// Give each command a witness: a nonce to read from descriptor 3 and to write back to it, which
    /// shows that the program came to the point where it does so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
    /// What the program writes behind the witness, at most so many bytes of it, is given to the
    /// postprocessor ([`CommandResult::report`](super::CommandResult::report)). Not on the wire.
    #[serde(skip)]
    pub report_bytes: u64,
}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Command {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Wall limit; the prediction's or the configured one where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
    /// How often it is run; the runtime reported is the mean. At least 1.
    #[serde(default = "once")]
    pub num_times: u32,
    /// Standard input.
    #[serde(default)]
    pub stdin: Stdin,
    /// It builds what later commands run: a failure is a `compile_error`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub build: bool,
}

fn once() -> u32 {
    1
}

/// Standard input: lines that are joined with `\n`, or one string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "it must be a string, or a list of strings")]
pub enum Stdin {
    /// Joined with `\n`, no newline at the end.
    Lines(Vec<String>),
    /// As it stands.
    Text(String),
}

impl Default for Stdin {
    fn default() -> Self {
        Self::Lines(Vec::new())
    }
}

impl Stdin {
    /// What the program reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Lines(lines) => lines.join("\n").into_bytes(),
            Self::Text(text) => text.clone().into_bytes(),
        }
    }
}

/// Why an executable cannot be run as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidExecutable {
    /// There is nothing to run.
    #[error("`commands` is empty: an executable has at least one command")]
    NoCommands,
    /// A command without a program.
    #[error("commands[{0}].command is empty: it holds at least the program's name")]
    EmptyCommand(usize),
    /// An argument that cannot be passed.
    #[error("commands[{0}].command contains a NUL byte, which no argument can carry")]
    NulArgument(usize),
    /// Run zero times.
    #[error("commands[{0}].num_times is 0: it is at least 1")]
    NumTimesZero(usize),
    /// One path is both a file and the directory of another.
    #[error("files: {file:?} is a file, and {inside:?} needs it to be a directory")]
    FileIsDirectory {
        /// The file.
        file: String,
        /// The file below it.
        inside: String,
    },
    /// Too many files.
    #[error("files: {0} of them; at most {MAX_BOX_FILES} are allowed")]
    TooManyFiles(usize),
    /// A regular expression that is none.
    #[error("stdout_postprocessor: the expression {expression:?} is refused: {reason}")]
    Expression {
        /// The expression.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Executable {
    /// An executable of these files and one command, everything else by default.
    #[must_use]
    pub fn new(files: BTreeMap<BoxPath, FileContent>, commands: Vec<Command>) -> Self {
        Self {
            files,
            commands,
            tracked_files: Vec::new(),
            early_stop: EarlyStop::default(),
            stdout_postprocessor: None,
            witness: false,
            report_bytes: 0,
        }
    }

    /// Checks what the types alone cannot hold.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), InvalidExecutable> {
        if self.commands.is_empty() {
            return Err(InvalidExecutable::NoCommands);
        }
        for (index, command) in self.commands.iter().enumerate() {
            if command.command.first().is_none_or(String::is_empty) {
                return Err(InvalidExecutable::EmptyCommand(index));
            }
            if command.command.iter().any(|argument| argument.contains('\0')) {
                return Err(InvalidExecutable::NulArgument(index));
            }
            if command.num_times == 0 {
                return Err(InvalidExecutable::NumTimesZero(index));
            }
        }
        if self.files.len() > MAX_BOX_FILES {
            return Err(InvalidExecutable::TooManyFiles(self.files.len()));
        }
        for path in self.files.keys() {
            if let Some(file) = path
                .ancestors()
                .find(|parent| BoxPath::new(parent).is_ok_and(|parent| self.files.contains_key(&parent)))
            {
                return Err(InvalidExecutable::FileIsDirectory {
                    file: file.to_owned(),
                    inside: path.as_str().to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl Command {
    /// This program, everything else by default.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            timeout: None,
            num_times: 1,
            stdin: Stdin::default(),
            build: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"{"commands": []}"#, "at least one command")]
    #[case(r#"{"commands": [{"command": []}]}"#, "commands[0].command is empty")]
    #[case(r#"{"commands": [{"command": [""]}]}"#, "commands[0].command is empty")]
    #[case(r#"{"commands": [{"command": ["a\u0000"]}]}"#, "NUL")]
    #[case(r#"{"commands": [{"command": ["a"], "num_times": 0}]}"#, "num_times is 0")]
    #[case(
        r#"{"files": {"a": "", "a/b": ""}, "commands": [{"command": ["a"]}]}"#,
        "needs it to be a directory"
    )]
    fn refused(#[case] json: &str, #[case] says: &str) {
        let executable: Executable = serde_json::from_str(json).unwrap();
        let error = executable.validate().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[rstest]
    #[case(r#"{"commands": [{"command": ["a"], "timeout": -1}]}"#, "-1 is no time limit")]
    #[case(r#"{"commands": [{"command": ["a"], "timeout": 1e300}]}"#, "is no time limit")]
    #[case(r#"{"files": {"../a": ""}, "commands": []}"#, "`..`")]
    #[case(r#"{"commands": [{"command": ["a"], "num_times": -1}]}"#, "expected u32")]
    #[case(r#"{"commands": [{"command": ["a"], "stdin": 5}]}"#, "it must be a string, or a list of strings")]
    #[case(
        r#"{"commands": [], "early_stop": {"stdout_contains": 5}}"#,
        "it must be a string, or an object with `text`"
    )]
    fn not_even_decoded(#[case] json: &str, #[case] says: &str) {
        let error = serde_json::from_str::<Executable>(json).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn stdin_is_joined_like_the_reference_does() {
        let lines: Stdin = serde_json::from_str(r#"["a", "b"]"#).unwrap();
        assert_eq!(lines.to_bytes(), b"a\nb");
        let text: Stdin = serde_json::from_str(r#""a\n""#).unwrap();
        assert_eq!(text.to_bytes(), b"a\n");
    }
}
