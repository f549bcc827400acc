//! A parsed source, as much of it as the functions here need.

use std::ops::Range;

use rustpython_parser::ast::{self, Expr, Ranged, Stmt};

use super::answer::{Invalid, Part, TreeError, Unknown, Validity};
use super::check::{self, Findings};
use super::limits::{Limit, Limits};
use super::parse;
use super::plain::Binding;
use super::scan::{self, Scan};

/// A source that the parser knows, and what its top-level statements are.
///
/// It holds text and flags; the parser's own tree is gone by the time that this exists.
#[derive(Clone, Debug)]
pub struct Tree {
    source: String,
    statements: Vec<Statement>,
    pub(super) scan: TreeScan,
    minor: u8,
}

/// What of the scan outlives the parse.
#[derive(Clone, Debug)]
pub(super) struct TreeScan {
    /// The last simple statement, where it is the last statement of all.
    pub(super) last: Range<usize>,
    /// The comments that declare another encoding.
    pub(super) encodings: Vec<Range<usize>>,
}

/// A top-level statement.
#[derive(Clone, Debug)]
struct Statement {
    kind: Kind,
    start: usize,
}

/// What a top-level statement is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// An expression, and how tightly it binds. `None`: a starred one, which stands in no other.
    Expression(Option<Binding>),
    Assert {
        /// Of a comparison with a call on its left.
        simple: bool,
    },
    /// Imports, as normalised lines.
    Import(String),
    /// Any other, by name.
    Other(&'static str),
}

impl Tree {
    /// The source that was parsed.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The minor version of Python 3 from which on its syntax is known: `12` for Python 3.12. Earlier
    /// versions may refuse it. `8` is the least: what is older is not told apart.
    pub fn minor_version(&self) -> u8 {
        self.minor
    }

    /// How many statements there are at the top level.
    pub fn statement_count(&self) -> usize {
        self.statements.len()
    }

    pub(super) fn last(&self) -> Option<&Kind> {
        self.statements.last().map(|statement| &statement.kind)
    }

    /// The text of the last statement, which has to be an expression or an assert.
    pub(super) fn last_text(&self) -> Result<&str, Unknown> {
        let last = &self.scan.last;
        // The scan and the parser have to agree on where it begins.
        if self.statements.last().is_some_and(|statement| statement.start == last.start) {
            Ok(&self.source[last.clone()])
        } else {
            let line = 1 + self.source[..last.start].matches('\n').count();
            Err(Unknown::Judgement { line, what: "where this statement begins" })
        }
    }
}

/// Parses `code`. Not being able to is an error with its reason, where the reference gives `None`.
pub fn safe_ast_parse(code: &str) -> Result<Tree, TreeError> {
    safe_ast_parse_within(code, &Limits::default())
}

/// [`safe_ast_parse`] with other limits.
pub fn safe_ast_parse_within(code: &str, limits: &Limits) -> Result<Tree, TreeError> {
    parse_part(without_mark(code), Part::Source, limits)
}

/// Whether CPython accepts `code` as a program.
pub fn is_valid_python(code: &str) -> Validity {
    is_valid_python_within(code, &Limits::default())
}

/// [`is_valid_python`] with other limits.
pub fn is_valid_python_within(code: &str, limits: &Limits) -> Validity {
    match examine(code, limits) {
        Ok(examined) => {
            let findings = examined.findings;
            if let Some(invalid) = findings.invalid {
                return Validity::Invalid(invalid);
            }
            match findings.doubt.or(findings.unsure) {
                Some(unknown) => Validity::Unknown(unknown),
                None => Validity::Valid,
            }
        }
        Err(Refusal::Invalid(invalid)) => Validity::Invalid(invalid),
        Err(Refusal::Unknown(unknown)) => Validity::Unknown(unknown),
    }
}

/// Whether the first statement asserts a comparison with a call in its left side.
pub fn is_simple_test_case(tree: &Tree) -> bool {
    matches!(tree.statements.first(), Some(Statement { kind: Kind::Assert { simple: true }, .. }))
}

/// The imports at the top level, each statement as a normalised line.
pub fn get_global_imports(tree: &Tree) -> Vec<String> {
    let imports = tree.statements.iter().filter_map(|statement| match &statement.kind {
        Kind::Import(line) => Some(line.clone()),
        _ => None,
    });
    imports.collect()
}

