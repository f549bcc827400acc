//! What a row asks for, checked, and the executable made of it.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::super::Unusable;
use super::super::compare::excerpt;
use super::super::fields::{self, wrong};
use crate::code_trees::{TreeError, Validity, convert_call_to_assert, is_valid_python};
use crate::model::{BoxPath, Command, Executable, FileContent, Seconds, Stdin};

/// Most tests of one row.
const MAX_TESTS: usize = 10_000;
/// Most bytes of the report about one test, and about loading.
const REPORT_BYTES: u64 = 2 << 10;
/// The runner: plain data, the processes of the solution, the judge.
const RUNNER: &str = concat!(
    include_str!("runner/plain.py"),
    include_str!("runner/loader.py"),
    include_str!("runner/judge.py")
);

/// Where coverage is read from.
pub(in super::super) const COVERAGE_FILE: &str = "coverage.json";

/// The fields of a row.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Row<'a>(pub(in super::super) &'a Value);

/// Where values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// In the process that the call ran in.
    Test,
    /// In another one, where they are plain data.
    Process,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Test {
    name: Option<String>,
    kind: Kind,
    source: String,
    /// Empty for statements.
    expected: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Statements that raise where it fails.
    Statements,
    /// A call, and what its value must equal.
    Call,
    /// A call, and what its value must come within 10⁻⁶ of.
    Float,
}

/// What a row asks for.
#[derive(Debug, Clone)]
pub(in super::super) struct Plan {
    code: String,
    entry_file: BoxPath,
    entry_point: String,
    imports: String,
    files: BTreeMap<BoxPath, FileContent>,
    tests: Vec<Test>,
    /// Of the whole command.
    timeout: Option<Seconds>,
    test_timeout: Option<Seconds>,
    early_stop: bool,
    isolation: Isolation,
}

impl<'a> Row<'a> {
    /// The first of these fields that is there, with its name.
    fn first(self, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        names.iter().find_map(|name| Some((*name, fields::value(self.0, name)?)))
    }

    fn flag(self, name: &str) -> Result<bool, Unusable> {
        Ok(fields::flag(self.0, name)?.unwrap_or(false))
    }

