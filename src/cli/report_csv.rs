//! The report as comma-separated values (RFC 4180, but for its line ends).

use std::collections::{BTreeMap, BTreeSet};

use crate::metrics::{PassAtK, ResultsReport, Tally};
use crate::model::Verdict;

/// One table: `scope` says whether a row is of `all` results, of a `run`, or of a `task` in a run. Shares
/// are between 0 and 1; what does not apply is empty.
pub(super) fn render(report: &ResultsReport) -> String {
    let tasks = report.tasks_of_runs.iter().flatten();
    let mut ks: BTreeSet<u64> = report.all.pass_at_k.keys().copied().collect();
    ks.extend(report.runs.iter().flat_map(|row| row.tally.pass_at_k.keys().copied()));
    let mut text = head(&ks);
    let none = String::new();
    text += &of_tally("all", None, &report.all, &ks);
    for row in &report.runs {
        text += &of_tally("run", row.run.as_deref(), &row.tally, &ks);
    }
    for row in tasks {
        let mut cells = vec!["task".to_owned(), quote(row.run.as_deref().unwrap_or("")), quote(&row.task)];
        cells.push(row.verdicts.values().sum::<u64>().to_string());
        cells.extend(verdicts(&row.verdicts));
        cells.extend([row.samples.to_string(), none.clone(), none.clone()]);
        for k in &ks {
            let value = row.pass_at_k.get(k).map(f64::to_string).unwrap_or_default();
            cells.extend([value, none.clone(), none.clone(), none.clone()]);
        }
        text += &(cells.join(",") + "\n");
    }
    text
}

fn head(ks: &BTreeSet<u64>) -> String {
    let mut names: Vec<String> = ["scope", "run", "task", "results"].map(str::to_owned).into();
    names.extend(Verdict::ALL.map(|verdict| verdict.as_str().to_owned()));
    names.extend(["samples", "tasks", "tasks_without_sample"].map(str::to_owned));
    for k in ks {
        names.extend(["", "_low", "_high", "_tasks"].map(|part| format!("pass@{k}{part}")));
    }
    names.join(",") + "\n"
}

fn of_tally(scope: &str, run: Option<&str>, tally: &Tally, ks: &BTreeSet<u64>) -> String {
    let mut cells =
        vec![scope.to_owned(), quote(run.unwrap_or("")), String::new(), tally.results.to_string()];
    cells.extend(verdicts(&tally.verdicts));
    cells.extend([tally.samples, tally.tasks, tally.tasks_without_sample].map(|count| count.to_string()));
    cells.extend(ks.iter().flat_map(|k| pass(tally.pass_at_k.get(k))));
    cells.join(",") + "\n"
}

fn verdicts(counts: &BTreeMap<Verdict, u64>) -> [String; Verdict::ALL.len()] {
    Verdict::ALL.map(|verdict| counts.get(&verdict).copied().unwrap_or(0).to_string())
}

fn pass(pass: Option<&PassAtK>) -> [String; 4] {
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let Some(pass) = pass else { return Default::default() };
    let interval = pass.interval;
    [
        number(pass.value),
        number(interval.map(|interval| interval.low)),
        number(interval.map(|interval| interval.high)),
        pass.tasks.to_string(),
    ]
}

fn quote(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