/// `code` without a byte order mark: CPython allows one in files and refuses it in strings, and it means
/// nothing.
pub(super) fn without_mark(code: &str) -> &str {
    code.strip_prefix('\u{feff}').unwrap_or(code)
}

/// Parses one input of a function; `part` tells which in its errors.
pub(super) fn parse_part(code: &str, part: Part, limits: &Limits) -> Result<Tree, TreeError> {
    let unknown = |unknown| TreeError::Unknown { part, unknown };
    let examined = match examine(code, limits) {
        Ok(examined) => examined,
        Err(Refusal::Invalid(invalid)) => return Err(TreeError::Invalid { part, invalid }),
        Err(Refusal::Unknown(reason)) => return Err(unknown(reason)),
    };
    if let Some(invalid) = examined.findings.invalid {
        return Err(TreeError::Invalid { part, invalid });
    }
    match examined.findings.doubt {
        Some(doubt) => Err(unknown(doubt)),
        None => Ok(Tree {
            source: code.to_owned(),
            minor: examined.findings.minor,
            statements: examined.statements,
            scan: examined.scan,
        }),
    }
}

struct Examined {
    statements: Vec<Statement>,
    findings: Findings,
    scan: TreeScan,
}

enum Refusal {
    Invalid(Invalid),
    Unknown(Unknown),
}

impl From<Unknown> for Refusal {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown)
    }
}

impl From<Limit> for Refusal {
    fn from(limit: Limit) -> Self {
        Self::Unknown(limit.into())
    }
}

/// Scans, parses and checks.
fn examine(code: &str, limits: &Limits) -> Result<Examined, Refusal> {
    if code.len() > limits.max_source_bytes {
        return Err(Limit::Size { bytes: code.len(), max: limits.max_source_bytes }.into());
    }
    let deadline = limits.deadline();
    deadline.check()?;
    let scan = scan::scan(code, limits)?;
    if let Some(invalid) = scan.invalid {
        return Err(Refusal::Invalid(invalid));
    }
    if let Some(doubt) = scan.doubt {
        return Err(doubt.into());
    }
    let (statements, mut findings) = parse::with_statements(code, &scan, deadline, |statements| {
        (statements.iter().map(Statement::of).collect::<Vec<_>>(), check::check(code, statements))
    })?;
    deadline.check()?;
    let Scan { unsure, last, encodings, has_odd_format, .. } = scan;
    if has_odd_format {
        // From 3.12 on, f-strings hold any expression.
        findings.minor = findings.minor.max(12);
    }
    findings.unsure = unsure.or(findings.unsure);
    Ok(Examined { statements, findings, scan: TreeScan { last, encodings } })
}

impl Statement {
    fn of(statement: &Stmt) -> Self {
        let start = usize::from(statement.start());
        let kind = match statement {
            Stmt::Expr(node) => Kind::Expression(binding(statement, &node.value)),
            Stmt::Assert(node) => Kind::Assert { simple: is_simple(&node.test) },
            Stmt::Import(node) => Kind::Import(format!("import {}", aliases(&node.names))),
            Stmt::ImportFrom(node) => Kind::Import(import_from(node)),
            Stmt::Assign(_) | Stmt::AugAssign(_) | Stmt::AnnAssign(_) => Kind::Other("an assignment"),
            Stmt::FunctionDef(_) | Stmt::AsyncFunctionDef(_) => Kind::Other("a function definition"),
            Stmt::ClassDef(_) => Kind::Other("a class definition"),
            Stmt::Return(_) => Kind::Other("a `return`"),
            Stmt::If(_) => Kind::Other("an `if`"),
            Stmt::For(_) | Stmt::AsyncFor(_) | Stmt::While(_) => Kind::Other("a loop"),
            Stmt::With(_) | Stmt::AsyncWith(_) => Kind::Other("a `with`"),
            Stmt::Try(_) | Stmt::TryStar(_) => Kind::Other("a `try`"),
            _ => Kind::Other("another statement"),
        };
        Self { kind, start }
    }
}

