//! `evalmill report`: what results came to, and input that is wrong in every way.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{evalmill, run};

/// A result; its id and its result id are `<task>/<sample>`.
fn result(run: Option<&str>, task: &str, sample: usize, verdict: &str) -> Value {
    let id = format!("{}/{task}/{sample}", run.unwrap_or("-"));
    json!({
        "schema": "result.v1", "result_id": id, "id": id, "run": run, "task": task,
        "verdict": verdict, "passed": verdict == "passed", "added in a later version": {"x": [1]},
        "timings": {"queue": 0.0, "preprocess": 0.0, "write": 0.001, "wait": 0.0, "execute": 0.25,
                    "cleanup": 0.0, "postprocess": 0.0, "net": 0.251},
    })
}

fn lines(results: &[Value]) -> String {
    results.iter().map(|result| format!("{result}\n")).collect()
}

fn file(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn report(args: &[&str], inputs: &[&Path]) -> Output {
    let dir = TempDir::new().unwrap();
    evalmill(dir.path()).arg("report").args(args).args(inputs).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn of_json(args: &[&str], inputs: &[&Path]) -> Value {
    let all = [&["--format", "json"], args].concat();
    serde_json::from_str(&stdout(&report(&all, inputs))).unwrap()
}

/// Two runs, three tasks, everything that is counted apart.
fn results() -> Vec<Value> {
    let mut results = vec![
        result(Some("small"), "t/2", 0, "passed"),
        result(Some("small"), "t/2", 1, "failed"),
        result(Some("small"), "t/10", 0, "timed_out"),
        result(Some("small"), "t/10", 1, "infra_error"),
        result(Some("large|x"), "t/2", 0, "passed"),
        result(Some("large|x"), "t/2", 1, "passed"),
        result(Some("large|x"), "t/10", 0, "passed"),
        result(Some("large|x"), "t/10", 1, "invalid"),
        result(Some("large|x"), "t/11", 0, "filtered"),
    ];
    results.push(results[0].clone());
    results.push(json!({"schema": "timings.v1", "instance": "a"}));
    results.push(
        json!({"schema": "notice.parked", "result_id": "p", "id": "p", "reason": "full", "attempts": 3}),
    );
    results
}

#[test]
fn tables() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "results.jsonl", lines(&results()));
    let text = stdout(&report(&["--per-task", "--k", "1,2"], &[&path]));
    assert!(text.lines().all(|line| line.chars().count() < 80 && !line.ends_with(' ')), "{text}");
    insta::assert_snapshot!(text);
    insta::assert_snapshot!(stdout(&report(&["--per-task", "--k", "2,1,2", "--format", "md"], &[&path])));
    insta::assert_snapshot!(stdout(&report(&["--per-task", "--k", "2", "--format", "csv"], &[&path])));
}

#[test]
fn json_of_the_same() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "results.jsonl", lines(&results()));
    let found = of_json(&["--k", "1", "--bootstrap", "0"], &[&path]);
    assert_eq!(found["results"], 9);
    assert_eq!(found["left_out"]["duplicates"], 1);
    assert_eq!(found["left_out"]["other_messages"], 2);
    assert_eq!((&found["parked"], &found["tasks_without_sample"]), (&json!(1), &json!(1)));
    assert_eq!(found["verdicts"]["infra_error"], 1);
    // Tasks: 1/2, 0/1, 2/2, 1/2.
    assert_eq!(found["pass_at_k"]["1"], json!({"value": 0.5, "tasks": 4, "tasks_with_fewer": 0}));
    assert_eq!(found["runs"][0]["run"], "large|x");
    assert_eq!(found["runs"][0]["pass_at_k"]["1"]["value"], 0.75);
    assert_eq!(found["runs"][1]["pass_at_k"]["1"]["value"], 0.25);
    assert!(found.get("tasks_of_runs").is_none());
    assert_eq!(found["stages"]["execute"]["p50"].as_f64().unwrap().mul_add(1e3, 0.0).round(), 250.0);
}

#[test]
fn intervals_are_the_same_for_the_same_seed() {
    let dir = TempDir::new().unwrap();
    let many: Vec<_> = (0..40)
        .map(|task| result(None, &format!("t{task}"), 0, if task % 3 == 0 { "passed" } else { "failed" }))
        .collect();
    let path = file(&dir, "a.jsonl", lines(&many));
    let reversed: Vec<_> = many.into_iter().rev().collect();
    let other = file(&dir, "b.jsonl", lines(&reversed));
    // So few resamples that two seeds do not come to the same by chance.
    let of = |seed: &str, path: &Path| {
        of_json(&["--bootstrap", "20", "--seed", seed], &[path])["pass_at_k"]["1"].clone()
    };
    let first = of("3", &path);
    assert_eq!(first, of("3", &other), "the order does not matter");
    assert_ne!(first, of("4", &path));
    let [low, value, high] = ["low", "value", "high"].map(|name| first[name].as_f64().unwrap());
    assert!(low < value && value < high && high - low < 0.4, "{first}");
}

