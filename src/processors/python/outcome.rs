//! What came of the tests, from what the runner reports.

use serde_json::{Map, Value, json};

use super::Plan;
use super::plan::COVERAGE_FILE;
use crate::model::{BoxPath, CommandResult, ExecutionResult, Termination};
use crate::processors::{Case, Judgement, Prepared, Undecided, Unusable};

/// A row that is run, and judged by its tests.
#[derive(Debug)]
pub(in super::super) struct TestCase {
    names: Vec<Option<String>>,
    with_coverage: bool,
}

impl TestCase {
    /// What is run of a plan, and who judges it.
    pub(in super::super) fn prepared(plan: &Plan, with_coverage: bool) -> Result<Prepared, Unusable> {
        let executable = plan.executable(with_coverage)?;
        let case = Self { names: plan.names(), with_coverage };
        Ok(Prepared::Case(vec![executable.into()], std::sync::Arc::new(case)))
    }
}

/// What came of one test, or of loading the solution.
#[derive(Debug, Clone, PartialEq, Default)]
struct Outcome {
    /// `passed`, `failed`, `exception`, `timed_out`, `exited`, `invalid`, `not_run`, …
    word: String,
    runtime: Option<f64>,
    cpu_time: Option<f64>,
    max_rss_bytes: Option<u64>,
    exception: String,
    message: String,
}

impl Outcome {
    fn of(word: &str) -> Self {
        Self { word: word.to_owned(), ..Self::default() }
    }

    fn has_passed(&self) -> bool {
        self.word == "passed"
    }

    /// For people: `TypeError: …`, or what else there is to say.
    fn told(&self) -> String {
        let parts = match (self.exception.as_str(), self.message.as_str()) {
            ("", "") => return self.word.replace('_', " "),
            ("", message) => [self.word.as_str(), message],
            (exception, "") => return exception.to_owned(),
            both => [both.0, both.1],
        };
        parts.join(": ")
    }

    fn to_json(&self, name: Option<&String>) -> Value {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() && value != "" {
                fields.insert(key.to_owned(), value);
            }
        };
        put("name", json!(name));
        put("outcome", json!(self.word));
        put("runtime", json!(self.runtime));
        put("cpu_time", json!(self.cpu_time));
        put("max_rss_bytes", json!(self.max_rss_bytes));
        put("exception", json!(self.exception));
        put("message", json!(self.message));
        Value::Object(fields)
    }
}

/// The report, read.
#[derive(Debug, Default, PartialEq)]
struct Report {
    load: Option<Outcome>,
    tests: Vec<Option<Outcome>>,
    /// `duplicate_tests` or `unknown_tests`: nobody but the runner can have caused it.
    wrong: Option<&'static str>,
    /// It is whole.
    ended: bool,
}

fn read(report: &[u8], count: usize) -> Report {
    let text = String::from_utf8_lossy(report);
    let mut read = Report { tests: vec![None; count], ..Report::default() };
    // What is cut off at the end of a line is no line.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let fields: Vec<_> = line.split('\t').collect();
        let text = |at: usize| fields.get(at).map_or(String::new(), |text| (*text).to_owned());
        match fields.as_slice() {
            ["load", word, took, ..] => {
                let runtime = took.parse().ok();
                let (exception, message) = (text(3), text(4));
                read.load = Some(Outcome { runtime, exception, message, ..Outcome::of(word) });
            }
            ["test", at, word, took, cpu_time, max_rss_bytes, ..] => {
                let outcome = Outcome {
                    runtime: took.parse().ok(),
                    cpu_time: cpu_time.parse().ok(),
                    max_rss_bytes: max_rss_bytes.parse().ok(),
                    exception: text(6),
                    message: text(7),
                    ..Outcome::of(word)
                };
                match at.parse().ok().and_then(|at: usize| read.tests.get_mut(at)) {
                    Some(free @ None) => *free = Some(outcome),
                    Some(_) => read.wrong = Some("duplicate_tests"),
                    None => read.wrong = Some("unknown_tests"),
                }
            }
            ["end"] => read.ended = true,
            _ => {}
        }
    }
    read
}