fn binding(statement: &Stmt, value: &Expr) -> Option<Binding> {
    if value.is_starred_expr() {
        return None;
    }
    // Parentheses of its own, which are no part of the expression's range.
    if statement.start() < value.start() {
        return Some(Binding::Primary);
    }
    Some(match value {
        Expr::Name(_)
        | Expr::Constant(_)
        | Expr::Call(_)
        | Expr::Attribute(_)
        | Expr::Subscript(_)
        | Expr::List(_)
        | Expr::Dict(_)
        | Expr::Set(_)
        | Expr::ListComp(_)
        | Expr::SetComp(_)
        | Expr::DictComp(_)
        | Expr::GeneratorExp(_)
        | Expr::JoinedStr(_) => Binding::Primary,
        Expr::Await(_) => Binding::Arithmetic,
        Expr::BinOp(_) => Binding::Arithmetic,
        Expr::UnaryOp(node) if node.op != ast::UnaryOp::Not => Binding::Arithmetic,
        _ => Binding::Loose,
    })
}

/// Whether a test is a comparison with a call in its left side.
fn is_simple(test: &Expr) -> bool {
    let Expr::Compare(compare) = test else { return false };
    let mut work: Vec<&Expr> = vec![&compare.left];
    while let Some(expression) = work.pop() {
        if expression.is_call_expr() {
            return true;
        }
        children(expression, &mut work);
    }
    false
}

/// The expressions directly within one.
fn children<'a>(expression: &'a Expr, out: &mut Vec<&'a Expr>) {
    match expression {
        Expr::BoolOp(node) => out.extend(&node.values),
        Expr::NamedExpr(node) => out.extend([&*node.target, &*node.value]),
        Expr::BinOp(node) => out.extend([&*node.left, &*node.right]),
        Expr::UnaryOp(node) => out.push(&node.operand),
        Expr::Lambda(node) => {
            let arguments = node.args.posonlyargs.iter().chain(&node.args.args).chain(&node.args.kwonlyargs);
            out.extend(arguments.filter_map(|argument| argument.default.as_deref()));
            out.push(&node.body);
        }
        Expr::IfExp(node) => out.extend([&*node.test, &*node.body, &*node.orelse]),
        Expr::Dict(node) => out.extend(node.keys.iter().flatten().chain(&node.values)),
        Expr::Set(node) => out.extend(&node.elts),
        Expr::List(node) => out.extend(&node.elts),
        Expr::Tuple(node) => out.extend(&node.elts),
        Expr::ListComp(node) => generators([&*node.elt], &node.generators, out),
        Expr::SetComp(node) => generators([&*node.elt], &node.generators, out),
        Expr::GeneratorExp(node) => generators([&*node.elt], &node.generators, out),
        Expr::DictComp(node) => generators([&*node.key, &*node.value], &node.generators, out),
        Expr::Await(node) => out.push(&node.value),
        Expr::Yield(node) => out.extend(node.value.as_deref()),
        Expr::YieldFrom(node) => out.push(&node.value),
        Expr::Compare(node) => out.extend([&*node.left].into_iter().chain(&node.comparators)),
        Expr::Call(node) => {
            out.extend([&*node.func].into_iter().chain(&node.args));
            out.extend(node.keywords.iter().map(|keyword| &keyword.value));
        }
        Expr::FormattedValue(node) => {
            out.extend([&*node.value].into_iter().chain(node.format_spec.as_deref()));
        }
        Expr::JoinedStr(node) => out.extend(&node.values),
        Expr::Attribute(node) => out.push(&node.value),
        Expr::Subscript(node) => out.extend([&*node.value, &*node.slice]),
        Expr::Starred(node) => out.push(&node.value),
        Expr::Slice(node) => {
            out.extend([&node.lower, &node.upper, &node.step].into_iter().filter_map(|part| part.as_deref()));
        }
        Expr::Constant(_) | Expr::Name(_) => {}
    }
}

fn generators<'a, const N: usize>(
    elements: [&'a Expr; N],
    generators: &'a [ast::Comprehension],
    out: &mut Vec<&'a Expr>,
) {
    out.extend(elements);
    for generator in generators {
        out.extend([&generator.target, &generator.iter].into_iter().chain(&generator.ifs));
    }
}

fn aliases(names: &[ast::Alias]) -> String {
    let names = names.iter().map(|alias| match &alias.asname {
        Some(name) => format!("{} as {name}", alias.name),
        None => alias.name.to_string(),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn import_from(node: &ast::StmtImportFrom) -> String {
    let level = node.level.as_ref().map_or(0, ast::Int::to_usize);
    let module = node.module.as_ref().map_or("", ast::Identifier::as_str);
    format!("from {}{module} import {}", ".".repeat(level), aliases(&node.names))
}
