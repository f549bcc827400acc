//! What the parser accepts and CPython may not: its rules on targets, on what may stand where, and on
//! scopes. Walked without recursion.

use rustpython_parser::ast::{self, Expr, Ranged, Stmt};

use super::answer::{Invalid, Rule, Unknown};
use super::expression;

/// What was found, the first of each kind.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// No CPython parses it.
    pub(super) invalid: Option<Invalid>,
    /// CPython may not parse it.
    pub(super) doubt: Option<Unknown>,
    /// CPython may parse it and not compile it, or not every version does.
    pub(super) unsure: Option<Unknown>,
    /// The minor version of Python 3 that has all of its syntax.
    pub(super) minor: u8,
}

/// The oldest minor version of Python 3 that is told apart.
pub(super) const OLDEST_MINOR: u8 = 8;

/// Holds `statements`, which are the parser's idea of `source`, against CPython's rules.
pub(super) fn check(source: &str, statements: &[Stmt]) -> Findings {
    let mut walk = Walk {
        source,
        futures_end: futures_end(statements),
        work: Vec::new(),
        found: Findings { minor: OLDEST_MINOR, ..Findings::default() },
    };
    walk.block(statements, Place::MODULE);
    while let Some(work) = walk.work.pop() {
        match work {
            Work::Statement(statement, place) => walk.statement(statement, place),
            Work::Expression(expression, role, place) => walk.expression(expression, role, place),
        }
    }
    walk.found
}

/// The scope that a statement or an expression is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    Module,
    Class,
    Function,
    Async,
    Lambda,
}

/// What surrounds a statement or an expression, as far as a rule asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) scope: Scope,
    pub(super) in_loop: bool,
    pub(super) in_comprehension: bool,
    pub(super) in_format: bool,
    /// Blocks that CPython counts, of which it allows 20 in a function.
    pub(super) blocks: usize,
}

/// Blocks of one scope that every CPython manages.
const SAFE_BLOCKS: usize = 18;

impl Place {
    const MODULE: Self =
        Self { scope: Scope::Module, in_loop: false, in_comprehension: false, in_format: false, blocks: 0 };

    pub(super) fn scope(scope: Scope) -> Self {
        Self { scope, ..Self::MODULE }
    }

    fn within(self, blocks: usize) -> Self {
        Self { blocks: self.blocks + blocks, ..self }
    }

    fn looped(self) -> Self {
        Self { in_loop: true, ..self.within(1) }
    }
}

/// What an expression is for, where not everything may stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Value,
    /// The right side of a statement, where `yield` needs no parentheses.
    Right,
    /// An element of a list, a tuple or a set.
    Element,
    /// An argument of a call or a class.
    Argument,
    /// What is between the brackets of a subscript.
    Index,
    /// The condition of an `if` or a `while`.
    Condition,
}

#[derive(Clone, Copy)]
pub(super) enum Work<'a> {
    Statement(&'a Stmt, Place),
    Expression(&'a Expr, Role, Place),
}

pub(super) struct Walk<'a> {
    pub(super) source: &'a str,
    /// Behind the last import from `__future__` that is at the very beginning, where they are allowed.
    futures_end: usize,
    pub(super) work: Vec<Work<'a>>,
    found: Findings,
}

impl<'a> Walk<'a> {
    fn line(&self, node: &impl Ranged) -> usize {
        let at = usize::from(node.start()).min(self.source.len());
        1 + self.source.as_bytes()[..at].iter().filter(|b| **b == b'\n').count()
    }

    pub(super) fn invalid(&mut self, node: &impl Ranged, rule: Rule) {
        if self.found.invalid.is_none() {
            self.found.invalid = Some(Invalid { line: self.line(node), rule });
        }
    }

    pub(super) fn doubt(&mut self, node: &impl Ranged, what: &'static str) {
        if self.found.doubt.is_none() {
            self.found.doubt = Some(Unknown::Judgement { line: self.line(node), what });
        }
    }

    pub(super) fn unsure(&mut self, node: &impl Ranged, what: &'static str) {
        if self.found.unsure.is_none() {
            self.found.unsure = Some(Unknown::Judgement { line: self.line(node), what });
        }
    }

    pub(super) fn newer(&mut self, node: &impl Ranged, what: &'static str, minor: u8) {
        self.found.minor = self.found.minor.max(minor);
        if self.found.unsure.is_none() {
            self.found.unsure = Some(Unknown::Newer { line: self.line(node), what, minor });
        }
    }

    fn block(&mut self, statements: &'a [Stmt], place: Place) {
        self.work.extend(statements.iter().map(|statement| Work::Statement(statement, place)));
    }

    pub(super) fn values(&mut self, values: impl IntoIterator<Item = &'a Expr>, role: Role, place: Place) {
        self.work.extend(values.into_iter().map(|value| Work::Expression(value, role, place)));
    }

