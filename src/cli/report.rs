//! `evalmill report`: what results came to.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::args::{ReportArgs, ReportFormat};
use super::client::{block_on, printed, settings};
use super::exit::Failure;
use super::{report_csv, report_markdown, report_text};
use crate::api::{Reading, ResultsError, aggregate_results};
use crate::config::Settings;
use crate::metrics::{Aggregate, AggregateOptions, Bootstrap, ResultsReport};
use crate::model::Verdict;
use crate::telemetry::{Meter, ProgressKind, say};
use crate::transport::JsonlSource;

/// Bad lines of which each is told; the rest is counted.
const TOLD: u64 = 20;

/// Reads the results, and prints what they came to.
///
/// # Errors
/// See the exit codes.
pub(super) fn report(file: Option<PathBuf>, args: &ReportArgs) -> Result<(), Failure> {
    let settings = settings(file, Vec::new())?;
    let aggregate = block_on(read(&settings, args))?;
    let mut ks: Vec<u64> = args.k.iter().copied().map(NonZeroU64::get).collect();
    ks.sort_unstable();
    ks.dedup();
    let bootstrap = Bootstrap { resamples: args.bootstrap, seed: args.seed };
    let report = aggregate.report(&AggregateOptions { ks, bootstrap, per_task: args.per_task });
    let text = match args.format {
        ReportFormat::Text => report_text::render(&report),
        ReportFormat::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
        ReportFormat::Csv => report_csv::render(&report),
        ReportFormat::Md => report_markdown::render(&report),
    };
    printed(super::print(text.as_bytes()))
}

async fn read(settings: &Settings, args: &ReportArgs) -> Result<Aggregate, Failure> {
    let mut source = JsonlSource::open(&args.inputs, (settings.pipeline.max_line_mb as usize) << 20)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    // What feeds a pipe may draw on the terminal itself.
    let shown = source.bytes_total().is_some() && !args.no_progress;
    let kind = if shown { ProgressKind::Auto } else { ProgressKind::Off };
    let mut meter = Meter::new(kind, "lines", source.bytes_total(), 0);
    let (progress, mut told) = (source.progress(), 0);
    let mut observe = |event: Reading<'_>| match event {
        Reading::Line => meter.tick(progress.load(Ordering::Relaxed)),
        Reading::Bad { origin, reason } => {
            told += 1;
            match told {
                ..=TOLD => say(&format!("evalmill: {origin} is left out: {reason}\n")),
                _ if told == TOLD + 1 => say("evalmill: more such lines are only counted\n"),
                _ => {}
            }
        }
    };
    let mut aggregate = Aggregate::default();
    let read = aggregate_results(&mut source, &mut aggregate, args.skip_bad, &mut observe).await;
    meter.finish();
    match read {
        Ok(()) => Ok(aggregate),
        Err(error @ ResultsError::BadLine { .. }) => {
            Err(Failure::Incomplete(format!("{error}; --skip-bad leaves such lines out, and counts them")))
        }
        Err(ResultsError::Input(error)) => Err(Failure::Io(error.to_string())),
    }
}

/// `1 task`, `2 tasks`.
pub(super) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Over what a mean is.
pub(super) fn over(report: &ResultsReport, tasks: u64) -> String {
    match (report.all.tasks, tasks) {
        (0, predictions) => format!("of {}", count(predictions, "prediction")),
        (_, 0) => "no task has so many samples".to_owned(),
        (_, 1) => "of 1 task".to_owned(),
        (_, tasks) => format!("mean of {tasks} tasks"),
    }
}

/// What a reader must know beside the numbers.
pub(super) fn notes(report: &ResultsReport) -> Vec<String> {
    let all = &report.all;
    let of = |verdict| all.verdicts.get(&verdict).copied().unwrap_or(0);
    let left_out = &report.left_out;
    let mut notes = Vec::new();
    let mut note = |number: u64, what: &str, text: &str| {
        if number > 0 {
            notes.push(format!("{}{text}", count(number, what)));
        }
    };
    let ours = ": trouble of ours, in no pass@k; `run --resume` tries again";
    note(of(Verdict::InfraError), "infra_error result", ours);
    note(of(Verdict::Filtered), "filtered result", ": not run on purpose, in no pass@k");
    note(all.tasks_without_sample, "task", " without any other result: in no pass@k");
    if all.tasks > 0 {
        note(all.results_without_task, "result", " without a task: in no pass@k");
    }
    for (k, pass) in all.pass_at_k.iter().filter(|(_, pass)| pass.tasks > 0) {
        note(pass.tasks_with_fewer, "task", &format!(" with fewer than {k} samples: not in pass@{k}"));
    }
    note(report.ids_with_several_results, "prediction id", " with several different results: each counts");
    note(report.parked, "parked prediction", " without a result: `evalmill parking list` says why");
    let again = match left_out.contradictions {
        0 => " with the result_id of another: counted once".to_owned(),
        others => format!(" with the result_id of another: counted once; {others} with another verdict"),
    };
    note(left_out.duplicates, "result", &again);
    note(left_out.other_messages, "message", " of other sorts (timings, notices)");
    note(left_out.bad_lines, "bad line", " left out");
    if all.pass_at_k.values().any(|pass| pass.interval.is_some()) {
        let Bootstrap { resamples, seed } = report.bootstrap;
        let over = if all.tasks > 0 { "tasks" } else { "predictions" };
        let percent = Bootstrap::CONFIDENCE * 100.0;
        notes.push(format!(
            "{percent:.0} % intervals [low, high]: bootstrap over {over}, {resamples} resamples, seed {seed}"
        ));
    }
    notes
}
