//! The report as tables for a terminal.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use super::one_line;
use super::report::{count, notes, over};
use super::table::{write_pass, write_stages, write_verdicts};
use crate::metrics::{PassAtK, ResultsReport, RunRow, TaskRow};
use crate::model::Verdict;

/// Characters of a name before the columns behind it give way.
const WIDEST: usize = 32;

/// Tables, of less than 80 columns as far as names allow.
pub(super) fn render(report: &ResultsReport) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = write_report(&mut text, report);
    text
}

fn write_report(text: &mut String, report: &ResultsReport) -> fmt::Result {
    let all = &report.all;
    write!(text, "{}", count(all.results, "result"))?;
    if all.tasks > 0 {
        write!(text, " of {}", count(all.tasks + all.tasks_without_sample, "task"))?;
    }
    writeln!(text)?;
    write_verdicts(text, &all.verdicts)?;
    if !all.pass_at_k.is_empty() {
        writeln!(text)?;
    }
    for (k, pass) in &all.pass_at_k {
        let over = over(report, pass.tasks);
        write_pass(text, *k, pass.value, &format!("{}{over}", interval(pass)))?;
    }
    write_stages(text, &report.stages)?;
    if report.runs.len() > 1 {
        write_runs(text, &report.runs)?;
    }
    if let Some(rows) = &report.tasks_of_runs {
        write_tasks(text, rows, report.runs.len() > 1)?;
    }
    let notes = notes(report);
    if !notes.is_empty() {
        writeln!(text)?;
    }
    notes.iter().try_for_each(|note| writeln!(text, "{note}"))
}

fn interval(pass: &PassAtK) -> String {
    let Some(interval) = &pass.interval else { return String::new() };
    format!("[{:.1}, {:.1}]  ", interval.low * 100.0, interval.high * 100.0)
}

/// For people: a run without a name has one in brackets.
fn run_name(run: Option<&str>) -> String {
    run.map_or_else(|| "(no run)".to_owned(), one_line)
}

fn width<'a>(names: impl Iterator<Item = &'a String>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0).clamp(8, WIDEST)
}

fn write_runs(text: &mut String, runs: &[RunRow]) -> fmt::Result {
    let names: Vec<_> = runs.iter().map(|row| run_name(row.run.as_deref())).collect();
    let width = width(names.iter());
    write!(text, "\n{:<width$} {:>9} {:>9} {:>7}", "run", "results", "passed", "tasks")?;
    let ks: BTreeSet<u64> = runs.iter().flat_map(|row| row.tally.pass_at_k.keys().copied()).collect();
    ks.iter().try_for_each(|k| write!(text, "  {:<19}", format!("pass@{k} %")))?;
    trim_line(text);
    for (row, name) in runs.iter().zip(&names) {
        let tally = &row.tally;
        let passed = tally.verdicts.get(&Verdict::Passed).copied().unwrap_or(0);
        write!(text, "\n{name:<width$} {:>9} {passed:>9} {:>7}", tally.results, tally.tasks)?;
        for k in &ks {
            let pass = tally.pass_at_k.get(k);
            let shown = pass.and_then(|pass| Some((pass, pass.value?)));
            let cell = shown.map_or_else(
                || "-".to_owned(),
                |(pass, value)| format!("{:.1} {}", value * 100.0, interval(pass)).trim_end().to_owned(),
            );
            write!(text, "  {cell:<19}")?;
        }
        trim_line(text);
    }
    writeln!(text)
}

fn write_tasks(text: &mut String, rows: &[TaskRow], with_run: bool) -> fmt::Result {
    let name = |row: &TaskRow| {
        let task = one_line(&row.task);
        if with_run { format!("{} {task}", run_name(row.run.as_deref())) } else { task }
    };
    let names: Vec<_> = rows.iter().map(name).collect();
    let width = width(names.iter());
    let ks: BTreeSet<u64> = rows.iter().flat_map(|row| row.pass_at_k.keys().copied()).collect();
    let head = if with_run { "run, task" } else { "task" };
    write!(text, "\n{head:<width$} {:>9} {:>9} {:>9}", "samples", "passed", "others")?;
    ks.iter().try_for_each(|k| write!(text, " {:>11}", format!("pass@{k} %")))?;
    for (row, name) in rows.iter().zip(&names) {
        let others = row.verdicts.values().sum::<u64>() - row.samples;
        write!(text, "\n{name:<width$} {:>9} {:>9} {others:>9}", row.samples, row.passed)?;
        for k in &ks {
            let value = row.pass_at_k.get(k);
            let cell = value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", value * 100.0));
            write!(text, " {cell:>11}")?;
        }
    }
    writeln!(text)
}

/// Takes the spaces at its end away.
fn trim_line(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
}
