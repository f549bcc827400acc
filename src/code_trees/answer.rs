//! What can be said about a source, and why nothing can.

use super::limits::Limit;

/// Whether CPython accepts a program, as far as it can be told without asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Every CPython from 3.8 on compiles it.
    Valid,
    /// No CPython from 3.8 on parses it.
    Invalid(Invalid),
    /// Only an interpreter can tell: see [`super::SourceOracle`].
    Unknown(Unknown),
}

/// Why a source is no Python, whatever the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct Invalid {
    /// Line of the source, from 1.
    pub line: usize,
    /// The rule that it breaks.
    pub rule: Rule,
}

/// Rules that hold in every version of Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// A bracket is closed that was not opened, or with another kind of bracket.
    #[error("`{0}` closes nothing that is open here")]
    Unopened(char),
    /// The source ends inside of a bracket.
    #[error("`{0}` is never closed")]
    Unclosed(char),
    /// A string's line or the source ends before the string does.
    #[error("a string is not terminated")]
    Unterminated,
    /// A backslash outside of strings, with something behind it on its line.
    #[error("a backslash continues a line, so nothing may follow it on its own")]
    Backslash,
    /// A line is further right than the block that it would be in.
    #[error("unexpected indent")]
    UnexpectedIndent,
    /// A line is as far left as no line before it.
    #[error("the indentation matches no enclosing block")]
    Dedent,
    /// A line ends with a colon and no indented block follows.
    #[error("an indented block is missing after the line that ends with `:`")]
    MissingBlock,
    /// A character that begins nothing.
    #[error("`{0}` stands alone")]
    Stray(char),
    /// Something is assigned to, or deleted, that is no target.
    #[error("this cannot be assigned to or deleted")]
    Target,
}

/// Why nothing certain can be said about a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The parser does not accept it: newer syntax, or no Python.
    #[error("line {line}: the built-in parser does not know this: {message}")]
    Refused {
        /// Line of the source, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// Syntax that only newer versions of Python have.
    #[error("line {line}: {what} needs Python 3.{minor}")]
    Newer {
        /// Line of the source, from 1.
        line: usize,
        /// The syntax.
        what: &'static str,
        /// The minor version of Python 3 that brought it.
        minor: u8,
    },
    /// Something on which CPython has rules of its own, or on which its versions differ.
    #[error("line {line}: only an interpreter can judge {what}")]
    Judgement {
        /// Line of the source, from 1.
        line: usize,
        /// What it is about.
        what: &'static str,
    },
    /// It exceeds a limit.
    #[error(transparent)]
    Limit(#[from] Limit),
    /// The parser panicked: a defect in it, from which the caller is kept.
    #[error("the built-in parser failed on this source")]
    ParserFailed,
    /// There is no thread to parse it on.
    #[error("no thread could be started to parse this source: {0}")]
    NoThread(std::io::ErrorKind),
}

/// Why a function over code trees gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// It is no Python.
    #[error("{part} is no Python: {invalid}")]
    Invalid {
        /// Which of the inputs.
        part: Part,
        /// Why.
        #[source]
        invalid: Invalid,
    },
    /// It may or may not be Python; an interpreter would know.
    #[error("{part} was not understood: {unknown}")]
    Unknown {
        /// Which of the inputs.
        part: Part,
        /// Why.
        #[source]
        unknown: Unknown,
    },
    /// A call has to end in an expression or an `assert`.
    #[error("the call has to end with an expression (or an assert), and it ends with {found}")]
    NotACall {
        /// What it ends with.
        found: &'static str,
    },
    /// This has to be one expression.
    #[error("{part} has to be one expression, and it is {found}")]
    NotAnExpression {
        /// Which of the inputs.
        part: Part,
        /// What it is.
        found: &'static str,
    },
}

impl TreeError {
    /// Whether an interpreter might give the result that this does not.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// Which input an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A source of which there is only one.
    Source,
    /// The call of a test.
    Call,
    /// The expected value of a test.
    Expected,
    /// What is printed when a test passes.
    PassText,
    /// What is printed when a test fails.
    FailText,
    /// The type of an exception.
    ExceptionType,
    /// What is printed for an exception.
    ExceptionText,
}

impl std::fmt::Display for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Source => "the source",
            Self::Call => "the call",
            Self::Expected => "the expected value",
            Self::PassText => "the text printed for a pass",
            Self::FailText => "the text printed for a failure",
            Self::ExceptionType => "the exception type",
            Self::ExceptionText => "the text printed for an exception",
        })
    }
}
