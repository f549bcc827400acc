//! Tier `full`: what the kernel counts and limits over a whole process tree, and that no group is left.
//!
//! Each test starts the program in groups of its own, so that what is left can be told from what other tests do.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{evalmill, eventually, processes_with, without_full};

/// A group in each hierarchy: one in version 2, three in version 1. Below them there must be nothing in the end.
pub(crate) struct Place(Vec<PathBuf>);

/// Where this process is in the hierarchy whose controllers fit.
fn own(fits: impl Fn(&str) -> bool) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    table.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        fits(parts.next()?).then(|| Some(parts.next()?.trim_start_matches('/').to_owned()))?
    })
}

/// The groups that others can be made in.
fn above() -> Vec<PathBuf> {
    if let Some(own) = own(str::is_empty) {
        // Where the tests are in a leaf, their neighbours.
        let own = Path::new("/sys/fs/cgroup").join(own);
        for dir in own.ancestors().take(2) {
            let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            if ["memory", "pids"].iter().all(|name| enabled.split_whitespace().any(|one| one == *name)) {
                return vec![dir.to_owned()];
            }
        }
    }
    let v1 = |controller: &str| {
        let own = own(|names| names.split(',').any(|name| name == controller));
        Path::new("/sys/fs/cgroup").join(controller).join(own.unwrap_or("absent".to_owned()))
    };
    ["memory", "pids", "cpuacct"].map(v1).to_vec()
}

impl Place {
    /// `None`, and said: this user may make no groups.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("evalmill-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let place = Self(above().iter().map(|dir| dir.join(&name)).collect());
        for dir in &place.0 {
            if let Err(error) = std::fs::create_dir(dir) {
                without_full(&format!("{}: {error}; it takes root, or a delegated group", dir.display()));
                return None;
            }
        }
        Some(place)
    }

    fn start(&self, scratch: &Path, args: &[&str]) -> Child {
        self.start_by(&[], scratch, args)
    }

    /// `by`: what evalmill is started by.
    fn start_by(&self, by: &[&str], scratch: &Path, args: &[&str]) -> Child {
        let mut program = evalmill(scratch);
        program.arg("run").args(args).env("EVALMILL__SANDBOX__TIER", "full");
        let piped = Stdio::piped;
        self.within(by, &program).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap()
    }

    /// The same program, which first enters the groups; `by`: what it is started by.
    pub(crate) fn within(&self, by: &[&str], program: &Command) -> Command {
        // Where a service was killed, its leaf is still there, and only that can be entered.
        let enter = "while [ \"$1\" != -- ]; do
            dir=$1; [ ! -d $dir/evalmill-own ] || dir=$dir/evalmill-own
            echo $$ > $dir/cgroup.procs || exit 9; shift
        done; shift; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]).args(&self.0).arg("--").args(by);
        command.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// The directories of `memory`, `pids` and `cpuacct`; in version 2 they are one.
    pub(crate) fn dirs(&self) -> &[PathBuf] {
        &self.0
    }

    fn groups(&self) -> Vec<PathBuf> {
        let below = |dir: &PathBuf| std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
        self.0.iter().flat_map(below).filter(|path| path.is_dir()).collect()
    }

    /// Everything that runs in it, at any depth.
    fn processes(&self) -> Vec<String> {
        fn all(dir: &Path, found: &mut Vec<String>) {
            let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().map(str::to_owned));
            let below = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
            below.filter(|path| path.is_dir()).for_each(|dir| all(&dir, found));
        }
        let mut found = Vec::new();
        self.0.iter().for_each(|dir| all(dir, &mut found));
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = std::fs::remove_dir(dir.join("evalmill-own"));
            let _ = std::fs::remove_dir(dir);
        }
    }
}

fn python(source: &str, memory_mb: u64) -> Value {
    json!({
        "prediction": {"files": {"main.py": source}, "commands": [{"command": ["python3", "main.py"]}]},
        "limits": {"timeout": 10, "memory_mb": memory_mb},
    })
}

