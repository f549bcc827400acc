//! The hostile suite: every program of `tests/hostile`, in every tier that this machine can reach, as root and as
//! an ordinary user. `tests/hostile/expectations.toml` says what comes of each; `docs/hostile.md` is made of it.
//!
//! One worker runs all of them, one after another, each followed by a harmless program that looks for what is left.

mod document;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rstest::rstest;
use serde_json::{Value, json};

use self::table::{Case, Expected, dir, read, table};
use crate::faults::children;
use crate::support::{evalmill, eventually, without_full};

/// Who starts evalmill.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Root,
    User,
}

/// Things of this host that no program may reach.
struct Host {
    /// What everything that programs leave behind has in its name.
    mark: String,
    dir: tempfile::TempDir,
    listener: TcpListener,
    _sockets: [UnixListener; 2],
}

impl Host {
    fn new(tier: &str, who: Who) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mark = format!("hostile-{}-{tier}-{who:?}", std::process::id()).to_lowercase();
        let write = |name: &str, text: &str, mode: u32| {
            fs::write(dir.path().join(name), text).unwrap();
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).unwrap();
        };
        write("secret", "secret", 0o666);
        let settings = format!(
            "[sandbox]\ntier = {tier:?}\nrequire = \"none\"\ndisk_mb = 32\ndisk_inodes = 2000\n[worker]\nmax_tasks_per_process = 0\n\
             [environment.set]\nEVALMILL_HOSTILE = {mark:?}\n"
        );
        write("evalmill.toml", &settings, 0o644);
        fs::create_dir(dir.path().join("scratch")).unwrap();
        fs::set_permissions(dir.path().join("scratch"), Permissions::from_mode(0o777)).unwrap();
        let path = UnixListener::bind(dir.path().join("socket")).unwrap();
        fs::set_permissions(dir.path().join("socket"), Permissions::from_mode(0o666)).unwrap();
        let named = SocketAddr::from_abstract_name(&mark).unwrap();
        let named = UnixListener::bind_addr(&named).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { mark, dir, listener, _sockets: [path, named] }
    }

    /// What programs are told of it.
    fn told(&self, tier: &str) -> Value {
        json!({
            "tier": tier, "mark": self.mark, "secret": self.dir.path().join("secret"),
            "socket": self.dir.path().join("socket"), "port": self.listener.local_addr().unwrap().port(),
        })
    }

    fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// What is left that is not ours.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let mark = format!("EVALMILL_HOSTILE={}\0", self.mark);
            if environment.windows(mark.len()).any(|part| part == mark.as_bytes()) {
                left.push(format!("process {}", entry.file_name().to_string_lossy()));
            }
        }
        let mark = self.mark.as_str();
        for (dir, mark) in
            [("/tmp", mark), ("/dev/shm", mark), ("/dev/mqueue", mark), ("/sys/fs/cgroup", mark)]
        {
            let names = fs::read_dir(dir).into_iter().flatten().flatten();
            let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            left.extend(names.filter(|name| name.contains(mark)).map(|name| format!("{dir}/{name}")));
        }
        for entry in fs::read_dir(self.scratch()).unwrap().flatten() {
            left.push(entry.path().display().to_string());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(
            mounts.lines().filter(|line| line.contains(self.dir.path().to_str().unwrap())).map(str::to_owned),
        );
        left
    }
}

/// Cgroups that one of these processes made: its number is in the name.
fn cgroups_of(pids: &[String], at: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if name
            .strip_prefix("evalmill-")
            .is_some_and(|rest| rest.split('-').any(|part| pids.iter().any(|pid| pid == part)))
        {
            found.push(entry.path());
        }
        found.extend(cgroups_of(pids, &entry.path()));
    }
    found
}

fn sysv(mark: &str) -> BTreeSet<String> {
    let key =
        mark.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) & 0x7fff_ffff;
    let mut found = BTreeSet::new();
    for kind in ["shm", "sem", "msg"] {
        let text = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let (Some(Ok(one)), Some(id)) = (fields.next().map(str::parse::<i64>), fields.next()) else {
                continue;
            };
            // -1 is the sweep's.
            if [-1, i64::from(key)].contains(&one) {
                found.insert(format!("{kind} {one} {id}"));
            }
        }
    }
    found
}

