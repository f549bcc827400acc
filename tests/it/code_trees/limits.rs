//! Sources made to exhaust whoever parses them.
//!
//! `EVALMILL_FUZZ_CASES=100000 cargo test --release --all-features --test it -- code_trees::limits` is the long
//! run of the random ones.

use std::time::{Duration, Instant};

use evalmill::code_trees::{
    Limit, Limits, TreeError, Unknown, Validity, convert_call_to_assert, is_valid_python,
    is_valid_python_within, safe_ast_parse, safe_ast_parse_within,
};
use proptest::prelude::*;
use rstest::rstest;

use super::mutate::PIECES;

/// `open` and `close` around a middle, `levels` times.
fn nest(open: &str, middle: &str, close: &str, levels: usize) -> String {
    [&open.repeat(levels), middle, &close.repeat(levels)].concat()
}

fn blocks(header: &str, levels: usize) -> String {
    let lines = (0..levels).map(|level| format!("{}{header}\n", " ".repeat(level)));
    lines.chain([format!("{}pass\n", " ".repeat(levels))]).collect()
}

/// Every way to nest, `levels` deep.
fn deep(levels: usize) -> Vec<String> {
    let n = levels;
    let mut sources = vec![
        nest("(", "1", ")", n),
        nest("[", "1", "]", n),
        nest("[", "x", "]", n) + " = 1",
        nest("(x, ", "x", ")", n) + " = 1",
        format!("for {} in y: pass", nest("[", "x", "]", n)),
        format!("del {}", nest("[", "x", "]", n)),
        nest("{1:", "1", "}", n),
        nest("{", "1", "}", n),
        nest("f(", "1", ")", n),
        nest("f(x=", "1", ")", n),
        nest("a[", "1", "]", n),
        nest("a[b:", "1", "]", n),
        nest("a", "", ".b", n),
        nest("a", "", "()", n),
        nest("a", "", "[0]", n),
        nest("-", "1", "", n),
        nest("not ", "1", "", n),
        nest("1 + ", "1", "", n),
        nest("1 ** ", "1", "", n),
        nest("a and b or ", "c", "", n),
        nest("a < ", "b", "", n),
        nest("a if b else ", "c", "", n),
        nest("lambda: ", "c", "", n),
        nest("lambda a, b=1: ", "c", "", n),
        nest("lambda a=", "1", ": 1", n),
        nest("[x for x in ", "y", "]", n),
        nest("f(x for x in ", "y", ")", n),
        nest("(await ", "x", ")", n),
        nest("(yield ", "x", ")", n),
        nest("(x := ", "1", ")", n),
        nest("'a' ", "", "", n),
        nest("*", "x", "", n),
        nest("@a\n", "def f(): pass", "", n),
        nest("a = ", "1", "", n),
        format!("if a: pass\n{}", "elif b: pass\n".repeat(n)),
        format!("match a:\n case {}: pass", nest("[", "b", "]", n)),
        format!("match a:\n case {}: pass", nest("A(x=", "b", ")", n)),
        format!("class A{}: pass", nest("[T: A", "", "]", n)),
        format!("f'{{{}}}'", nest("(", "1", ")", n)),
        format!("f'{{{}}}'", nest("not ", "1", "", n)),
        format!("f'{{x:{}}}'", nest("{x:", "", "}", n)),
        format!("f'''{{f\"\"\"{{f\"{{f'{{{}}}'}}\"}}\"\"\"}}'''", nest("-", "1", "", n)),
        nest("f'{", "x", "}'", n),
        nest("f\"{f'{", "x", "}'}\"", n),
    ];
    for header in ["if a:", "for a in b:", "def f():", "class A:", "with a:", "try:", "match a:", "case b:"] {
        sources.push(blocks(header, n.min(400)));
    }
    sources
}

/// Calls everything that takes a source. Answers may be any; there has to be one.
fn everything(code: &str) {
    let verdict = is_valid_python(code);
    let tree = safe_ast_parse(code);
    if matches!(verdict, Validity::Valid) {
        assert!(tree.is_ok(), "{code:?}");
    }
    let unknown = |unknown: &Unknown| assert_ne!(*unknown, Unknown::ParserFailed, "{code:?}");
    if let Err(TreeError::Unknown { unknown: reason, .. }) = &tree {
        unknown(reason);
    }
    for float in [false, true] {
        for (call, expected) in [(code, "1"), ("f(x)", code)] {
            if let Err(TreeError::Unknown { unknown: reason, .. }) =
                convert_call_to_assert(call, expected, float)
            {
                unknown(&reason);
            }
        }
    }
}

