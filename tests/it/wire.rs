//! The wire contract, version 1: golden messages keep their meaning.
//!
//! The messages in `tests/fixtures/wire/v1` are only ever added to. A change that makes one of them
//! fail is a new version of the contract.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use rstest::rstest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use evalmill::model::{
    self, BoxPath, EarlyStop, Executable, FileContent, Prediction, ResultMessage, Seconds, Stdin,
    StdoutPostprocessor, TextRule, TimingsMessage, Verdict,
};

const NAMES: [&str; 7] = [
    "prediction-executable",
    "prediction-full",
    "prediction-minimal",
    "result-invalid",
    "result-passed",
    "result-timed-out",
    "timings",
];

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire/v1")
}

fn golden(name: &str) -> Value {
    let path = dir().join(name).with_extension("json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Through the type and back, as text.
fn through<T: Serialize + DeserializeOwned>(value: &Value) -> Value {
    let message: T = serde_json::from_str(&value.to_string()).unwrap_or_else(|e| panic!("{e}: {value}"));
    serde_json::from_str(&serde_json::to_string(&message).unwrap()).unwrap()
}

/// Through the type of the message that the file's name says.
fn message(name: &str, value: &Value) -> Value {
    match name.split('-').next() {
        Some("prediction") => through::<Prediction>(value),
        Some("result") => through::<ResultMessage>(value),
        Some("timings") => through::<TimingsMessage>(value),
        _ => panic!("{name}: no message has this name"),
    }
}

/// The examples of `docs/messages.md` are messages, and nothing in them is unknown to the types.
#[test]
fn documented_examples_are_messages() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/messages.md");
    let text = std::fs::read_to_string(&docs).unwrap();
    let mut seen = Vec::new();
    for block in text.split("```json\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let value: Value = serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"));
        let name = value["schema"].as_str().map_or("prediction", |schema| schema.split('.').next().unwrap());
        let back = message(name, &value);
        assert!(is_part_of(&value, &back), "{value:#}\nis not in\n{back:#}");
        if value["preprocessor"] == "executable" {
            let payload = &value["prediction"];
            assert!(is_part_of(payload, &through::<Executable>(payload)), "{payload:#}");
        }
        seen.push(name.to_owned());
    }
    assert_eq!(seen, ["prediction", "prediction", "result", "timings"]);
}

/// Everything in `part` stands in `whole`.
fn is_part_of(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|other| is_part_of(value, other)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(a, b)| is_part_of(a, b))
        }
        (Value::Number(part), Value::Number(whole)) => part.as_f64() == whole.as_f64(),
        _ => part == whole,
    }
}

/// Adds a field that no version knows to the objects at these places.
fn with_unknown(mut value: Value, places: &[&str]) -> Value {
    for place in places {
        let object = value.pointer_mut(place).unwrap_or_else(|| panic!("nothing at {place:?}"));
        object.as_object_mut().unwrap().insert("from_the_future".into(), json!({"a": [1, null]}));
    }
    value
}

#[test]
fn every_golden_message_is_tested() {
    let mut found: Vec<_> = std::fs::read_dir(dir())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, NAMES);
}

#[rstest]
#[case("result-passed")]
#[case("result-invalid")]
#[case("result-timed-out")]
#[case("timings")]
fn what_we_write_reads_back_the_same(#[case] name: &str) {
    let golden = golden(name);
    assert_eq!(message(name, &golden), golden);
}

#[rstest]
#[case("prediction-minimal")]
#[case("prediction-full")]
#[case("prediction-executable")]
fn what_we_read_only_gains_defaults(#[case] name: &str) {
    let golden = golden(name);
    let once = message(name, &golden);
    assert!(is_part_of(&golden, &once), "{golden}\nbecame\n{once}");
    assert_eq!(message(name, &once), once);
}

#[test]
fn the_executable_payload_only_gains_defaults() {
    let golden = golden("prediction-executable")["prediction"].clone();
    let executable: Executable = serde_json::from_value(golden.clone()).unwrap();
    executable.validate().unwrap();
    let binary = BoxPath::new("data/input.bin").unwrap();
    assert_eq!(executable.files[&binary], FileContent(vec![0, 0xff, 0xfe, 0x80]));
    let once = through::<Executable>(&golden);
    assert!(is_part_of(&golden, &once), "{golden}\nbecame\n{once}");
    assert_eq!(serde_json::from_value::<Executable>(once.clone()).unwrap(), executable);
    assert_eq!(through::<Executable>(&once), once);
}

#[test]
fn the_full_messages_leave_nothing_out() {
    let full = golden("prediction-full");
    let schema = schema("prediction");
    assert_eq!(keys(&full), keys(&schema["properties"]));
    let executable = golden("prediction-executable")["prediction"].clone();
    let schema = serde_json::to_value(schemars::schema_for!(Executable)).unwrap();
    assert_eq!(keys(&executable), keys(&schema["properties"]));
    let definition = |name: &str| keys(&schema["$defs"][name]["properties"]);
    assert_eq!(keys(&executable["commands"][0]), definition("Command"));
    assert_eq!(keys(&executable["early_stop"]), definition("EarlyStop"));
}

