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
mod expect;
mod host;
mod probe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::{Engine, EngineError, EngineOptions, RUN_REQUIRES, SERVE_REQUIRES};
use crate::config::{Settings, Tier, TierChoice};
use crate::model::Termination;
use crate::pipeline::Framing;
use crate::sandbox::{Missing, TierError};

pub use advice::Next;

use calls::CALLS;
use expect::{ALWAYS, Expect, FULL, Promised, SEPARATE, Seen, WALLED, promises};
use host::{Daemon, Host};
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
/// What no program needs to see.
const SECRET: &str = "/etc/shadow";
const DIRECTORIES: [&str; 2] = ["/root", "/home"];
const NAMESPACES: [(&str, Promised); 7] = [
    ("user", SEPARATE),
    ("mnt", SEPARATE),
    ("pid", SEPARATE),
    ("net", SEPARATE),
    ("ipc", SEPARATE),
    ("uts", SEPARATE),
    ("cgroup", SEPARATE),
];

/// Programs that run into a limit: the probe's name for each, for people, its limits, and how it must end.
const LIMITS: [(&str, &str, &str, Termination); 6] = [
    (
        "memory",
        "one process is stopped at 128 MiB",
        r#"{"memory_mb": 128, "timeout": 4}"#,
        Termination::MemoryLimit,
    ),
    (
        "memory_of_many",
        "many processes together are stopped at 128 MiB",
        r#"{"memory_mb": 128, "timeout": 4}"#,
        Termination::MemoryLimit,
    ),
    (
        "processes",
        "a fork bomb is stopped at 16 processes",
        r#"{"processes": 16, "timeout": 4}"#,
        Termination::ProcessLimit,
    ),
    (
        "burn",
        "four processes are stopped at 1 s of CPU time together",
        r#"{"timeout": 1}"#,
        Termination::CpuLimit,
    ),
    ("sleep", "a sleeper is stopped after 0.5 s", r#"{"timeout": 0.5}"#, Termination::WallLimit),
    ("output", "a flood of output is stopped at 1 MiB", r#"{"output_mb": 1}"#, Termination::OutputLimit),
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
    let missing = engine.pool().missing().to_vec();
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
        processors: defaults.processors,
        debug: defaults.debug,
        ..settings.clone()
    };
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

/// What the probes are told.
fn given(settings: &Settings, config: Option<&Path>, host: &Host, disk_mb: u64) -> Value {
    let secrets: Vec<_> = secrets(settings, config, host).into_iter().map(|(path, _)| path).collect();
    let mut directories = DIRECTORIES.map(str::to_owned).to_vec();
    directories.push(host.outside().display().to_string());
    json!({
        "secrets": secrets,
        "directories": directories,
        "bound": host.bound(),
        "outside": host.outside(),
        "setuid": host.setuid(),
        "mark": host.mark(),
        "daemon": host.daemon_name(),
        "port": host.port(),
        "abstract": host.abstract_name(),
        "doctor": std::process::id(),
        "namespaces": host::namespaces(&NAMESPACES.map(|(name, _)| name)),
        "environment": environment(settings),
        "calls": CALLS,
        "tools": tools(settings).keys().collect::<Vec<_>>(),
        "disk_mb": disk_mb,
        "control": false,
    })
}

/// Files that programs must not read, and what each is.
fn secrets(settings: &Settings, config: Option<&Path>, host: &Host) -> Vec<(PathBuf, String)> {
    let broker = &settings.rabbitmq;
    let keys = [
        ("rabbitmq.url_file", &broker.url_file),
        ("rabbitmq.user_file", &broker.user_file),
        ("rabbitmq.password_file", &broker.password_file),
        ("rabbitmq.tls_key_file", &broker.tls_key_file),
    ];
    let mut secrets = vec![
        (PathBuf::from(SECRET), SECRET.to_owned()),
        (host.secret().to_owned(), "a host's file that anybody may read".to_owned()),
    ];
    secrets.extend(config.map(|config| (config.to_owned(), "the configuration file".to_owned())));
    let named = keys.into_iter().filter(|(_, path)| !path.is_empty());
    secrets
        .extend(named.map(|(key, path)| {
            (std::fs::canonicalize(path).unwrap_or(path.into()), format!("{key}'s file"))
        }));
    secrets
}

/// Names of our variables that no box has by itself, or is meant to have.
fn environment(settings: &Settings) -> Vec<String> {
    const COMMON: [&str; 15] = [
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LOGNAME",
        "OLDPWD",
        "PATH",
        "PWD",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
        "SHLVL",
        "TMPDIR",
        "TZ",
        "USER",
        "_",
    ];
    let meant = |name: &String| {
        settings.environment.pass.contains(name) || settings.environment.set.contains_key(name)
    };
    let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    ours.filter(|name| !COMMON.contains(&&**name) && !meant(name)).collect()
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

struct Examination<'a> {
    tier: Tier,
    settings: &'a Settings,
    checks: Vec<Check>,
}

impl Examination<'_> {
    /// Every check; answers the interpreter's version inside.
    async fn all(&mut self, probe: &Probe<'_>, engine: &Engine, config: Option<&Path>) -> Option<String> {
        let outside = probe.outside("look").await;
        let inside = probe.seen("look", json!({"timeout": 10})).await;
        self.looked(&inside, &outside, config, probe.host);
        let version = inside.ok().and_then(|seen| Some(seen.get("python")?.said.clone()));
        let theirs = outside.get("python").map_or("nothing", |seen| &seen.said);
        let same = version.as_deref() == Some(theirs);
        let outcome = if same { Outcome::Ok } else { Outcome::Failed };
        let said = format!("inside {}, outside {theirs}", version.as_deref().unwrap_or("nothing"));
        self.add("interpreter", "the interpreter is the same inside and outside", outcome, said);
        self.limits(probe).await;
        self.disk(probe).await;
        self.leftovers(probe).await;
        self.daemon(probe).await;
        self.survives(probe, engine).await;
        version
    }

    fn add(
        &mut self,
        layer: &'static str,
        name: impl Into<String>,
        outcome: Outcome,
        said: impl Into<String>,
    ) {
        let mut check = Check::new(layer, name, outcome, said);
        check.remedy = self.remedy(layer, outcome);
        self.checks.push(check);
    }

    fn remedy(&self, layer: &str, outcome: Outcome) -> Option<String> {
        let sandbox = &self.settings.sandbox;
        match outcome {
            // What is not reached takes another tier: what that needs is said once.
            Outcome::Ok | Outcome::NotShown | Outcome::NotReached => None,
            Outcome::Failed if layer == "network" && sandbox.network => {
                Some("set sandbox.network to false".to_owned())
            }
            Outcome::Failed => Some(
                "run nothing untrusted here, and report it with what `evalmill doctor --format json` says"
                    .to_owned(),
            ),
        }
    }

    fn judge(&mut self, expect: &Expect, inside: Result<&Seen, &str>, outside: Option<&Seen>) {
        let (outcome, said) = expect.judge(self.tier, inside, outside);
        self.add(expect.layer, expect.name.clone(), outcome, said);
    }

    fn looked(
        &mut self,
        inside: &Result<BTreeMap<String, Seen>, String>,
        outside: &BTreeMap<String, Seen>,
        config: Option<&Path>,
        host: &Host,
    ) {
        let mut table = Vec::new();
        let refused = Expect::refused;
        for (path, what) in secrets(self.settings, config, host) {
            let name = format!("{what} cannot be read");
            table.push(refused("root", &format!("read {}", path.display()), name, WALLED));
        }
        for dir in DIRECTORIES {
            table.push(refused("root", &format!("list {dir}"), format!("{dir} cannot be listed"), WALLED));
        }
        let dir = format!("list {}", host.outside().display());
        table.push(refused("root", &dir, "a host's directory cannot be listed".to_owned(), WALLED));
        table.extend(expect::rows());
        for (name, promised) in NAMESPACES {
            let key = format!("ns {name}");
            // With the host's network wanted, it is the network's remedy.
            let layer = if name == "net" { "network" } else { "namespaces" };
            table.push(refused(layer, &key, format!("a {name} namespace of its own"), promised));
        }
        for call in CALLS {
            let name = format!("{} is refused", call.name);
            table.push(refused("seccomp", &format!("call {}", call.name), name, WALLED));
        }
        for expect in table {
            let seen = match inside {
                Ok(seen) => seen.get(&expect.key).ok_or("the probe did not come to it"),
                Err(why) => Err(why.as_str()),
            };
            self.judge(&expect, seen, Some(control(outside.get(&expect.key))));
        }
        let expect =
            refused("privileges", "setuid", "a setuid program of root's gains nothing".to_owned(), WALLED);
        match (host.setuid(), inside) {
            (Some(_), Ok(seen)) => {
                let seen = seen.get("setuid").ok_or("the probe did not come to it");
                self.judge(&expect, seen, Some(control(outside.get("setuid"))));
            }
            _ if promises(WALLED, self.tier) => {
                let said = "only root can make such a program for it";
                self.add("privileges", expect.name, Outcome::NotShown, said);
            }
            _ => self.add("privileges", expect.name, Outcome::NotReached, "not tried"),
        }
    }

    /// Programs that run into limits, and one that stays below all of them.
    async fn limits(&mut self, probe: &Probe<'_>) {
        let below =
            json!({"memory_mb": 128, "processes": 16, "output_mb": 1, "file_mb": 8, "open_files": 64});
        let modest = probe.seen("modest", below).await;
        for (program, name, limits, wanted) in LIMITS {
            let limits = serde_json::from_str(limits).unwrap_or_default();
            let (outcome, said) = match (probe.patiently(program, limits, wanted).await, &modest) {
                (Err(why), _) => (Outcome::Failed, format!("not tried: {why}")),
                (Ok(ran), Ok(_)) if ran.termination == wanted => {
                    let (time, cpu) = (ran.runtime, ran.cpu_time);
                    (Outcome::Ok, format!("{wanted} after {time:.1} s, {cpu:.1} s of CPU time"))
                }
                (Ok(ran), Err(why)) if ran.termination == wanted => {
                    (Outcome::NotShown, format!("{wanted}; so is a program below every limit: {why}"))
                }
                // Where there is no core to burn, wall time is over first.
                (Ok(ran), _) if wanted == Termination::CpuLimit && ran.cpu_time < 1.2 && ran.timed_out => {
                    let said = format!("{} first, with {:.1} s of CPU time", ran.termination, ran.cpu_time);
                    (Outcome::NotShown, said)
                }
                // Where the host stops it before, ours is never reached.
                (Ok(ran), _) if wanted == Termination::ProcessLimit && counted(&ran.stdout) <= 16 => {
                    let said = format!("only {} processes can be started here", counted(&ran.stdout));
                    (Outcome::NotShown, said)
                }
                (Ok(ran), _) => {
                    let last = ran.stderr.trim().lines().last().unwrap_or_default();
                    (Outcome::Failed, format!("{} {last}", ran.termination).trim().to_owned())
                }
            };
            self.add("limits", name, outcome, said);
        }
        let facts = [
            ("files", "files", r#"{"open_files": 64}"#, "a program opens no more than 64 files"),
            ("large_file", "file", r#"{"file_mb": 8}"#, "a file grows to no more than 8 MiB"),
        ];
        for (program, key, limits, name) in facts {
            let seen = probe.seen(program, serde_json::from_str(limits).unwrap_or_default()).await;
            let expect = Expect::refused("limits", key, name.to_owned(), ALWAYS);
            let seen = one(&seen, key);
            // The program below the limits opened files and wrote one.
            let modest = modest.as_ref().ok().and_then(|seen| seen.get("modest"));
            self.judge(&expect, seen, Some(control(modest)));
        }
        let seen = probe.seen("core", json!({})).await;
        let outside = probe.outside("core").await;
        let expect = Expect::refused("limits", "core", "no core is dumped".to_owned(), ALWAYS);
        match host::core_handler() {
            // The kernel asks no limit before it hands a core to a handler.
            Some(handler) if one(&seen, "core").is_ok_and(|seen| seen.reached) => {
                let said =
                    format!("the kernel hands cores to {handler}, whatever the limit; none is in the box");
                self.add("limits", expect.name, Outcome::NotShown, said);
            }
            _ => self.judge(&expect, one(&seen, "core"), Some(control(outside.get("core")))),
        }
    }

    async fn disk(&mut self, probe: &Probe<'_>) {
        let name = format!("the box, /tmp and /dev/shm hold no more than {} MiB", probe.given["disk_mb"]);
        let expect = Expect::refused("limits", "disk", name, SEPARATE);
        // Not where it would fill the host's.
        let seen = if promises(SEPARATE, self.tier) {
            probe.seen("disk", json!({"timeout": 6})).await
        } else {
            Err("not tried: it would fill the host's".to_owned())
        };
        let wrote = seen.as_ref().ok().and_then(|seen| seen.get("disk below"));
        self.judge(&expect, one(&seen, "disk"), Some(control(wrote)));
    }

    /// Files that one program leaves, looked for by the next.
    async fn leftovers(&mut self, probe: &Probe<'_>) {
        let left = probe.seen("leave", json!({})).await;
        let found = probe.seen("find", json!({})).await;
        for (place, promised) in [("/tmp", SEPARATE), ("/dev/shm", SEPARATE), (".", ALWAYS), ("..", WALLED)] {
            let name = match place {
                "." => "the box is empty for the next program".to_owned(),
                ".." => "what is beside the box is gone for the next program".to_owned(),
                place => format!("{place} is empty for the next program"),
            };
            let expect = Expect::refused("cleanup", place, name, promised);
            let left = left.as_ref().ok().and_then(|left| left.get(place));
            self.judge(&expect, one(&found, place), Some(control(left)));
        }
        probe.host.forget_leftovers();
    }

    /// A daemon that a program leaves, seen from outside.
    async fn daemon(&mut self, probe: &Probe<'_>) {
        let (ran, daemon) = probe.host.watch(probe.run("daemon", json!({}))).await;
        let gone = probe.host.is_gone().await;
        let name = "a daemon is killed with its program";
        match (&ran, &daemon) {
            (Err(why), _) => self.add("cleanup", name, Outcome::Failed, format!("not tried: {why}")),
            (Ok(_), None) => self.add("cleanup", name, Outcome::NotShown, "no daemon was seen to run"),
            (Ok(_), Some(daemon)) if gone => {
                self.add("cleanup", name, Outcome::Ok, format!("process {} ran, and is gone", daemon.pid));
            }
            (Ok(_), Some(daemon)) => {
                self.add("cleanup", name, Outcome::Failed, format!("process {} still runs", daemon.pid));
            }
        }
        let Some(Daemon { user, cgroup, .. }) = daemon else { return };
        let root = rustix::process::geteuid().is_root();
        let seen = Seen { reached: user == 0, said: format!("user {user} of the host") };
        let control = Seen { reached: root, said: "evalmill is not root".to_owned() };
        let expect = Expect::refused("ids", "", "programs are not the host's root".to_owned(), WALLED);
        self.judge(&expect, Ok(&seen), Some(&control));
        let ours = host::cgroup("self").unwrap_or_default();
        let seen = Seen { reached: cgroup == ours, said: host::difference(&cgroup, &ours) };
        let expect = Expect::refused("cgroup", "", "programs have a cgroup of their own".to_owned(), FULL);
        self.judge(&expect, Ok(&seen), None);
    }

    /// After all this.
    async fn survives(&mut self, probe: &Probe<'_>, engine: &Engine) {
        let recycled = engine.stats().recycled;
        let replaced: Vec<_> = recycled.iter().map(|(why, count)| format!("{why} {count}")).collect();
        let replaced = if replaced.is_empty() { "none".to_owned() } else { replaced.join(", ") };
        let (outcome, said) = match probe.seen("modest", json!({})).await {
            Ok(_) => (Outcome::Ok, format!("workers replaced: {replaced}")),
            Err(why) => (Outcome::Failed, format!("{why}; workers replaced: {replaced}")),
        };
        self.add("cleanup", "a harmless program runs after all this", outcome, said);
    }
}

/// The number on the last line, and one for who printed it.
fn counted(stdout: &str) -> u32 {
    stdout.lines().last().and_then(|line| line.parse::<u32>().ok()).unwrap_or(0) + 1
}

/// A control that was not carried out shows nothing.
fn control(seen: Option<&Seen>) -> &Seen {
    static NOT_TRIED: LazyLock<Seen> =
        LazyLock::new(|| Seen { reached: false, said: "not tried".to_owned() });
    seen.unwrap_or(&NOT_TRIED)
}

fn one<'a>(seen: &'a Result<BTreeMap<String, Seen>, String>, key: &str) -> Result<&'a Seen, &'a str> {
    seen.as_ref().map_err(String::as_str)?.get(key).ok_or("the probe did not come to it")
}
