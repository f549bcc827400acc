//! F-strings, of which each version of Python has its own idea.

/// What is known of an f-string without parsing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    /// Every version from 3.8 on reads it alike.
    pub(super) plain: bool,
    /// Levels that the trees of its fields have at most.
    pub(super) levels: usize,
}

/// Looks at what is between the quotes of an f-string.
pub(super) fn format(content: &[u8], quote: u8, raw: bool) -> Format {
    Format { plain: Fields { content, at: 0, quote, raw }.literal().is_some(), levels: levels(content) }
}

/// Everything that could nest, from the first brace on: the parser cuts fields by rules of its own, so
/// these are not looked for.
fn levels(content: &[u8]) -> usize {
    let Some(first) = content.iter().position(|&b| b == b'{') else { return 0 };
    content[first..].iter().filter(|b| b.is_ascii_punctuation() || b.is_ascii_whitespace()).count()
}

struct Fields<'a> {
    content: &'a [u8],
    at: usize,
    quote: u8,
    raw: bool,
}

impl Fields<'_> {
    fn peek(&self) -> Option<u8> {
        self.content.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The text around the fields. `None`: not plain.
    fn literal(mut self) -> Option<()> {
        while let Some(byte) = self.next() {
            match byte {
                b'{' | b'}' if self.peek() == Some(byte) => self.at += 1,
                b'{' => self.field()?,
                b'}' => return None,
                b'\\' if self.raw => {
                    // A raw string's backslash before a brace has meant different things.
                    if matches!(self.peek(), Some(b'{' | b'}')) {
                        return None;
                    }
                }
                b'\\' => {
                    if matches!(self.next()?, b'N' | b'{' | b'}') {
                        return None;
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    /// An expression without anything that could end it early, then its conversion and format.
    fn field(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        let mut empty = true;
        loop {
            let byte = self.next()?;
            match byte {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.checked_sub(1)?,
                b'\'' | b'"' if byte != self.quote => self.string(byte)?,
                b'=' | b'!' | b'<' | b'>' if self.peek() == Some(b'=') => self.at += 1,
                b'=' if depth > 0 => {}
                b':' if depth > 0 && self.peek() != Some(b'=') => {}
                b'!' | b':' | b'}' if depth == 0 && !empty => return self.close(byte),
                b' ' => continue,
                b'_' | b'.' | b',' | b'+' | b'-' | b'*' | b'/' | b'%' | b'&' | b'|' | b'^' | b'<' | b'>' => {}
                _ if byte.is_ascii_alphanumeric() => {
                    let start = self.at - 1;
                    self.at = super::lex::name_end(self.content, start);
                    if self.content[start..self.at].starts_with(b"lambda") {
                        return None;
                    }
                }
                _ => return None,
            }
            empty = false;
        }
    }

    /// A string within a field, with nothing in it that matters to anyone.
    fn string(&mut self, quote: u8) -> Option<()> {
        loop {
            match self.next()? {
                byte if byte == quote => return Some(()),
                b'\\' | b'{' | b'}' | b'#' | b'\n' | b'\r' | b'\'' | b'"' => return None,
                _ => {}
            }
        }
    }

    /// From the `!`, `:` or `}` behind the expression.
    fn close(&mut self, byte: u8) -> Option<()> {
        let mut byte = byte;
        if byte == b'!' {
            if !matches!(self.next()?, b'r' | b's' | b'a') {
                return None;
            }
            byte = self.next()?;
        }
        match byte {
            b'}' => return Some(()),
            b':' => {}
            _ => return None,
        }
        loop {
            match self.next()? {
                b'}' => return Some(()),
                b'{' => self.name_field()?,
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    /// `{width}` within a format.
    fn name_field(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek()?.is_ascii_alphabetic() || self.peek()? == b'_' {
            self.at += 1;
        }
        (self.at > start && self.next()? == b'}').then_some(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a {x} {{}} {y.z[0]!r:>10}", true)]
    #[case("{x:{width}.{digits}f}", true)]
    #[case("{d['k']} {f(a=1, b=2)} {a == b} {s[1:2]}", true)]
    #[case("{d[\"k\"]}", false)]
    #[case("{x=}", false)]
    #[case("{}", false)]
    #[case("{ }", false)]
    #[case("}", false)]
    #[case("{a", false)]
    #[case(r"{'\n'.join(a)}", false)]
    #[case(r"\N{DASH}", false)]
    #[case("{(lambda: 1)()}", false)]
    #[case("{(x := 1)}", false)]
    #[case("{ {1: 2}[1] }", false)]
    #[case("{x!z}", false)]
    fn plain_formats(#[case] content: &str, #[case] plain: bool) {
        assert_eq!(format(content.as_bytes(), b'"', false).plain, plain);
    }
}