/// Results of rows run one after another by one worker, which is never replaced.
fn run(rows: &[Value]) -> Option<Vec<Value>> {
    let place = Place::new()?;
    let scratch = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let summary = outside.path().join("summary.json");
    let config = outside.path().join("evalmill.toml");
    std::fs::write(&config, "[sandbox]\ndisk_mb = 1024\n[limits]\nfile_mb = 1024\n").unwrap();
    let (summary, config) = (summary.to_str().unwrap(), config.to_str().unwrap());
    let mut child =
        place.start(scratch.path(), &["--workers", "1", "--summary", summary, "--config", config]);
    let mut pipe = child.stdin.take().unwrap();
    for row in rows {
        writeln!(pipe, "{row}").unwrap();
    }
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(place.groups(), Vec::<PathBuf>::new(), "{stderr}");
    let results: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results.len(), rows.len(), "{stderr}");
    for result in &results {
        assert_eq!(result["worker"]["tier"], "full", "{result}\n{stderr}");
        assert_eq!(result["worker"].get("missing"), None);
    }
    let report: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    assert_eq!(report["recycled"], json!({}), "the worker was replaced\n{stderr}");
    Some(results)
}

fn command(result: &Value) -> &Value {
    &result["executions"][0]["command_results"][0]
}

const HARMLESS: &str = "data = bytearray(b'x' * (20 << 20))\nprint(len(data))";

/// Programs that come to a limit although each process, or what a sample shows, stays below it.
#[rstest]
#[case::memory_of_many(
    "
import os, time
for i in range(20):
    if os.fork() == 0:
        data = bytearray(b'x' * (15 << 20))
        time.sleep(9)
        os._exit(0)
time.sleep(9)
",
    "memory_limit"
)]
#[case::only_a_child_is_killed(
    "
import os
if os.fork() == 0:
    data = bytearray(b'x' * (400 << 20))
os.wait()
os._exit(0)
",
    "memory_limit"
)]
#[case::ten_gigabytes("data = bytearray(10 << 30)", "memory_limit")]
#[case::memfd(
    "
import os
fd = os.memfd_create('hoard')
for i in range(400): os.write(fd, bytes(1 << 20))
",
    "memory_limit"
)]
#[case::files_in_memory(
    "
for dir in ['/tmp', '/dev/shm', '.']:
    with open(dir + '/hoard', 'wb') as file:
        for i in range(100): file.write(bytes(1 << 20))
",
    "memory_limit"
)]
#[case::fork_bomb(
    "
import os
while True:
    try: os.fork()
    except OSError: pass
",
    "process_limit"
)]
#[case::sessions(
    "
import os
while True:
    try:
        if os.fork() == 0: os.setsid()
    except OSError: pass
",
    "process_limit"
)]
#[case::threads(
    "
import threading, time
while True:
    try: threading.Thread(target=time.sleep, args=(60,)).start()
    except RuntimeError: pass
",
    "process_limit"
)]
#[case::one_thread_too_many(
    "
import threading, time
for i in range(100): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
",
    "process_limit"
)]
#[case::time_of_children(
    "
import os, time
# Each is gone before it can be looked at, and has burnt less than a tick's worth of attention.
while True:
    if os.fork() == 0:
        if os.fork() == 0:
            until = time.process_time() + 0.03
            while time.process_time() < until: pass
        os._exit(0)
    os.wait()
    time.sleep(0.02)
",
    "cpu_limit or wall_limit"
)]
fn limits_hold_over_the_tree(#[case] source: &str, #[case] termination: &str) {
    let Some(results) = run(&[python(source, 200), python(HARMLESS, 100)]) else { return };
    assert!(termination.contains(command(&results[0])["termination"].as_str().unwrap()), "{}", results[0]);
    if termination == "memory_limit" {
        assert_eq!(results[0]["verdict"], "memory_exceeded", "{}", results[0]);
        // None has slept to its end.
        assert!(command(&results[0])["runtime"].as_f64().unwrap() < 8.0, "{}", results[0]);
    }
    if source.contains("process_time") {
        assert!(command(&results[0])["cpu_time"].as_f64().unwrap() > 2.0, "{}", results[0]);
    }
    assert_eq!(results[1]["verdict"], "passed", "{}", results[1]);
}

/// What is not a program's fault, or not its memory.
#[rstest]
#[case::mapped_and_not_touched(
    "import mmap\nmmap.mmap(-1, 100 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)"
)]
#[case::output_is_the_workers("import os\nfor i in range(15): os.write(1, b'x' * (1 << 20))")]
#[case::makes_do_with_fewer_processes(
    "
import os, time
made = 0
try:
    for i in range(100):
        if os.fork() == 0:
            time.sleep(9); os._exit(0)
        made += 1
except BlockingIOError:
    pass
assert made == 63, made
"
)]
#[case::as_many_threads_as_are_allowed(
    "