/// What the end of the whole command means for what was going on then.
fn interrupted(command: &CommandResult) -> Outcome {
    let word = match command.termination {
        Termination::WallLimit | Termination::CpuLimit => "timed_out",
        Termination::MemoryLimit => "memory_exceeded",
        Termination::OutputLimit => "output_exceeded",
        _ => "exited",
    };
    let message = match command.return_code {
        Some(code) => format!("what judges the tests ended with exit code {code}"),
        None => format!("the tests were {}", command.termination),
    };
    Outcome { message, ..Outcome::of(word) }
}

impl Case for TestCase {
    fn judge(&self, executions: &[ExecutionResult], _: &[ExecutionResult]) -> Result<Judgement, Undecided> {
        let Some((execution, command)) =
            executions.first().and_then(|execution| Some((execution, execution.last_command()?)))
        else {
            return Ok(Judgement::default());
        };
        let report = read(&command.report, self.names.len());
        undecided(&report)?;
        let (load, tests) = filled(&report, command);
        let outcome = whole(&report, &load, &tests, command);
        let passed = tests.iter().filter(|test| test.has_passed()).count();
        let mut output = Map::new();
        output.insert("outcome".to_owned(), json!(outcome));
        output.insert("num_tests".to_owned(), json!(tests.len()));
        output.insert("num_passed".to_owned(), json!(passed));
        output.insert("share_passed".to_owned(), json!(passed as f64 / tests.len().max(1) as f64));
        // A sum of nothing would be -0.
        let runtime = tests.iter().filter_map(|test| test.runtime).fold(0.0, std::ops::Add::add);
        output.insert("runtime".to_owned(), json!(runtime));
        let memory = tests.iter().filter_map(|test| test.max_rss_bytes).max();
        output.insert("max_rss_bytes".to_owned(), json!(memory));
        output.insert("load".to_owned(), load.to_json(None));
        let all = tests.iter().zip(&self.names).map(|(test, name)| test.to_json(name.as_ref()));
        output.insert("tests".to_owned(), all.collect());
        if self.with_coverage {
            output.extend(coverage(execution));
        }
        let passes = outcome == "passed";
        let detail = (!passes).then(|| detail(outcome, &load, &tests, passed));
        Ok(Judgement { passed: passes, detail, output })
    }
}

