//! One linear pass over a source, before anything recursive sees it: how deep it nests, where its last
//! statement is, what breaks the rules of every Python, and where versions or parsers may disagree.

use std::ops::Range;

use super::answer::{Invalid, Rule, Unknown};
use super::fstring;
use super::indent::{Indentation, Indents};
use super::lex;
use super::limits::{Limit, Limits};

/// Brackets within brackets, and blocks within blocks, that every CPython manages.
const SAFE_BRACKETS: usize = 50;
const SAFE_LEVELS: usize = 300;
/// What every CPython refuses: 200 brackets, 100 blocks. Counted with a little room.
const MAX_BRACKETS: usize = 190;
const MAX_BLOCKS: usize = 95;
/// Levels within f-strings, which count for the stack alone.
const MAX_FORMAT_LEVELS: usize = 20_000;

/// What the pass found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Levels of the tree, from above.
    pub(super) levels: usize,
    /// Levels within f-strings, from above. Each f-string is parsed by a parser within the parser.
    pub(super) format_levels: usize,
    pub(super) has_format: bool,
    /// There is an f-string that not every version reads alike.
    pub(super) has_odd_format: bool,
    /// The first rule of every Python that it breaks.
    pub(super) invalid: Option<Invalid>,
    /// Why the parser's success would mean nothing.
    pub(super) doubt: Option<Unknown>,
    /// Why its success would not mean that CPython compiles it.
    pub(super) unsure: Option<Unknown>,
    /// The last simple statement that begins a line, or follows a `;`: its first to its last token.
    pub(super) last: Range<usize>,
    /// Comments that declare an encoding other than UTF-8, or would if the line before them did not.
    pub(super) encodings: Vec<Range<usize>>,
    /// Beginnings of lines that are not inside of a string.
    pub(super) lines: Vec<usize>,
}

/// An open bracket, or the statement around all of them.
struct Frame {
    open: u8,
    /// Levels since the last comma.
    chain: usize,
    /// Lambdas whose parameters are not over: their commas separate parameters.
    lambdas: usize,
}

/// Scans `source`, which has to be within the size that `limits` allow.
pub(super) fn scan(source: &str, limits: &Limits) -> Result<Scan, Limit> {
    let mut scanner = Scanner {
        bytes: source.as_bytes(),
        at: 0,
        line: 1,
        limits,
        frames: vec![Frame { open: 0, chain: 0, lambdas: 0 }],
        chains: 0,
        indents: Indents::default(),
        elifs: vec![0],
        line_begins: true,
        statement_begins: true,
        token: Token::None,
        found: Scan { lines: vec![0], ..Scan::default() },
    };
    scanner.run()?;
    Ok(scanner.found)
}

