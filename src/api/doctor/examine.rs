//! What is tried, one after another, and what each attempt shows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::json;

use super::calls::CALLS;
use super::expect::{self, ALWAYS, Expect, FULL, Promised, SEPARATE, Seen, WALLED, promises};
use super::given::{DIRECTORIES, secrets};
use super::host::{self, Daemon, Host};
use super::probe::Probe;
use super::{Check, Engine, Outcome, PROCESSOR};
use crate::config::{Settings, Tier};
use crate::model::Termination;

pub(super) const NAMESPACES: [(&str, Promised); 7] = [
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

/// What was tried so far.
pub(super) struct Examination<'a> {
    pub(super) tier: Tier,
    pub(super) settings: &'a Settings,
    pub(super) checks: Vec<Check>,
}

impl Examination<'_> {
    /// Every check; answers the interpreter's version inside.
    pub(super) async fn all(
        &mut self,
        probe: &Probe<'_>,
        engine: &Engine,
        config: Option<&Path>,
    ) -> Option<String> {
        let outside = probe.outside("look").await;
        let inside = probe.seen("look", json!({"timeout": 10})).await;
        self.looked(&inside, &outside, config, probe.host);
        let version = inside.ok().and_then(|seen| Some(seen.get("python")?.said.clone()));
        let theirs = outside.get("python").map_or("nothing", |seen| &seen.said);
        let same = version.as_deref() == Some(theirs);
        let outcome = if same { Outcome::Ok } else { Outcome::Failed };
        let said = format!("inside {}, outside {theirs}", version.as_deref().unwrap_or("nothing"));
        self.add("interpreter", "the interpreter is the same inside and outside", outcome, said);
        self.opened();
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
        match outcome {
            // What is not reached takes another tier: what that needs is said once.
            Outcome::Ok | Outcome::NotShown | Outcome::NotReached => None,
            Outcome::Failed if layer == "network" && self.settings.network_of(PROCESSOR) => {
                Some(closing(self.settings, PROCESSOR))
            }
            Outcome::Failed => Some(
                "run nothing untrusted here, and report it with what `evalmill doctor --format json` says"
                    .to_owned(),
            ),
        }
    }

    /// Processors whose programs have the host's network, beside the one that programs are sent through here.
    fn opened(&mut self) {
        if !promises(WALLED, self.tier) {
            return;
        }
        for name in self.settings.processors.keys().filter(|name| *name != PROCESSOR) {
            if self.settings.network_of(name) {
                let (what, said) =
                    (format!("programs of {name} have no network"), "it is configured so, and was not tried");
                let mut check = Check::new("network", what, Outcome::Failed, said);
                check.remedy = Some(closing(self.settings, name));
                self.checks.push(check);
            }
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
            // The kernel hands it nothing at a limit of 1; at 0, from which no limit can be raised, it does.
            Some(handler) if one(&seen, "core").is_ok_and(|seen| seen.reached) => {
                let said = format!(
                    "evalmill was given a limit of 0, at which the kernel hands cores to {handler}; none is in the box"
                );
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

/// What takes the host's network away from programs of this processor.
fn closing(settings: &Settings, processor: &str) -> String {
    match settings.processors.get(processor).and_then(|processor| processor.network) {
        Some(_) => format!("set processors.{processor}.network to false"),
        None => "set sandbox.network to false".to_owned(),
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
