//! Tests made of calls and expected values.

use std::time::Duration;

use super::answer::{Part, TreeError};
use super::limits::{Limit, Limits};
use super::plain::{self, Binding};
use super::scan;
use super::tree::{Kind, Tree, parse_part, safe_ast_parse_within, without_mark};

/// One test as datasets have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestCase {
    /// Python that is the test already.
    Source(String),
    /// A call and what it is expected to give.
    Call {
        /// Python that ends with an expression.
        call: String,
        /// A Python expression.
        expected: String,
        /// Whether a difference below 1e-06 passes.
        requires_float: bool,
    },
}

/// What [`convert_test_list_to_assert`] made of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConvertedTests {
    /// The tests, in order.
    pub asserts: Vec<String>,
    /// Indices of those that are left out, and why.
    pub left_out: Vec<(usize, TreeError)>,
}

/// What a wrapped test prints: Python arguments of `print`, not quoted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrintedTexts {
    /// Printed when the test passes.
    pub pass: String,
    /// Printed when its assertion fails.
    pub fail: String,
    /// Pairs of an exception type and what is printed when it is raised, where it is `e`.
    pub exceptions: Vec<(String, String)>,
}

/// Turns a call and its expected value into an `assert`.
///
/// The last expression of `call` becomes `assert <call> == <expected>`, or with `requires_float`
/// `assert abs(<call> - <expected>) < 1e-06`. Statements before it are kept; if `call` ends with an
/// `assert`, it stays as it is. `expected` is one expression, with or without parentheses.
pub fn convert_call_to_assert(call: &str, expected: &str, requires_float: bool) -> Result<String, TreeError> {
    convert_call_to_assert_within(call, expected, requires_float, &Limits::default())
}

/// [`convert_call_to_assert`] with other limits, which hold for either input.
pub fn convert_call_to_assert_within(
    call: &str,
    expected: &str,
    requires_float: bool,
    limits: &Limits,
) -> Result<String, TreeError> {
    for (text, part) in [(call, Part::Call), (expected, Part::Expected)] {
        if text.len() > limits.max_source_bytes {
            let limit = Limit::Size { bytes: text.len(), max: limits.max_source_bytes };
            return Err(TreeError::Unknown { part, unknown: limit.into() });
        }
    }
    let call = without_mark(call);
    // A space before a call is an indent, and refused.
    if !call.starts_with(' ')
        && let Some(binding) = plain::binding(call)
    {
        let call = Operand { text: call.trim_end(), binding };
        return with_expected(expected, limits, |expected| comparison("", call, expected, requires_float));
    }
    let tree = parse_part(call, Part::Call, limits)?;
    let unknown = |unknown| TreeError::Unknown { part: Part::Call, unknown };
    match tree.last() {
        Some(Kind::Expression(Some(binding))) => {
            let text = tree.last_text().map_err(unknown)?;
            let before = tree.before_last();
            let call = Operand { text, binding: *binding };
            with_expected(expected, limits, |expected| comparison(&before, call, expected, requires_float))
        }
        Some(Kind::Assert { .. }) => {
            tree.last_text().map_err(unknown)?;
            Ok(tree.text())
        }
        Some(Kind::Expression(None)) => Err(TreeError::NotACall { found: "a starred expression" }),
        Some(Kind::Import(_)) => Err(TreeError::NotACall { found: "an import" }),
        Some(Kind::Other(found)) => Err(TreeError::NotACall { found }),
        None => Err(TreeError::NotACall { found: "nothing: there is no statement in it" }),
    }
}

/// Converts tests to asserts. What does not parse, not within `timeout` for one test, or is no test, is
/// left out of the asserts and listed with the reason.
pub fn convert_test_list_to_assert(tests: &[TestCase], timeout: Option<Duration>) -> ConvertedTests {
    let limits = timeout.map_or_else(Limits::default, |timeout| Limits::default().with_max_time(timeout));
    let mut converted = ConvertedTests::default();
    for (index, test) in tests.iter().enumerate() {
        let result = match test {
            TestCase::Source(source) => safe_ast_parse_within(source, &limits).map(|tree| tree.text()),
            TestCase::Call { call, expected, requires_float } => {
                convert_call_to_assert_within(call, expected, *requires_float, &limits)
            }
        };
        match result {
            Ok(text) => converted.asserts.push(text),
            Err(error) => converted.left_out.push((index, error)),
        }
    }
    converted
}

