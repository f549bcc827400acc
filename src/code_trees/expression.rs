//! The part of [`super::check`] that is about expressions.

use rustpython_parser::ast::{self, Expr, Ranged};

use super::answer::Rule;
use super::check::{Place, Role, Scope, Walk};
use super::lex;

impl<'a> Walk<'a> {
    pub(super) fn expression(&mut self, expression: &'a Expr, role: Role, place: Place) {
        match expression {
            Expr::Name(_) | Expr::Constant(_) => {}
            Expr::Attribute(node) => self.values([&*node.value], Role::Value, place),
            Expr::BoolOp(node) => self.values(&node.values, Role::Value, place),
            Expr::BinOp(node) => self.values([&*node.left, &*node.right], Role::Value, place),
            Expr::UnaryOp(node) => self.values([&*node.operand], Role::Value, place),
            Expr::IfExp(node) => {
                self.values([&*node.test, &*node.body, &*node.orelse], Role::Value, place);
            }
            Expr::Compare(node) => {
                self.values([&*node.left].into_iter().chain(&node.comparators), Role::Value, place);
            }
            Expr::List(node) => self.elements(&node.elts, Role::Element, place),
            Expr::Set(node) => {
                if node.elts.iter().any(Expr::is_named_expr_expr) {
                    self.newer(node, "an assignment expression in a set", 10);
                }
                self.elements(&node.elts, Role::Element, place);
            }
            Expr::Tuple(node) => self.tuple(node, role, place),
            Expr::Dict(node) => {
                self.values(node.keys.iter().flatten().chain(&node.values), Role::Value, place);
            }
            Expr::Call(node) => self.call(node, place),
            Expr::Subscript(node) => {
                self.values([&*node.value], Role::Value, place);
                self.values([&*node.slice], Role::Index, place);
            }
            Expr::Slice(node) => {
                let parts = [node.lower.as_deref(), node.upper.as_deref(), node.step.as_deref()];
                self.values(parts.into_iter().flatten(), Role::Value, place);
            }
            Expr::Lambda(node) => {
                self.arguments(&node.args, place);
                let inside = Place { in_format: place.in_format, ..Place::scope(Scope::Lambda) };
                self.values([&*node.body], Role::Value, inside);
            }
            Expr::JoinedStr(node) => {
                self.values(&node.values, Role::Value, Place { in_format: true, ..place });
            }
            Expr::FormattedValue(node) => {
                self.values([&*node.value], Role::Right, place);
                self.values(node.format_spec.as_deref(), Role::Value, place);
            }
            Expr::ListComp(node) => self.comprehension([&*node.elt], &node.generators, place),
            Expr::SetComp(node) => self.comprehension([&*node.elt], &node.generators, place),
            Expr::GeneratorExp(node) => self.comprehension([&*node.elt], &node.generators, place),
            Expr::DictComp(node) => {
                self.comprehension([&*node.key, &*node.value], &node.generators, place);
            }
            Expr::Starred(node) => self.starred(node, role, place),
            Expr::NamedExpr(node) => self.named(node, role, place),
            Expr::Yield(node) => {
                self.yields(expression, role, place);
                self.values(node.value.as_deref(), Role::Right, place);
            }
            Expr::YieldFrom(node) => {
                self.yields(expression, role, place);
                if place.scope == Scope::Async {
                    self.unsure(node, "`yield from` here");
                }
                self.values([&*node.value], Role::Value, place);
            }
            Expr::Await(node) => {
                if place.scope != Scope::Async || place.in_comprehension {
                    self.unsure(node, "`await` here");
                }
                self.values([&*node.value], Role::Value, place);
            }
        }
    }

    fn elements(&mut self, elements: &'a [Expr], role: Role, place: Place) {
        self.values(elements, role, place);
    }

