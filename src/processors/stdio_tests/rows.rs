//! The tests of a row, in the forms that data sets publish them in.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::model::{Seconds, parse_strict};
use crate::processors::fields::{list, shown, text, value, wrong};
use crate::processors::function_tests::{Call, Expected, Rule};
use crate::processors::{Comparator, Tolerance, Unusable};

/// One test: what the program reads, and what it should write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) name: Option<String>,
    pub(super) input: String,
    pub(super) expected: String,
}

/// The tests of a row.
#[derive(Debug)]
pub(super) enum Tests {
    /// Programs that read and write.
    Streams(Vec<Test>),
    /// Functions that are called.
    Calls(Vec<Call>),
}

/// What a row says beside its program.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) tests: Tests,
    /// How its data set compares outputs.
    pub(super) comparator: Comparator,
    /// Its data set's time limit of one test.
    pub(super) timeout: Option<Seconds>,
}

/// Fields of which one at least names the form of a row.
const FORMS: [(&str, &[&str]); 4] = [
    ("plain", &["tests"]),
    ("APPS", &["input_output"]),
    ("CodeContests", &["public_tests", "private_tests", "generated_tests"]),
    ("LiveCodeBench", &["public_test_cases", "private_test_cases"]),
];

/// What to do about tests that only Python can read.
const PICKLED: &str = "it looks like base64 of a compressed Python pickle, which is code and is not loaded here; replace it once, where you trust it: \
     row[\"private_test_cases\"] = pickle.loads(zlib.decompress(base64.b64decode(row[\"private_test_cases\"])))";

/// Reads the tests of a row.
pub(super) fn read(payload: &Value) -> Result<Row, Unusable> {
    let has = |fields: &[&'static str]| fields.iter().copied().find(|field| value(payload, field).is_some());
    let mut found = FORMS.iter().filter_map(|(form, fields)| Some((*form, has(fields)?)));
    let Some((form, field)) = found.next() else {
        let known: Vec<_> = FORMS.iter().flat_map(|(_, fields)| fields.iter().copied()).collect();
        return Err(Unusable(format!("the tests are missing: give them in one of {}", known.join(", "))));
    };
    if let Some((_, other)) = found.next() {
        return Err(Unusable(format!(
            "{field} and {other} are both there: the tests of a row stand in one form"
        )));
    }
    let float =
        |absolute, relative, ignore_case| Comparator::Float(Tolerance { absolute, relative, ignore_case });
    let (tests, comparator, timeout) = match form {
        "plain" => (Tests::Streams(plain(payload)?), Comparator::Tokens, None),
        "APPS" => (apps(payload)?, float(1e-8, 1e-5, false), None),
        "CodeContests" => {
            (Tests::Streams(code_contests(payload)?), float(1e-5, 0.0, true), time_limit(payload)?)
        }
        _ => (live_code_bench(payload)?, float(0.0, 0.0, false), None),
    };
    let count = match &tests {
        Tests::Streams(tests) => tests.len(),
        Tests::Calls(calls) => calls.len(),
    };
    if count == 0 {
        return Err(Unusable(format!("{field} holds no test: there must be at least one")));
    }
    Ok(Row { tests, comparator, timeout })
}

/// A list of objects with `input`, `output` and perhaps `name`.
fn plain(payload: &Value) -> Result<Vec<Test>, Unusable> {
    let items = list(payload, "tests")?.unwrap_or_default();
    let mut tests = Vec::with_capacity(items.len());
    let mut names = std::collections::HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("tests[{index}]");
        let stream = |field: &str| {
            let given = item.get(field).unwrap_or(&Value::Null);
            stream(&format!("{at}.{field}"), given)
        };
        if !item.is_object() {
            return Err(wrong(&at, item, "an object with input and output"));
        }
        let name = text(item, "name").map_err(|error| Unusable(format!("{at}.{error}")))?;
        if let Some(other) = name.and_then(|name| names.insert(name, index)) {
            let name = shown(&item["name"]);
            return Err(Unusable(format!("{at}.name is {name}: tests[{other}] has this name already")));
        }
        tests.push(Test {
            name: name.map(str::to_owned),
            input: stream("input")?,
            expected: stream("output")?,
        });
    }
    Ok(tests)
}

