//! Input that is wrong in every way: each line gets its result, and the run goes on.

use std::io::Write;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{executable, run, start};

const GOOD: &str = r#"{"id": "good", "prediction": {"commands": [{"command": ["true"]}]}}"#;

#[rstest]
#[case("not json", "not JSON")]
#[case("[1, 2]", "an array")]
#[case(r#"{"prediction": {"x": NaN}}"#, "NaN")]
#[case(r#"{"prediction": {"x": "\ud800"}}"#, "lone surrogate")]
#[case(r#"{"prediction": {"x": 1, "x": 2}}"#, "stands twice")]
#[case(&"[".repeat(100_000), "127 deep")]
#[case(r#"{"id": "x"}"#, "missing field `prediction`")]
#[case(
    r#"{"prediction": {"commands": [{"command": ["true"]}]}, "preprocessor": "nope"}"#,
    "known are: executable, "
)]
#[case(r#"{"prediction": {}}"#, "missing field `commands`")]
#[case(r#"{"prediction": {"files": {"/abs": ""}, "commands": [{"command": ["true"]}]}}"#, "absolute")]
#[case(r#"{"prediction": {"files": {"a/../../b": ""}, "commands": [{"command": ["true"]}]}}"#, "`..`")]
#[case(r#"{"prediction": {"files": {"a\u0000b": ""}, "commands": [{"command": ["true"]}]}}"#, "NUL")]
#[case(&format!(r#"{{"prediction": {{"files": {{"{}": ""}}, "commands": [{{"command": ["true"]}}]}}}}"#, "n".repeat(5000)), "5000 bytes")]
#[case(
    r#"{"prediction": {"files": {"a": "", "a/b": ""}, "commands": [{"command": ["true"]}]}}"#,
    "needs it to be a directory"
)]
#[case(r#"{"prediction": {"commands": [{"command": []}]}}"#, "command is empty")]
#[case(r#"{"prediction": {"commands": [{"command": ["true"], "timeout": -1}]}}"#, "no time limit")]
#[case(
    r#"{"prediction": {"commands": [{"command": ["true"], "timeout": 1e9}]}}"#,
    "limits.max_timeout allows 600 s"
)]
#[case(r#"{"prediction": {"commands": [{"command": ["true"], "num_times": 0}]}}"#, "num_times is 0")]
#[case(
    r#"{"prediction": {"commands": [{"command": ["true"]}]}, "limits": {"memory_mb": 99999999}}"#,
    "limits.memory_mb is 99999999"
)]
fn a_bad_line_is_invalid_and_the_next_one_runs(#[case] line: &str, #[case] says: &str) {
    let ran = run(&[], format!("{line}\n{GOOD}\n").as_bytes());
    assert_eq!(ran.verdicts(), ["invalid", "passed"], "{:?}", ran.results);
    let detail = ran.results[0]["detail"].as_str().unwrap();
    assert!(detail.contains(says), "{detail}");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn an_unreadable_line_is_named_by_its_place() {
    let ran = run(&[], format!("{GOOD}\n\nnot json\n").as_bytes());
    assert_eq!(ran.results[1]["id"], "stdin:3");
}

#[test]
fn the_same_id_twice_gives_two_results() {
    let ran = run(&[], format!("{GOOD}\n{GOOD}\n").as_bytes());
    assert_eq!(ran.verdicts(), ["passed", "passed"]);
}

#[test]
fn a_truncated_gzip_gives_what_is_whole() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gz.write_all(format!("{GOOD}\n{GOOD}\n").repeat(2000).as_bytes()).unwrap();
    let mut bytes = gz.finish().unwrap();
    bytes.truncate(bytes.len() / 4);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.jsonl.gz");
    std::fs::write(&path, bytes).unwrap();
    let ran = run(&[path.to_str().unwrap()], b"");
    let (last, whole) = ran.results.split_last().unwrap();
    assert!(!whole.is_empty());
    assert!(whole.iter().all(|result| result["verdict"] == "passed"));
    assert_eq!(last["verdict"], "invalid");
    assert!(last["detail"].as_str().unwrap().contains("gzip"), "{last}");
}