/// What `run` writes, it reads; resuming changes nothing of it.
#[test]
fn what_run_wrote() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("results.jsonl");
    let predictions: String = [("a", "true"), ("a", "false"), ("b", "false"), ("b", "false")]
        .iter()
        .enumerate()
        .map(|(id, (task, command))| {
            let executable = json!({"commands": [{"command": [command]}]});
            format!("{}\n", json!({"id": id.to_string(), "task": task, "prediction": executable}))
        })
        .collect();
    let ran = run(&["-o", out.to_str().unwrap()], predictions.as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let text = stdout(&report(&["--bootstrap", "0"], &[&out]));
    assert!(text.contains("pass@1                            25.0 %  mean of 2 tasks\n"), "{text}");
    // The same lines as in the summary of the run.
    let lines = |text: &str| {
        let shared =
            text.lines().filter(|line| ["passed ", "failed ", "pass@1 "].iter().any(|n| line.starts_with(n)));
        shared.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&text).len(), 3);
    assert_eq!(lines(&text), lines(&ran.stderr));
}

#[rstest]
#[case::plain("r.jsonl", lines(&results()).into_bytes())]
#[case::carriage_returns("r.jsonl", lines(&results()).replace('\n', "\r\n").into_bytes())]
#[case::byte_order_mark("r.jsonl", ["\u{feff}".as_bytes(), lines(&results()).as_bytes()].concat())]
#[case::blank_lines("r.jsonl", lines(&results()).replace('\n', "\n \n\n").into_bytes())]
#[case::no_last_break("r.jsonl", lines(&results()).trim_end().as_bytes().to_vec())]
#[case::gzip("r.jsonl.gz", gzip(&lines(&results())))]
#[case::gzip_in_parts("r.gz", [gzip(&lines(&results()[..5])), gzip(&lines(&results()[5..]))].concat())]
fn lines_in_every_form(#[case] name: &str, #[case] bytes: Vec<u8>) {
    let dir = TempDir::new().unwrap();
    let plain = file(&dir, "plain", lines(&results()));
    let path = file(&dir, name, bytes);
    assert_eq!(of_json(&[], &[&path]), of_json(&[], &[&plain]));
}

