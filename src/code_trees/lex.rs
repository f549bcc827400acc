//! Where a token of Python ends. Offsets are bytes; nothing here recurses or allocates.

/// Decimal digits beyond which CPython refuses an integer literal.
const MAX_DIGITS: usize = 4_300;

/// A byte that can begin a name. Whether a character beyond ASCII may, only an interpreter knows.
pub(super) fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// The end of the name that begins at `at`.
pub(super) fn name_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    at + rest.iter().position(|&b| !(begins_name(b) || b.is_ascii_digit())).unwrap_or(rest.len())
}

/// Whether all characters of a name beyond ASCII are letters that every Python has known: of Latin, Greek,
/// Cyrillic, kana, Han and Hangul.
pub(super) fn are_old_letters(name: &[u8]) -> bool {
    str::from_utf8(name).is_ok_and(|name| {
        name.chars().filter(|c| !c.is_ascii()).all(|c| {
            matches!(c, '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{17f}' | '\u{3b1}'..='\u{3c9}'
                | '\u{391}'..='\u{3a1}' | '\u{3a3}'..='\u{3a9}' | '\u{410}'..='\u{44f}' | '\u{3041}'..='\u{3096}'
                | '\u{30a1}'..='\u{30fa}' | '\u{4e00}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7a3}')
        })
    })
}

/// A number, as far as the characters of numbers go.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub(super) end: usize,
    /// Every version of Python reads exactly this as one number.
    pub(super) plain: bool,
}

/// The number that begins at `at`, with all that sticks to it.
pub(super) fn number(bytes: &[u8], at: usize) -> Number {
    let mut end = at;
    while let Some(&byte) = bytes.get(end) {
        let exponent = end > at && matches!(bytes[end - 1], b'e' | b'E') && !is_hex(&bytes[at..end]);
        let sign = matches!(byte, b'+' | b'-') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        if !(exponent && sign || byte == b'.' || begins_name(byte) || byte.is_ascii_digit()) {
            break;
        }
        end += 1;
    }
    Number { end, plain: is_plain_number(&bytes[at..end]) }
}

fn is_hex(text: &[u8]) -> bool {
    matches!(text, [b'0', b'x' | b'X', ..])
}

fn is_plain_number(text: &[u8]) -> bool {
    match text {
        [b'0', b'x' | b'X', digits @ ..] => groups(digits, u8::is_ascii_hexdigit, true),
        [b'0', b'o' | b'O', digits @ ..] => groups(digits, |b| matches!(b, b'0'..=b'7'), true),
        [b'0', b'b' | b'B', digits @ ..] => groups(digits, |b| matches!(b, b'0' | b'1'), true),
        _ => is_plain_decimal(text),
    }
}

fn is_plain_decimal(text: &[u8]) -> bool {
    let (text, imaginary) = match text {
        [rest @ .., b'j' | b'J'] => (rest, true),
        _ => (text, false),
    };
    let digits = u8::is_ascii_digit;
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let exponent_ok = exponent.is_none_or(|text| {
        groups(text.strip_prefix(b"+").or(text.strip_prefix(b"-")).unwrap_or(text), digits, false)
    });
    let point = mantissa.iter().position(|&b| b == b'.');
    let Some(point) = point else {
        let whole = groups(mantissa, digits, false) && mantissa.len() <= MAX_DIGITS;
        let float = imaginary || exponent.is_some();
        let zeros = mantissa.first() == Some(&b'0') && mantissa.iter().any(|b| (b'1'..=b'9').contains(b));
        return whole && exponent_ok && (float || !zeros);
    };
    let (before, after) = (&mantissa[..point], &mantissa[point + 1..]);
    exponent_ok
        && (!before.is_empty() || !after.is_empty())
        && (before.is_empty() || groups(before, digits, false))
        && (after.is_empty() || groups(after, digits, false))
}

