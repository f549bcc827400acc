//! Differential fuzzing: nothing that CPython refuses is called valid, nothing that it accepts invalid, and
//! what is converted means the same.
//!
//! `cargo test --release --all-features --test it -- --ignored code_trees::fuzz --nocapture` is the long run,
//! of `EVALMILL_FUZZ_CASES` cases (200,000) from `EVALMILL_FUZZ_SEED` (1) on.

use evalmill::code_trees::{
    Validity, convert_call_to_assert, get_global_imports, is_simple_test_case, is_valid_python,
    safe_ast_parse,
};
use serde_json::{Value, json};

use super::golden::{Converted, Program, held_against};
use super::mutate::{Random, mutated, placed, soup};
use super::python::{Python, golden};

/// How many of each answer there were.
#[derive(Debug, Default)]
struct Tally {
    valid: usize,
    invalid: usize,
    unknown: usize,
    converted: usize,
}

fn programs(python: &mut Python) -> Vec<String> {
    let mut programs: Vec<String> =
        golden("programs.jsonl").into_iter().map(|program: Program| program.code).collect();
    programs.retain(|program| program.len() < 2_000);
    let data = python.ask(&[json!({"op": "humaneval", "path": crate::support::humaneval()})]).remove(0);
    programs.extend(serde_json::from_value::<Vec<String>>(data["programs"].clone()).unwrap());
    programs
}

/// A source and the rest of them, by `random`'s choice.
fn source(random: &mut Random, real: &[String]) -> String {
    match random.below(4) {
        0 => soup(random),
        1 | 2 => placed(random),
        _ => {
            let chosen = real[random.below(real.len())].clone();
            mutated(random, &chosen, real)
        }
    }
}

/// Holds what is said of `sources` against CPython.
fn judged(python: &mut Python, sources: &[String], tally: &mut Tally) -> Vec<String> {
    let requests: Vec<Value> = sources
        .iter()
        .flat_map(|code| [json!({"op": "valid", "code": code}), json!({"op": "facts", "code": code})])
        .collect();
    let answers = python.ask(&requests);
    let mut wrong = Vec::new();
    for (code, answer) in sources.iter().zip(answers.chunks(2)) {
        match is_valid_python(code) {
            Validity::Valid => {
                tally.valid += 1;
                if answer[0]["compiles"] != true {
                    wrong.push(format!("called valid, and is not: {code:?}"));
                }
            }
            Validity::Invalid(why) => {
                tally.invalid += 1;
                if answer[0]["parses"] == true {
                    wrong.push(format!("called invalid ({why}), and parses: {code:?}"));
                }
            }
            Validity::Unknown(_) => tally.unknown += 1,
        }
        let Ok(tree) = safe_ast_parse(code) else { continue };
        if code.starts_with('\u{feff}') {
            continue;
        }
        if answer[0]["parses"] != true {
            if tree.minor_version() > 11 {
                continue;
            }
            wrong.push(format!("has a tree, and does not parse: {code:?}"));
        } else if answer[1]
            != json!({"simple": is_simple_test_case(&tree), "imports": get_global_imports(&tree)})
        {
            wrong.push(format!("has other facts, {}: {code:?}", answer[1]));
        }
    }
    wrong
}

/// Holds what is made of mutated calls and expected values against CPython.
fn converted(python: &mut Python, pairs: &[(String, String)], tally: &mut Tally) -> Vec<String> {
    let mut requests = Vec::new();
    let mut results = Vec::new();
    for (index, (call, expected)) in pairs.iter().enumerate() {
        let ours = convert_call_to_assert(call, expected, index % 3 == 0);
        tally.converted += usize::from(ours.is_ok());
        requests.push(json!({"op": "same", "call": call, "expected": expected, "float": index % 3 == 0, "ours": ours.as_ref().ok()}));
        results.push(ours);
    }
    let answers = python.ask(&requests);
    let held = requests.iter().zip(&results).zip(&answers);
    held.filter_map(|((request, ours), answer)| held_against(request, ours, answer).err()).collect()
}

fn run(cases: usize, seed: u64) -> (Tally, Vec<String>) {
    let mut python = Python::start();
    let real = programs(&mut python);
    let expressions: Vec<String> =
        golden("converted.jsonl").into_iter().map(|case: Converted| case.call).collect();
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let mut wrong = Vec::new();
    let mut left = cases;
    while left > 0 {
        let now = left.min(1_000);
        left -= now;
        let sources: Vec<String> = (0..now).map(|_| source(&mut random, &real)).collect();
        wrong.extend(judged(&mut python, &sources, &mut tally));
        let pairs: Vec<_> = (0..now / 2)
            .map(|_| {
                let mut one = || {
                    let chosen = expressions[random.below(expressions.len())].clone();
                    if random.below(3) == 0 { chosen } else { mutated(&mut random, &chosen, &expressions) }
                };
                (one(), one())
            })
            .collect();
        wrong.extend(converted(&mut python, &pairs, &mut tally));
    }
    (tally, wrong)
}

#[test]
fn verdicts_and_conversions_agree_with_cpython() {
    let (tally, wrong) = run(600, 7);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(
        tally.valid > 20 && tally.invalid > 20 && tally.unknown > 20 && tally.converted > 20,
        "{tally:?}"
    );
}

#[test]
#[ignore = "takes minutes"]
fn verdicts_and_conversions_agree_with_cpython_for_long() {
    let number = |name: &str, default: u64| -> u64 {
        std::env::var(name)
            .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
    };
    let cases = number("EVALMILL_FUZZ_CASES", 200_000);
    let (tally, wrong) = run(usize::try_from(cases).unwrap(), number("EVALMILL_FUZZ_SEED", 1));
    println!("{cases} cases: {tally:?}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