/// The last token of the logical line, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    None,
    Colon,
    Other,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
    limits: &'a Limits,
    frames: Vec<Frame>,
    /// Sum of the frames' chains.
    chains: usize,
    indents: Indents,
    /// `elif`s in a row, for each block.
    elifs: Vec<usize>,
    /// Before the first token of a logical line.
    line_begins: bool,
    /// Before the first token of a simple statement.
    statement_begins: bool,
    token: Token,
    found: Scan,
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), Limit> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\t' if self.line_begins => self.indentation(),
                b' ' | b'\t' => self.at += 1,
                b'\n' | b'\r' => self.newline(),
                b'#' => self.comment(),
                b'\\' => self.continuation(),
                0x0c => {
                    self.unsure("a form feed between tokens");
                    self.at += 1;
                }
                _ => {
                    self.begin_token();
                    self.one_token(byte);
                    self.end_token()?;
                }
            }
        }
        self.finish();
        Ok(())
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn doubt(&mut self, what: &'static str) {
        let line = self.line;
        self.found.doubt.get_or_insert(Unknown::Judgement { line, what });
    }

    fn unsure(&mut self, what: &'static str) {
        let line = self.line;
        self.found.unsure.get_or_insert(Unknown::Judgement { line, what });
    }

    /// A rule is broken, if the pass has not lost its way before.
    fn broken(&mut self, rule: Rule) {
        if self.found.invalid.is_some() || self.found.doubt.is_some() {
            return;
        }
        if self.found.unsure.is_some() {
            self.doubt("what follows something on which versions differ");
        } else {
            self.found.invalid = Some(Invalid { line: self.line, rule });
        }
    }

    fn top(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the statement's frame is never popped")
    }

    fn link(&mut self) {
        self.top().chain += 1;
        self.chains += 1;
    }

    fn cut(&mut self) {
        let chain = std::mem::take(&mut self.top().chain);
        self.chains -= chain;
    }

    fn in_brackets(&self) -> bool {
        self.frames.len() > 1
    }

    fn indentation(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(rest.len());
    }

    fn line_start(&self) -> usize {
        *self.found.lines.last().unwrap_or(&0)
    }

    fn newline(&mut self) {
        if self.bytes[self.at] == b'\r' && self.peek(1) != Some(b'\n') {
            self.unsure("a carriage return without a line feed");
        }
        self.at += if self.bytes[self.at..].starts_with(b"\r\n") { 2 } else { 1 };
        self.line += 1;
        self.found.lines.push(self.at);
        if !self.in_brackets() && !self.line_begins {
            self.indents.open_block(self.token == Token::Colon);
            self.cut();
            self.line_begins = true;
            self.statement_begins = true;
            self.token = Token::None;
        }
    }

    fn comment(&mut self) {
        let rest = &self.bytes[self.at..];
        let end = self.at + rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
        let text = &self.bytes[self.at..end];
        if text.contains(&0) {
            self.doubt("a null byte");
        }
        let alone = self.bytes[self.line_start()..self.at].iter().all(|b| matches!(b, b' ' | b'\t' | 0x0c));
        if self.line <= 2 && alone && self.line_begins && declares_other_encoding(text) {
            self.unsure("a program in an encoding other than UTF-8");
            self.found.encodings.push(self.at..end);
        }
        self.at = end;
    }

    fn continuation(&mut self) {
        let newline = match (self.peek(1), self.peek(2)) {
            (Some(b'\r'), Some(b'\n')) => 2,
            (Some(b'\n' | b'\r'), _) => 1,
            _ => 0,
        };
        if newline == 0 {
            self.broken(Rule::Backslash);
            self.doubt("what follows a stray backslash");
            self.at += 1;
            return;
        }
        if self.line_begins {
            self.doubt("a backslash at the beginning of a line");
        }
        self.at += 1 + newline;
        self.line += 1;
        self.found.lines.push(self.at);
        let rest = &self.bytes[self.at..];
        let next = rest.iter().find(|b| !matches!(b, b' ' | b'\t'));
        if matches!(next, None | Some(b'\n' | b'\r' | b'#' | b'\\' | 0x0c)) {
            self.doubt("a backslash with nothing on the next line");
        }
    }

    fn begin_token(&mut self) {
        if self.line_begins {
            self.line_begins = false;
            let before = &self.bytes[self.line_start()..self.at];
            // A form feed starts the line anew.
            let before = before.rsplit(|b| *b == 0x0c).next().unwrap_or_default();
            let indent = Indentation::of(before);
            match self.indents.begin_line(indent) {
                Ok(()) => {}
                Err(Some(rule)) => self.broken(rule),
                Err(None) => self.doubt("indentation of tabs and spaces"),
            }
            if self.indents.mixed() {
                self.unsure("indentation of tabs and spaces");
            }
            self.elifs.resize(self.indents.depth() + 1, 0);
        }
        if std::mem::take(&mut self.statement_begins) {
            self.found.last.start = self.at;
            let name = &self.bytes[self.at..lex::name_end(self.bytes, self.at)];
            let elifs = self.elifs.last_mut().expect("one for the module at least");
            match name {
                b"elif" => *elifs += 1,
                b"else" | b"except" | b"finally" => {}
                _ => *elifs = 0,
            }
        }
    }

    fn end_token(&mut self) -> Result<(), Limit> {
        let elifs: usize = self.elifs.iter().sum();
        let levels = self.chains + self.frames.len() + 2 * self.indents.depth() + elifs;
        self.found.levels = self.found.levels.max(levels);
        if levels > self.limits.max_depth {
            return Err(Limit::Depth { levels, max: self.limits.max_depth });
        }
        if self.found.format_levels > MAX_FORMAT_LEVELS {
            return Err(Limit::Depth { levels: self.found.format_levels, max: MAX_FORMAT_LEVELS });
        }
        if self.frames.len() > MAX_BRACKETS || self.indents.depth() > MAX_BLOCKS {
            self.doubt("nesting this deep");
        } else if self.frames.len() > SAFE_BRACKETS || levels > SAFE_LEVELS {
            self.unsure("nesting this deep");
        }
        Ok(())
    }

    fn one_token(&mut self, byte: u8) {
        let mut token = Token::Other;
        match byte {
            b'\'' | b'"' => self.string(self.at),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_some_and(|b| b.is_ascii_digit()) => self.number(),
            _ if lex::begins_name(byte) => self.name(),
            b'(' | b'[' | b'{' => {
                self.link();
                self.frames.push(Frame { open: byte, chain: 0, lambdas: 0 });
                self.at += 1;
            }
            b')' | b']' | b'}' => self.close(byte),
            b';' if !self.in_brackets() => {
                self.cut();
                self.statement_begins = true;
                self.at += 1;
                return;
            }
            _ => token = self.operator(byte),
        }
        self.token = token;
        self.found.last.end = self.at;
    }

    fn operator(&mut self, byte: u8) -> Token {
        self.at += 1;
        let next = self.peek(0);
        match byte {
            b',' if self.top().lambdas == 0 => self.cut(),
            b',' | b';' => {}
            b':' if next == Some(b'=') => self.link(),
            b':' => {
                let frame = self.top();
                frame.lambdas = frame.lambdas.saturating_sub(1);
                return Token::Colon;
            }
            b'!' if next != Some(b'=') => {
                self.broken(Rule::Stray('!'));
                self.doubt("what follows a stray `!`");
            }
            b'$' | b'?' | b'`' => self.doubt("a character that is no part of Python's syntax today"),
            b'=' if matches!(self.bytes.get(self.at.wrapping_sub(2)), Some(b'=' | b'!' | b'<' | b'>')) => {}
            b'*' => {
                self.link();
                self.bare_star(next);
            }
            b'!'..=b'~' => self.link(),
            0 => self.doubt("a null byte"),
            _ => self.doubt("a control character"),
        }
        Token::Other
    }

    /// Stars without a name, of which the parser allows too much: `**` alone, and `*` with no parameter of its
    /// own behind it.
    fn bare_star(&mut self, next: Option<u8>) {
        let solid = |at: usize| {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let skipped = rest.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(rest.len());
            (rest.get(skipped).copied(), at + skipped)
        };
        let (after, at) = solid(self.at);
        let double = self.at >= 2 && self.bytes[self.at - 2] == b'*';
        let bare = match after {
            _ if next == Some(b'*') => false,
            Some(b',') if !double => !solid(at + 1).0.is_some_and(lex::begins_name),
            Some(b',' | b':' | b')') => double,
            // Not worth looking behind.
            Some(b'#' | b'\\') => true,
            _ => false,
        };
        if bare {
            self.doubt("a star without a name");
        }
    }

    fn close(&mut self, byte: u8) {
        self.at += 1;
        let open = match byte {
            b')' => b'(',
            b']' => b'[',
            _ => b'{',
        };
        if self.frames.len() > 1 && self.top().open == open {
            self.cut();
            self.frames.pop();
        } else {
            self.broken(Rule::Unopened(byte.into()));
            self.doubt("what follows an unopened bracket");
        }
    }

    fn number(&mut self) {
        let number = lex::number(self.bytes, self.at);
        if !number.plain {
            // The parser lets names stick to numbers, and reads digits without end.
            self.doubt("a number like this");
        }
        self.at = number.end;
    }

    fn name(&mut self) {
        let start = self.at;
        self.at = lex::name_end(self.bytes, start);
        let name = &self.bytes[start..self.at];
        if matches!(self.peek(0), Some(b'\'' | b'"')) {
            return self.string(start);
        }
        if !name.is_ascii() {
            if lex::are_old_letters(name) {
                // They are compared in a normal form, which makes duplicates.
                self.unsure("names beyond ASCII");
            } else {
                self.doubt("characters beyond ASCII outside of strings");
            }
        }
        match name {
            b"lambda" => {
                self.link();
                self.top().lambdas += 1;
            }
            b"if" | b"else" | b"for" | b"in" | b"not" | b"and" | b"or" | b"is" | b"await" | b"yield"
            | b"from" | b"async" => self.link(),
            b"__debug__" => self.unsure("`__debug__`"),
            _ => {}
        }
    }

    /// The string whose prefix begins at `start`, if it has one. `at` is behind the prefix.
    fn string(&mut self, start: usize) {
        let literal = lex::string(self.bytes, self.at);
        let content =
            self.at + literal.quotes..literal.end - if literal.terminated { literal.quotes } else { 0 };
        let quote = self.bytes[self.at];
        let name = &self.bytes[start..self.at];
        let content = &self.bytes[content.start.min(content.end)..content.end];
        match lex::prefix(name) {
            None => self.doubt("a string with this prefix"),
            Some(prefix) => {
                if prefix.format {
                    let format = fstring::format(content, quote, prefix.raw);
                    self.found.has_format = true;
                    self.found.format_levels = self.found.format_levels.max(format.levels);
                    if !format.plain {
                        self.found.has_odd_format = true;
                        self.unsure("an f-string like this");
                    }
                }
                if prefix.bytes && !content.is_ascii() {
                    self.doubt("bytes beyond ASCII");
                }
                if !prefix.raw && !prefix.bytes && content.windows(2).any(|pair| pair == b"\\N") {
                    self.named_characters(content);
                }
                if content.contains(&0) {
                    self.doubt("a null byte");
                }
            }
        }
        if !literal.terminated {
            self.broken(Rule::Unterminated);
            self.doubt("what follows a string without an end");
        }
        self.at = literal.end;
        self.lines_within(content);
    }

    /// `\N{…}`: the parser is loose about names, and each version of Python knows those of its Unicode.
    fn named_characters(&mut self, content: &[u8]) {
        let text = String::from_utf8_lossy(content);
        let exact = text.split("\\N").skip(1).all(|rest| {
            let name = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(name, _)| name);
            name.is_some_and(|name| {
                let character = unicode_names2::character(name).and_then(unicode_names2::name);
                character.is_some_and(|right| right.to_string().eq_ignore_ascii_case(name))
            })
        });
        if exact {
            self.unsure("a character by its name");
        } else {
            self.doubt("a character by its name");
        }
    }

    /// Counts the lines of a string, none of which begins a line of the program.
    fn lines_within(&mut self, content: &[u8]) {
        let newlines = content.iter().filter(|b| **b == b'\n').count();
        let alone =
            content.iter().enumerate().filter(|(i, b)| **b == b'\r' && content.get(i + 1) != Some(&b'\n'));
        let alone = alone.count();
        if alone > 0 {
            self.unsure("a carriage return without a line feed");
        }
        self.line += newlines + alone;
    }

    fn finish(&mut self) {
        if self.in_brackets() {
            let open = self.top().open;
            self.broken(Rule::Unclosed(open.into()));
            self.doubt("a bracket without an end");
        } else if self.indents.block_missing() || self.token == Token::Colon {
            self.broken(Rule::MissingBlock);
        }
    }
}

/// Whether a comment on the first or second line declares an encoding that is not UTF-8.
fn declares_other_encoding(comment: &[u8]) -> bool {
    let mut rest = comment;
    while let Some(at) = rest.windows(6).position(|window| window == b"coding") {
        rest = &rest[at + 6..];
        let [b':' | b'=', name @ ..] = rest else { continue };
        let name: Vec<u8> = name
            .iter()
            .skip_while(|b| matches!(b, b' ' | b'\t'))
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            .map(|b| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() })
            .collect();
        if !name.is_empty() {
            return !(name == b"utf-8" || name.starts_with(b"utf-8-"));
        }
    }
    false
}
