//! `convert_call_to_assert` against the reference's way: `ast.parse` twice and `ast.unparse`, in CPython.
//!
//! Both convert the calls and expected values of HumanEval's tests, in turns on the same machine; the best
//! round of each counts, and their ratio is printed. Then the same for calls that the fast path leaves to
//! the parser. `cargo bench --bench code_trees`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use evalmill::code_trees::convert_call_to_assert;
use serde_json::{Value, json};

/// Rounds of either side.
const ROUNDS: usize = 7;

fn main() {
    // `cargo test --benches` only wants to see that it works.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    let here = env!("CARGO_MANIFEST_DIR");
    let humaneval = std::env::var("EVALMILL_HUMANEVAL")
        .unwrap_or_else(|_| format!("{here}/../shared/data/HumanEval.jsonl.gz"));
    let mut python = Command::new("python3")
        .args(["-B", &format!("{here}/tests/golden/code_trees/reference.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("python3 is needed, and cannot be started ({error})"));
    let mut stdin = python.stdin.take().unwrap();
    let mut stdout = BufReader::new(python.stdout.take().unwrap());
    let mut ask = |request: Value| -> Value {
        writeln!(stdin, "{}", json!([request])).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        serde_json::from_str::<Vec<Value>>(&line).expect("an answer of reference.py").remove(0)
    };
    let data = ask(json!({"op": "humaneval", "path": humaneval}));
    let pairs: Vec<(String, String)> = serde_json::from_value(data["pairs"].clone()).unwrap();
    // A comment makes a call one that only the parser understands.
    let parsed: Vec<_> =
        pairs.iter().map(|(call, expected)| (format!("{call}  # test"), expected.clone())).collect();
    for (name, pairs) in [("as they are", &pairs), ("with a comment", &parsed)] {
        let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..rounds {
            theirs = theirs.min(ask(json!({"op": "time", "pairs": pairs})).as_f64().unwrap());
            ours = ours.min(time(pairs));
        }
        println!(
            "convert_call_to_assert, {} calls {name}: {:.2} us a call, CPython {:.2} us, {:.1} times as fast",
            pairs.len(),
            ours * 1e6,
            theirs * 1e6,
            theirs / ours
        );
    }
    drop(stdin);
    python.wait().unwrap();
}

/// Seconds for one conversion.
fn time(pairs: &[(String, String)]) -> f64 {
    const TIMES: u32 = 20;
    let started = Instant::now();
    for _ in 0..TIMES {
        for (call, expected) in pairs {
            black_box(convert_call_to_assert(black_box(call), black_box(expected), false)).unwrap();
        }
    }
    started.elapsed().as_secs_f64() / f64::from(TIMES) / pairs.len() as f64
}