/// A stream: text, or its lines as a list.
fn stream(at: &str, given: &Value) -> Result<String, Unusable> {
    let rule = "a string, or a list of its lines";
    match given {
        Value::String(text) => Ok(text.clone()),
        Value::Array(items) => {
            let line = |(index, item): (usize, &Value)| match item {
                Value::String(line) => Ok(line.clone()),
                Value::Number(number) => Ok(number.to_string()),
                other => Err(wrong(&format!("{at}[{index}]"), other, "a line of text")),
            };
            let lines: Result<Vec<_>, _> = items.iter().enumerate().map(line).collect();
            Ok(lines?.join("\n"))
        }
        other => Err(wrong(at, other, rule)),
    }
}

/// A field that is JSON, or a string with JSON in it.
fn embedded(payload: &Value, field: &str) -> Result<Value, Unusable> {
    match payload.get(field).unwrap_or(&Value::Null) {
        Value::String(text) => {
            parse_strict(text.as_bytes()).map_err(|error| Unusable(format!("{field}, read as JSON: {error}")))
        }
        other => Ok(other.clone()),
    }
}

/// Two lists that belong together, item by item.
fn paired<'a>(
    at: &str,
    given: &'a Value,
    inputs: &str,
    outputs: &str,
) -> Result<Vec<(&'a Value, &'a Value)>, Unusable> {
    if !given.is_object() {
        return Err(wrong(at, given, &format!("an object with {inputs} and {outputs}")));
    }
    let side = |name: &str| -> Result<&'a [Value], Unusable> {
        list(given, name)
            .map_err(|error| Unusable(format!("{at}.{error}")))?
            .ok_or_else(|| Unusable(format!("{at}.{name} is missing: it must be a list")))
    };
    let (ins, outs) = (side(inputs)?, side(outputs)?);
    if ins.len() != outs.len() {
        return Err(Unusable(format!(
            "{at}.{inputs} has {} items and {at}.{outputs} has {}: each test has one of both",
            ins.len(),
            outs.len()
        )));
    }
    Ok(ins.iter().zip(outs).collect())
}

/// APPS: `input_output` with `inputs`, `outputs` and, for functions, `fn_name`.
fn apps(payload: &Value) -> Result<Tests, Unusable> {
    let at = "input_output";
    let given = embedded(payload, at)?;
    let pairs = paired(at, &given, "inputs", "outputs")?;
    let function = text(&given, "fn_name").map_err(|error| Unusable(format!("{at}.{error}")))?;
    let Some(function) = function else {
        let test = |(index, (input, output)): (usize, (&Value, &Value))| {
            Ok(Test {
                name: None,
                input: stream(&format!("{at}.inputs[{index}]"), input)?,
                expected: stream(&format!("{at}.outputs[{index}]"), output)?,
            })
        };
        let tests: Result<_, Unusable> = pairs.into_iter().enumerate().map(test).collect();
        return Ok(Tests::Streams(tests?));
    };
    let is_list = |(index, input): (usize, &Value)| match input {
        Value::Array(_) => Ok(()),
        other => Err(wrong(&format!("{at}.inputs[{index}]"), other, "the list of the function's arguments")),
    };
    pairs.iter().enumerate().try_for_each(|(index, (input, _))| is_list((index, *input)))?;
    let call = |(arguments, expected): (Box<RawValue>, Box<RawValue>)| {
        Call::of_function(function, arguments.get(), Expected::json(expected.get(), Rule::Apps))
    };
    // The numbers as they are written: a float would not hold all of a long one.
    let texts = match payload.get(at) {
        Some(Value::String(text)) => Sides::read(text),
        _ => Sides::read(&given.to_string()),
    };
    Ok(Tests::Calls(texts?.pairs().map(call).collect()))
}

/// `inputs` and `outputs` as they are written.
#[derive(serde::Deserialize)]
struct Sides {
    inputs: Vec<Box<RawValue>>,
    outputs: Vec<Box<RawValue>>,
}

