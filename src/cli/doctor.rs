//! `evalmill doctor`: what this host keeps of what is promised.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use super::args::{DoctorArgs, DoctorFormat};
use super::client::{block_on, printed};
use super::exit::Failure;
use crate::api::{Check, Outcome, Report, doctor as examine};
use crate::config::{Sources, load};
use crate::telemetry::start_logging;

const WIDTH: usize = 79;

/// Tries everything and prints what came of it.
///
/// # Errors
/// See the exit codes.
pub(super) fn doctor(file: Option<PathBuf>, args: &DoctorArgs) -> Result<(), Failure> {
    let loaded = load(&Sources::from_process(file.clone()))?;
    super::processors_are_known(&loaded)?;
    let mut settings = loaded.settings;
    if let Some(tier) = args.tier {
        // No setting: one below sandbox.require is no mistake here, but what is asked about.
        settings.sandbox.tier = tier.into();
    }
    // Programs that run into limits are meant to: only what is wrong is logged.
    start_logging("error", settings.telemetry.log_format).map_err(Failure::Usage)?;
    let report = block_on(async {
        let examined = examine(&settings, file.as_deref().map(absolute).transpose()?.as_deref()).await;
        examined.map_err(|error| Failure::Usage(format!("doctor cannot examine this host: {error}")))
    })?;
    let text = match args.format {
        DoctorFormat::Text => render(&report),
        DoctorFormat::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
    };
    printed(super::print(text.as_bytes()))?;
    if report.healthy { Ok(()) } else { Err(Failure::Incomplete(complaint(&report))) }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn complaint(report: &Report) -> String {
    let failed = report.count(Outcome::Failed);
    let mut parts = Vec::new();
    if failed > 0 {
        let of = report.checks.len();
        parts.push(format!(
            "{failed} of {of} checks failed: untrusted programs are not contained as promised"
        ));
    }
    if let Some(refused) = &report.refused {
        parts.push(refused.clone());
    } else if !report.is_enough() {
        let required = report.required.run.max(report.required.serve).name();
        let tier = report.tier.name();
        parts.push(format!(
            "sandbox.require asks for tier \"{required}\", and \"{tier}\" is in force: do what the next tier needs, or lower sandbox.require"
        ));
    }
    parts.join("; ")
}

/// The report as plain text of less than 80 columns.
#[must_use]
fn render(report: &Report) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = write_report(&mut text, report);
    text
}

fn write_report(text: &mut String, report: &Report) -> fmt::Result {
    writeln!(text, "{:<12} {:<12} check", "layer", "outcome")?;
    for check in &report.checks {
        // Refused calls are many, and alike.
        if check.layer != "seccomp" || check.outcome != Outcome::Ok {
            write_check(text, check)?;
        }
    }
    let refused = report.checks.iter().filter(|one| one.layer == "seccomp" && one.outcome == Outcome::Ok);
    let names: Vec<_> = refused.map(|check| check.name.trim_end_matches(" is refused")).collect();
    if !names.is_empty() {
        row(text, "seccomp", "ok", &format!("{} system calls are refused", names.len()))?;
        wrapped(text, 26, &names.join(", "))?;
    }
    let version = report.interpreter.version.as_deref().unwrap_or("does not run");
    writeln!(text, "\n{:<12} {} ({version})", "interpreter", report.interpreter.path.display())?;
    let found: Vec<_> = report.toolchains.iter().filter(|tool| tool.found).map(|tool| &*tool.name).collect();
    let absent: Vec<_> =
        report.toolchains.iter().filter(|tool| !tool.found).map(|tool| &*tool.name).collect();
    writeln!(text, "{:<12} {}; not there: {}", "in a box", list(&found), list(&absent))?;
    let count = |outcome| report.count(outcome);
    writeln!(
        text,
        "{:<12} {} ok, {} failed, {} not shown, {} not reached, in {:.1} s",
        "checks",
        count(Outcome::Ok),
        count(Outcome::Failed),
        count(Outcome::NotShown),
        count(Outcome::NotReached),
        report.seconds
    )?;
    let (run, serve) = (report.required.run.name(), report.required.serve.name());
    let tier = report.tier.name();
    writeln!(text, "{:<12} {tier} (required by run: {run}, by serve: {serve})", "tier")?;
    wrapped(text, 13, &report.notice)?;
    if report.asked.tier() == Some(report.tier) && report.next.is_some() {
        wrapped(text, 13, "sandbox.tier asks for this one; \"auto\" is the strongest that works")?;
    }
    let Some(next) = &report.next else { return Ok(()) };
    writeln!(text, "\nfor the next tier, {}:", next.tier.name())?;
    let ways = [
        ("bare metal", &next.bare_metal),
        ("Docker", &next.docker),
        ("Kubernetes", &next.kubernetes),
        ("systemd", &next.systemd),
    ];
    for (place, way) in ways {
        write!(text, "  {place:<11}")?;
        hanging(text, 13, way)?;
    }
    Ok(())
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn write_check(text: &mut String, check: &Check) -> fmt::Result {
    let outcome = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Failed => "FAILED",
        Outcome::NotShown => "not shown",
        Outcome::NotReached => "not reached",
    };
    row(text, &check.layer, outcome, &check.name)?;
    if check.outcome != Outcome::Ok {
        wrapped(text, 26, &check.said)?;
    }
    check.remedy.iter().try_for_each(|remedy| wrapped(text, 26, remedy))
}

fn row(text: &mut String, layer: &str, outcome: &str, what: &str) -> fmt::Result {
    write!(text, "{layer:<12} {outcome:<12} ")?;
    hanging(text, 26, what)
}

/// Indented lines.
fn wrapped(text: &mut String, indent: usize, what: &str) -> fmt::Result {
    write!(text, "{:indent$}", "")?;
    hanging(text, indent, what)
}

/// Goes on where the line is, and indents what does not fit.
fn hanging(text: &mut String, indent: usize, what: &str) -> fmt::Result {
    let mut at = indent;
    for (index, word) in what.split_whitespace().enumerate() {
        let width = word.chars().count();
        if index > 0 && at + 1 + width > WIDTH {
            write!(text, "\n{:indent$}", "")?;
            at = indent;
        } else if index > 0 {
            text.push(' ');
            at += 1;
        }
        text.push_str(word);
        at += width;
    }
    text.push('\n');
    Ok(())
}
