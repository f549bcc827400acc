//! The table at the end of a run.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::metrics::RunReport;
use crate::model::{StageSummary, Verdict};

/// The stages in the order in which a prediction goes through them.
pub(super) const STAGES: [&str; 8] =
    ["queue", "preprocess", "wait", "write", "execute", "cleanup", "postprocess", "net"];

/// The report as plain text of less than 80 columns.
#[must_use]
pub fn render(report: &RunReport) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = write_table(&mut text, report);
    text
}

fn write_table(text: &mut String, report: &RunReport) -> fmt::Result {
    let timings = &report.timings;
    writeln!(text, "{} results in {:.1} s ({:.1}/s)", timings.num_results, timings.net_time, timings.rate)?;
    write_verdicts(text, &timings.verdicts)?;
    let over = match report.tasks {
        0 => "of all predictions".to_owned(),
        1 => "of 1 task".to_owned(),
        tasks => format!("mean of {tasks} tasks"),
    };
    if !report.pass_at_k.is_empty() {
        writeln!(text)?;
    }
    for (k, value) in &report.pass_at_k {
        write_pass(text, *k, Some(*value), &over)?;
    }
    write_stages(text, &timings.stages)?;
    if !timings.recycled.is_empty() {
        writeln!(text, "\nworkers replaced")?;
    }
    for (reason, count) in &timings.recycled {
        writeln!(text, "{reason:<16} {count:>10}")?;
    }
    Ok(())
}

/// Counts and percentages, with an empty line before them.
#[expect(clippy::cast_precision_loss, reason = "numbers of results are far below 2^53")]
pub(super) fn write_verdicts(text: &mut String, verdicts: &BTreeMap<Verdict, u64>) -> fmt::Result {
    let all: u64 = verdicts.values().sum();
    if all > 0 {
        writeln!(text)?;
    }
    for (verdict, &count) in verdicts {
        let percent = count as f64 * 100.0 / all as f64;
        writeln!(text, "{:<16} {count:>10} {percent:>10.1} %", verdict.as_str())?;
    }
    Ok(())
}

/// One line of pass@k.
pub(super) fn write_pass(text: &mut String, k: u64, value: Option<f64>, over: &str) -> fmt::Result {
    let name = format!("pass@{k}");
    let percent = value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", value * 100.0));
    writeln!(text, "{name:<16} {:>10} {percent:>10} %  {over}", "")
}

/// Percentiles of the stages, with an empty line before them.
pub(super) fn write_stages(text: &mut String, stages: &BTreeMap<String, StageSummary>) -> fmt::Result {
    if !stages.is_empty() {
        writeln!(text, "\n{:<16} {:>10} {:>10} {:>10}", "ms", "p50", "p95", "p99")?;
    }
    for stage in STAGES {
        if let Some(found) = stages.get(stage) {
            let [p50, p95, p99] = [found.p50, found.p95, found.p99].map(|seconds| seconds * 1e3);
            writeln!(text, "{stage:<16} {p50:>10.1} {p95:>10.1} {p99:>10.1}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Summary;
    use crate::model::StageTimings;

    #[test]
    fn nothing() {
        assert_eq!(render(&Summary::default().report(Duration::ZERO)), "0 results in 0.0 s (0.0/s)\n");
    }

    #[test]
    fn a_run() {
        let mut summary = Summary::default();
        let timings = StageTimings { execute: 0.1, net: 12.3, ..StageTimings::default() };
        let results = [
            (Verdict::Passed, "a"),
            (Verdict::Failed, "a"),
            (Verdict::MemoryExceeded, "b"),
            (Verdict::Passed, "b"),
        ];
        for (verdict, task) in results {
            summary.add_parts(verdict, Some(task), None, &timings);
        }
        summary.add_recycled("memory");
        let table = render(&summary.report(Duration::from_millis(2500)));
        assert!(table.is_ascii() && table.lines().all(|line| line.len() < 80));
        insta::assert_snapshot!(table, @r"
        4 results in 2.5 s (1.6/s)

        passed                    2       50.0 %
        failed                    1       25.0 %
        memory_exceeded           1       25.0 %

        pass@1                            50.0 %  mean of 2 tasks
        pass@2                           100.0 %  mean of 2 tasks

        ms                      p50        p95        p99
        queue                   0.0        0.0        0.0
        preprocess              0.0        0.0        0.0
        wait                    0.0        0.0        0.0
        write                   0.0        0.0        0.0
        execute               100.0      100.0      100.0
        cleanup                 0.0        0.0        0.0
        postprocess             0.0        0.0        0.0
        net                 12304.4    12304.4    12304.4

        workers replaced
        memory                    1
        ");
    }
}