    fn statement(&mut self, statement: &'a Stmt, place: Place) {
        match statement {
            Stmt::FunctionDef(def) => {
                self.newer_parameters(statement, &def.type_params);
                self.function(&def.args, def.returns.as_deref(), &def.decorator_list, place);
                self.block(&def.body, Place::scope(Scope::Function));
            }
            Stmt::AsyncFunctionDef(def) => {
                self.newer_parameters(statement, &def.type_params);
                self.function(&def.args, def.returns.as_deref(), &def.decorator_list, place);
                self.block(&def.body, Place::scope(Scope::Async));
            }
            Stmt::ClassDef(class) => self.class(class, place),
            Stmt::Return(node) => {
                match place.scope {
                    Scope::Function => {}
                    Scope::Async if node.value.is_none() => {}
                    _ => self.unsure(node, "`return` here"),
                }
                self.values(node.value.as_deref(), Role::Right, place);
            }
            Stmt::Delete(node) => {
                for target in &node.targets {
                    self.target(target, true, place);
                }
            }
            Stmt::Assign(node) => {
                for target in &node.targets {
                    self.target(target, false, place);
                }
                self.values([&*node.value], Role::Right, place);
            }
            Stmt::AugAssign(node) => {
                self.single_target(&node.target, place);
                self.right_tuple(&node.value);
                self.values([&*node.value], Role::Right, place);
            }
            Stmt::AnnAssign(node) => {
                self.single_target(&node.target, place);
                self.annotation(&node.annotation);
                if let Some(value) = &node.value {
                    self.right_tuple(value);
                    self.values([&**value], Role::Right, place);
                }
            }
            Stmt::Expr(node) => {
                if let Expr::Starred(starred) = &*node.value {
                    self.unsure(node, "a starred expression as a statement");
                    self.values([&*starred.value], Role::Value, place);
                } else {
                    self.values([&*node.value], Role::Right, place);
                }
            }
            Stmt::Assert(node) => {
                self.values([&*node.test].into_iter().chain(node.msg.as_deref()), Role::Value, place);
            }
            Stmt::Raise(node) => {
                let parts = [node.exc.as_deref(), node.cause.as_deref()];
                self.values(parts.into_iter().flatten(), Role::Value, place);
            }
            Stmt::Global(_) | Stmt::Nonlocal(_) => self.unsure(statement, "`global` and `nonlocal`"),
            Stmt::Break(_) | Stmt::Continue(_) if !place.in_loop => {
                self.unsure(statement, "`break` and `continue` here");
            }
            Stmt::ImportFrom(node) => self.import_from(node, place),
            Stmt::Pass(_) | Stmt::Break(_) | Stmt::Continue(_) | Stmt::Import(_) => {}
            _ => self.compound(statement, place),
        }
    }

    fn compound(&mut self, statement: &'a Stmt, place: Place) {
        if place.blocks > SAFE_BLOCKS {
            self.unsure(statement, "this many blocks within blocks");
        }
        match statement {
            Stmt::For(node) => {
                self.for_loop(&node.target, &node.iter, place);
                self.block(&node.body, place.looped());
                self.block(&node.orelse, place);
            }
            Stmt::AsyncFor(node) => {
                self.asynchronous(statement, place);
                self.for_loop(&node.target, &node.iter, place);
                self.block(&node.body, place.looped());
                self.block(&node.orelse, place);
            }
            Stmt::While(node) => {
                self.values([&*node.test], Role::Condition, place);
                self.block(&node.body, place.looped());
                self.block(&node.orelse, place);
            }
            Stmt::If(node) => {
                self.values([&*node.test], Role::Condition, place);
                self.block(&node.body, place);
                self.block(&node.orelse, place);
            }
            Stmt::With(node) => self.with(statement, &node.items, &node.body, place),
            Stmt::AsyncWith(node) => {
                self.asynchronous(statement, place);
                self.with(statement, &node.items, &node.body, place);
            }
            Stmt::Try(node) => {
                self.try_blocks([&node.body, &node.orelse, &node.finalbody], &node.handlers, place);
            }
            Stmt::TryStar(node) => {
                self.newer(node, "`except*`", 11);
                self.try_blocks([&node.body, &node.orelse, &node.finalbody], &node.handlers, place);
            }
            Stmt::Match(node) => {
                self.newer(node, "`match`", 10);
                let role = if node.subject.is_starred_expr() { Role::Value } else { Role::Element };
                self.values([&*node.subject], role, place);
                for case in &node.cases {
                    self.pattern(&case.pattern);
                    self.values(case.guard.as_deref(), Role::Condition, place);
                    self.block(&case.body, place);
                }
            }
            Stmt::TypeAlias(node) => {
                self.newer(node, "`type`", 12);
                self.annotation(&node.value);
            }
            other => self.doubt(other, "this statement"),
        }
    }

    fn asynchronous(&mut self, statement: &Stmt, place: Place) {
        if place.scope != Scope::Async {
            self.unsure(statement, "`async` here");
        }
    }