impl Sides {
    fn read(text: &str) -> Result<Self, Unusable> {
        serde_json::from_str(text).map_err(|error| Unusable(format!("input_output, read as JSON: {error}")))
    }

    fn pairs(self) -> impl Iterator<Item = (Box<RawValue>, Box<RawValue>)> {
        self.inputs.into_iter().zip(self.outputs)
    }
}

/// CodeContests: sets of tests, each with `input` and `output`.
fn code_contests(payload: &Value) -> Result<Vec<Test>, Unusable> {
    let mut tests = Vec::new();
    for field in ["public_tests", "private_tests", "generated_tests"] {
        let Some(given) = value(payload, field) else { continue };
        for (index, (input, output)) in paired(field, given, "input", "output")?.into_iter().enumerate() {
            tests.push(Test {
                name: Some(format!("{field}[{index}]")),
                input: stream(&format!("{field}.input[{index}]"), input)?,
                expected: stream(&format!("{field}.output[{index}]"), output)?,
            });
        }
    }
    Ok(tests)
}

/// CodeContests: `time_limit` with `seconds` and `nanos`.
fn time_limit(payload: &Value) -> Result<Option<Seconds>, Unusable> {
    let Some(given) = value(payload, "time_limit") else { return Ok(None) };
    let part = |name: &str| match value(given, name) {
        None => Some(0.0),
        Some(part) => part.as_f64(),
    };
    let total = part("seconds").zip(part("nanos")).filter(|_| given.is_object());
    let total = total.map(|(seconds, nanos)| seconds + nanos / 1e9);
    match total {
        // No limit is said as one of nothing.
        Some(0.0) => Ok(None),
        Some(total) => {
            Seconds::new(total).map(Some).map_err(|error| Unusable(format!("time_limit: {error}")))
        }
        None => Err(wrong("time_limit", given, "an object with seconds and nanos")),
    }
}

/// LiveCodeBench: JSON lists of `input`, `output` and `testtype`; the name of a function stands in `metadata`.
fn live_code_bench(payload: &Value) -> Result<Tests, Unusable> {
    let (mut streams, mut calls) = (Vec::new(), Vec::new());
    for field in ["public_test_cases", "private_test_cases"] {
        if value(payload, field).is_none() {
            continue;
        }
        let given = embedded(payload, field).map_err(|error| match text(payload, field) {
            Ok(Some(text)) if is_pickled(text) => Unusable(format!("{field} is no JSON: {PICKLED}")),
            _ => error,
        })?;
        let Value::Array(items) = &given else { return Err(wrong(field, &given, "a list of tests")) };
        for (index, item) in items.iter().enumerate() {
            let at = format!("{field}[{index}]");
            let part = |name: &str| -> Result<String, Unusable> {
                let given = item.get(name).unwrap_or(&Value::Null);
                given
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| wrong(&format!("{at}.{name}"), given, "a string"))
            };
            let (input, expected) = (part("input")?, part("output")?);
            match item.get("testtype").and_then(Value::as_str) {
                None | Some("stdin") => {
                    streams.push(Test { name: Some(at), input, expected });
                }
                Some("functional") => {
                    let arguments = json_lines(&at, "input", &input)?.join(",");
                    let expected = json_lines(&at, "output", &expected)?.concat();
                    let function = function_name(payload)?;
                    let expected = Expected::json(&expected, Rule::Plain);
                    calls.push(Call::of_function(&function, &format!("[{arguments}]"), expected).named(at));
                }
                Some(_) => {
                    let rule = "\"stdin\" or \"functional\"";
                    return Err(wrong(&format!("{at}.testtype"), &item["testtype"], rule));
                }
            }
        }
    }
    match (streams.is_empty(), calls.is_empty()) {
        (_, true) => Ok(Tests::Streams(streams)),
        (true, false) => Ok(Tests::Calls(calls)),
        (false, false) => {
            Err(Unusable("testtype: the tests of a row are all \"stdin\", or all \"functional\"".to_owned()))
        }
    }
}