/// On the stack that a thread of a runtime has.
fn on_a_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[rstest]
#[case::in_place(60)]
#[case::on_a_thread(400)]
#[case::deep(2_000)]
#[case::too_deep(10_000)]
fn no_depth_overflows_a_stack(#[case] levels: usize) {
    on_a_small_stack(|| deep(levels).iter().for_each(|code| everything(code)));
}

#[test]
fn depth_up_to_the_limit_is_parsed() {
    for code in ["1 + ", "not ", "a if b else ", "lambda: "].map(|piece| nest(piece, "1", "", 1_000)) {
        let tree = safe_ast_parse(&code).unwrap();
        assert_eq!(tree.statement_count(), 1);
    }
    let wide = Limits { max_depth: 20_000, ..Limits::default() };
    for code in deep(4_000) {
        // Whatever is said of it, it takes no more stack than it gets.
        let _ = is_valid_python_within(&code, &wide);
    }
}

#[test]
fn what_is_beyond_a_limit_is_unknown_and_says_so() {
    let limits = Limits { max_source_bytes: 100, max_depth: 20, max_time: Duration::from_secs(60) };
    let limit = |code: &str| match is_valid_python_within(code, &limits) {
        Validity::Unknown(Unknown::Limit(limit)) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(&"x".repeat(101)), Limit::Size { bytes: 101, max: 100 });
    assert!(matches!(limit(&nest("-", "1", "", 30)), Limit::Depth { max: 20, .. }));
    let hurried = Limits { max_time: Duration::ZERO, ..Limits::default() };
    let late = safe_ast_parse_within("x = 1", &hurried).unwrap_err();
    assert!(late.to_string().contains("max_time"), "{late}");
}

/// Nothing takes longer than in proportion to its size.
#[test]
fn no_source_of_full_size_hangs() {
    let limits = Limits { max_source_bytes: 50_000, max_time: Duration::from_secs(60), ..Limits::default() };
    let full = |piece: &str| piece.repeat(limits.max_source_bytes / piece.len());
    for piece in [
        "x = 1\n",
        "match x:\n",
        "match ",
        "type x[",
        "f'{x}' ",
        "f'{x!r:{y}}'\n",
        "'",
        "\"\"\"",
        "\\",
        "\\\n",
        "#\n",
        "0",
        "1_",
        "x\u{301}",
        "[",
        "x,",
        "(x)\n",
        "1 if ",
        "lambda:",
        "\t\n",
        " \n",
        "\r",
        "f'{{",
        "f'{",
        "'a''b'",
        "# coding: x\n",
        "coding",
        "x for ",
        "é",
        "\0",
    ] {
        let code = full(piece);
        let started = Instant::now();
        let _ = is_valid_python_within(&code, &limits);
        let _ = convert_call_to_assert(&code, &code, false);
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(90), "{piece:?} took {elapsed:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text_gets_an_answer(code in "\\PC{0,200}") {
        everything(&code);
    }

    #[test]
    fn random_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        everything(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn token_soups_get_an_answer(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60)) {
        everything(&pieces.concat());
    }

    #[test]
    fn nested_soups_get_an_answer(
        pieces in proptest::collection::vec((proptest::sample::select(PIECES), 1_usize..200), 1..6),
        middle in proptest::sample::select(PIECES),
    ) {
        let open: String = pieces.iter().map(|(piece, times)| piece.repeat(*times)).collect();
        everything(&[&open, middle].concat());
        everything(&[middle, &open].concat());
    }
}

/// `EVALMILL_FUZZ_CASES` of each, for a long run.
fn cases() -> u32 {
    let cases = std::env::var("EVALMILL_FUZZ_CASES");
    cases.map_or(200, |cases| cases.parse().unwrap_or_else(|_| panic!("EVALMILL_FUZZ_CASES={cases}")))
}