    fn tuple(&mut self, node: &'a ast::ExprTuple, role: Role, place: Place) {
        let bare = !self.source[usize::from(node.start()).min(self.source.len())..].starts_with('(');
        let starred = node.elts.iter().any(Expr::is_starred_expr);
        if role == Role::Index {
            if starred {
                self.newer(node, "a starred expression in a subscript", 11);
            }
            return self.values(&node.elts, Role::Index, place);
        }
        if starred && bare && !place.in_format && !matches!(role, Role::Right | Role::Element) {
            self.doubt(node, "a starred expression without parentheses");
        }
        self.elements(&node.elts, Role::Element, place);
    }

    fn starred(&mut self, node: &'a ast::ExprStarred, role: Role, place: Place) {
        let loose = matches!(
            *node.value,
            Expr::BoolOp(_) | Expr::Compare(_) | Expr::IfExp(_) | Expr::Lambda(_) | Expr::NamedExpr(_)
        );
        match role {
            Role::Argument => {}
            Role::Element if !loose || begins_paren(self.source, &*node.value) => {}
            Role::Element if follows_paren(self.source, node.value.start().into()) => {}
            Role::Index => self.newer(node, "a starred expression in a subscript", 11),
            Role::Right => self.unsure(node, "a starred expression alone"),
            _ => self.doubt(node, "a starred expression here"),
        }
        self.values([&*node.value], Role::Value, place);
    }

    fn named(&mut self, node: &'a ast::ExprNamedExpr, role: Role, place: Place) {
        let enclosed = follows_paren(self.source, node.start().into());
        match role {
            Role::Index => self.newer(node, "an assignment expression in a subscript", 10),
            Role::Element | Role::Argument | Role::Condition => {}
            _ if place.in_format => self.unsure(node, "an assignment expression in an f-string"),
            _ if enclosed => {}
            _ => self.doubt(node, "an assignment expression without parentheses"),
        }
        if place.in_comprehension || place.scope == Scope::Class {
            self.unsure(node, "an assignment expression here");
        }
        if !node.target.is_name_expr() {
            self.doubt(node, "an assignment expression to this");
        }
        self.values([&*node.value], Role::Value, place);
    }

    fn yields(&mut self, node: &'a Expr, role: Role, place: Place) {
        if !matches!(place.scope, Scope::Function | Scope::Async) || place.in_comprehension || place.in_format
        {
            self.unsure(node, "`yield` here");
        }
        if role != Role::Right && !follows_paren(self.source, node.start().into()) {
            self.doubt(node, "`yield` without parentheses");
        }
    }

    fn call(&mut self, node: &'a ast::ExprCall, place: Place) {
        self.values([&*node.func], Role::Value, place);
        for generator in node.args.iter().filter(|argument| argument.is_generator_exp_expr()) {
            if place.in_format {
                self.unsure(generator, "a generator in an f-string");
            } else if !self.stands_alone(node, generator) && !is_enclosed(self.source, generator) {
                self.doubt(generator, "a generator among other arguments");
            }
        }
        self.values(&node.args, Role::Argument, place);
        self.values(node.keywords.iter().map(|keyword| &keyword.value), Role::Value, place);
    }

    /// Whether `generator` is the only argument, without so much as a comma.
    fn stands_alone(&self, call: &ast::ExprCall, generator: &Expr) -> bool {
        call.args.len() == 1
            && call.keywords.is_empty()
            && self.source.as_bytes().get(usize::from(generator.end())..).is_some_and(ends_call)
    }

