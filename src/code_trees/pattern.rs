//! The part of [`super::check`] that is about the patterns of `case`.

use rustpython_parser::ast::{Constant, Expr, Pattern, Ranged as _};

use super::check::Walk;
use super::expression::follows_paren;

impl<'a> Walk<'a> {
    /// Holds a pattern against rules that the parser does not have: where stars stand, and what is a literal.
    pub(super) fn pattern(&mut self, pattern: &'a Pattern) {
        let mut work = vec![(pattern, false)];
        while let Some((pattern, in_sequence)) = work.pop() {
            match pattern {
                Pattern::MatchStar(star) => {
                    let alone = self.source[usize::from(star.end()).min(self.source.len())..]
                        .starts_with(')')
                        && follows_paren(self.source, star.start().into());
                    if !in_sequence || alone {
                        self.doubt(star, "a starred pattern here");
                    }
                }
                Pattern::MatchValue(node) => self.literal(&node.value),
                Pattern::MatchMapping(node) => {
                    node.keys.iter().for_each(|key| self.literal(key));
                    work.extend(node.patterns.iter().map(|pattern| (pattern, false)));
                }
                Pattern::MatchSequence(node) => {
                    work.extend(node.patterns.iter().map(|pattern| (pattern, true)));
                }
                Pattern::MatchClass(node) => {
                    let patterns = node.patterns.iter().chain(&node.kwd_patterns);
                    work.extend(patterns.map(|pattern| (pattern, false)));
                }
                Pattern::MatchOr(node) => {
                    work.extend(node.patterns.iter().map(|pattern| (pattern, false)));
                }
                Pattern::MatchAs(node) => work.extend(node.pattern.iter().map(|pattern| (&**pattern, false))),
                Pattern::MatchSingleton(_) => {}
            }
        }
    }

    /// A sum is a complex number, and an f-string no literal.
    fn literal(&mut self, value: &'a Expr) {
        match value {
            Expr::BinOp(sum) => {
                let is = |value: &Expr, complex: bool| {
                    let value = if let Expr::UnaryOp(minus) = value { &minus.operand } else { value };
                    matches!(value, Expr::Constant(constant)
                        if matches!(constant.value, Constant::Complex { .. }) == complex)
                };
                if !is(&sum.left, false) || !is(&sum.right, true) {
                    self.doubt(value, "a sum as a pattern");
                }
            }
            Expr::JoinedStr(_) => self.doubt(value, "an f-string as a pattern"),
            _ => {}
        }
    }
}