/// A test that prints how it went instead of raising:
/// `try: <assert>, print(<pass>)`, `except AssertionError: print(<fail>)`, and for each exception of
/// `print_formatter(idx)` an `except <type> as e: print(<text>)`.
pub fn wrap_assert_in_try_print(
    idx: usize,
    call: &str,
    output: &str,
    requires_float: bool,
    print_formatter: impl FnOnce(usize) -> PrintedTexts,
) -> Result<String, TreeError> {
    let limits = Limits::default();
    let assertion = convert_call_to_assert(call, output, requires_float)?;
    let texts = print_formatter(idx);
    let mut program = String::from("try:\n");
    indent(&assertion, &limits, &mut program)?;
    program.push_str(&format!("\n    {}\n", print(&texts.pass, Part::PassText, &limits)?));
    program
        .push_str(&format!("except AssertionError:\n    {}", print(&texts.fail, Part::FailText, &limits)?));
    for (exception, text) in &texts.exceptions {
        let exception =
            with_part(exception, Part::ExceptionType, &limits, |operand| operand.enclosed(Binding::Primary))?;
        let printed = print(text, Part::ExceptionText, &limits)?;
        program.push_str(&format!("\nexcept {exception} as e:\n    {printed}"));
    }
    Ok(program)
}

/// `print(<arguments>)`, which has to be one expression.
fn print(arguments: &str, part: Part, limits: &Limits) -> Result<String, TreeError> {
    with_part(&format!("print({arguments})"), part, limits, |operand| operand.text.to_owned())
}

/// Appends `program` as a block. Lines within strings stay as they are.
fn indent(program: &str, limits: &Limits, out: &mut String) -> Result<(), TreeError> {
    let unknown = |limit: Limit| TreeError::Unknown { part: Part::Call, unknown: limit.into() };
    let lines = scan::scan(program, limits).map_err(unknown)?.lines;
    let ends = lines.iter().skip(1).copied().chain([program.len()]);
    for (start, end) in lines.iter().zip(ends) {
        let line = &program[*start..end];
        // A form feed would start the line anew, behind the indentation.
        let space = line.len() - line.trim_start_matches([' ', '\t', '\u{c}']).len();
        let line = &line[line[..space].rfind('\u{c}').map_or(0, |at| at + 1)..];
        if !line.trim().is_empty() {
            out.push_str("    ");
        }
        out.push_str(line);
    }
    Ok(())
}

/// An expression's text within another expression.
#[derive(Clone, Copy)]
struct Operand<'a> {
    text: &'a str,
    binding: Binding,
}

impl Operand<'_> {
    /// In parentheses, if it binds less tightly than its place needs.
    fn enclosed(self, least: Binding) -> String {
        let mut out = String::with_capacity(self.text.len() + 2);
        self.push_to(&mut out, least);
        out
    }

    fn push_to(self, out: &mut String, least: Binding) {
        if self.binding >= least {
            out.push_str(self.text);
        } else {
            out.push('(');
            out.push_str(self.text);
            out.push(')');
        }
    }
}

fn comparison(before: &str, call: Operand<'_>, expected: Operand<'_>, requires_float: bool) -> String {
    let mut out = String::with_capacity(before.len() + call.text.len() + expected.text.len() + 32);
    out.push_str(before);
    if requires_float {
        out.push_str("assert abs(");
        call.push_to(&mut out, Binding::Primary);
        out.push_str(" - ");
        expected.push_to(&mut out, Binding::Primary);
        out.push_str(") < 1e-06");
    } else {
        out.push_str("assert ");
        call.push_to(&mut out, Binding::Arithmetic);
        out.push_str(" == ");
        expected.push_to(&mut out, Binding::Arithmetic);
    }
    out
}