    /// A list of lines, or a text.
    fn lines(self, names: &[&'static str]) -> Result<String, Unusable> {
        match self.first(names) {
            None => Ok(String::new()),
            Some((_, Value::String(text))) => Ok(unmarked(text).to_owned()),
            Some((name, Value::Array(_))) => {
                let lines = fields::texts(self.0, name)?;
                Ok(lines.iter().map(|line| unmarked(line)).collect::<Vec<_>>().join("\n"))
            }
            Some((name, other)) => Err(wrong(name, other, "a string, or a list of strings")),
        }
    }

    /// Everything that `python_tests` knows.
    pub(in super::super) fn plan(self) -> Result<Plan, Unusable> {
        let Some((name, tests)) = self.first(&["tests", "test_cases"]) else {
            return Err(Unusable("tests is missing: it must be a list of tests".to_owned()));
        };
        let imports = self.lines(&["imports", "tc_imports"])?;
        self.plan_of(fields::code(self.0)?, tests_of(name, tests)?, imports)
    }

    /// The row of MBPP, as published.
    pub(in super::super) fn mbpp(self) -> Result<Plan, Unusable> {
        let Some((name, tests)) = self.first(&["test_list"]) else {
            return Err(Unusable("test_list is missing: it must be a list of assert statements".to_owned()));
        };
        let mut tests = tests_of(name, tests)?;
        if self.flag("challenge")?
            && let Some((name, value)) = self.first(&["challenge_test_list"])
            && value.as_array().is_none_or(|list| !list.is_empty())
        {
            tests.extend(tests_of(name, value)?);
        }
        let parts = [self.lines(&["test_imports"])?, self.lines(&["test_setup_code"])?];
        let code = fields::text(self.0, "completion")?.map_or_else(|| fields::code(self.0), Ok)?;
        self.plan_of(code, tests, parts.join("\n"))
    }

    fn plan_of(self, code: &str, tests: Vec<Test>, imports: String) -> Result<Plan, Unusable> {
        if tests.len() > MAX_TESTS {
            return Err(Unusable(format!("tests: {} of them; at most {MAX_TESTS} are allowed", tests.len())));
        }
        let mut names = HashSet::new();
        if let Some(twice) =
            tests.iter().filter_map(|test| test.name.as_ref()).find(|name| !names.insert(*name))
        {
            return Err(Unusable(format!(
                "tests: the name {} is given twice",
                Value::from(excerpt(twice, 60))
            )));
        }
        let test_timeout = self.first(&["test_timeout", "tc_timeout"]);
        let test_timeout = test_timeout.map_or(Ok(None), |(name, _)| fields::seconds(self.0, name))?;
        let isolation = match fields::text(self.0, "isolation")? {
            None | Some("test") => Isolation::Test,
            Some("process") => Isolation::Process,
            Some(other) => {
                return Err(wrong("isolation", &Value::from(other), "\"test\" or \"process\""));
            }
        };
        let mut files = BTreeMap::new();
        if let Some(value) = fields::value(self.0, "files") {
            files = serde_path_to_error::deserialize(value)
                .map_err(|error| Unusable(format!("files.{}: {}", error.path(), error.inner())))?;
        }
        Ok(Plan {
            code: code.to_owned(),
            entry_file: self.entry_file()?,
            entry_point: self.entry_point()?,
            imports,
            files,
            tests,
            timeout: fields::seconds(self.0, "timeout")?,
            test_timeout,
            early_stop: self.flag("early_stop")?,
            isolation,
        })
    }

    fn entry_file(self) -> Result<BoxPath, Unusable> {
        let name = fields::text(self.0, "entry_file")?.unwrap_or("solution.py");
        let name = if name.ends_with(".py") { name.to_owned() } else { format!("{name}.py") };
        BoxPath::new(&name).map_err(|error| Unusable(format!("entry_file: {error}")))
    }

    fn entry_point(self) -> Result<String, Unusable> {
        let Some(name) = fields::text(self.0, "entry_point")? else { return Ok(String::new()) };
        let is_name = |part: &str| {
            let mut characters = part.chars();
            characters.next().is_some_and(|c| c == '_' || c.is_alphabetic())
                && characters.all(|c| c == '_' || c.is_alphanumeric())
        };
        if name.split('.').all(is_name) {
            Ok(name.to_owned())
        } else {
            Err(wrong("entry_point", &Value::from(name), "a Python name"))
        }
    }
}

/// Without a byte order mark, which Python takes at the beginning of a file only.
fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn tests_of(name: &str, value: &Value) -> Result<Vec<Test>, Unusable> {
    let Value::Array(tests) = value else { return Err(wrong(name, value, "a list of tests")) };
    if tests.is_empty() {
        return Err(Unusable(format!("{name} is empty: there is nothing to run")));
    }
    let test = |(at, test): (usize, &Value)| {
        let at = format!("{name}[{at}]");
        let read = test_of(&at, test)?;
        read.refused().map_or(Ok(()), |reason| Err(Unusable(format!("{at} cannot be used: {reason}"))))?;
        Ok(read)
    };
    tests.iter().enumerate().map(test).collect()
}

fn test_of(at: &str, value: &Value) -> Result<Test, Unusable> {
    match value {
        Value::String(source) => Ok(Test::statements(source, None)),
        Value::Array(parts) => match parts.as_slice() {
            [call, expected] => Test::call(at, (call, expected, None), None),
            [call, expected, float] => Test::call(at, (call, expected, Some(float)), None),
            _ => Err(wrong(at, value, "[call, output] or [call, output, requires_float]")),
        },
        Value::Object(fields) => of_object(at, value, fields),
        other => Err(wrong(at, other, "a string, a list [call, output, requires_float] or an object")),
    }
}

fn of_object(at: &str, value: &Value, fields: &Map<String, Value>) -> Result<Test, Unusable> {
    let name = match fields.get("name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(other) => return Err(wrong(&format!("{at}.name"), other, "a string")),
    };
    let output = fields.get("output").or_else(|| fields.get("expected"));
    match (fields.get("test"), fields.get("call"), output) {
        (Some(Value::String(source)), None, None) => Ok(Test::statements(source, name)),
        (None, Some(call), Some(expected)) => {
            Test::call(at, (call, expected, fields.get("requires_float")), name)
        }
        _ => Err(wrong(at, value, "an object with `test`, or with `call` and `output`, as strings")),
    }
}

impl Test {
    fn statements(source: &str, name: Option<String>) -> Self {
        let source = unmarked(source).to_owned();
        Self { name, kind: Kind::Statements, source, expected: String::new() }
    }