/// JSON values, one a line, each checked.
fn json_lines(at: &str, part: &str, text: &str) -> Result<Vec<String>, Unusable> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let checked = lines.map(|line| match parse_strict(line.trim().as_bytes()) {
        Ok(_) => Ok(line.trim().to_owned()),
        Err(error) => Err(Unusable(format!("{at}.{part}, read as JSON: {error}"))),
    });
    checked.collect()
}

fn function_name(payload: &Value) -> Result<String, Unusable> {
    let metadata = embedded(payload, "metadata")?;
    let name = metadata.get("func_name").and_then(Value::as_str);
    name.map(str::to_owned).ok_or_else(|| {
        let rule = "an object, or a string with one as JSON, with the function's name in func_name";
        wrong("metadata", payload.get("metadata").unwrap_or(&json!(null)), rule)
    })
}

/// Base64 of what zlib writes begins so.
fn is_pickled(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte);
    text.starts_with("eJ") && text.bytes().all(is_base64)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn streams(payload: &Value) -> Vec<Test> {
        match read(payload).unwrap().tests {
            Tests::Streams(tests) => tests,
            Tests::Calls(calls) => panic!("{calls:?}"),
        }
    }

    fn test(name: Option<&str>, input: &str, expected: &str) -> Test {
        Test { name: name.map(str::to_owned), input: input.to_owned(), expected: expected.to_owned() }
    }

    #[test]
    fn published_forms_are_read_as_they_are() {
        let plain = json!({"tests": [{"name": "a", "input": "1\r\n", "output": ["1", "2"]}, {"input": [], "output": ""}]});
        assert_eq!(streams(&plain), [test(Some("a"), "1\r\n", "1\n2"), test(None, "", "")]);
        let apps =
            json!({"input_output": "{\"inputs\": [\"1\\n\", [\"2\", 3]], \"outputs\": [\"1\", [\"2\"]]}"});
        assert_eq!(streams(&apps), [test(None, "1\n", "1"), test(None, "2\n3", "2")]);
        let contests = json!({
            "public_tests": {"input": ["1"], "output": ["2"]},
            "private_tests": {"input": [], "output": []},
            "generated_tests": {"input": ["3"], "output": ["4"]},
            "time_limit": {"seconds": 1, "nanos": 500_000_000},
        });
        let expected = [test(Some("public_tests[0]"), "1", "2"), test(Some("generated_tests[0]"), "3", "4")];
        assert_eq!(streams(&contests), expected);
        assert_eq!(read(&contests).unwrap().timeout, Seconds::new(1.5).ok());
        let bench = json!({
            "public_test_cases": "[{\"input\": \"1\", \"output\": \"2\", \"testtype\": \"stdin\"}]",
            "private_test_cases": [{"input": "3", "output": "4"}],
            "metadata": "{}",
        });
        let expected =
            [test(Some("public_test_cases[0]"), "1", "2"), test(Some("private_test_cases[0]"), "3", "4")];
        assert_eq!(streams(&bench), expected);
    }

    #[rstest]
    #[case::apps(json!({"input_output": "{\"fn_name\": \"f\", \"inputs\": [[1, [2]]], \"outputs\": [[3]]}"}))]
    #[case::apps_object(json!({"input_output": {"fn_name": "f", "inputs": [[1]], "outputs": [3]}}))]
    #[case::bench(json!({
        "public_test_cases": "[{\"input\": \"[1, 2]\\n\\\"a\\\"\", \"output\": \"3\", \"testtype\": \"functional\"}]",
        "metadata": "{\"func_name\": \"f\"}",
    }))]
    fn functions_are_called(#[case] payload: Value) {
        assert!(matches!(read(&payload).unwrap().tests, Tests::Calls(calls) if calls.len() == 1));
    }

    #[test]
    fn long_numbers_reach_the_function_whole() {
        let long = "123456789012345678901234567890";
        let text = format!("{{\"fn_name\": \"f\", \"inputs\": [[{long}]], \"outputs\": [{long}]}}");
        let Tests::Calls(calls) = read(&json!({"input_output": text})).unwrap().tests else {
            panic!("a function")
        };
        assert!(calls[0].task.contains(long), "{calls:?}");
        assert!(format!("{:?}", calls[0].expected).contains(long), "{calls:?}");
    }

    #[rstest]
    #[case(json!({}), "the tests are missing: give them in one of tests, input_output, public_tests")]
    #[case(json!({"tests": [], "input_output": "{}"}), "tests and input_output are both there")]
    #[case(json!({"tests": []}), "tests holds no test")]
    #[case(json!({"tests": {}}), "tests is an object: it must be a list")]
    #[case(json!({"tests": [1]}), "tests[0] is 1: it must be an object with input and output")]
    #[case(json!({"tests": [{"input": "a"}]}), "tests[0].output is null: it must be a string, or a list of its lines")]
    #[case(json!({"tests": [{"input": 3, "output": ""}]}), "tests[0].input is 3")]
    #[case(json!({"tests": [{"input": [{}], "output": ""}]}), "tests[0].input[0] is an object: it must be a line")]
    #[case(
        json!({"tests": [{"name": "a", "input": "", "output": ""}, {"name": "a", "input": "", "output": ""}]}),
        "tests[1].name is \"a\": tests[0] has this name already"
    )]
    #[case(json!({"tests": [{"name": 1, "input": "", "output": ""}]}), "tests[0].name is 1: it must be a string")]
    #[case(json!({"input_output": "{"}), "input_output, read as JSON: not JSON")]
    #[case(json!({"input_output": "{\"inputs\": [], \"inputs\": []}"}), "\"inputs\" stands twice")]
    #[case(json!({"input_output": "[".repeat(1000)}), "127 deep")]
    #[case(json!({"input_output": ""}), "input_output, read as JSON: not JSON")]
    #[case(json!({"input_output": "[]"}), "input_output is a list of 0: it must be an object with inputs and outputs")]
    #[case(json!({"input_output": "{\"inputs\": []}"}), "input_output.outputs is missing: it must be a list")]
    #[case(json!({"input_output": "{\"inputs\": [\"a\"], \"outputs\": []}"}), "input_output.inputs has 1 items and input_output.outputs has 0")]
    #[case(json!({"input_output": "{\"inputs\": [], \"outputs\": []}"}), "input_output holds no test")]
    #[case(json!({"input_output": {"inputs": [1], "outputs": ["1"]}}), "input_output.inputs[0] is 1: it must be a string")]
    #[case(json!({"input_output": {"inputs": [1], "outputs": [1], "fn_name": "f"}}), "input_output.inputs[0] is 1: it must be the list of")]
    #[case(json!({"input_output": {"inputs": [], "outputs": [], "fn_name": 1}}), "input_output.fn_name is 1")]
    #[case(json!({"public_tests": {"input": ["1"], "output": []}}), "public_tests.input has 1 items")]
    #[case(json!({"public_tests": {"input": ["1"], "output": ["1"]}, "time_limit": 2}), "time_limit is 2: it must be an object")]
    #[case(json!({"public_tests": {"input": ["1"], "output": ["1"]}, "time_limit": {"seconds": -1}}), "time_limit: -1 is no time limit")]
    #[case(json!({"public_test_cases": "[{\"input\": \"1\"}]"}), "public_test_cases[0].output is null: it must be a string")]
    #[case(json!({"public_test_cases": [{"input": "1", "output": "", "testtype": "x"}]}), "public_test_cases[0].testtype is \"x\"")]
    #[case(json!({"public_test_cases": [{"input": "1", "output": "1", "testtype": "functional"}]}), "metadata is null")]
    #[case(
        json!({"public_test_cases": [{"input": "a", "output": "1", "testtype": "functional"}], "metadata": {"func_name": "f"}}),
        "public_test_cases[0].input, read as JSON: not JSON"
    )]
    #[case(json!({"private_test_cases": "eJxrYJlKyQABRgA"}), "pickle.loads(zlib.decompress(base64.b64decode(")]
    fn unusable(#[case] payload: Value, #[case] says: &str) {
        let error = read(&payload).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
