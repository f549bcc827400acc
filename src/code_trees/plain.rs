//! Plain expressions, told without a parser: literals, names, attributes, calls, subscripts, displays,
//! arithmetic and comparisons, without anything on which versions or parsers differ.
//!
//! Nearly every test's call and expected value is one, and the parser takes several times longer for it
//! than the conversion may cost. What this does not recognise goes to the parser. That it recognises
//! nothing that CPython refuses is tested against both.

use super::lex;

/// How tightly an expression holds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Binding {
    /// Needs parentheses in any expression.
    Loose,
    /// Holds against a comparison.
    Arithmetic,
    /// Holds against everything.
    Primary,
}

/// Brackets within brackets.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// `(`: a group or a tuple.
    Group,
    List,
    Call {
        /// Its one keyword argument has been seen, after which no other argument comes.
        keyword: bool,
    },
    Subscript,
    /// `{` before it is known of what.
    Brace,
    Set,
    Key,
    Value,
}

/// What has to come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// An operand, or the end of what the last token opened or separated.
    OperandOrEnd,
    Operand,
    Operator,
}

/// How tightly `source` binds, if it is a plain expression and nothing else, spaces around it aside.
pub(super) fn binding(source: &str) -> Option<Binding> {
    let mut reader = Reader {
        bytes: source.as_bytes(),
        at: 0,
        frames: [Frame::Group; MAX_DEPTH],
        depth: 0,
        binding: Binding::Primary,
    };
    let mut expect = Expect::Operand;
    loop {
        reader.skip_spaces();
        let Some(byte) = reader.peek(0) else { break };
        expect = match expect {
            Expect::Operator => reader.operator(byte)?,
            _ => reader.operand(byte, expect == Expect::OperandOrEnd)?,
        };
    }
    (reader.depth == 0 && expect != Expect::Operand).then_some(reader.binding)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    frames: [Frame; MAX_DEPTH],
    depth: usize,
    /// Of what is outside of all brackets.
    binding: Binding,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn skip_spaces(&mut self) {
        // Lines end only inside of brackets, and no line of an expression begins with a space outside.
        while let Some(byte) = self.peek(0) {
            if byte == b' ' || (byte == b'\n' && self.depth > 0) {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn push(&mut self, frame: Frame) -> Option<Expect> {
        *self.frames.get_mut(self.depth)? = frame;
        self.depth += 1;
        self.at += 1;
        Some(if frame == Frame::Subscript { Expect::Operand } else { Expect::OperandOrEnd })
    }

    fn top(&mut self) -> Option<&mut Frame> {
        self.depth.checked_sub(1).map(|at| &mut self.frames[at])
    }

    fn loosen(&mut self, binding: Binding) {
        if self.depth == 0 {
            self.binding = self.binding.min(binding);
        }
    }

    fn operand(&mut self, byte: u8, or_end: bool) -> Option<Expect> {
        match byte {
            b'-' | b'+' | b'~' => {
                self.loosen(Binding::Arithmetic);
                self.at += 1;
                Some(Expect::Operand)
            }
            b'0'..=b'9' => self.number(),
            b'\'' | b'"' => self.string(self.at),
            b'(' => self.push(Frame::Group),
            b'[' => self.push(Frame::List),
            b'{' => self.push(Frame::Brace),
            b')' | b']' | b'}' if or_end => self.close(byte),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.name(),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Expect> {
        let number = lex::number(self.bytes, self.at);
        self.at = number.end;
        number.plain.then_some(Expect::Operator)
    }

    /// A string without escapes beyond the simplest, alone.
    fn string(&mut self, start: usize) -> Option<Expect> {
        let prefix = lex::prefix(&self.bytes[start..self.at])?;
        let literal = lex::string(self.bytes, self.at);
        let content = self.bytes.get(self.at + 1..literal.end - 1)?;
        if !literal.terminated || literal.quotes != 1 || prefix.format {
            return None;
        }
        let mut before = 0;
        for &byte in content {
            let escape = before == b'\\';
            let known = matches!(byte, b'\\' | b'\'' | b'"' | b'n' | b't' | b'r' | b'0');
            if byte < b' ' || (escape && !prefix.raw && !known) || (prefix.bytes && !byte.is_ascii()) {
                return None;
            }
            before = if escape { 0 } else { byte };
        }
        self.at = literal.end;
        Some(Expect::Operator)
    }

    fn name(&mut self) -> Option<Expect> {
        let start = self.at;
        self.at = lex::name_end(self.bytes, start);
        if matches!(self.peek(0), Some(b'\'' | b'"')) {
            return self.string(start);
        }
        let name = &self.bytes[start..self.at];
        if !name.is_ascii() || (is_keyword(name) && !is_constant(name)) {
            return None;
        }
        self.skip_spaces();
        if self.peek(0) == Some(b'=') && self.peek(1) != Some(b'=') {
            let starts_argument =
                self.bytes[..start].trim_ascii_end().last().is_some_and(|b| b"(,".contains(b));
            match self.top() {
                Some(Frame::Call { keyword }) if !*keyword && starts_argument && !is_constant(name) => {
                    *keyword = true;
                }
                _ => return None,
            }
            self.at += 1;
            return Some(Expect::Operand);
        }
        Some(Expect::Operator)
    }

    fn operator(&mut self, byte: u8) -> Option<Expect> {
        let next = self.peek(1);
        let length = match (byte, next) {
            (b'(', _) => return self.push(Frame::Call { keyword: false }),
            (b'[', _) => return self.push(Frame::Subscript),
            (b')' | b']' | b'}', _) => return self.close(byte),
            (b',', _) => return self.comma(),
            (b':', _) => return self.colon(),
            (b'.', _) => return self.attribute(),
            (b'*', Some(b'*')) | (b'/', Some(b'/')) | (b'<', Some(b'<')) | (b'>', Some(b'>')) => 2,
            (b'=' | b'!' | b'<' | b'>', Some(b'=')) => {
                self.loosen(Binding::Loose);
                self.at += 2;
                return Some(Expect::Operand);
            }
            (b'<' | b'>', _) => {
                self.loosen(Binding::Loose);
                1
            }
            (b'+' | b'-' | b'*' | b'/' | b'%' | b'@' | b'&' | b'|' | b'^', _) => 1,
            (b'a' | b'o', _) => self.boolean()?,
            _ => return None,
        };
        self.loosen(Binding::Arithmetic);
        self.at += length;
        // `+=` and its like are statements.
        (self.peek(0) != Some(b'=')).then_some(Expect::Operand)
    }

    /// `and` and `or`.
    fn boolean(&mut self) -> Option<usize> {
        let name = &self.bytes[self.at..lex::name_end(self.bytes, self.at)];
        self.loosen(Binding::Loose);
        matches!(name, b"and" | b"or").then_some(name.len())
    }

    fn attribute(&mut self) -> Option<Expect> {
        self.at += 1;
        self.skip_spaces();
        let start = self.at;
        if !lex::begins_name(self.peek(0)?) {
            return None;
        }
        self.at = lex::name_end(self.bytes, start);
        let name = &self.bytes[start..self.at];
        let string = matches!(self.peek(0), Some(b'\'' | b'"'));
        (name.is_ascii() && !is_keyword(name) && !string).then_some(Expect::Operator)
    }

    fn comma(&mut self) -> Option<Expect> {
        self.at += 1;
        match self.top() {
            None => self.binding = Binding::Loose,
            Some(Frame::Call { keyword: true } | Frame::Key) => return None,
            Some(frame @ Frame::Brace) => *frame = Frame::Set,
            Some(frame @ Frame::Value) => *frame = Frame::Key,
            Some(_) => {}
        }
        Some(Expect::OperandOrEnd)
    }

    fn colon(&mut self) -> Option<Expect> {
        self.at += 1;
        match self.top()? {
            frame @ (Frame::Brace | Frame::Key) => *frame = Frame::Value,
            _ => return None,
        }
        Some(Expect::Operand)
    }

    fn close(&mut self, byte: u8) -> Option<Expect> {
        // A key needs a value: nothing may stand between the last comma and the brace.
        let separated = matches!(self.bytes[..self.at].trim_ascii_end().last(), Some(b',' | b'{'));
        let matches = match (self.top()?, byte) {
            (Frame::Group | Frame::Call { .. }, b')') | (Frame::List | Frame::Subscript, b']') => true,
            (Frame::Brace | Frame::Set | Frame::Value, b'}') => true,
            (Frame::Key, b'}') => separated,
            _ => false,
        };
        self.depth -= 1;
        self.at += 1;
        matches.then_some(Expect::Operator)
    }
}

fn is_constant(name: &[u8]) -> bool {
    matches!(name, b"True" | b"False" | b"None")
}

/// Keywords, and the one name that is refused in places.
fn is_keyword(name: &[u8]) -> bool {
    is_constant(name)
        || matches!(
            name,
            b"and"
                | b"as"
                | b"assert"
                | b"async"
                | b"await"
                | b"break"
                | b"class"
                | b"continue"
                | b"def"
                | b"del"
                | b"elif"
                | b"else"
                | b"except"
                | b"finally"
                | b"for"
                | b"from"
                | b"global"
                | b"if"
                | b"import"
                | b"in"
                | b"is"
                | b"lambda"
                | b"nonlocal"
                | b"not"
                | b"or"
                | b"pass"
                | b"raise"
                | b"return"
                | b"try"
                | b"while"
                | b"with"
                | b"yield"
                | b"__debug__"
        )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("f(1, -2.5e3, 'a', x=[1, (2,), {}, {1: 2, 'k': [3]}, {1, 2}])", Some(Binding::Primary))]
    #[case(" a.b[0](1)(2).c ", Some(Binding::Primary))]
    #[case("-1", Some(Binding::Arithmetic))]
    #[case("a + b ** -c", Some(Binding::Arithmetic))]
    #[case("a < b", Some(Binding::Loose))]
    #[case("a and b or c", Some(Binding::Loose))]
    #[case("1, 2", Some(Binding::Loose))]
    #[case("1,", Some(Binding::Loose))]
    #[case("(1, 2)", Some(Binding::Primary))]
    #[case("f(\n  1,\n)", Some(Binding::Primary))]
    #[case("", None)]
    #[case(",", None)]
    #[case("()", Some(Binding::Primary))]
    #[case("(,)", None)]
    #[case("a b", None)]
    #[case("a = 1", None)]
    #[case("a == 1", Some(Binding::Loose))]
    #[case("a += 1", None)]
    #[case("a := 1", None)]
    #[case("f(a=1, b=2)", None)]
    #[case("f(a=1, 2)", None)]
    #[case("f(a.b=1)", None)]
    #[case("f(-a=1)", None)]
    #[case("f(None=1)", None)]
    #[case("{1: 2, 3}", None)]
    #[case("{1, 2: 3}", None)]
    #[case("{1:}", None)]
    #[case("{1: 2,}", Some(Binding::Primary))]
    #[case("a[]", None)]
    #[case("a[1:2]", None)]
    #[case("(1", None)]
    #[case("(1]", None)]
    #[case("1\n2", None)]
    #[case("a\n", None)]
    #[case("f(*a)", None)]
    #[case("lambda: 1", None)]
    #[case("not a", None)]
    #[case("a if b else c", None)]
    #[case("1 .real", Some(Binding::Primary))]
    #[case("1.real", None)]
    #[case("a.1", None)]
    #[case("a.None", None)]
    #[case("é", None)]
    #[case("'é'", Some(Binding::Primary))]
    #[case("b'é'", None)]
    #[case(r"'\x'", None)]
    #[case(r"'\'' + '\\'", Some(Binding::Arithmetic))]
    #[case("'a' 'b'", None)]
    #[case("f'{x}'", None)]
    #[case("a andb", None)]
    #[case("1 or2", None)]
    #[case("f(# c\n)", None)]
    #[case("f();", None)]
    fn expressions(#[case] source: &str, #[case] expected: Option<Binding>) {
        assert_eq!(binding(source), expected);
    }
}
