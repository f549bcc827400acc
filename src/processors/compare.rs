//! Whether an output is the expected one. Pure, and linear in the length of both texts.
//!
//! Each comparator takes a text apart into items and says when two items are the same; the texts agree
//! where all items do, in order (for `unordered_lines`: in any order). White space is ASCII's: U+2028 or a
//! no-break space is content. All of them are symmetric and agree with themselves.

use std::collections::HashMap;
use std::fmt;

/// Most characters that an item is shown with.
const SHOWN_CHARS: usize = 120;

/// How an output is held against the expected one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Comparator {
    /// Byte for byte.
    Exact,
    /// The same words, whatever white space is between them.
    Tokens,
    /// As `Tokens`, without regard to case.
    CaseFolded,
    /// The same lines, without white space at their ends; blank lines at both ends do not count.
    Lines,
    /// The same lines as `Lines` has them, in any order, blank ones left out.
    UnorderedLines,
    /// As `Tokens`, and numbers may differ a little.
    Float(Tolerance),
}

/// When two numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// They differ by this at most, …
    pub absolute: f64,
    /// … or by this share of the larger one.
    pub relative: f64,
    /// What is no number is compared without regard to case.
    pub ignore_case: bool,
}

/// The first place where two texts do not agree; the items are cut for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What the items are: `token` or `line`.
    pub unit: &'static str,
    /// Which, from 1.
    pub number: usize,
    /// The expected item; `None`: there is none left.
    pub expected: Option<String>,
    /// The item that came; `None`: there is none left.
    pub got: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |item: &Option<String>| item.as_ref().map_or("nothing".to_owned(), |it| format!("{it:?}"));
        let (unit, number) = (self.unit, self.number);
        write!(f, "{unit} {number}: expected {}, got {}", shown(&self.expected), shown(&self.got))
    }
}

impl Comparator {
    /// Their names.
    pub const NAMES: [&str; 6] = ["exact", "tokens", "case_folded", "lines", "unordered_lines", "float"];

    /// The comparator of this name; `tolerance` is that of `float`.
    #[must_use]
    pub fn named(name: &str, tolerance: Tolerance) -> Option<Self> {
        Some(match name {
            "exact" => Self::Exact,
            "tokens" => Self::Tokens,
            "case_folded" => Self::CaseFolded,
            "lines" => Self::Lines,
            "unordered_lines" => Self::UnorderedLines,
            "float" => Self::Float(tolerance),
            _ => return None,
        })
    }

    /// The first difference; `None`: the texts agree.
    #[must_use]
    pub fn difference(&self, expected: &str, got: &str) -> Option<Difference> {
        match self {
            Self::Exact if expected == got => None,
            Self::Exact => first("line", expected.split_inclusive('\n'), got.split_inclusive('\n'), str::eq),
            Self::Tokens => first("token", tokens(expected), tokens(got), str::eq),
            Self::CaseFolded => first("token", tokens(expected), tokens(got), same_folded),
            Self::Lines => first("line", lines(expected), lines(got), str::eq),
            Self::UnorderedLines => unordered(expected, got),
            Self::Float(tolerance) => {
                first("token", tokens(expected), tokens(got), |a, b| tolerance.same(a, b))
            }
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|token| !token.is_empty())
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim_matches(is_space);
    // Nothing is no line, and not one empty line.
    text.split('\n').map(|line| line.trim_matches(is_space)).filter(move |_| !text.is_empty())
}

/// The first items that are not the same.
fn first<'a>(
    unit: &'static str,
    mut expected: impl Iterator<Item = &'a str>,
    mut got: impl Iterator<Item = &'a str>,
    same: impl Fn(&str, &str) -> bool,
) -> Option<Difference> {
    for number in 1.. {
        match (expected.next(), got.next()) {
            (None, None) => break,
            (Some(expected), Some(got)) if same(expected, got) => {}
            (expected, got) => {
                let (expected, got) = (expected.map(shown), got.map(shown));
                return Some(Difference { unit, number, expected, got });
            }
        }
    }
    None
}

