//! The parser, on a stack that suffices, within a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use rustpython_parser::ast::Suite;
use rustpython_parser::lexer::{LexResult, LexicalError, LexicalErrorType};
use rustpython_parser::{Mode, Parse, ParseErrorType, lexer};

use super::answer::Unknown;
use super::limits::{Deadline, Limit};
use super::scan::Scan;

/// For one level of the tree: twice what the parser's deepest recursion takes in a debug build.
const STACK_PER_LEVEL: usize = 4 << 10;
/// For the parser itself, once for a program and once for each f-string within an f-string, of which there
/// are four at most: it takes 320 kB in a debug build.
const STACK_OF_PARSER: usize = 4 << 20;
/// Levels for which the caller's own stack does: 0.5 MB in a debug build, 50 kB in a release build.
const LEVELS_IN_PLACE: usize = 64;

/// Parses `source`, of which `scan` told the depth, and hands its statements to `read`: what leaves here
/// is only what `read` makes of them, so a deep tree is dropped on the stack on which it was made.
///
/// A panic of the parser is caught, as a last resort: the tests know of none.
pub(super) fn with_statements<T: Send>(
    source: &str,
    scan: &Scan,
    deadline: Deadline,
    read: impl FnOnce(&Suite) -> T + Send,
) -> Result<T, Unknown> {
    let work = || {
        catch_unwind(AssertUnwindSafe(|| parse(source, deadline).map(|statements| read(&statements))))
            .unwrap_or(Err(Unknown::ParserFailed))
    };
    if scan.levels <= LEVELS_IN_PLACE && !scan.has_format {
        return work();
    }
    let stack = STACK_OF_PARSER + STACK_PER_LEVEL * (scan.levels + scan.format_levels);
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("code-tree".to_owned()).stack_size(stack);
        let thread = builder.spawn_scoped(scope, work).map_err(|error| Unknown::NoThread(error.kind()))?;
        thread.join().unwrap_or(Err(Unknown::ParserFailed))
    })
}

fn parse(source: &str, deadline: Deadline) -> Result<Suite, Unknown> {
    let mut late = None;
    let tokens = Timed { tokens: lexer::lex(source, Mode::Module), deadline, count: 0, late: &mut late };
    let parsed = Suite::parse_tokens(tokens, "<source>");
    if let Some(limit) = late {
        return Err(limit.into());
    }
    parsed.map_err(|error| {
        let offset = usize::from(error.offset).min(source.len());
        let line = 1 + source.as_bytes()[..offset].iter().filter(|b| **b == b'\n').count();
        Unknown::Refused { line, message: message(&error.error) }
    })
}

/// The parser's words, cut where they quote a long token.
fn message(error: &ParseErrorType) -> String {
    let mut text = error.to_string();
    if let Some((end, _)) = text.char_indices().nth(200) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Tokens until the time is over.
struct Timed<'a, T> {
    tokens: T,
    deadline: Deadline,
    count: u32,
    late: &'a mut Option<Limit>,
}

impl<T: Iterator<Item = LexResult>> Iterator for Timed<'_, T> {
    type Item = LexResult;

    fn next(&mut self) -> Option<LexResult> {
        self.count = self.count.wrapping_add(1);
        if self.count.is_multiple_of(64)
            && let Err(limit) = self.deadline.check()
        {
            *self.late = Some(limit);
            return Some(Err(LexicalError::new(LexicalErrorType::Eof, 0.into())));
        }
        self.tokens.next()
    }
}