/// Digits with single underscores between them; `leading` allows one before them.
fn groups(text: &[u8], digit: impl Fn(&u8) -> bool, leading: bool) -> bool {
    let mut digit_before = leading;
    for byte in text {
        match byte {
            b'_' if digit_before => digit_before = false,
            _ if digit(byte) => digit_before = true,
            _ => return false,
        }
    }
    digit_before && text.iter().any(digit)
}

/// A string literal from its first quote on.
pub(super) struct Literal {
    /// Behind the closing quotes, or where the string breaks off.
    pub(super) end: usize,
    /// Quotes on either side: 1 or 3.
    pub(super) quotes: usize,
    pub(super) terminated: bool,
}

/// The string literal whose first quote is at `at`.
pub(super) fn string(bytes: &[u8], at: usize) -> Literal {
    let quote = bytes[at];
    let quotes = if bytes[at..].starts_with(&[quote; 3]) { 3 } else { 1 };
    let mut end = at + quotes;
    loop {
        match bytes.get(end) {
            None => return Literal { end, quotes, terminated: false },
            Some(b'\\') => {
                end += if bytes[end + 1..].starts_with(b"\r\n") { 3 } else { 2 };
                end = end.min(bytes.len());
            }
            Some(b'\n' | b'\r') if quotes == 1 => return Literal { end, quotes, terminated: false },
            Some(&byte) if byte == quote && (quotes == 1 || bytes[end..].starts_with(&[quote; 3])) => {
                return Literal { end: end + quotes, quotes, terminated: true };
            }
            Some(_) => end += 1,
        }
    }
}

/// What the letters before a quote say about the string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix {
    pub(super) raw: bool,
    pub(super) bytes: bool,
    pub(super) format: bool,
}

/// The prefix of a string, where every version of Python knows it.
pub(super) fn prefix(name: &[u8]) -> Option<Prefix> {
    let mut lower = [0; 2];
    if name.len() > 2 {
        return None;
    }
    lower[..name.len()].copy_from_slice(name);
    lower.make_ascii_lowercase();
    let (raw, bytes, format) = match &lower[..name.len()] {
        b"" | b"u" => (false, false, false),
        b"r" => (true, false, false),
        b"b" => (false, true, false),
        b"rb" | b"br" => (true, true, false),
        b"f" => (false, false, true),
        b"rf" | b"fr" => (true, false, true),
        _ => return None,
    };
    Some(Prefix { raw, bytes, format })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", 1, true)]
    #[case("00_0", 4, true)]
    #[case("012", 3, false)]
    #[case("012.5", 5, true)]
    #[case("1_000", 5, true)]
    #[case("1__0", 4, false)]
    #[case("1_", 2, false)]
    #[case("0x_fF", 5, true)]
    #[case("0xe+1", 3, true)]
    #[case("1e+5)", 4, true)]
    #[case("1e+x", 2, false)]
    #[case(".5e1_0j", 7, true)]
    #[case("1.", 2, true)]
    #[case("1._5", 4, false)]
    #[case("1..real", 7, false)]
    #[case("1if x", 3, false)]
    #[case("0b12", 4, false)]
    #[case("0o", 2, false)]
    #[case("09j", 3, true)]
    fn numbers(#[case] text: &str, #[case] end: usize, #[case] plain: bool) {
        let found = number(text.as_bytes(), 0);
        assert_eq!((found.end, found.plain), (end, plain));
    }

    #[rstest]
    #[case("'a' b", 3, true)]
    #[case(r"'\'' b", 4, true)]
    #[case("''", 2, true)]
    #[case("''''a''' b", 8, true)]
    #[case("'''a''", 6, false)]
    #[case("'a\n'", 2, false)]
    #[case("'a\\\r\n'", 6, true)]
    #[case(r"'\", 2, false)]
    fn strings(#[case] text: &str, #[case] end: usize, #[case] terminated: bool) {
        let found = string(text.as_bytes(), 0);
        assert_eq!((found.end, found.terminated), (end, terminated));
    }
}