#[test]
fn several_files_and_standard_input() {
    let dir = TempDir::new().unwrap();
    let all = results();
    let (first, second) = (file(&dir, "a", lines(&all[..6])), file(&dir, "b.gz", gzip(&lines(&all[4..]))));
    let both = of_json(&[], &[&first, &second]);
    // Two results stand in both.
    assert_eq!((&both["results"], &both["left_out"]["duplicates"]), (&json!(9), &json!(3)));
    let mut child = evalmill(dir.path())
        .args(["report", "--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines(&all).as_bytes()).unwrap();
    let piped: Value = serde_json::from_str(&stdout(&child.wait_with_output().unwrap())).unwrap();
    assert_eq!(piped["verdicts"], both["verdicts"]);
}

#[test]
fn nothing_is_a_report_too() {
    let dir = TempDir::new().unwrap();
    for bytes in ["", "\n\r\n  \n", "\u{feff}"] {
        let path = file(&dir, "empty", bytes);
        assert_eq!(stdout(&report(&[], &[&path])), "0 results\n");
        assert_eq!(of_json(&["--per-task"], &[&path])["pass_at_k"], json!({}));
        assert_eq!(stdout(&report(&["--format", "csv"], &[&path])).lines().count(), 2);
        assert_eq!(stdout(&report(&["--format", "md"], &[&path])), "0 results\n");
    }
}

#[rstest]
#[case::torn(r#"{"schema":"result.v1","result_id":"x","id":"#, "it breaks off")]
#[case::no_json("passed", "not JSON")]
#[case::no_object("[1]", "no JSON object")]
#[case::no_schema(r#"{"id": "a", "verdict": "passed"}"#, "it has no \"schema\"")]
#[case::prediction(r#"{"schema": "prediction.v1"}"#, "no message of evalmill's")]
#[case::newer(
    r#"{"schema": "result.v2", "id": "a"}"#,
    "its schema is \"result.v2\", and this evalmill reads result.v1"
)]
#[case::verdict(
    r#"{"schema": "result.v1", "result_id": "x", "id": "a", "verdict": "great"}"#,
    "the field verdict is wrong: unknown variant `great`, expected one of `passed`"
)]
#[case::type_of_task(
    r#"{"schema": "result.v1", "result_id": "x", "id": "a", "verdict": "passed", "task": 7}"#,
    "the field task is wrong: invalid type: integer `7`"
)]
#[case::nan(r#"{"schema": "result.v1", "timings": {"queue": NaN}}"#, "NaN and Infinity")]
#[case::twice(r#"{"schema": "result.v1", "id": "a", "id": "b"}"#, "\"id\" stands twice")]
#[case::deep(&"[".repeat(200_000), "127 deep")]
fn a_bad_line_is_named_and_can_be_left_out(#[case] bad: &str, #[case] says: &str) {
    let dir = TempDir::new().unwrap();
    let all = results();
    let path = file(&dir, "results.jsonl", format!("{}\n{bad}\n{}", lines(&all[..2]), lines(&all[2..])));
    let refused = report(&[], &[&path]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    let text = stderr(&refused);
    let named =
        text.contains("results.jsonl:4 is no result: ") && text.contains("--skip-bad leaves such lines out");
    assert!(named && text.contains(says) && text.len() < 1000, "{text}");

    let skipped = report(&["--skip-bad", "--format", "json"], &[&path]);
    let found: Value = serde_json::from_str(&stdout(&skipped)).unwrap();
    assert_eq!((&found["left_out"]["bad_lines"], &found["results"]), (&json!(1), &json!(9)));
    let text = stderr(&skipped);
    assert!(text.contains("results.jsonl:4 is left out: ") && text.contains(says), "{text}");
}

#[test]
fn bytes_that_are_no_lines() {
    let dir = TempDir::new().unwrap();
    let packed = gzip(&lines(&results()).repeat(50));
    let misnamed = stderr(&report(&[], &[&file(&dir, "results.jsonl", &packed)]));
    assert!(misnamed.contains("results.jsonl:1 is no result: it is compressed by gzip"), "{misnamed}");

    let truncated = file(&dir, "torn.gz", &packed[..packed.len() / 2]);
    let text = stderr(&report(&[], &[&truncated]));
    assert!(text.contains("torn.gz:") && text.contains("the gzip stream is truncated or damaged"), "{text}");
    assert_eq!(of_json(&["--skip-bad"], &[&truncated])["left_out"]["bad_lines"], 1);

    let mut long = lines(&results()).into_bytes();
    long.extend(vec![b'x'; 3 << 20]);
    let long = file(&dir, "long.jsonl", long);
    let output = evalmill(dir.path())
        .args(["report", long.to_str().unwrap()])
        .env("EVALMILL__PIPELINE__MAX_LINE_MB", "1")
        .output()
        .unwrap();
    let text = stderr(&output);
    assert!(
        text.contains("long.jsonl:13 is no result: it is longer than 1048576 bytes (pipeline.max_line_mb)"),
        "{text}"
    );

    let many = file(&dir, "many", "junk\n".repeat(500));
    let output = report(&["--skip-bad"], &[&many]);
    assert_eq!(stdout(&output), "0 results\n\n500 bad lines left out\n");
    assert_eq!(stderr(&output).lines().count(), 21, "the first 20 are told");

    let missing = report(&[], &[&dir.path().join("missing")]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("missing: No such file"), "{}", stderr(&missing));
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let dir = TempDir::new().unwrap();
    let many: Vec<_> = (0..20_000).map(|task| result(None, &format!("t{task}"), 0, "passed")).collect();
    let path = file(&dir, "many.jsonl", lines(&many));
    for format in ["text", "json", "csv", "md"] {
        let mut child = evalmill(dir.path())
            .args(["report", "--per-task", "--format", format, path.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        // More is to come than a pipe holds, when this end is closed.
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{format}");
        assert!(!first.is_empty());
    }
}

#[test]
fn names_of_others_do_not_steer_a_terminal() {
    let dir = TempDir::new().unwrap();
    let all = [result(Some("r\u{1b}[2J"), "a\nb", 0, "passed"), result(None, "c,\"d\"", 0, "failed")];
    let path = file(&dir, "r", lines(&all));
    for format in ["text", "md"] {
        let text = stdout(&report(&["--per-task", "--format", format], &[&path]));
        assert!(!text.contains('\u{1b}') && !text.contains("a\nb"), "{text}");
    }
    let csv = stdout(&report(&["--per-task", "--format", "csv"], &[&path]));
    assert!(csv.contains("\"c,\"\"d\"\"\""), "{csv}");
}