/// The first line of the longer text that the shorter has not, or not as often; else the first of the shorter.
/// It takes as long as the shorter one is.
fn unordered(expected: &str, got: &str) -> Option<Difference> {
    let filled = |text| lines(text).filter(|line| !line.is_empty());
    let difference = |number, line, is_expected: bool| {
        let (line, none) = (Some(shown(line)), None);
        let (expected, got) = if is_expected { (line, none) } else { (none, line) };
        Some(Difference { unit: "line", number, expected, got })
    };
    let expected_is_longer = expected.len() > got.len();
    let (shorter, longer) = if expected_is_longer { (got, expected) } else { (expected, got) };
    // Most outputs are in order.
    let common = filled(shorter).zip(filled(longer)).take_while(|(one, other)| one == other).count();
    let mut left: HashMap<&str, usize> = HashMap::new();
    for line in filled(shorter).skip(common) {
        *left.entry(line).or_default() += 1;
    }
    for (line, number) in filled(longer).zip(1..).skip(common) {
        match left.get_mut(line) {
            Some(count) if *count > 0 => *count -= 1,
            _ => return difference(number, line, expected_is_longer),
        }
    }
    let mut rest = filled(shorter).zip(1..).skip(common);
    let (line, number) = rest.find(|(line, _)| left.get(line).is_some_and(|count| *count > 0))?;
    difference(number, line, !expected_is_longer)
}

/// The same without regard to case: `ß` is `ss`, and `ς` is `σ`.
fn same_folded(a: &str, b: &str) -> bool {
    fn folded(text: &str) -> impl Iterator<Item = char> {
        text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
    }
    a == b || folded(a).eq(folded(b))
}

impl Tolerance {
    /// Whether two words are the same. Whole numbers are, where they are equal; `nan` and `inf` are words.
    fn same(self, a: &str, b: &str) -> bool {
        if a == b || (self.ignore_case && same_folded(a, b)) {
            return true;
        }
        if let (Some(a), Some(b)) = (whole(a), whole(b)) {
            return a == b;
        }
        match (finite(a), finite(b)) {
            (Some(a), Some(b)) => self.close(a, b),
            _ => false,
        }
    }

    /// Whether two finite numbers are close enough.
    #[must_use]
    pub fn close(self, a: f64, b: f64) -> bool {
        let apart = (a - b).abs();
        // Two numbers of a size that their difference is not finite are far apart.
        apart.is_finite() && (apart <= self.absolute || apart <= self.relative * a.abs().max(b.abs()))
    }
}

/// A whole number of any length: whether it is below zero, and its digits.
fn whole(text: &str) -> Option<(bool, &str)> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    Some((text.starts_with('-') && !digits.is_empty(), digits))
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// At most so many characters of it, with a sign where it was cut.
fn shown(item: &str) -> String {
    excerpt(item, SHOWN_CHARS)
}