#[rstest]
#[case("prediction-minimal", &[""])]
#[case("prediction-full", &["", "/limits"])]
#[case("prediction-executable", &["", "/limits"])]
#[case("result-passed", &["", "/executions/0", "/executions/0/command_results/1", "/timings", "/worker"])]
#[case("result-invalid", &["", "/timings", "/worker"])]
#[case("result-timed-out", &["", "/executions/1", "/executions/0/command_results/0", "/timings", "/worker"])]
#[case("timings", &["", "/stages/net"])]
fn unknown_fields_are_ignored(#[case] name: &str, #[case] places: &[&str]) {
    let golden = golden(name);
    let expected = message(name, &golden);
    assert_eq!(message(name, &with_unknown(golden, places)), expected);
}

#[test]
fn unknown_fields_of_an_executable_are_ignored() {
    let golden = golden("prediction-executable")["prediction"].clone();
    let places = ["", "/commands/1", "/early_stop", "/early_stop/any_of/0", "/early_stop/stderr_contains"];
    let expected = through::<Executable>(&golden);
    assert_eq!(through::<Executable>(&with_unknown(golden, &places)), expected);
}

#[test]
fn every_verdict_has_its_name() {
    let names: Vec<_> = Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect();
    assert_eq!(
        names,
        [
            "passed",
            "failed",
            "timed_out",
            "memory_exceeded",
            "output_exceeded",
            "compile_error",
            "crashed",
            "filtered",
            "invalid",
            "infra_error"
        ]
    );
}

fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}

/// What `evalmill schema MESSAGE` prints.
fn schema(message: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_evalmill")).args(["schema", message]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[rstest]
#[case("prediction")]
#[case("result")]
#[case("timings")]
fn the_schema_names_every_field(#[case] message: &str) {
    let schema = schema(message);
    assert_eq!(schema["$id"], format!("urn:evalmill:{message}.v1"));
    let known = keys(&schema["properties"]);
    for name in NAMES.iter().filter(|name| name.starts_with(message)) {
        for key in keys(&golden(name)) {
            assert!(known.contains(&key), "{name}: the schema does not name {key}");
        }
    }
}

fn path() -> impl Strategy<Value = BoxPath> {
    "[\\PC/]{1,24}".prop_filter_map("a path inside the box", |name| BoxPath::new(&name).ok())
}

fn content() -> impl Strategy<Value = FileContent> {
    prop_oneof![
        any::<String>().prop_map(FileContent::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(FileContent),
    ]
}

fn stdin() -> impl Strategy<Value = Stdin> {
    prop_oneof![
        prop::collection::vec(any::<String>(), 0..4).prop_map(Stdin::Lines),
        any::<String>().prop_map(Stdin::Text),
    ]
}

fn command() -> impl Strategy<Value = model::Command> {
    let timeout = prop::option::of((1e-9..=1e9).prop_map(|seconds: f64| Seconds::new(seconds).unwrap()));
    let argv = prop::collection::vec(any::<String>(), 0..4);
    (argv, timeout, any::<u32>(), stdin(), any::<bool>()).prop_map(
        |(command, timeout, num_times, stdin, build)| model::Command {
            command,
            timeout,
            num_times,
            stdin,
            build,
        },
    )
}

fn text_rule() -> impl Strategy<Value = Option<TextRule>> {
    prop::option::of(prop_oneof![
        any::<String>().prop_map(TextRule::Exact),
        (any::<String>(), any::<bool>())
            .prop_map(|(text, ignore_case)| TextRule::Cased { text, ignore_case }),
    ])
}

fn early_stop() -> impl Strategy<Value = EarlyStop> {
    let leaf =
        (prop::option::of(any::<i32>()), any::<bool>(), text_rule(), text_rule(), text_rule(), text_rule())
            .prop_map(|(expected_return_code, stop_for_timeout, out, err, out_differs, err_differs)| {
                EarlyStop {
                    expected_return_code,
                    stop_for_timeout,
                    stdout_contains: out,
                    stderr_contains: err,
                    stdout_differs: out_differs,
                    stderr_differs: err_differs,
                    any_of: Vec::new(),
                }
            })
            .boxed();
    leaf.clone().prop_recursive(3, 8, 3, move |inner| {
        (leaf.clone(), prop::collection::vec(inner, 0..3))
            .prop_map(|(rule, any_of)| EarlyStop { any_of, ..rule })
    })
}

fn stdout_postprocessor() -> impl Strategy<Value = StdoutPostprocessor> {
    prop_oneof![
        Just(StdoutPostprocessor::Strip),
        Just(StdoutPostprocessor::LastLine),
        any::<usize>().prop_map(StdoutPostprocessor::Truncate),
        any::<String>().prop_map(StdoutPostprocessor::Regex),
    ]
    .prop_recursive(3, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(StdoutPostprocessor::Chain))
}

fn executable() -> impl Strategy<Value = Executable> {
    (
        prop::collection::vec((path(), content()), 0..4),
        prop::collection::vec(command(), 0..4),
        prop::collection::vec(path(), 0..3),
        early_stop(),
        prop::option::of(stdout_postprocessor()),
        any::<bool>(),
    )
        .prop_map(|(files, commands, tracked_files, early_stop, stdout_postprocessor, witness)| {
            Executable {
                files: files.into_iter().collect::<BTreeMap<_, _>>(),
                commands,
                tracked_files,
                early_stop,
                stdout_postprocessor,
                witness,
                report_bytes: 0,
            }
        })
}

proptest! {
    #[test]
    fn executables_round_trip(executable in executable()) {
        let text = serde_json::to_string(&executable).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Executable>(&text).unwrap(), &executable);
        let value = serde_json::to_value(&executable).unwrap();
        prop_assert_eq!(serde_json::from_value::<Executable>(value).unwrap(), executable);
    }
}
