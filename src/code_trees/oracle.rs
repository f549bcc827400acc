//! Who is asked about what cannot be known here.

use std::error::Error;

use futures::future::BoxFuture;

use super::answer::{TreeError, Validity};
use super::asserts::convert_call_to_assert;
use super::tree::is_valid_python;

/// A Python interpreter that judges and rewrites source code, and runs none of it.
///
/// This module starts nothing; the implementation does, wherever untrusted text may be compiled. Source
/// that reaches it is untrusted and within no limit of depth. Answers are of the interpreter's version.
pub trait SourceOracle: Send + Sync {
    /// Whether `code` compiles as a program: what `compile(code, name, "exec")` says.
    fn is_valid<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<bool, OracleError>>;

    /// `ast.unparse(ast.parse(code))`; `None` if it does not parse.
    fn normalize<'a>(&'a self, code: &'a str) -> BoxFuture<'a, Result<Option<String>, OracleError>>;

    /// What [`convert_call_to_assert`] is to give; `None` if an input does not parse, or is of the wrong kind.
    fn convert_call_to_assert<'a>(
        &'a self,
        call: &'a str,
        expected: &'a str,
        requires_float: bool,
    ) -> BoxFuture<'a, Result<Option<String>, OracleError>>;
}

/// Why an oracle gave no answer: our trouble, never a property of the source.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// It could not be asked, or broke off.
    #[error("the interpreter could not be asked about a source")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// It did not answer in time, or exhausted what it may use.
    #[error("the interpreter gave no answer about a source within its limits")]
    Exhausted,
}

/// [`is_valid_python`], with the oracle's word on what is unknown.
pub async fn ask_is_valid_python(code: &str, oracle: &dyn SourceOracle) -> Result<bool, OracleError> {
    match is_valid_python(code) {
        Validity::Valid => Ok(true),
        Validity::Invalid(_) => Ok(false),
        Validity::Unknown(_) => oracle.is_valid(code).await,
    }
}

/// `code` as Python itself would print it: what `ast.unparse(ast.parse(code))` gives. `None` if it does not
/// parse. Always the oracle's work, unless it is certain that `code` is invalid.
pub async fn normalize(code: &str, oracle: &dyn SourceOracle) -> Result<Option<String>, OracleError> {
    match is_valid_python(code) {
        Validity::Invalid(_) => Ok(None),
        _ => oracle.normalize(code).await,
    }
}

/// [`convert_call_to_assert`], with the oracle's help for what is unknown. The inner error is the reason
/// why there is no assert; it is [`TreeError::Unknown`] where the oracle does not accept the inputs either.
pub async fn ask_convert_call_to_assert(
    call: &str,
    expected: &str,
    requires_float: bool,
    oracle: &dyn SourceOracle,
) -> Result<Result<String, TreeError>, OracleError> {
    match convert_call_to_assert(call, expected, requires_float) {
        Err(error) if error.is_unknown() => {
            let answer = oracle.convert_call_to_assert(call, expected, requires_float).await?;
            Ok(answer.ok_or(error))
        }
        known => Ok(known),
    }
}
