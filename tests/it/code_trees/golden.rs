//! What comes out means what the reference's comes to, for every case of the golden files.

use evalmill::code_trees::{
    PrintedTexts, TestCase, TreeError, Validity, convert_call_to_assert, convert_test_list_to_assert,
    get_global_imports, is_simple_test_case, is_valid_python, safe_ast_parse, wrap_assert_in_try_print,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::python::{Python, golden};

#[derive(Deserialize)]
pub(super) struct Converted {
    pub(super) call: String,
    pub(super) expected: String,
    pub(super) float: bool,
    accepted: bool,
    golden: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Program {
    pub(super) code: String,
    parses: bool,
    compiles: bool,
    simple: Option<bool>,
    imports: Option<Vec<String>>,
}

/// Whether a text has syntax that the reference's CPython 3.11 need not know.
pub(super) fn is_newer(text: &str) -> bool {
    safe_ast_parse(text).is_ok_and(|tree| tree.minor_version() > 11)
}

/// One line for a snapshot: an input and what came of it.
fn line(input: &impl std::fmt::Debug, outcome: &impl std::fmt::Debug) -> String {
    format!("{input:?}\n    {outcome:?}\n")
}

/// Holds what was made of a request against CPython's answer to it.
pub(super) fn held_against(
    request: &Value,
    ours: &Result<String, TreeError>,
    answer: &Value,
) -> Result<(), String> {
    let accepted = answer["accepted"] == true;
    match ours {
        Ok(_) if answer["same"] == true => Ok(()),
        Ok(text) if !accepted && is_newer(text) => Ok(()),
        Ok(text) => Err(format!("{request}\nmeans something else, or nothing: {text:?}")),
        Err(TreeError::Unknown { .. }) => Ok(()),
        Err(_) if !accepted => Ok(()),
        Err(error) => Err(format!("{request}\nis accepted by CPython and refused here: {error}")),
    }
}

#[test]
fn conversions_mean_what_the_references_do() {
    let cases: Vec<Converted> = golden("converted.jsonl");
    assert!(cases.len() > 1_000);
    let ours: Vec<_> =
        cases.iter().map(|case| convert_call_to_assert(&case.call, &case.expected, case.float)).collect();
    let requests: Vec<Value> = cases
        .iter()
        .zip(&ours)
        .map(|(case, ours)| {
            json!({"op": "same", "call": case.call, "expected": case.expected, "float": case.float,
                   "ours": ours.as_ref().ok(), "golden": case.golden})
        })
        .collect();
    let answers = Python::start().ask(&requests);
    let mut snapshot = String::new();
    let mut wrong = Vec::new();
    for (((case, ours), request), answer) in cases.iter().zip(&ours).zip(&requests).zip(&answers) {
        wrong.extend(held_against(request, ours, answer).err());
        if ours.as_ref().is_ok_and(|text| !case.accepted && !is_newer(text)) {
            wrong.push(format!("{request}\nis refused by CPython 3.11"));
        }
        snapshot += &line(&(&case.call, &case.expected, case.float), ours);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    insta::assert_snapshot!("conversions", snapshot);
}

#[test]
fn verdicts_on_programs_are_cpythons() {
    let programs: Vec<Program> = golden("programs.jsonl");
    let requests: Vec<Value> =
        programs.iter().map(|program| json!({"op": "valid", "code": program.code})).collect();
    let answers = Python::start().ask(&requests);
    let mut snapshot = String::new();
    let mut wrong = Vec::new();
    for (program, answer) in programs.iter().zip(&answers) {
        let verdict = is_valid_python(&program.code);
        let compiles = program.compiles && answer["compiles"] == true;
        let parses = program.parses || answer["parses"] == true;
        match &verdict {
            Validity::Valid if !compiles => wrong.push(format!("{:?} is not valid", program.code)),
            Validity::Invalid(why) if parses => wrong.push(format!("{:?} parses: {why}", program.code)),
            _ => {}
        }
        snapshot += &line(&shown(&program.code), &verdict);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    insta::assert_snapshot!("verdicts", snapshot);
}

/// A code, cut where it is one of the long ones.
fn shown(code: &str) -> String {
    let end = code.char_indices().nth(120).map_or(code.len(), |(at, _)| at);
    if end < code.len() { format!("{}… ({} bytes)", &code[..end], code.len()) } else { code.to_owned() }
}

#[test]
fn simple_tests_and_imports_are_the_references() {
    let mut understood = 0;
    for program in golden::<Program>("programs.jsonl") {
        let Ok(tree) = safe_ast_parse(&program.code) else { continue };
        let known = program.parses || program.code.starts_with('\u{feff}') || tree.minor_version() > 11;
        assert!(known, "{:?} does not parse", program.code);
        let (Some(simple), Some(imports)) = (program.simple, program.imports) else { continue };
        understood += 1;
        assert_eq!(is_simple_test_case(&tree), simple, "{:?}", program.code);
        assert_eq!(get_global_imports(&tree), imports, "{:?}", program.code);
    }
    assert!(understood > 300, "{understood}");
}

#[test]
fn humaneval_is_understood_and_means_the_same() {
    let mut python = Python::start();
    let path = crate::support::humaneval();
    let data = python.ask(&[json!({"op": "humaneval", "path": path})]).remove(0);
    let strings = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let pairs: Vec<(String, String)> = serde_json::from_value(data["pairs"].clone()).unwrap();
    assert!(pairs.len() > 1_000, "{}", pairs.len());
    let mut requests = Vec::new();
    for (call, expected) in &pairs {
        for float in [false, true] {
            let ours = convert_call_to_assert(call, expected, float)
                .unwrap_or_else(|error| panic!("{call:?} and {expected:?}: {error}"));
            requests.push(
                json!({"op": "same", "call": call, "expected": expected, "float": float, "ours": ours}),
            );
        }
    }
    let tests: Vec<_> = strings(&data["asserts"]).into_iter().map(TestCase::Source).collect();
    let converted = convert_test_list_to_assert(&tests, None);
    assert_eq!(converted.left_out, []);
    for (test, ours) in tests.iter().zip(converted.asserts) {
        let TestCase::Source(test) = test else { unreachable!() };
        requests.push(json!({"op": "same", "call": test, "expected": "1", "float": false, "ours": ours}));
    }
    let answers = python.ask(&requests);
    for (request, answer) in requests.iter().zip(answers) {
        assert_eq!(answer["same"], true, "{request}");
    }
    let programs = strings(&data["programs"]);
    let unknown: Vec<_> = programs
        .iter()
        .filter_map(|program| match is_valid_python(program) {
            Validity::Valid => None,
            other => Some(format!("{other:?}")),
        })
        .collect();
    assert!(unknown.len() <= 2, "of {} programs: {unknown:#?}", programs.len());
}

#[test]
fn wrapped_tests_mean_what_the_references_do() {
    let texts = [
        ("'PASSED'", "'FAILED'", vec![("Exception", "f'{type(e).__name__}'")]),
        ("\"a\", 1, sep=''", "", vec![("(A, B)", "e"), ("A, B", "'x' 'y'"), ("a.B", "*e.args")]),
        ("'''a\nb'''", "1 if 2 else 3", vec![]),
        ("'a') or print('b'", "x for x in y", vec![]),
    ];
    let cases: Vec<Converted> = golden("converted.jsonl");
    let mut requests = Vec::new();
    let mut results = Vec::new();
    for (index, case) in cases.iter().filter(|case| case.accepted).enumerate() {
        let (pass, fail, exceptions) = &texts[index % texts.len()];
        let exceptions: Vec<_> = exceptions.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        requests
            .push(json!({"op": "same", "call": case.call, "expected": case.expected, "float": case.float,
            "texts": {"pass": pass, "fail": fail, "exceptions": exceptions}}));
        let printed = PrintedTexts { pass: (*pass).to_owned(), fail: (*fail).to_owned(), exceptions };
        results.push(wrap_assert_in_try_print(index, &case.call, &case.expected, case.float, |_| printed));
        requests.last_mut().unwrap()["ours"] = json!(results.last().unwrap().as_ref().ok());
    }
    let answers = Python::start().ask(&requests);
    let wrong: Vec<_> = requests
        .iter()
        .zip(&results)
        .zip(&answers)
        .filter_map(|((request, ours), answer)| held_against(request, ours, answer).err())
        .collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let understood = results.iter().filter(|result| result.is_ok()).count();
    assert!(understood * 10 > results.len() * 9, "{understood} of {}", results.len());
}