#[test]
fn a_line_above_the_limit_is_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("evalmill.toml");
    std::fs::write(&config, "[pipeline]\nmax_line_mb = 1\n").unwrap();
    let long = format!(r#"{{"prediction": {{"x": "{}"}}}}"#, "y".repeat(2 << 20));
    let ran = run(&["--config", config.to_str().unwrap()], format!("{long}\n{GOOD}\n").as_bytes());
    assert_eq!(ran.verdicts(), ["invalid", "passed"], "{}", ran.stderr);
}

#[rstest]
#[case(&["--preprocessor", "humanevil", "-"], Some(2), "humanevil")]
#[case(&["/no/such/file.jsonl"], Some(2), "/no/such/file.jsonl")]
#[case(&["-o", "/no/such/dir/out.jsonl", "-"], Some(74), "/no/such/dir/out.jsonl")]
#[case(&["--timeout=-3", "-"], Some(2), "--timeout")]
#[case(&["--timeout", "NaN", "-"], Some(2), "--timeout")]
#[case(&["--timeout", "1000", "-"], Some(78), "default_timeout")]
#[case(&["--workers", "many", "-"], Some(2), "--workers")]
#[case(&["--no-such-flag"], Some(2), "--no-such-flag")]
fn what_cannot_work_is_said_at_once(#[case] args: &[&str], #[case] code: Option<i32>, #[case] says: &str) {
    let ran = run(args, b"");
    assert_eq!(ran.code, code, "{}", ran.stderr);
    assert!(ran.stderr.contains(says), "{}", ran.stderr);
    assert!(ran.results.is_empty());
}

#[test]
fn an_output_is_not_overwritten_and_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let out = out.to_str().unwrap();
    let rows: String = (0..20)
        .map(|i| {
            format!("{}\n", json!({"id": i.to_string(), "prediction": {"commands": [{"command": ["true"]}]}}))
        })
        .collect();
    assert_eq!(run(&["-o", out], rows.as_bytes()).code, Some(0));
    let whole = std::fs::read_to_string(out).unwrap();
    assert_eq!(whole.lines().count(), 20);
    let refused = run(&["-o", out], rows.as_bytes());
    assert!(refused.stderr.contains("--resume") && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_ne!(refused.code, Some(0));
    // A torn last line, an infra_error, and lines that are missing.
    let mut kept: Vec<String> = whole.lines().take(10).map(str::to_owned).collect();
    kept[4] = kept[4].replace("\"verdict\":\"passed\"", "\"verdict\":\"infra_error\"");
    std::fs::write(out, format!("{}\n{{\"id\": \"torn", kept.join("\n"))).unwrap();
    let resumed = run(&["--resume", "-o", out], rows.as_bytes());
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    let text = std::fs::read_to_string(out).unwrap();
    let mut ids: Vec<u32> = text
        .lines()
        .map(|line| {
            let result: Value = serde_json::from_str(line).unwrap();
            assert_eq!(result["verdict"], "passed");
            result["id"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());
}

#[test]
fn an_output_that_is_the_input_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("same.jsonl");
    std::fs::write(&path, format!("{GOOD}\n")).unwrap();
    let path = path.to_str().unwrap();
    let ran = run(&["--force", "-o", path, path], b"");
    assert_ne!(ran.code, Some(0));
    assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{GOOD}\n"));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let scratch = tempfile::tempdir().unwrap();
    let rows = format!("{GOOD}\n").repeat(2000);
    let mut child = start(scratch.path(), &["-"]);
    drop(child.stdout.take());
    let mut pipe = child.stdin.take().unwrap();
    let _ = pipe.write_all(rows.as_bytes());
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_field_of_the_wrong_type_is_named() {
    let ran = executable(&json!({"commands": [{"command": "ls -l"}]}), &[]);
    assert!(ran.one()["detail"].as_str().unwrap().contains("commands[0].command"), "{}", ran.one());
}