    fn call(
        at: &str,
        (call, expected, float): (&Value, &Value, Option<&Value>),
        name: Option<String>,
    ) -> Result<Self, Unusable> {
        let text = |part: &str, value: &Value, rule: &str| match value {
            Value::String(text) => Ok(unmarked(text).to_owned()),
            other => Err(wrong(&format!("{at}.{part}"), other, rule)),
        };
        let kind = match float {
            None | Some(Value::Null | Value::Bool(false)) => Kind::Call,
            Some(Value::Bool(true)) => Kind::Float,
            Some(other) => {
                return Err(wrong(&format!("{at}.requires_float"), other, "true or false"));
            }
        };
        let source = text("call", call, "a string that holds Python code")?;
        let expected = text("output", expected, "a string that holds a Python expression")?;
        Ok(Self { name, kind, source, expected })
    }
}

impl Test {
    /// Why it is certainly no test. What the parser does not know, the interpreter in the box decides.
    fn refused(&self) -> Option<String> {
        if self.kind == Kind::Statements {
            if is_without_statement(&self.source) {
                return Some("it has no statement, and would always pass".to_owned());
            }
            return match is_valid_python(&self.source) {
                Validity::Invalid(invalid) => Some(format!("it is no Python: {invalid}")),
                Validity::Valid | Validity::Unknown(_) => None,
            };
        }
        let converted = convert_call_to_assert(&self.source, &self.expected, self.kind == Kind::Float);
        converted.err().filter(|error| !error.is_unknown()).map(|error: TreeError| error.to_string())
    }
}

/// Blank lines and comments alone. Within a string there would be the line that opens it, too.
fn is_without_statement(source: &str) -> bool {
    let lines = source.split(['\n', '\r']).map(|line| line.trim_start_matches([' ', '\t', '\u{c}']));
    lines.into_iter().all(|line| line.is_empty() || line.starts_with('#'))
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Statements => "statements",
            Self::Call => "call",
            Self::Float => "float",
        }
    }
}

impl Plan {
    /// The names of the tests, of which most have none.
    pub(super) fn names(&self) -> Vec<Option<String>> {
        self.tests.iter().map(|test| test.name.clone()).collect()
    }

    /// What is run.
    pub(super) fn executable(&self, with_coverage: bool) -> Result<Executable, Unusable> {
        let path = |name: &str| BoxPath::new(name).map_err(|error| Unusable(error.to_string()));
        let mut files = self.files.clone();
        let file = self.entry_file.as_str();
        if files.insert(self.entry_file.clone(), FileContent::from(self.code.clone())).is_some() {
            return Err(Unusable(format!("files: {file:?} is the entry file, which holds the solution")));
        }
        let is_free = |name: &&str| path(name).is_ok_and(|name| !files.contains_key(&name));
        let Some(runner) = ["main.py", "evalmill_main.py", "evalmill_main_.py"].into_iter().find(is_free)
        else {
            return Err(Unusable("files: \"evalmill_main.py\" is taken: it is the runner's".to_owned()));
        };
        files.insert(path(runner)?, FileContent::from(RUNNER.to_owned()));
        let mut command = Command::new(["python3", runner, file]);
        if with_coverage {
            command.command.push("coverage".to_owned());
        }
        command.timeout = self.timeout;
        command.stdin = Stdin::Text(self.told());
        let mut executable = Executable::new(files, vec![command]);
        executable.witness = true;
        executable.report_bytes = REPORT_BYTES * (self.tests.len() as u64 + 1);
        if with_coverage {
            executable.tracked_files.push(path(COVERAGE_FILE)?);
        }
        Ok(executable)
    }