import threading, time
threads = [threading.Thread(target=time.sleep, args=(0.1,)) for i in range(63)]
[one.start() for one in threads]; [one.join() for one in threads]
"
)]
fn no_limit_is_met(#[case] source: &str) {
    let rows = [python(source, 64), python(source, 64), python(HARMLESS, 64)];
    let Some(results) = run(&rows) else { return };
    for result in &results {
        assert_eq!(result["verdict"], "passed", "{result}");
        assert!(command(result)["max_rss_bytes"].as_u64().unwrap() <= 65 << 20, "{result}");
    }
}

#[test]
fn the_time_and_the_memory_of_a_tree_are_reported() {
    let source = "
import os, time
read, write = os.pipe()
for i in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            # Nobody waits for it but the first process of the sandbox.
            data = bytearray(b'x' * (40 << 20))
            until = time.process_time() + 0.3
            while time.process_time() < until: pass
            os.write(write, b'.')
            time.sleep(9)
        os._exit(0)
    os.wait()
while len(os.read(read, 1)) and (i := i - 1) >= 0: pass
";
    let Some(results) = run(&[python(source, 400), python(HARMLESS, 100)]) else { return };
    let tree = command(&results[0]);
    assert!(tree["cpu_time"].as_f64().unwrap() > 0.9, "{tree}");
    assert!(tree["max_rss_bytes"].as_u64().unwrap() > 120 << 20, "{tree}");
    // The account begins again.
    let next = command(&results[1]);
    assert!(next["cpu_time"].as_f64().unwrap() < tree["cpu_time"].as_f64().unwrap(), "{next}");
    assert!(next["max_rss_bytes"].as_u64().unwrap() < 70 << 20, "{next}");
}

#[test]
fn each_prediction_has_its_own_limits() {
    let take = |megabytes: u64| format!("data = b'x' * ({megabytes} << 20)");
    let fill = "open('/tmp/hoard', 'wb').write(bytes(150 << 20))";
    let rows = [
        python(&take(150), 100),
        python(&take(150), 1024),
        python(&take(150), 100),
        python(fill, 400),
        python(&take(50), 100),
    ];
    let Some(results) = run(&rows) else { return };
    let verdicts: Vec<_> = results.iter().map(|result| result["verdict"].as_str().unwrap()).collect();
    let expected = ["memory_exceeded", "passed", "memory_exceeded", "passed", "passed"];
    assert_eq!(verdicts, expected, "{results:#?}");
}

#[test]
fn what_a_killed_service_leaves_the_next_one_removes() {
    let Some(place) = Place::new() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let marker = format!("91{}", std::process::id());
    let mut child = place.start(scratch.path(), &["--workers", "2"]);
    let mut pipe = child.stdin.take().unwrap();
    let row = json!({"prediction": {"commands": [{"command": ["sleep", marker], "timeout": 100}]}});
    writeln!(pipe, "{row}").unwrap();
    let sleeping = format!("sleep\0{marker}");
    eventually("the program runs", || processes_with(&sleeping).len() == 1);
    // Everything at once: what is in the groups are the workers and the program.
    Command::new("kill").arg("-KILL").args(place.processes()).status().unwrap();
    child.wait().unwrap();
    drop(pipe);
    eventually("everything is gone", || processes_with(&sleeping).is_empty());
    // In version 2 the leaf, too.
    assert_eq!(place.groups().len(), place.0.len().max(2));
    let mut next = place.start(scratch.path(), &[]);
    drop(next.stdin.take());
    let output = next.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(place.groups(), Vec::<PathBuf>::new());
}

