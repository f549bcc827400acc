//! `evalmill doctor`: whether this host keeps what the tier in force promises. It attempts, it does not inspect.
//!
//! The engine is started as it would be for a run, with one worker, and small programs are sent through it
//! as predictions would be. Each tries one thing; what came of it is held against [`expect`]'s table. The same is
//! tried outside of a box, too: what fails there as well shows nothing, and is [`Outcome::NotShown`].
//!
//! Of the settings, `limits`, `execution` and `pipeline` are doctor's own, and `sandbox.disk_mb` is at
//! most 64: how much is allowed is not what is judged.

mod advice;
mod calls;
mod examine;
mod expect;
mod given;
mod host;
mod probe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;

use super::{Engine, EngineError, EngineOptions, RUN_REQUIRES, SERVE_REQUIRES};
use crate::config::{Settings, Tier, TierChoice};
use crate::pipeline::Framing;
use crate::sandbox::{Missing, TierError};

pub use advice::Next;

use examine::Examination;
use given::given;
use host::Host;
use probe::Probe;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is promised and holds; it was shown that it could have failed.
    Ok,
    /// It is promised and does not hold.
    Failed,
    /// It is promised, and could not fail here: nothing is known.
    NotShown,
    /// The tier in force does not promise it.
    NotReached,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The part of the isolation.
    pub layer: String,
    /// What should be so.
    pub name: String,
    /// Whether it is.
    pub outcome: Outcome,
    /// What the system said, or what was found.
    pub said: String,
    /// How to get it.
    pub remedy: Option<String>,
}

/// The weakest tiers to start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Required {
    /// Of `evalmill run`.
    pub run: Tier,
    /// Of `evalmill serve`.
    pub serve: Tier,
}

/// The Python of boxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// Its path outside.
    pub path: PathBuf,
    /// What it says of itself inside; `None`: it did not run.
    pub version: Option<String>,
}

/// A compiler or interpreter as programs find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// Its command.
    pub name: String,
    /// The languages that need it.
    pub languages: Vec<String>,
    /// It runs in a box.
    pub found: bool,
    /// The first line of `--version`, or why there is none.
    pub said: String,
}

/// What doctor found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// evalmill's version.
    pub version: String,
    /// The tier in force.
    pub tier: Tier,
    /// What that means, in words.
    pub notice: String,
    /// `sandbox.tier`.
    pub asked: TierChoice,
    /// Why the tier asked for was not to be had; what is reported is the strongest one then.
    pub refused: Option<String>,
    /// What is needed to start.
    pub required: Required,
    /// Everything that is promised holds, as far as could be shown, and the tier is enough.
    pub healthy: bool,
    /// Each thing that was tried.
    pub checks: Vec<Check>,
    /// The interpreter.
    pub interpreter: Interpreter,
    /// Languages.
    pub toolchains: Vec<Toolchain>,
    /// The way to the next tier; `None`: there is none above.
    pub next: Option<Next>,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    /// Checks with this outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }

    /// Whether the tier in force is the one asked for, and enough for `run` and for `serve`.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.refused.is_none() && self.tier >= self.required.run && self.tier >= self.required.serve
    }
}