    fn for_loop(&mut self, target: &'a Expr, iter: &'a Expr, place: Place) {
        self.target(target, false, place);
        if expression::is_bare_tuple(self.source, iter) && expression::has_star(iter) {
            self.newer(iter, "a starred expression to loop over", 9);
        }
        self.values([iter], Role::Right, place);
    }

    fn with(&mut self, statement: &Stmt, items: &'a [ast::WithItem], body: &'a [Stmt], place: Place) {
        for item in items {
            if expression::follows_paren(self.source, item.context_expr.start().into())
                || expression::begins_paren(self.source, &item.context_expr)
            {
                self.newer(statement, "`with` and a parenthesis", 9);
            }
            self.values([&item.context_expr], Role::Value, place);
            if let Some(target) = item.optional_vars.as_deref() {
                self.target(target, false, place);
            }
        }
        self.block(body, place.within(items.len()));
    }

    fn try_blocks(&mut self, blocks: [&'a [Stmt]; 3], handlers: &'a [ast::ExceptHandler], place: Place) {
        for (index, handler) in handlers.iter().enumerate() {
            let ast::ExceptHandler::ExceptHandler(handler) = handler;
            if handler.type_.is_none() && index + 1 < handlers.len() {
                self.unsure(handler, "`except:` that is not the last");
            }
            self.values(handler.type_.as_deref(), Role::Value, place);
            self.block(&handler.body, place.within(4));
        }
        for block in blocks {
            self.block(block, place.within(4));
        }
    }

    fn class(&mut self, class: &'a ast::StmtClassDef, place: Place) {
        self.newer_parameters(class, &class.type_params);
        self.decorators(&class.decorator_list, place);
        self.values(&class.bases, Role::Argument, place);
        self.values(class.keywords.iter().map(|keyword| &keyword.value), Role::Value, place);
        if let Some(generator) = class.bases.iter().find(|base| base.is_generator_exp_expr()) {
            self.doubt(generator, "a generator as a base class");
        }
        self.block(&class.body, Place::scope(Scope::Class));
    }

    fn function(
        &mut self,
        arguments: &'a ast::Arguments,
        returns: Option<&'a Expr>,
        decorators: &'a [Expr],
        place: Place,
    ) {
        self.decorators(decorators, place);
        self.arguments(arguments, place);
        let annotation = returns.into_iter();
        annotation.for_each(|annotation| self.annotation(annotation));
    }

    /// Parameters: their defaults are of the surrounding scope.
    pub(super) fn arguments(&mut self, arguments: &'a ast::Arguments, place: Place) {
        let positional = arguments.posonlyargs.iter().chain(&arguments.args).chain(&arguments.kwonlyargs);
        for argument in positional {
            self.values(argument.default.as_deref(), Role::Value, place);
            argument.def.annotation.iter().for_each(|annotation| self.annotation(annotation));
        }
        for argument in arguments.vararg.iter().chain(&arguments.kwarg) {
            argument.annotation.iter().for_each(|annotation| self.annotation(annotation));
        }
    }

    /// Whether an annotation may hold an `await` or a `yield` depends on much: outside of any function
    /// they are always asked about.
    fn annotation(&mut self, annotation: &'a Expr) {
        self.values([annotation], Role::Value, Place::MODULE);
    }

    fn decorators(&mut self, decorators: &'a [Expr], place: Place) {
        for decorator in decorators {
            if !expression::is_dotted_call(decorator) {
                self.newer(decorator, "a decorator that is neither a name nor a call of one", 9);
            }
        }
        self.values(decorators, Role::Value, place);
    }

    fn newer_parameters(&mut self, node: &impl Ranged, parameters: &'a [ast::TypeParam]) {
        if !parameters.is_empty() {
            self.newer(node, "type parameters", 12);
        }
    }

    fn import_from(&mut self, node: &'a ast::StmtImportFrom, place: Place) {
        let star = node.names.iter().any(|alias| alias.name.as_str() == "*");
        if star && place.scope != Scope::Module {
            self.unsure(node, "`import *` here");
        }
        if node.module.as_ref().is_some_and(|module| module.as_str() == "__future__")
            && (usize::from(node.end()) > self.futures_end
                || node.names.iter().any(|alias| alias.name.as_str() != "annotations"))
        {
            self.unsure(node, "a `__future__` import");
        }
    }
}

fn futures_end(statements: &[Stmt]) -> usize {
    let docstring = matches!(statements.first(), Some(Stmt::Expr(first))
        if matches!(&*first.value, Expr::Constant(constant) if constant.value.is_str()));
    let imports = statements.iter().skip(usize::from(docstring)).take_while(|statement| is_future(statement));
    imports.last().map_or(0, |import| import.end().into())
}

fn is_future(statement: &Stmt) -> bool {
    matches!(statement, Stmt::ImportFrom(import)
        if import.module.as_ref().is_some_and(|module| module.as_str() == "__future__"))
}
