//! The report as Markdown.

use std::fmt::{self, Write as _};

use super::one_line;
use super::report::{count, notes, over};
use super::table::STAGES;
use crate::metrics::{PassAtK, ResultsReport, RunRow, TaskRow};
use crate::model::Verdict;

/// Tables and a list of notes.
pub(super) fn render(report: &ResultsReport) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = write_report(&mut text, report);
    text
}

#[expect(clippy::cast_precision_loss, reason = "numbers of results are far below 2^53")]
fn write_report(text: &mut String, report: &ResultsReport) -> fmt::Result {
    let all = &report.all;
    writeln!(text, "{}", count(all.results, "result"))?;
    table(
        text,
        &["verdict", "results", "%"],
        all.verdicts.iter().map(|(verdict, &count)| {
            let percent = count as f64 * 100.0 / all.results as f64;
            vec![verdict.to_string(), count.to_string(), format!("{percent:.1}")]
        }),
    )?;
    table(
        text,
        &["pass@k", "%", "over"],
        all.pass_at_k
            .iter()
            .map(|(k, pass)| vec![format!("pass@{k}"), value(pass), over(report, pass.tasks)]),
    )?;
    table(
        text,
        &["stage", "p50 ms", "p95 ms", "p99 ms"],
        STAGES.iter().filter_map(|&stage| Some((stage, report.stages.get(stage)?))).map(|(stage, found)| {
            let shown = [found.p50, found.p95, found.p99].map(|seconds| format!("{:.1}", seconds * 1e3));
            [vec![stage.to_owned()], shown.into()].concat()
        }),
    )?;
    if report.runs.len() > 1 {
        write_runs(text, &report.runs, &report.all.pass_at_k.keys().copied().collect::<Vec<_>>())?;
    }
    if let Some(rows) = &report.tasks_of_runs {
        write_tasks(text, rows, &report.all.pass_at_k.keys().copied().collect::<Vec<_>>())?;
    }
    let notes = notes(report);
    if !notes.is_empty() {
        writeln!(text)?;
    }
    notes.iter().try_for_each(|note| writeln!(text, "- {note}"))
}

fn write_runs(text: &mut String, runs: &[RunRow], ks: &[u64]) -> fmt::Result {
    let rows = runs.iter().map(|row| {
        let tally = &row.tally;
        let passed = tally.verdicts.get(&Verdict::Passed).copied().unwrap_or(0);
        let counts = [tally.results, passed, tally.tasks].map(|count| count.to_string());
        let passes = ks.iter().map(|k| tally.pass_at_k.get(k).map_or_else(|| "-".to_owned(), value));
        [name(row.run.as_deref())].into_iter().chain(counts).chain(passes).collect()
    });
    table(text, &head(&["run", "results", "passed", "tasks"], ks), rows)
}

fn write_tasks(text: &mut String, rows: &[TaskRow], ks: &[u64]) -> fmt::Result {
    let rows = rows.iter().map(|row| {
        let counts = [row.samples, row.passed, row.verdicts.values().sum::<u64>() - row.samples];
        let passes = ks.iter().map(|k| {
            row.pass_at_k.get(k).map_or_else(|| "-".to_owned(), |value| format!("{:.1}", value * 100.0))
        });
        let names = [name(row.run.as_deref()), name(Some(&row.task))];
        names.into_iter().chain(counts.map(|count| count.to_string())).chain(passes).collect()
    });
    table(text, &head(&["run", "task", "samples", "passed", "others"], ks), rows)
}

fn head(names: &[&str], ks: &[u64]) -> Vec<String> {
    let names = names.iter().map(|&name| name.to_owned());
    names.chain(ks.iter().map(|k| format!("pass@{k} %"))).collect()
}

fn value(pass: &PassAtK) -> String {
    match (pass.value, pass.interval) {
        (Some(value), Some(interval)) => {
            format!("{:.1} [{:.1}, {:.1}]", value * 100.0, interval.low * 100.0, interval.high * 100.0)
        }
        (Some(value), None) => format!("{:.1}", value * 100.0),
        (None, _) => "-".to_owned(),
    }
}

/// A name that others gave: no markup of theirs counts.
fn name(text: Option<&str>) -> String {
    let Some(text) = text else { return "-".to_owned() };
    let mut escaped = String::new();
    for c in one_line(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A table, with an empty line before it; nothing where it has no rows.
fn table<S: AsRef<str>>(
    text: &mut String,
    head: &[S],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    write!(text, "\n|")?;
    head.iter().try_for_each(|name| write!(text, " {} |", name.as_ref()))?;
    write!(text, "\n|")?;
    head.iter().try_for_each(|_| write!(text, "---|"))?;
    for row in rows {
        write!(text, "\n|")?;
        row.iter().try_for_each(|cell| write!(text, " {cell} |"))?;
    }
    writeln!(text)
}