/// Nothing can be said about this host.
#[derive(Debug, Error)]
pub enum DoctorError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What the checks need on the host cannot be made.
    #[error("{what} cannot be made: {source}")]
    Host {
        /// What it is, and where.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What programs are sent through.
const PROCESSOR: &str = "executable";
/// Most mebibytes of disk that are filled.
const DISK_MB: u64 = 64;
/// Time for everything that is tried; starting and ending come on top.
const TOTAL: Duration = Duration::from_secs(24);
/// The order in which layers are reported; others come first.
const LAYERS: [&str; 12] = [
    "namespaces",
    "ids",
    "root",
    "proc",
    "network",
    "privileges",
    "seccomp",
    "process",
    "interpreter",
    "limits",
    "cleanup",
    "cgroup",
];
/// Tries everything. `config`: the configuration file, which programs must not read.
///
/// # Errors
/// Nothing could be tried. That a tier cannot be had is no error: it is what is reported.
pub async fn doctor(settings: &Settings, config: Option<&Path>) -> Result<Report, DoctorError> {
    let begun = Instant::now();
    let host = Host::new(&settings.scratch_dir())?;
    let own = own_settings(settings, &host);
    let (engine, refused) = start(&own).await?;
    let interpreter = settings.interpreter().map_err(EngineError::Interpreter)?;
    let probe = Probe {
        engine: &engine,
        given: given(settings, config, &host, own.sandbox.disk_mb),
        interpreter: &interpreter,
        host: &host,
        until: begun + TOTAL,
    };
    let mut examination = Examination { tier: engine.tier(), settings, checks: Vec::new() };
    let version = examination.all(&probe, &engine, config).await;
    let toolchains = toolchains(&probe, settings).await;
    let tier = engine.tier();
    let notice = engine.notice().to_owned();
    let missing = engine.missing().to_vec();
    engine.shutdown().await;
    let mut checks = examination.checks;
    checks.extend(missing.iter().map(missing_layer));
    checks.sort_by_key(|check| LAYERS.iter().position(|layer| *layer == check.layer));
    let require = |by_command: Tier| settings.sandbox.require.tier().unwrap_or(by_command);
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tier,
        notice,
        asked: settings.sandbox.tier,
        refused,
        required: Required { run: require(RUN_REQUIRES), serve: require(SERVE_REQUIRES) },
        healthy: false,
        checks,
        interpreter: Interpreter { path: interpreter, version },
        toolchains,
        next: advice::next(tier, &missing),
        seconds: begun.elapsed().as_secs_f64(),
    };
    report.healthy = report.count(Outcome::Failed) == 0 && report.is_enough();
    Ok(report)
}

/// As for a run, but for what is not judged.
fn own_settings(settings: &Settings, host: &Host) -> Settings {
    let defaults = Settings::default();
    let mut own = Settings {
        limits: defaults.limits,
        execution: defaults.execution,
        pipeline: defaults.pipeline,
        debug: defaults.debug,
        ..settings.clone()
    };
    // Which network they have is judged, not what they read.
    own.processors.values_mut().for_each(|processor| processor.problems.clear());
    own.worker.num_workers = 1;
    own.sandbox.require = TierChoice::None;
    own.sandbox.disk_mb = own.sandbox.disk_mb.min(DISK_MB);
    own.sandbox.binds.push(host.bound().display().to_string());
    own.sandbox.binds.extend(host.setuid().map(|file| file.display().to_string()));
    own
}

/// The engine, with the strongest tier where the one asked for cannot be had, and why it cannot.
async fn start(settings: &Settings) -> Result<(Engine, Option<String>), EngineError> {
    let options = || EngineOptions::new(Framing::Message);
    match Engine::start(settings, options()).await {
        Err(EngineError::Tier(error @ TierError::Missing { .. })) => {
            let mut strongest = settings.clone();
            strongest.sandbox.tier = TierChoice::Auto;
            Ok((Engine::start(&strongest, options()).await?, Some(error.to_string())))
        }
        started => Ok((started?, None)),
    }
}

fn missing_layer(missing: &Missing) -> Check {
    let name = "the layer can be had";
    let mut check = Check::new(missing.layer.name(), name, Outcome::NotReached, &missing.said);
    check.remedy = Some(missing.remedy.clone());
    check
}

/// What the configured languages need, each with those that do.
fn tools(settings: &Settings) -> BTreeMap<&str, Vec<String>> {
    let mut tools: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (name, language) in settings.languages.iter() {
        for tool in language.tools() {
            tools.entry(tool).or_default().push(name.clone());
        }
    }
    tools
}

async fn toolchains(probe: &Probe<'_>, settings: &Settings) -> Vec<Toolchain> {
    let seen = probe.seen("tools", json!({"timeout": 9})).await;
    let toolchain = |(name, languages): (&str, Vec<String>)| {
        let (found, said) = match &seen {
            Ok(seen) => seen
                .get(name)
                .map_or((false, "not looked for".to_owned()), |seen| (seen.reached, seen.said.clone())),
            Err(why) => (false, why.clone()),
        };
        Toolchain { name: name.to_owned(), languages, found, said }
    };
    tools(settings).into_iter().map(toolchain).collect()
}
