//! Python source code: is it valid, what does it import, and tests made of calls and expected values.
//!
//! These are the functions of the reference library's `code_trees` under their names. Its contract is the
//! *meaning*: what comes out parses to the same tree as what `ast.parse` and `ast.unparse` make of the
//! same input. It is made by splicing the source's own text, with parentheses where they are needed, so
//! literals and comments inside stay as they were written.
//!
//! # What is certain
//! The parser inside knows Python up to 3.12, not all of it, and accepts some of what CPython refuses. So
//! an answer is one of three: valid, invalid, or unknown with the reason ([`Validity`]), and a function
//! that cannot do its work says so ([`TreeError::Unknown`]). Who can be asked then is a
//! [`SourceOracle`]; nothing here runs a program.
//! - *Valid* is said of what every CPython from 3.8 on compiles. What needs newer syntax is unknown,
//!   with the version ([`Unknown::Newer`]).
//! - *Invalid* is said of what breaks a rule of every version ([`Rule`]).
//!
//! # Untrusted sources
//! Every source is scanned once, in linear time and without recursion, before the parser sees it. The
//! scan estimates from above how deep the source nests; what is beyond [`Limits`] is refused, and what is
//! deep is parsed, read and dropped on a thread with a stack for that depth. Nothing is printed.
//!
//! ```
//! use evalmill::code_trees::{Validity, convert_call_to_assert, is_valid_python};
//!
//! assert_eq!(convert_call_to_assert("f(1)", "a if b else c", false)?, "assert f(1) == (a if b else c)");
//! assert_eq!(convert_call_to_assert("f(1)", "-0.5", true)?, "assert abs(f(1) - (-0.5)) < 1e-06");
//! assert_eq!(is_valid_python("print(1)"), Validity::Valid);
//! assert!(matches!(is_valid_python("print(1"), Validity::Invalid(_)));
//! assert!(matches!(is_valid_python("return 1"), Validity::Unknown(_)));
//! # Ok::<(), evalmill::code_trees::TreeError>(())
//! ```

mod answer;
mod asserts;
mod check;
mod deep;
mod expression;
mod fstring;
mod indent;
mod lex;
mod limits;
mod oracle;
mod parse;
mod pattern;
mod plain;
mod scan;
mod tree;

pub use answer::{Invalid, Part, Rule, TreeError, Unknown, Validity};
pub use asserts::{
    ConvertedTests, PrintedTexts, TestCase, convert_call_to_assert, convert_call_to_assert_within,
    convert_test_list_to_assert, wrap_assert_in_try_print,
};
pub use deep::{RemoveTrees, default_tree_process_func, remove_deep_trees, remove_trees_from_lists};
pub use limits::{Limit, Limits};
pub use oracle::{OracleError, SourceOracle, ask_convert_call_to_assert, ask_is_valid_python, normalize};
pub use tree::{
    Tree, get_global_imports, is_simple_test_case, is_valid_python, is_valid_python_within, safe_ast_parse,
    safe_ast_parse_within,
};