/// What keeps anything from being said about the solution.
fn undecided(report: &Report) -> Result<(), Undecided> {
    let invalid = |(at, test): (usize, &Option<Outcome>)| {
        let test = test.as_ref().filter(|test| test.word == "invalid")?;
        let kind = if test.exception.is_empty() { String::new() } else { format!("{}: ", test.exception) };
        Some(format!("tests[{at}] cannot be used: {kind}{}", test.message))
    };
    if let Some(reason) = report.tests.iter().enumerate().find_map(invalid) {
        return Err(Unusable(reason).into());
    }
    let Some(load) = &report.load else { return Ok(()) };
    match load.word.as_str() {
        "imports" => Err(Unusable(format!(
            "imports cannot be run in the interpreter of the box: {}; install what is missing there, or set \
             python.interpreter to one that has it",
            load.told()
        ))
        .into()),
        "coverage" => Err(Undecided::Fault(format!(
            "the interpreter of the box has no package `coverage` ({}): install it there (pip install coverage, \
             or Debian's python3-coverage), or set python.interpreter to one that has it",
            load.told()
        ))),
        "seen" => Err(Undecided::Fault(
            "the interpreter of the box has no module `_ctypes`, and `isolation = \"process\"` needs it to hide the \
             expected values: set python.interpreter to one that has it"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// What came of loading and of each test, where the report ends early, too.
fn filled(report: &Report, command: &CommandResult) -> (Outcome, Vec<Outcome>) {
    let mut pending = (!report.ended && report.wrong.is_none()).then(|| interrupted(command));
    let load = match &report.load {
        Some(load) => {
            let word = match load.word.as_str() {
                "compile" => "compile_error",
                "load" => "exception",
                other => other,
            };
            if !load.has_passed() {
                pending = None;
            }
            Outcome { word: word.to_owned(), ..load.clone() }
        }
        None => pending.take().unwrap_or_else(|| Outcome::of("not_run")),
    };
    let test = |test: &Option<Outcome>| match test {
        Some(test) => test.clone(),
        None => pending.take().unwrap_or_else(|| Outcome::of("not_run")),
    };
    (load, report.tests.iter().map(test).collect())
}

fn whole(report: &Report, load: &Outcome, tests: &[Outcome], command: &CommandResult) -> &'static str {
    let is_lost = !report.ended && report.load.as_ref().is_none_or(Outcome::has_passed);
    if let Some(wrong) = report.wrong {
        wrong
    } else if load.word == "compile_error" {
        "compile_error"
    } else if std::iter::once(load).chain(tests).any(|one| one.word == "timed_out") {
        "timed_out"
    } else if is_lost && command.termination == Termination::Exited {
        "missing_info"
    } else if report.ended && tests.iter().all(Outcome::has_passed) {
        "passed"
    } else {
        "failed"
    }
}

fn detail(outcome: &str, load: &Outcome, tests: &[Outcome], passed: usize) -> String {
    if !load.has_passed() {
        return format!("the solution does not load: {}", load.told());
    }
    let first = tests.iter().enumerate().find(|(_, test)| !test.has_passed());
    let first = first.map_or(outcome.replace('_', " "), |(at, test)| format!("tests[{at}]: {}", test.told()));
    format!("{passed} of {} tests passed; {first}", tests.len())
}

/// What `coverage json` says about the one file that is measured. The solution can have written it.
fn coverage(execution: &ExecutionResult) -> Map<String, Value> {
    let measured = || {
        let path = BoxPath::new(COVERAGE_FILE).ok()?;
        let file = execution.tracked_files.get(&path)?.as_ref()?;
        let report: Value = serde_json::from_slice(&file.0).ok()?;
        let of_file = report.get("files")?.as_object()?.values().next()?;
        let percent = of_file.get("summary")?.get("percent_covered")?.as_f64()?;
        let lines: Option<Vec<u64>> =
            of_file.get("missing_lines")?.as_array()?.iter().map(Value::as_u64).collect();
        Some((percent, lines?))
    };
    let (percent, lines) = measured().unzip();
    [("percent_covered", json!(percent)), ("missing_lines", json!(lines))]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::FileContent;

    const PASSED: &str = "load\tpassed\t0.001\t\t\ntest\t0\tpassed\t0.5\t0.25\t1024\t\t\n";

    fn judged(report: &str, termination: Termination) -> Result<Judgement, Undecided> {
        let case = TestCase { names: vec![None, Some("second".to_owned())], with_coverage: false };
        let command =
            CommandResult { report: report.as_bytes().to_vec(), ..CommandResult::without_run(termination) };
        case.judge(&[ExecutionResult { command_results: vec![command], ..Default::default() }], &[])
    }

    use Termination as T;

    #[rstest]
    #[case::passed("+test\t1\tpassed\t1\t1\t1\t\t\nend\n", T::Exited, "passed", ["passed", "passed"])]
    #[case::failed("+test\t1\tfailed\t1\t1\t1\t\t\nend\n", T::Exited, "failed", ["passed", "failed"])]
    #[case::stopped("load\tpassed\t0\t\t\ntest\t0\tfailed\t1\t1\t1\t\t\nend\n", T::Exited, "failed", ["failed", "not_run"])]
    #[case::one_too_slow("+test\t1\ttimed_out\t1\t1\t1\t\t\nend\n", T::Exited, "timed_out", ["passed", "timed_out"])]
    #[case::all_too_slow("+", T::WallLimit, "timed_out", ["passed", "timed_out"])]
    #[case::too_large("+", T::MemoryLimit, "failed", ["passed", "memory_exceeded"])]
    #[case::too_loud("+", T::OutputLimit, "failed", ["passed", "output_exceeded"])]
    #[case::killed("+", T::Signalled, "failed", ["passed", "exited"])]
    #[case::no_end("+test\t1\tpassed\t1\t1\t1\t\t\n", T::Exited, "missing_info", ["passed", "passed"])]
    #[case::cut_off("+test\t1\tpassed\t1\t1\t1", T::Exited, "missing_info", ["passed", "exited"])]
    #[case::nothing("", T::Exited, "missing_info", ["not_run", "not_run"])]
    #[case::hangs_in_import("", T::WallLimit, "timed_out", ["not_run", "not_run"])]
    #[case::no_python("load\tcompile\t0\tSyntaxError\tx\n", T::Exited, "compile_error", ["not_run", "not_run"])]
    #[case::raises("load\tload\t0\tNameError\tx\n", T::Exited, "failed", ["not_run", "not_run"])]
    #[case::twice("+test\t0\tpassed\t1\t1\t1\t\t\nend\n", T::Exited, "duplicate_tests", ["passed", "not_run"])]
    #[case::no_such("+test\t2\tpassed\t1\t1\t1\t\t\nend\n", T::Exited, "unknown_tests", ["passed", "not_run"])]
    fn outcomes(
        #[case] report: &str,
        #[case] termination: Termination,
        #[case] outcome: &str,
        #[case] tests: [&str; 2],
    ) {
        let judgement = judged(&report.replace('+', PASSED), termination).unwrap();
        let words: Vec<_> =
            judgement.output["tests"].as_array().unwrap().iter().map(|test| &test["outcome"]).collect();
        assert_eq!(
            (&judgement.output["outcome"], words.as_slice()),
            (&json!(outcome), [&json!(tests[0]), &json!(tests[1])].as_slice())
        );
        assert_eq!(judgement.passed, outcome == "passed");
        assert_eq!(judgement.detail.is_none(), judgement.passed);
    }

    #[rstest]
    #[case("test\t1\tinvalid\t0\t0\t0\tSyntaxError\tx\n", "tests[1] cannot be used: SyntaxError: x")]
    #[case(
        "load\timports\t0\tModuleNotFoundError\tx\n",
        "imports cannot be run in the interpreter of the box"
    )]
    fn unusable(#[case] report: &str, #[case] says: &str) {
        let Err(Undecided::Unusable(error)) = judged(report, T::Exited) else { panic!("it is unusable") };
        assert!(error.0.contains(says), "{error}");
    }

    #[test]
    fn a_missing_package_is_no_fault_of_the_solution() {
        let report = "load\tcoverage\t0\tModuleNotFoundError\tNo module named 'coverage'\n";
        let Err(Undecided::Fault(error)) = judged(report, T::Exited) else { panic!("it is a fault") };
        assert!(error.contains("python3-coverage"), "{error}");
    }

    #[test]
    fn what_is_reported_of_a_test() {
        let report = format!("{PASSED}test\t1\texception\t0.25\t1\t4096\tTypeError\tno\nend\n");
        let judgement = judged(&report, T::Exited).unwrap();
        assert_eq!(
            judgement.output["tests"][1],
            json!({"name": "second", "outcome": "exception", "runtime": 0.25, "cpu_time": 1.0, "max_rss_bytes": 4096,
                   "exception": "TypeError", "message": "no"})
        );
        assert_eq!(judgement.output["share_passed"], 0.5);
        assert_eq!(
            (&judgement.output["runtime"], &judgement.output["max_rss_bytes"]),
            (&json!(0.75), &json!(4096))
        );
        assert_eq!(judgement.detail.as_deref(), Some("1 of 2 tests passed; tests[1]: TypeError: no"));
    }

    #[rstest]
    #[case(r#"{"files": {"solution.py": {"summary": {"percent_covered": 75.0}, "missing_lines": [3]}}}"#, json!(75.0), json!([3]))]
    #[case(r#"{"files": {}}"#, Value::Null, Value::Null)]
    #[case(
        r#"{"files": {"a": {"summary": {"percent_covered": "x"}, "missing_lines": [3]}}}"#,
        Value::Null,
        Value::Null
    )]
    #[case("[", Value::Null, Value::Null)]
    fn coverage_is_read(#[case] file: &str, #[case] percent: Value, #[case] lines: Value) {
        let path = BoxPath::new(COVERAGE_FILE).unwrap();
        let tracked_files = [(path, Some(FileContent::from(file.to_owned())))].into();
        let read = coverage(&ExecutionResult { tracked_files, ..Default::default() });
        assert_eq!((&read["percent_covered"], &read["missing_lines"]), (&percent, &lines));
    }
}