    fn comprehension<const N: usize>(
        &mut self,
        elements: [&'a Expr; N],
        generators: &'a [ast::Comprehension],
        place: Place,
    ) {
        let inside = Place { in_comprehension: true, ..place };
        for generator in generators {
            if generator.is_async && (place.scope != Scope::Async || place.in_comprehension) {
                self.unsure(elements[0], "an asynchronous comprehension here");
            }
            self.target(&generator.target, false, inside);
            self.values([&generator.iter], Role::Value, inside);
            self.values(&generator.ifs, Role::Value, inside);
        }
        for element in elements {
            if element.is_starred_expr() {
                self.doubt(element, "unpacking in a comprehension");
            }
        }
        // `[x := f(y) for …]` needs no parentheses; where it may stand is asked anyway.
        self.values(elements, Role::Condition, inside);
    }

    /// What `=`, `for`, `with` and `del` take.
    pub(super) fn target(&mut self, target: &'a Expr, deletes: bool, place: Place) {
        let mut targets = vec![(target, false)];
        while let Some((target, within)) = targets.pop() {
            match target {
                Expr::Name(_) => {}
                Expr::Attribute(_) | Expr::Subscript(_) => {
                    self.values([target], Role::Value, place);
                }
                Expr::Tuple(ast::ExprTuple { elts, .. }) | Expr::List(ast::ExprList { elts, .. }) => {
                    if elts.iter().filter(|element| element.is_starred_expr()).count() > 1 || elts.len() > 255
                    {
                        self.unsure(target, "starred targets like these");
                    }
                    targets.extend(elts.iter().map(|element| (element, true)));
                }
                Expr::Starred(node) if !deletes => {
                    if !within {
                        self.unsure(target, "a starred target outside of a list");
                    }
                    if node.value.is_starred_expr() {
                        self.doubt(target, "a starred target that is starred");
                    }
                    targets.push((&node.value, true));
                }
                Expr::Starred(_) => self.doubt(target, "a starred expression to delete"),
                other => self.invalid(other, Rule::Target),
            }
        }
    }

    /// What `+=` and annotations take.
    pub(super) fn single_target(&mut self, target: &'a Expr, place: Place) {
        match target {
            Expr::Tuple(_) | Expr::List(_) | Expr::Starred(_) => self.invalid(target, Rule::Target),
            _ => self.target(target, false, place),
        }
    }

    /// A tuple with stars at the right of `+=` or an annotated assignment.
    pub(super) fn right_tuple(&mut self, value: &Expr) {
        if has_star(value) && is_bare_tuple(self.source, value) {
            self.newer(value, "a starred expression here", 9);
        }
    }
}

pub(super) fn has_star(value: &Expr) -> bool {
    matches!(value, Expr::Tuple(tuple) if tuple.elts.iter().any(Expr::is_starred_expr))
}

pub(super) fn is_bare_tuple(source: &str, value: &Expr) -> bool {
    value.is_tuple_expr() && !begins_paren(source, value)
}

/// Whether the node's own text begins with a parenthesis.
pub(super) fn begins_paren(source: &str, node: &impl Ranged) -> bool {
    source.as_bytes().get(usize::from(node.start())) == Some(&b'(')
}

/// Whether the last thing before `at`, on the same line, is an opening parenthesis.
pub(super) fn follows_paren(source: &str, at: usize) -> bool {
    let before = source.as_bytes().get(..at).unwrap_or_default();
    before.iter().rev().find(|b| !matches!(b, b' ' | b'\t')) == Some(&b'(')
}

/// Whether a node's text is one pair of parentheses and what is in it.
fn is_enclosed(source: &str, node: &impl Ranged) -> bool {
    let bytes = source.as_bytes();
    let (mut at, end) = (usize::from(node.start()), usize::from(node.end()).min(bytes.len()));
    let mut depth = 0_usize;
    while at < end {
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'\'' | b'"' => {
                at = lex::string(bytes, at).end;
                continue;
            }
            b'#' => {
                at += bytes[at..].iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(end);
                continue;
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at == end
}

/// Whether a call's parenthesis is the next thing. A comma is not: CPython refuses it here.
fn ends_call(rest: &[u8]) -> bool {
    rest.first() == Some(&b')') || rest.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b')')
}

/// `a.b.c` or `a.b.c(…)`: a decorator in every version.
pub(super) fn is_dotted_call(decorator: &Expr) -> bool {
    let mut node = decorator;
    if let Expr::Call(call) = node {
        node = &call.func;
    }
    while let Expr::Attribute(attribute) = node {
        node = &attribute.value;
    }
    node.is_name_expr()
}