    /// What the runner reads from standard input: texts, each with its length in bytes before it.
    fn told(&self) -> String {
        let timeout = self.test_timeout.map_or(String::new(), |timeout| timeout.get().to_string());
        let isolation = if self.isolation == Isolation::Process { "process" } else { "test" };
        let early_stop = if self.early_stop { "early_stop" } else { "" };
        let head = [isolation, &timeout, early_stop, &self.entry_point, &self.imports];
        let tests = self.tests.iter().flat_map(|test| [test.kind.as_str(), &test.source, &test.expected]);
        let mut all = String::new();
        for text in head.into_iter().chain(tests) {
            all.push_str(&format!("{}:{text}", text.len()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn whole() -> Value {
        json!({"code": "def f(x):\n    return x\n", "tests": ["assert f(1) == 1"]})
    }

    #[rstest]
    #[case("code", Value::Null, "the program is missing")]
    #[case("code", json!(3), "code is 3: it must be a string")]
    #[case("tests", Value::Null, "tests is missing")]
    #[case("tests", json!([]), "tests is empty: there is nothing to run")]
    #[case("tests", json!("assert f(1)"), "it must be a list of tests")]
    #[case("tests", json!([1]), "tests[0] is 1: it must be a string, a list")]
    #[case("tests", json!([["f(1)"]]), "tests[0] is a list of 1: it must be [call, output]")]
    #[case("tests", json!([["f(1)", 1]]), "tests[0].output is 1: it must be a string that holds a Python expression")]
    #[case("tests", json!(["pass", [1, "1"]]), "tests[1].call is 1: it must be a string that holds Python code")]
    #[case("tests", json!([["f(1)", "1", 0]]), "tests[0].requires_float is 0: it must be true or false")]
    #[case("tests", json!([{"call": "f(1)"}]), "it must be an object with `test`, or with")]
    #[case("tests", json!([{"test": "pass", "call": "f(1)", "output": "1"}]), "it must be an object with `test`, or")]
    #[case("tests", json!([{"test": "", "name": 1}]), "tests[0].name is 1")]
    #[case("tests", json!([{"test": "pass", "name": "a"}, {"test": "pass", "name": "a"}]), "the name \"a\" is given twice")]
    #[case("tests", json!([""]), "tests[0] cannot be used: it has no statement")]
    #[case("tests", json!(["pass # a\n", "# f(1) == 1\r\n \t\n\u{c}#"]), "tests[1] cannot be used: it has no statement")]
    #[case("tests", json!(["pass", "assert f("]), "tests[1] cannot be used: it is no Python: ")]
    #[case("tests", json!([["f(1", "1"]]), "tests[0] cannot be used: the call is no Python: ")]
    #[case("tests", json!([["x = f(1)", "1"]]), "tests[0] cannot be used: the call has to end with an expression")]
    #[case("tests", json!([["f(1)", "1; 2"]]), "tests[0] cannot be used: the expected value")]
    #[case("imports", json!(1), "imports is 1: it must be a string, or a list of strings")]
    #[case("imports", json!(["", 1]), "imports[1] is 1: it must be a string")]
    #[case("test_timeout", json!("1"), "test_timeout is \"1\": it must be a number of seconds")]
    #[case("test_timeout", json!(0), "test_timeout: 0 is no time limit")]
    #[case("isolation", json!("vm"), "isolation is \"vm\": it must be \"test\" or \"process\"")]
    #[case("entry_file", json!("../x"), "entry_file: the file name \"../x.py\" contains `..`")]
    #[case("entry_point", json!("f(1)"), "entry_point is \"f(1)\": it must be a Python name")]
    #[case("entry_point", json!(""), "a Python name")]
    #[case("early_stop", json!("yes"), "early_stop is \"yes\": it must be true or false")]
    #[case("files", json!({"/x": ""}), "is absolute")]
    #[case("files", json!({"solution.py": ""}), "\"solution.py\" is the entry file")]
    fn unusable(#[case] field: &str, #[case] value: Value, #[case] says: &str) {
        let mut payload = whole();
        payload[field] = value;
        let plan = Row(&payload).plan().and_then(|plan| plan.executable(false));
        let error = plan.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[rstest]
    #[case(json!({}), "main.py", "solution.py")]
    #[case(json!({"entry_file": "main"}), "evalmill_main.py", "main.py")]
    #[case(json!({"files": {"main.py": ""}}), "evalmill_main.py", "solution.py")]
    fn the_runner_takes_a_free_name(#[case] more: Value, #[case] runner: &str, #[case] file: &str) {
        let mut payload = whole();
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let executable = Row(&payload).plan().unwrap().executable(false).unwrap();
        assert_eq!(executable.commands[0].command, ["python3", runner, file]);
        assert_eq!(executable.files[&BoxPath::new(runner).unwrap()].0, RUNNER.as_bytes());
        assert!(executable.validate().is_ok());
    }

    #[test]
    fn what_the_runner_is_told() {
        let payload = json!({
            "code": "", "imports": ["import re", "\u{feff}import os"], "entry_point": "f", "test_timeout": 0.5,
            "tests": ["\u{feff}assert f('é')", ["f(1)", "2"], ["f(1)", "2.0", true], {"call": "f(2)", "expected": "3"}],
        });
        let plan = Row(&payload).plan().unwrap();
        assert_eq!(
            plan.told(),
            "4:test3:0.50:1:f19:import re\nimport os10:statements14:assert f('é')0:4:call4:f(1)1:2\
             5:float4:f(1)3:2.04:call4:f(2)1:3"
        );
        // Nothing that is expected is in a file of the box.
        let executable = plan.executable(false).unwrap();
        assert!(executable.files.values().all(|file| !String::from_utf8_lossy(&file.0).contains('é')));
    }

    #[rstest]
    #[case(json!({"test_list": ["a"], "challenge_test_list": ["b"]}), 1)]
    #[case(json!({"test_list": ["a"], "challenge_test_list": ["b"], "challenge": true}), 2)]
    #[case(json!({"test_list": ["a"], "challenge_test_list": [], "challenge": true}), 1)]
    fn challenge_tests_are_asked_for(#[case] mut payload: Value, #[case] tests: usize) {
        payload["code"] = json!("");
        assert_eq!(Row(&payload).mbpp().unwrap().tests.len(), tests);
    }
}