fn command(who: Who, host: &Host) -> Command {
    let mut command = evalmill(&host.scratch());
    if who == Who::User && rustix::process::geteuid().is_root() {
        let program = command.get_program().to_owned();
        let mut user = Command::new("setpriv");
        user.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        user.env("EXEC_TMP_DIR", host.scratch()).env_remove("EVALMILL_CONFIG");
        command = user;
    }
    command.env("EVALMILL_TEST_SECRET", "in the service").arg("run").args(["--workers", "1", "--config"]);
    command.arg(host.dir.path().join("evalmill.toml"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Results by id; `None`: the tier cannot be had here.
fn run(who: Who, tier: &str, host: &Host, rows: &[Value]) -> Option<(BTreeMap<String, Value>, String)> {
    // An interrupted run of the tests may have left some.
    let before = sysv(&host.mark);
    let mut child = command(who, host).spawn().unwrap();
    let pid = child.id();
    let mut pipe = child.stdin.take().unwrap();
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let writer = std::thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
    let mut ours = vec![pid.to_string()];
    eventually("the launcher runs", || {
        ours.extend(children(pid).iter().map(ToString::to_string));
        ours.len() > 1 || child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.stdout.is_empty() && stderr.contains("isolation tier") {
        let tester = (who == Who::Root) == rustix::process::geteuid().is_root();
        let why = format!("{who:?}: {stderr}");
        if tier == "full" && tester {
            without_full(&why);
        } else {
            eprintln!("not reached: tier {tier} as {why}");
        }
        return None;
    }
    let mut results = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let result: Value = serde_json::from_str(line).unwrap();
        assert_eq!(result["worker"]["tier"], tier, "{stderr}");
        results.insert(result["id"].as_str().unwrap().to_owned(), result);
    }
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(results.len(), rows.len(), "{stderr}");
    eventually("nothing is left", || {
        host.left().is_empty() || {
            eprintln!("{:?}", host.left());
            false
        }
    });
    assert_eq!(cgroups_of(&ours, Path::new("/sys/fs/cgroup")), Vec::<PathBuf>::new());
    eventually("no System V object is left", || sysv(&host.mark).is_subset(&before));
    assert_eq!(read(&host.dir.path().join("secret")), "secret");
    Some((results, stderr))
}

fn last(result: &Value) -> Value {
    let commands = &result["executions"][0]["command_results"];
    commands.as_array().and_then(|commands| commands.last()).cloned().unwrap_or_default()
}

fn is(seen: &str, expected: &str) -> bool {
    expected.split(" or ").any(|one| one == seen)
}

fn tracked(result: &Value) -> String {
    let execution = &result["executions"][0];
    let Some(files) = execution["tracked_files"].as_object() else { return String::new() };
    let said =
        files.iter().map(|(path, content)| match (content.as_str(), &execution["tracked_errors"][path]) {
            (Some(text), _) => format!("{path}: {text:?}"),
            (None, Value::Null) => format!("{path}: absent"),
            _ => format!("{path}: refused"),
        });
    said.collect::<Vec<_>>().join(", ")
}

/// What is not as expected.
fn compare(case: &Case, expected: &Expected, results: &BTreeMap<String, Value>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |what: &str, seen: &str, expected: &str| {
        if !is(seen, expected) {
            wrong.push(format!("{what} {:?}, not {expected:?}", seen.chars().take(500).collect::<String>()));
        }
    };
    let id = case.id();
    let result = &results[&id];
    let command = last(result);
    let out = command["stdout"].as_str().unwrap_or_default();
    let verdict = expected.verdict.as_deref().unwrap_or("passed");
    expect("verdict", result["verdict"].as_str().unwrap(), verdict);
    if verdict != "invalid" {
        expect(
            "ends",
            command["termination"].as_str().unwrap_or_default(),
            expected.ends.as_deref().unwrap_or("exited"),
        );
    }
    match expected.out_bytes {
        Some(bytes) => expect("bytes of output", &out.len().to_string(), &bytes.to_string()),
        None => expect("output", out.trim(), expected.out.as_deref().unwrap_or_default()),
    }
    expect("tracked", &tracked(result), expected.tracked.as_deref().unwrap_or_default());
    if let Some(next) = results.get(&format!("{id}_next")) {
        expect(
            "next",
            last(next)["stdout"].as_str().unwrap_or_default().trim(),
            expected.next.as_deref().unwrap_or_default(),
        );
    }
    let canary = &results[&format!("{id}/canary")];
    expect("the harmless task after it", last(canary)["stdout"].as_str().unwrap_or_default().trim(), "clean");
    expect("the harmless task after it", canary["verdict"].as_str().unwrap(), "passed");
    let mut below = |what: &str, most: Option<f64>, seen: &Value| {
        if let Some(most) = most.filter(|most| seen.as_f64().is_none_or(|seen| seen > *most)) {
            expect(what, &seen.to_string(), &format!("at most {most}"));
        }
    };
    below("seconds of CPU", case.max_cpu, &command["cpu_time"]);
    below("seconds", case.max_seconds, &command["runtime"]);
    if !wrong.is_empty() {
        wrong.push(format!("{} {}", result["detail"], command["stderr"].as_str().unwrap_or_default()));
    }
    wrong
}

/// `EVALMILL_HOSTILE_ONLY`: comma-separated numbers, for work on single programs.
fn chosen() -> Vec<Case> {
    let only = std::env::var("EVALMILL_HOSTILE_ONLY").unwrap_or_default();
    let only: Vec<u32> = only.split(',').filter_map(|number| number.parse().ok()).collect();
    let mut cases = table();
    cases.retain(|case| only.is_empty() || only.contains(&case.number));
    cases.retain(|case| !case.x86_64 || cfg!(target_arch = "x86_64"));
    cases
}

#[rstest]
fn hostile(
    #[values("full", "namespaces", "process", "none")] tier: &str,
    #[values(Who::Root, Who::User)] who: Who,
) {
    let root = rustix::process::geteuid().is_root();
    if who == Who::Root && !root {
        eprintln!("not run: it takes root");
        return;
    }
    let host = Host::new(tier, who);
    let told = host.told(tier);
    let cases = chosen();
    let mut rows = Vec::new();
    for case in &cases {
        let helper = |end: &str, file: &str| {
            let files = json!({"trial.py": read(&dir().join("trial.py")), "host.json": told.to_string(), "main.py": read(&dir().join(file))});
            json!({"id": format!("{}{end}", case.id()), "prediction": {"files": files, "commands": [{"command": ["python3", "main.py"]}]}})
        };
        rows.push(case.row(&told));
        if case.next {
            rows.push(helper("_next", &format!("{}_next.py", case.id())));
        }
        rows.push(helper("/canary", "canary.py"));
    }
    let Some((results, stderr)) = run(who, tier, &host, &rows) else {
        assert!(tier != "none" && !(tier == "namespaces" && root), "tier {tier} must be reached as {who:?}");
        return;
    };
    let mut wrong = String::new();
    for line in stderr.lines().filter(|line| line.contains("is not clean")) {
        writeln!(wrong, "{line}").unwrap();
    }
    for case in &cases {
        let one = compare(case, &case.expected(tier, who), &results);
        if !one.is_empty() {
            writeln!(wrong, "{}: {}", case.id(), one.join("\n    ")).unwrap();
        }
    }
    assert!(wrong.is_empty(), "tier {tier} as {who:?}:\n{wrong}\n{stderr}");
}

#[test]
fn documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hostile.md");
    let made = document::document(&table());
    if std::env::var_os("EVALMILL_HOSTILE_DOC").is_some_and(|what| what == "write") {
        fs::write(&path, &made).unwrap();
    }
    assert!(
        read(&path) == made,
        "docs/hostile.md is not what expectations.toml says: see its second paragraph"
    );
}

#[test]
fn the_list_is_complete() {
    let cases = table();
    let numbers: std::collections::BTreeSet<_> = cases.iter().map(|case| case.number).collect();
    assert_eq!(numbers.into_iter().collect::<Vec<_>>(), (1..=95).collect::<Vec<_>>());
    let ids: std::collections::BTreeSet<_> = cases.iter().map(Case::id).collect();
    assert_eq!(ids.len(), cases.len());
    let mut files: std::collections::BTreeSet<_> =
        fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for case in &cases {
        let next = dir().join(format!("{}_next.py", case.id()));
        for file in case.file().into_iter().chain(case.next.then_some(next)) {
            assert!(files.remove(&file), "{}", file.display());
        }
    }
    let rest: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert_eq!(rest, ["canary.py", "expectations.toml", "trial.py"]);
}
