//! Eight times as many workers as cores: no verdict differs from the one that a program gets when it runs alone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::Instant;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::host::Host;
use crate::support::humaneval;

const OVERSUBSCRIPTION: usize = 8;
/// Seconds. A right program that naps uses up most of it without a processor, one that hangs all of it.
const TIMEOUT: u32 = 2;

/// The first so many problems, how many programs are made of them, and one of how many naps or hangs: those cost
/// more than all others.
struct Plan {
    problems: usize,
    programs: usize,
    seldom: usize,
}

#[test]
fn no_verdict_flips_with_many_workers() {
    run(&Plan { problems: 41, programs: 246, seldom: 50 });
}

#[test]
#[ignore = "minutes of load: cargo test --release --test it no_verdict_flips_under_load -- --ignored --nocapture"]
fn no_verdict_flips_under_load() {
    run(&Plan { problems: 164, programs: 20_000, seldom: 200 });
}

/// A program, and what must come of it.
struct Program {
    task: String,
    kind: &'static str,
    payload: Value,
    verdict: &'static str,
}

fn run(plan: &Plan) {
    let programs = programs(plan.problems);
    let of = |kinds: &[&str]| -> Vec<&Program> {
        programs.iter().filter(|program| kinds.contains(&program.kind)).collect()
    };
    let (right, wrong, seldom) = (of(&["right"]), of(&["wrong", "raises"]), of(&["naps", "hangs"]));
    // Alone: of those that take long, a few.
    let alone = [&right, &wrong, &seldom[..4]].concat();
    let (quiet, _) = verdicts("quiet", 1, &alone);
    for (program, verdict) in alone.iter().zip(&quiet) {
        assert_eq!(verdict, program.verdict, "alone: {} {}", program.task, program.kind);
    }
    let many: Vec<_> = (0..plan.programs)
        .map(|at| match (at % plan.seldom, at % 3) {
            (0, _) => seldom[at / plan.seldom % seldom.len()],
            (_, 0) => wrong[at / 3 % wrong.len()],
            _ => right[at % right.len()],
        })
        .collect();
    let workers = OVERSUBSCRIPTION * std::thread::available_parallelism().unwrap().get();
    let (loaded, contended) = verdicts("loaded", workers, &many);
    let mut counts = BTreeMap::<_, usize>::new();
    loaded.iter().for_each(|verdict| *counts.entry(verdict).or_default() += 1);
    eprintln!("{} programs with {workers} workers: {counts:?}, {contended} given more time", many.len());
    let flips: Vec<_> = many
        .iter()
        .zip(&loaded)
        .filter(|(program, verdict)| program.verdict != *verdict)
        .map(|(program, verdict)| format!("{} {}: {verdict}", program.task, program.kind))
        .collect();
    assert!(flips.is_empty(), "{} flipped: {flips:#?}", flips.len());
}

/// Of each problem: right, wrong in two ways, right after a nap, and one that never ends.
fn programs(problems: usize) -> Vec<Program> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(humaneval()).unwrap()).read_to_string(&mut text).unwrap();
    let mut all = Vec::new();
    for line in text.lines().take(problems) {
        let problem: Value = serde_json::from_str(line).unwrap();
        let right = problem["canonical_solution"].as_str().unwrap();
        let kinds = [
            ("right", right.to_owned(), "passed"),
            ("wrong", "    pass\n".to_owned(), "failed"),
            ("raises", format!("    raise ValueError\n{right}"), "failed"),
            ("naps", format!("{right}\n\nimport time; time.sleep(1.2)\n"), "passed"),
            ("hangs", "    while True: pass\n".to_owned(), "timed_out"),
        ];
        for (kind, completion, verdict) in kinds {
            let mut payload = problem.clone();
            payload["completion"] = json!(completion);
            all.push(Program { task: problem["task_id"].to_string(), kind, payload, verdict });
        }
    }
    all
}

/// Verdicts in the order of the programs, and how many of them were given more time.
fn verdicts(what: &str, workers: usize, programs: &[&Program]) -> (Vec<String>, usize) {
    let host = Host::new(what);
    let tier = host.strongest();
    let mut child = host.start(tier, &["--workers", &workers.to_string()], &[]);
    let mut input = child.stdin.take().unwrap();
    let results = BufReader::new(child.stdout.take().unwrap());
    let (begun, mut verdicts, mut contended) = (Instant::now(), Vec::new(), 0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (number, program) in programs.iter().enumerate() {
                let row = json!({
                    "id": number.to_string(), "preprocessor": "humaneval", "prediction": program.payload,
                    "limits": {"timeout": TIMEOUT},
                });
                writeln!(input, "{row}").unwrap();
            }
        });
        for (number, line) in results.lines().enumerate() {
            let result: Value = serde_json::from_str(&line.unwrap()).unwrap();
            assert_eq!(
                (&result["id"], &result["worker"]["tier"]),
                (&json!(number.to_string()), &json!(tier))
            );
            contended += usize::from(result["worker"]["contended"] == true);
            let verdict = result["verdict"].as_str().unwrap().to_owned();
            if verdict != programs[number].verdict {
                eprintln!("{what}: {} {}: {}", programs[number].task, programs[number].kind, told(&result));
            }
            verdicts.push(verdict);
        }
    });
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", host.said());
    assert_eq!(verdicts.len(), programs.len(), "{}", host.said());
    let took = begun.elapsed().as_secs_f64();
    eprintln!(
        "{what}: {} programs in tier {tier}: {took:.1} s, {:.0}/s",
        programs.len(),
        programs.len() as f64 / took
    );
    host.ends_clean();
    (verdicts, contended)
}

/// All of a result but what was sent.
fn told(result: &Value) -> String {
    let mut result = result.clone();
    result.as_object_mut().unwrap().remove("prediction");
    result.to_string()
}