/// A group of version 2 that others live in cannot be ours, and nobody is moved.
#[test]
fn strangers_in_the_group_are_named() {
    let Some(place) = Place::new() else { return };
    let [group] = &place.0[..] else {
        eprintln!("not run: in version 1 groups with processes have groups in them");
        return;
    };
    let procs = group.join("cgroup.procs");
    let enter = "echo $$ > \"$0\" && exec sleep 60";
    let mut stranger = Command::new("sh").args(["-c", enter]).arg(&procs).spawn().unwrap();
    let line = format!("{}\n", stranger.id());
    eventually("the stranger is there", || std::fs::read_to_string(&procs).unwrap() == line);
    let scratch = tempfile::tempdir().unwrap();
    let mut child = place.start(scratch.path(), &[]);
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    let named = format!(
        "other processes are in this cgroup, and evalmill moves none but its own: {} (",
        stranger.id()
    );
    for part in [&*named, "\"namespaces\"", "-p Delegate=yes"] {
        assert!(stderr.contains(part), "{part}\n{stderr}");
    }
    assert_eq!(std::fs::read_to_string(&procs).unwrap(), line);
    assert!(!group.join("evalmill-own").exists());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// In version 2 programs do not see how the host names their group.
#[test]
fn programs_see_their_own_groups_only() {
    let source = "print([line for line in open('/proc/self/cgroup') if line.startswith('0::')])";
    let Some(results) = run(&[python(source, 100)]) else { return };
    let seen = command(&results[0])["stdout"].as_str().unwrap().trim();
    if above().len() == 1 {
        assert_eq!(seen, "['0::/job\\n']");
    }
}

#[test]
fn a_killed_launcher_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut child = place.start(scratch.path(), &["--workers", "1"]);
    let mut pipe = child.stdin.take().unwrap();
    let marker = format!("2.0{}", std::process::id());
    let sleeping = format!("sleep\0{marker}");
    let row = json!({"prediction": {"commands": [{"command": ["sleep", marker]}]}});
    writeln!(pipe, "{row}").unwrap();
    eventually("the program runs", || processes_with(&sleeping).len() == 1);
    let names =
        place.groups().into_iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    let launcher = names.filter_map(|name| Some(name.split('-').nth(2)?.to_owned())).next().unwrap();
    Command::new("kill").args(["-KILL", &launcher]).status().unwrap();
    writeln!(pipe, "{}", python("pass", 100)).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 2, "{}", String::from_utf8_lossy(&output.stderr));
    for line in text.lines() {
        // The one that ran meanwhile, too.
        let result: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&result["verdict"], &result["worker"]["tier"]), (&json!("passed"), &json!("full")));
    }
    assert_eq!(place.groups(), Vec::<PathBuf>::new());
}

/// Groups that were given to an ordinary user: worker and programs have one id. In version 1 only the filter of system calls
/// keeps a program from the worker's second thread, by which the limits of all of it can be set.
#[test]
fn an_ordinary_users_program_sets_no_limit_of_its_worker() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: it takes root to give groups away");
        return;
    }
    let Some(place) = Place::new() else { return };
    for dir in &place.0 {
        let files = ["cgroup.procs", "cgroup.subtree_control", "tasks"].map(|name| dir.join(name));
        for file in files.iter().filter(|file| file.exists()).chain([dir]) {
            std::os::unix::fs::chown(file, Some(65534), Some(65534)).unwrap();
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let source = "
import os, resource
# Of the worker, not of this one.
for pid in {1, 2} - {os.getpid()}:
    for what in (lambda: resource.prlimit(pid, resource.RLIMIT_STACK, (1 << 16, 1 << 16)),
                 lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
                 lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)):
        try:
            print('worked', what())
        except PermissionError:
            pass
print(resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)[0])
";
    let by = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut child = place.start_by(&by, scratch.path(), &["--workers", "1"]);
    writeln!(child.stdin.take().unwrap(), "{}", python(source, 100)).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert_eq!(result["worker"]["tier"], "full", "{stderr}");
    assert_eq!(command(&result)["stdout"], "256\n", "{result}");
    assert_eq!(place.groups(), Vec::<PathBuf>::new());
}

/// Without the right to make groups: said with the remedy, and the next tier.
#[test]
fn an_ordinary_user_is_told_what_is_missing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: it takes root to become nobody");
        return;
    }
    let run = |setting: (&str, &str)| {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_evalmill")]);
        command.args(["run", "--workers", "1"]).env("EXEC_TMP_DIR", scratch.path()).env(setting.0, setting.1);
        let piped = Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        // Refused at start, it does not read.
        let _ = writeln!(child.stdin.take().unwrap(), "{}", python("pass", 100));
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, stdout, stderr) = run(("EVALMILL__SANDBOX__TIER", "auto"));
    assert_eq!(code, Some(0), "{stderr}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    let worker = &result["worker"];
    assert_eq!((&worker["tier"], &worker["missing"]), (&json!("namespaces"), &json!(["cgroup"])));
    assert!(stderr.contains("tier \"namespaces\"") && stderr.contains("missing cgroup: "), "{stderr}");
    for setting in ["EVALMILL__SANDBOX__TIER", "EVALMILL__SANDBOX__REQUIRE"] {
        let (code, stdout, stderr) = run((setting, "full"));
        assert_eq!((code, &*stdout), (Some(69), ""), "{stderr}");
        for part in ["\"full\"", "\"namespaces\"", "cgroup: ", "limits of the tree are watched"] {
            assert!(stderr.contains(part), "{stderr}");
        }
    }
}