fn with_expected(
    expected: &str,
    limits: &Limits,
    use_it: impl FnOnce(Operand<'_>) -> String,
) -> Result<String, TreeError> {
    with_part(expected, Part::Expected, limits, use_it)
}

/// Hands the one expression that `source` is to `use_it`. Space around it is no indent.
fn with_part(
    source: &str,
    part: Part,
    limits: &Limits,
    use_it: impl FnOnce(Operand<'_>) -> String,
) -> Result<String, TreeError> {
    let source = without_mark(source).trim_matches([' ', '\t', '\n', '\r']);
    if let Some(binding) = plain::binding(source) {
        return Ok(use_it(Operand { text: source, binding }));
    }
    let tree = parse_part(source, part, limits)?;
    let found = match (tree.last(), tree.statement_count()) {
        (Some(Kind::Expression(Some(binding))), 1) => {
            let text = tree.last_text().map_err(|unknown| TreeError::Unknown { part, unknown })?;
            return Ok(use_it(Operand { text, binding: *binding }));
        }
        (None, _) => "nothing",
        (_, 2..) => "several statements",
        (Some(Kind::Expression(_)), _) => "a starred expression",
        (Some(Kind::Assert { .. }), _) => "an assert",
        (Some(Kind::Import(_)), _) => "an import",
        (Some(Kind::Other(found)), _) => found,
    };
    Err(TreeError::NotAnExpression { part, found })
}

impl Tree {
    /// What comes before the last statement, if that is more than comments.
    fn before_last(&self) -> String {
        if self.statement_count() == 1 { String::new() } else { self.without_encoding(self.scan.last.start) }
    }

    /// The program without what says how a file of it would be encoded, and without trailing space.
    fn text(&self) -> String {
        let mut text = self.without_encoding(self.source().len());
        text.truncate(text.trim_end_matches([' ', '\t', '\n', '\r']).len());
        text
    }

    fn without_encoding(&self, end: usize) -> String {
        let mut text = self.source()[..end].to_owned();
        for comment in self.scan.encodings.iter().rev().filter(|comment| comment.end <= end) {
            text.replace_range(comment.clone(), "#");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("f(1)", "2", "assert f(1) == 2")]
    #[case("f(1)  # one", "2", "assert f(1) == 2")]
    #[case("f(1);", " (2, 3)\n", "assert f(1) == (2, 3)")]
    #[case("f(1)", "2, 3", "assert f(1) == (2, 3)")]
    #[case("f(1) < 3", "True", "assert (f(1) < 3) == True")]
    #[case("(f(1) < 3)", "True", "assert (f(1) < 3) == True")]
    #[case("not f(1)", "-1 ** 2", "assert (not f(1)) == -1 ** 2")]
    #[case("lambda: 1", "x if y else z", "assert (lambda: 1) == (x if y else z)")]
    #[case("(x := f(1))", "(yield)", "assert (x := f(1)) == (yield)")]
    #[case("import a\nx = 1\nf(x)\n", "2", "import a\nx = 1\nassert f(x) == 2")]
    #[case("x = 1; f(x)", "2", "x = 1; assert f(x) == 2")]
    #[case("# a comment\n\nf(1)", "2", "assert f(1) == 2")]
    #[case("f(\n    1,  # one\n)", "[\n2]", "assert f(\n    1,  # one\n) == [\n2]")]
    #[case("f(1) + \\\n g(2)", "2", "assert f(1) + \\\n g(2) == 2")]
    #[case("assert f(1) == 1, 'no'  # right\n", "2", "assert f(1) == 1, 'no'  # right")]
    #[case("# coding: latin-1\nx = 1\nf(x)", "2", "#\nx = 1\nassert f(x) == 2")]
    #[case("# coding: cp1252\n# coding: latin-1\nx = 1\nf(x)", "2", "#\n#\nx = 1\nassert f(x) == 2")]
    #[case("\u{feff}f(1)", "\u{feff} 2", "assert f(1) == 2")]
    #[case("f(1)\r\n", "2\r\n", "assert f(1) == 2")]
    #[case("f'{x}'", "'a' 'b'", "assert f'{x}' == 'a' 'b'")]
    fn asserts(#[case] call: &str, #[case] expected: &str, #[case] assertion: &str) {
        assert_eq!(convert_call_to_assert(call, expected, false).as_deref(), Ok(assertion));
    }

    #[rstest]
    #[case("f(1)", "0.5", "assert abs(f(1) - 0.5) < 1e-06")]
    #[case("f(1) + 1", "-0.5", "assert abs((f(1) + 1) - (-0.5)) < 1e-06")]
    fn floats(#[case] call: &str, #[case] expected: &str, #[case] assertion: &str) {
        assert_eq!(convert_call_to_assert(call, expected, true).as_deref(), Ok(assertion));
    }

    #[rstest]
    #[case("", "1", "nothing: there is no statement in it")]
    #[case("x = f(1)", "1", "ends with an assignment")]
    #[case("*x", "1", "ends with a starred expression")]
    #[case("for x in y: f(x)", "1", "ends with a loop")]
    #[case(" f(1)", "1", "the call is no Python: line 1: unexpected indent")]
    #[case("f(1)", "", "the expected value has to be one expression, and it is nothing")]
    #[case("f(1)", "x = 1", "it is an assignment")]
    #[case("f(1)", "1; 2", "it is several statements")]
    #[case("f(1)", "1]", "the expected value is no Python: line 1: `]` closes nothing")]
    #[case("f(1", "1", "the call is no Python: line 1: `(` is never closed")]
    #[case("f(1)", "1 2", "the expected value was not understood")]
    #[case("f(1) = 2\nf(2)", "1", "cannot be assigned")]
    fn refused(#[case] call: &str, #[case] expected: &str, #[case] message: &str) {
        let error = convert_call_to_assert(call, expected, false).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn lists_leave_out_what_does_not_parse() {
        let call =
            |call: &str| TestCase::Call { call: call.into(), expected: "1".into(), requires_float: false };
        let tests =
            [call("f()"), TestCase::Source("assert 1 == (".into()), TestCase::Source("assert g()\n".into())];
        let converted = convert_test_list_to_assert(&tests, Some(Duration::from_secs(60)));
        assert_eq!(converted.asserts, ["assert f() == 1", "assert g()"]);
        assert_eq!(converted.left_out.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    }

    fn texts(pass: &str, exceptions: &[(&str, &str)]) -> PrintedTexts {
        let exceptions = exceptions.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        PrintedTexts { pass: pass.to_owned(), fail: "'fail'".to_owned(), exceptions }
    }

    #[test]
    fn wrapped_tests_keep_their_strings() {
        let call = "x = '''a\nb'''\nf(x,\n  1)";
        let wrapped = wrap_assert_in_try_print(3, call, "2", false, |idx| {
            texts(&format!("'pass', {idx}"), &[("ValueError", "e"), ("A, B", "type(e)")])
        });
        let expected = "try:\n    x = '''a\nb'''\n    assert f(x,\n      1) == 2\n    print('pass', 3)\n\
                        except AssertionError:\n    print('fail')\n\
                        except ValueError as e:\n    print(e)\n\
                        except (A, B) as e:\n    print(type(e))";
        assert_eq!(wrapped.as_deref(), Ok(expected));
    }

    #[rstest]
    #[case(texts("1)\nimport os\nprint(2", &[]), "the text printed for a pass has to be one expression")]
    #[case(texts("1", &[("A)", "e")]), "the exception type is no Python")]
    #[case(texts("1", &[("A", "e; 1")]), "the text printed for an exception")]
    fn wrapped_tests_take_no_statements(#[case] texts: PrintedTexts, #[case] message: &str) {
        let error = wrap_assert_in_try_print(0, "f()", "1", false, |_| texts).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