/// The beginning of a text, for people.
pub(super) fn excerpt(text: &str, most_chars: usize) -> String {
    match text.char_indices().nth(most_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn float(absolute: f64, relative: f64) -> Comparator {
        Comparator::Float(Tolerance { absolute, relative, ignore_case: false })
    }

    fn all() -> [Comparator; 7] {
        use Comparator as C;
        [C::Exact, C::Tokens, C::CaseFolded, C::Lines, C::UnorderedLines, float(1e-6, 1e-6), float(0.0, 0.0)]
    }

    #[test]
    fn each_has_a_name() {
        let tolerance = Tolerance { absolute: 0.0, relative: 0.0, ignore_case: false };
        assert!(Comparator::NAMES.iter().all(|name| Comparator::named(name, tolerance).is_some()));
        assert_eq!(Comparator::named("fuzzy", tolerance), None);
    }

    #[rstest]
    #[case::exact(Comparator::Exact, "a\n", "a\n", true)]
    #[case::exact_newline(Comparator::Exact, "a\n", "a", false)]
    #[case::exact_cr(Comparator::Exact, "a\n", "a\r\n", false)]
    #[case::exact_bom(Comparator::Exact, "a", "\u{feff}a", false)]
    #[case::tokens(Comparator::Tokens, "1 2\n3\n", "1\t2 3", true)]
    #[case::tokens_crlf(Comparator::Tokens, "1 2\n3\n", "1 2\r\n3\r\n\r\n", true)]
    #[case::tokens_case(Comparator::Tokens, "YES", "Yes", false)]
    #[case::tokens_more(Comparator::Tokens, "1", "1 2", false)]
    #[case::tokens_less(Comparator::Tokens, "1 2", "1", false)]
    #[case::tokens_nothing(Comparator::Tokens, "", " \n", true)]
    #[case::tokens_u2028(Comparator::Tokens, "a b", "a\u{2028}b", false)]
    #[case::tokens_nbsp(Comparator::Tokens, "a b", "a\u{a0}b", false)]
    #[case::tokens_nul(Comparator::Tokens, "a", "a\0", false)]
    #[case::folded(Comparator::CaseFolded, "YES nO", "yes No", true)]
    #[case::folded_unicode(Comparator::CaseFolded, "STRASSE ΣΑΣ", "straße σας", true)]
    #[case::folded_other(Comparator::CaseFolded, "yes", "no", false)]
    #[case::lines(Comparator::Lines, "a b\nc\n", " a b \r\nc\n\n", true)]
    #[case::lines_inner(Comparator::Lines, "a b", "a  b", false)]
    #[case::lines_blank_inside(Comparator::Lines, "a\n\nb", "a\nb", false)]
    #[case::lines_nothing(Comparator::Lines, "", "\n\n", true)]
    #[case::lines_nothing_expected(Comparator::Lines, "", "0", false)]
    #[case::unordered(Comparator::UnorderedLines, "a\nb\na\n", "a\na\r\nb", true)]
    #[case::unordered_count(Comparator::UnorderedLines, "a\nb\na\n", "a\nb\nb", false)]
    #[case::unordered_less(Comparator::UnorderedLines, "a\nb", "a", false)]
    #[case::float(float(1e-6, 0.0), "0.5 x", "0.5000001 x", true)]
    #[case::float_far(float(1e-6, 0.0), "0.5", "0.50001", false)]
    #[case::float_relative(float(0.0, 1e-6), "1e10", "1.0000001e10", true)]
    #[case::float_form(float(0.0, 0.0), "1 .5 2.", "1.0 0.50 2e0", true)]
    #[case::float_whole(float(0.0, 0.1), "1000000", "1000001", false)]
    #[case::float_long_whole(
        float(1e-6, 1e-6),
        "10000000000000000000000001",
        "10000000000000000000000000",
        false
    )]
    #[case::float_whole_form(float(0.0, 0.0), "7 0 -3", "+007 -0 -03", true)]
    #[case::float_minus_zero(float(0.0, 0.0), "0.0", "-0.0", true)]
    #[case::float_nan(float(1.0, 1.0), "nan", "nan", true)]
    #[case::float_nan_number(float(1.0, 1.0), "nan", "1", false)]
    #[case::float_inf(float(1.0, 1.0), "inf", "1e308", false)]
    #[case::float_inf_sign(float(1.0, 1.0), "inf", "-inf", false)]
    #[case::float_overflow(float(1.0, 1.0), "1e308", "-1e308", false)]
    #[case::float_beyond(float(1.0, 1.0), "1e999", "2e999", false)]
    #[case::float_word(float(1.0, 1.0), "x", "1", false)]
    fn agree(#[case] comparator: Comparator, #[case] expected: &str, #[case] got: &str, #[case] same: bool) {
        assert_eq!(comparator.difference(expected, got).is_none(), same);
        assert_eq!(comparator.difference(got, expected).is_none(), same, "the other way round");
    }

    #[rstest]
    #[case(Comparator::Exact, "a\nb\n", "a\nb", r#"line 2: expected "b\n", got "b""#)]
    #[case(Comparator::Tokens, "1 2 3", "1 2", r#"token 3: expected "3", got nothing"#)]
    #[case(Comparator::Lines, "a", "a\nb", r#"line 2: expected nothing, got "b""#)]
    #[case(Comparator::UnorderedLines, "a\nb\nc", "c\na", r#"line 2: expected "b", got nothing"#)]
    #[case(Comparator::UnorderedLines, "a", "a\nq", r#"line 2: expected nothing, got "q""#)]
    fn people_see_where(
        #[case] comparator: Comparator,
        #[case] expected: &str,
        #[case] got: &str,
        #[case] says: &str,
    ) {
        assert_eq!(comparator.difference(expected, got).map(|it| it.to_string()).as_deref(), Some(says));
    }

    #[test]
    fn what_is_shown_is_cut_at_a_character() {
        let long = "é".repeat(1 << 20);
        let difference = Comparator::Tokens.difference("x", &long).unwrap();
        assert_eq!(difference.got.unwrap().chars().count(), SHOWN_CHARS + 1);
    }

    #[test]
    fn long_texts_take_no_time_to_speak_of() {
        let size = 1 << 20;
        let texts = ["a".repeat(size), "\n".repeat(size), "a\n".repeat(size / 2), "1.5 ".repeat(size / 4)];
        for text in &texts {
            // One character less, so that all of it is looked at.
            let other = &text[..text.len() - 1];
            for comparator in all() {
                let begun = Instant::now();
                let _ = comparator.difference(text, other);
                let _ = comparator.difference(other, text);
                // A quadratic one would take an hour.
                assert!(begun.elapsed() < Duration::from_secs(30), "{comparator:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_agrees_with_itself(text in any::<String>()) {
            for comparator in all() {
                prop_assert_eq!(comparator.difference(&text, &text), None);
            }
        }

        #[test]
        fn the_order_of_the_two_does_not_count(a in "[ab1.\\- \n\r]{0,12}", b in "[ab1.\\- \n\r]{0,12}") {
            for comparator in all() {
                let there = comparator.difference(&a, &b).is_none();
                prop_assert_eq!(there, comparator.difference(&b, &a).is_none());
            }
        }

        #[test]
        fn the_stricter_imply_the_laxer(a in "[aAb1. \n\r]{0,10}", b in "[aAb1. \n\r]{0,10}") {
            let agree = |comparator: Comparator| comparator.difference(&a, &b).is_none();
            prop_assert!(!agree(Comparator::Exact) || agree(Comparator::Lines));
            prop_assert!(!agree(Comparator::Lines) || agree(Comparator::Tokens));
            prop_assert!(!agree(Comparator::Lines) || agree(Comparator::UnorderedLines));
            prop_assert!(!agree(Comparator::Tokens) || agree(Comparator::CaseFolded));
            prop_assert!(!agree(Comparator::Tokens) || agree(float(0.0, 0.0)));
        }

        #[test]
        fn the_order_of_lines_does_not_count(mut lines in proptest::collection::vec("[a-c]{0,2}", 0..8)) {
            let before = lines.join("\n");
            lines.reverse();
            prop_assert_eq!(Comparator::UnorderedLines.difference(&before, &lines.join("\n")), None);
        }

        #[test]
        fn words_of_any_kind_agree_only_with_their_like(a in "\\PC{0,6}", b in "\\PC{0,6}") {
            if Comparator::Tokens.difference(&a, &b).is_none() {
                prop_assert_eq!(a.split(is_space).collect::<String>(), b.split(is_space).collect::<String>());
            }
        }
    }
}
