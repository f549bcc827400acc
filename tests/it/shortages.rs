//! What the machine does not give: named at start or `infra_error`, and never a wrong verdict. When it is there again,
//! everything goes on.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::faults::children;
use crate::sandbox::{python, told};
use crate::support::{eventually, processes_with};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A group of one controller of version 1, below the tester's own.
struct Group(PathBuf);

impl Group {
    /// `None`, and said: there are no such groups that this user may make.
    fn new(controller: &str, limit: &str, value: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let table = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = table.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            parts.next()?.split(',').any(|one| one == controller).then(|| parts.next())?
        });
        let dir = Path::new("/sys/fs/cgroup").join(controller);
        let dir = dir.join(own.unwrap_or("absent").trim_start_matches('/'));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = dir.join(format!("evalmill-short-{}-{number}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&dir) {
            eprintln!("not run: {}: {error}; it takes root and cgroups of version 1", dir.display());
            return None;
        }
        let group = Self(dir);
        group.set(limit, value);
        Some(group)
    }

    fn set(&self, limit: &str, value: &str) {
        std::fs::write(self.0.join(limit), value).unwrap();
    }

    /// Words that a command begins with to be in it.
    fn enter(&self) -> Vec<String> {
        let script = "echo $$ > \"$1/cgroup.procs\" || exit 9; shift; exec \"$@\"";
        ["sh", "-c", script, "sh", self.0.to_str().unwrap()].map(str::to_owned).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let mut left = std::fs::remove_dir(&self.0);
        for _ in 0..100 {
            if left.is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
            left = std::fs::remove_dir(&self.0);
        }
        if !std::thread::panicking() {
            panic!("{} stays: {left:?}", self.0.display());
        }
    }
}

/// `evalmill run` that is fed as it goes.
struct Running {
    child: Child,
    input: ChildStdin,
    results: Arc<Mutex<Vec<Value>>>,
    readers: [JoinHandle<()>; 2],
    stderr: Arc<Mutex<String>>,
    scratch: TempDir,
}

impl Running {
    fn start(wrapper: &[String], args: &[&str], settings: &[(&str, &str)]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let program = [env!("CARGO_BIN_EXE_evalmill").to_owned(), "run".to_owned()];
        let mut words = wrapper.iter().chain(&program);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(args).env("EXEC_TMP_DIR", scratch.path()).env_remove("EVALMILL_CONFIG");
        command.envs(settings.iter().copied());
        let piped = Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        let (results, stderr) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<String>>::default());
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (found, said) = (Arc::clone(&results), Arc::clone(&stderr));
        let readers = [
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines() {
                    found.lock().unwrap().push(serde_json::from_str(&line.unwrap()).unwrap());
                }
            }),
            std::thread::spawn(move || {
                let mut text = BufReader::new(err);
                let mut line = Vec::new();
                while text.read_until(b'\n', &mut line).unwrap() > 0 {
                    said.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            }),
        ];
        let input = child.stdin.take().unwrap();
        Self { child, input, results, readers, stderr, scratch }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn feed(&mut self, rows: &[Value]) {
        for row in rows {
            // One that was refused at start does not read.
            let _ = writeln!(self.input, "{row}");
        }
    }

    fn said(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits for so many results.
    fn wait_for(&self, count: usize) -> Vec<Value> {
        let results = || self.results.lock().unwrap().clone();
        let begun = Instant::now();
        while results().len() < count && begun.elapsed() < Duration::from_secs(90) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        assert_eq!(results().len(), count, "{}", self.said());
        results()
    }

    /// Ends its input, and sees it to its end: status, results, standard error. Nothing may be left.
    fn end(mut self) -> (ExitStatus, Vec<Value>, String) {
        drop(self.input);
        let status = self.child.wait().unwrap();
        for reader in self.readers {
            reader.join().unwrap();
        }
        let stderr = self.stderr.lock().unwrap().clone();
        let left: Vec<_> = std::fs::read_dir(self.scratch.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let results = self.results.lock().unwrap().clone();
        (status, results, stderr)
    }
}

/// Starts it, gives it these rows, and sees it to its end.
fn run(
    wrapper: &[String],
    args: &[&str],
    settings: &[(&str, &str)],
    rows: &[Value],
) -> (Option<i32>, Vec<Value>, String) {
    let mut running = Running::start(wrapper, args, settings);
    running.feed(rows);
    let (status, results, stderr) = running.end();
    (status.code(), results, stderr)
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|&word| word.to_owned()).collect()
}

/// A right program and a wrong one that does the same.
fn right_and_wrong(source: &str) -> [Value; 2] {
    [python(source), python(&format!("{source}\nraise SystemExit(1)"))]
}

fn verdicts(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["verdict"].as_str().unwrap()).collect()
}

/// A limit of evalmill's own is met by programs that are within theirs.
#[rstest]
#[case::memory(
    ("memory", "memory.limit_in_bytes", "160M", "1G"),
    "data = bytearray(b'x') * (240 << 20)",
    "want of memory"
)]
#[case::memory_of_a_child(
    ("memory", "memory.limit_in_bytes", "160M", "1G"),
    "import os\nif os.fork() == 0:\n    data = bytearray(b'x') * (240 << 20)\n    os._exit(0)\nos.wait()",
    "want of memory"
)]
#[case::processes(
    ("pids", "pids.max", "45", "1000"),
    "import os, time\nfor i in range(50):\n    if os.fork() == 0: time.sleep(0.2); os._exit(0)\nfor i in range(50): os.wait()",
    "want of processes"
)]
#[case::threads(
    ("pids", "pids.max", "45", "1000"),
    "import threading, time\nall = [threading.Thread(target=time.sleep, args=(0.2,)) for i in range(50)]\n[one.start() for one in all]; [one.join() for one in all]",
    "want of processes"
)]
fn what_programs_want_of_the_service_is_not_their_doing(
    #[case] (controller, file, little, enough): (&str, &str, &str, &str),
    #[case] source: &str,
    #[case] said: &str,
    #[values("full", "namespaces", "process", "none")] tier: &str,
) {
    let Some(group) = Group::new(controller, file, little) else { return };
    let settings = [("EVALMILL__SANDBOX__TIER", tier), ("EVALMILL__SANDBOX__REQUIRE", tier)];
    // One at a time: what two do to each other cannot always be told apart.
    let mut running = Running::start(&group.enter(), &["--workers", "1"], &settings);
    let harmless = python("print('x')");
    let rows = right_and_wrong(source);
    running.feed(&rows);
    running.feed(&right_and_wrong("pass"));
    let results = running.wait_for(4);
    assert_eq!(verdicts(&results), ["infra_error", "infra_error", "passed", "failed"], "{}", running.said());
    for result in results.iter().take(2) {
        let detail = result["detail"].as_str().unwrap();
        // Of one that was just killed there may be so much left that the next try gets no process at all.
        let none_at_all = controller == "pids" && detail.contains("cannot start a process: Resource");
        assert!(detail.contains(said) || none_at_all, "{result}");
    }
    group.set(file, enough);
    running.feed(&rows);
    running.feed(std::slice::from_ref(&harmless));
    let (status, results, stderr) = running.end();
    assert_eq!(verdicts(&results[4..]), ["passed", "failed", "passed"], "{}\n{stderr}", told(&results[4]));
    assert_eq!(status.code(), Some(1), "{stderr}");
}

/// A limit of a program's own is its doing, also where the service has one, and one that makes do with less has passed.
#[rstest]
fn a_limit_of_its_own_is_a_programs_doing_all_the_same(
    #[values("full", "namespaces", "process", "none")] tier: &str,
) {
    let Some(group) = Group::new("pids", "pids.max", "45") else { return };
    let makes_do = "
import os, time
try:
    for i in range(60):
        if os.fork() == 0: time.sleep(0.3); os._exit(0)
except BlockingIOError:
    pass
else:
    raise SystemExit('there was enough')
";
    let mut bomb =
        python("import os, time\nfor i in range(20):\n    if os.fork() == 0: time.sleep(9)\nos.wait()");
    bomb["limits"] = json!({"processes": 8, "timeout": 3});
    let settings = [("EVALMILL__SANDBOX__TIER", tier), ("EVALMILL__SANDBOX__REQUIRE", tier)];
    let rows = [python(makes_do), bomb.clone(), python(makes_do), bomb];
    let (code, results, stderr) = run(&group.enter(), &["--workers", "1"], &settings, &rows);
    for (result, verdict) in results.iter().zip(["passed", "crashed", "passed", "crashed"]) {
        assert_eq!(result["verdict"], verdict, "{}\n{stderr}", told(result));
        if verdict == "crashed" {
            let termination = &result["executions"][0]["command_results"][0]["termination"];
            assert_eq!(termination, "process_limit", "{result}");
        }
    }
    assert_eq!((code, results.len()), (Some(0), 4), "{stderr}");
}

/// With hardly a process for itself it says so and ends, or does what it can.
#[rstest]
fn a_start_without_processes_is_said(#[values("1", "2", "3", "4", "5")] most: &str) {
    let Some(group) = Group::new("pids", "pids.max", most) else { return };
    let (code, results, stderr) = run(&group.enter(), &["--workers", "1"], &[], &right_and_wrong("pass"));
    assert!(matches!(code, Some(1 | 2 | 69 | 74)), "{code:?} {results:?}\n{stderr}");
    assert!(stderr.contains("Resource temporarily unavailable"), "{stderr}");
    assert!(verdicts(&results).iter().all(|verdict| *verdict == "infra_error"), "{results:?}\n{stderr}");
}

/// The limit of a user who has nothing else running. What it refuses is counted nowhere.
#[rstest]
fn a_users_limit_of_processes_is_reckoned_with(#[values("namespaces", "process", "none")] tier: &str) {
    if !is_root() {
        eprintln!("not run: it takes root to become a user with nothing running");
        return;
    }
    let settings = [
        ("EVALMILL__SANDBOX__TIER", tier),
        ("EVALMILL__SANDBOX__REQUIRE", tier),
        ("EVALMILL__LIMITS__PROCESSES", "4"),
    ];
    // One for each case: the tests run at the same time.
    let id = 64_300 + u32::try_from(tier.len()).unwrap();
    let id = [format!("--reuid={id}"), format!("--regid={id}")];
    let user = |most: u32| {
        words(&["prlimit", &format!("--nproc={most}"), "setpriv", &id[0], &id[1], "--clear-groups"])
    };
    let forks = |count: u32| {
        let source = format!(
            "import os, time\nfor i in range({count}):\n    if os.fork() == 0: time.sleep(0.2); os._exit(0)\nfor i in range({count}): os.wait()"
        );
        let mut row = python(&source);
        row["limits"] = json!({"processes": count + 1});
        row
    };
    let (code, results, stderr) =
        run(&user(60), &["--workers", "1"], &settings, &[forks(3), forks(50), forks(20)]);
    assert_eq!(verdicts(&results), ["passed", "infra_error", "passed"], "{stderr}");
    let detail = results[1]["detail"].as_str().unwrap();
    assert!(detail.contains("ulimit -u") && detail.contains("allowed 51"), "{detail}");
    assert_eq!(code, Some(1), "{stderr}");
    let settings = [("EVALMILL__SANDBOX__TIER", tier), ("EVALMILL__SANDBOX__REQUIRE", tier)];
    let (code, results, stderr) = run(&user(60), &["--workers", "1"], &settings, &[forks(3)]);
    assert_eq!((code, results.len()), (Some(69), 0), "{stderr}");
    for part in ["(ulimit -u)", "limits.processes allows 64", "worker.num_workers"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

/// Programs of root's are users of their own, to which its limit comes down.
#[test]
fn roots_limit_of_processes_is_its_programs() {
    if !is_root() {
        eprintln!("not run: it takes root");
        return;
    }
    let limited = words(&["prlimit", "--nproc=30"]);
    let (code, results, stderr) = run(&limited, &["--workers", "1"], &[], &[python("pass")]);
    assert_eq!((code, results.len()), (Some(69), 0), "{stderr}");
    assert!(stderr.contains("leaves 30 for the programs of each of 1 workers"), "{stderr}");
}

/// Executes the rest of its arguments where a mount with the flags `nosuid,nodev` fails: that is how file systems of
/// boxes are mounted.
const NO_TMPFS: &str = "\
import ctypes, os, platform, struct, sys
mount = {'x86_64': 165, 'aarch64': 40}[platform.machine()]
program = [(0x20, 0, 0, 0), (0x15, 0, 3, mount), (0x20, 0, 0, 40), (0x15, 0, 1, 6), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *one) for one in program))
class Filter(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(program), ctypes.addressof(code)))) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
";

#[rstest]
fn a_tmpfs_that_cannot_be_mounted_is_named(#[values(true, false)] root: bool) {
    let mut wrapper = match root {
        true => Vec::new(),
        false if is_root() => words(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]),
        false => Vec::new(),
    };
    wrapper.extend(words(&["/usr/bin/python3", "-c", NO_TMPFS]));
    let (code, results, stderr) = run(&wrapper, &["--workers", "1"], &[], &right_and_wrong("pass"));
    assert_eq!((code, verdicts(&results)), (Some(0), vec!["passed", "failed"]), "{stderr}");
    let said = "mounting a tmpfs: Operation not permitted";
    assert!(stderr.contains(said), "{stderr}");
    for result in &results {
        assert_eq!(result["worker"]["tier"], "process", "{stderr}");
        assert!(result["worker"]["missing"].as_array().unwrap().contains(&json!("root")), "{result}");
    }
    let required = [("EVALMILL__SANDBOX__REQUIRE", "namespaces")];
    let (code, results, stderr) = run(&wrapper, &[], &required, &[python("pass")]);
    assert_eq!((code, results.len()), (Some(69), 0), "{stderr}");
    assert!(stderr.contains("sandbox.require") && stderr.contains(said), "{stderr}");
}

/// Where cgroups are mounted.
fn cgroup_mounts() -> String {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_cgroup = |line: &&str| line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("cgroup"));
    let points = table.lines().filter(is_cgroup).map(|line| line.split(' ').nth(4).unwrap());
    points.collect::<Vec<_>>().join(" ")
}

#[test]
fn cgroups_that_cannot_be_written_are_named() {
    if !is_root() {
        eprintln!("not run: it takes root to mount");
        return;
    }
    let script = format!(
        "for dir in {}; do mount -o remount,bind,ro \"$dir\" || exit 9; done; exec \"$@\"",
        cgroup_mounts()
    );
    let wrapper = words(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    let (code, results, stderr) = run(&wrapper, &["--workers", "1"], &[], &right_and_wrong("pass"));
    assert_eq!((code, verdicts(&results)), (Some(0), vec!["passed", "failed"]), "{stderr}");
    assert_eq!(results[0]["worker"]["missing"], json!(["cgroup"]), "{stderr}");
    assert!(stderr.contains("missing cgroup: /sys/fs/cgroup"), "{stderr}");
    let (code, results, stderr) = run(&wrapper, &[], &[("EVALMILL__SANDBOX__REQUIRE", "full")], &[]);
    assert_eq!((code, results.len()), (Some(69), 0), "{stderr}");
    assert!(stderr.contains("gives \"namespaces\"") && stderr.contains("cgroup: "), "{stderr}");
}

/// Service, launcher and workers killed at once, as by the kernel or the end of a container.
#[rstest]
fn what_is_left_of_a_run_that_was_killed_whole_goes_with_the_next(
    #[values("namespaces", "process", "none")] tier: &str,
) {
    let settings = [("EVALMILL__SANDBOX__TIER", tier), ("EVALMILL__SANDBOX__REQUIRE", tier)];
    let mut running = Running::start(&[], &["--workers", "1"], &settings);
    let marker = format!("98{}{}", std::process::id(), tier.len());
    running.feed(&[json!({"prediction": {"commands": [{"command": ["sleep", marker], "timeout": 100}]}})]);
    let sleeping = format!("sleep\0{marker}");
    eventually("the program runs", || processes_with(&sleeping).len() == 1);
    let launcher = children(running.child.id())[0];
    let mut all = vec![launcher, i32::try_from(running.child.id()).unwrap()];
    all.extend(children(launcher.unsigned_abs()));
    let numbers: Vec<_> = all.iter().map(ToString::to_string).collect();
    Command::new("kill").arg("-STOP").args(&numbers).status().unwrap();
    Command::new("kill").arg("-KILL").args(&numbers).status().unwrap();
    running.child.wait().unwrap();
    eventually("nothing runs", || processes_with(&sleeping).is_empty());
    let dirs = || std::fs::read_dir(running.scratch.path()).unwrap().count();
    assert_eq!(dirs(), 1);
    let next = Command::new(env!("CARGO_BIN_EXE_evalmill"))
        .args(["run", "/dev/null"])
        .env("EXEC_TMP_DIR", running.scratch.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&next.stderr);
    assert!(next.status.success() && stderr.contains("a killed run had left"), "{stderr}");
    assert_eq!(dirs(), 0, "{stderr}");
}

/// No worker can be made for a while: nothing is judged meanwhile, and then everything is.
fn goes_on(mut running: Running, take: &str, enter: &str, give: &str, said: &str) {
    running.feed(&right_and_wrong("pass"));
    assert_eq!(verdicts(&running.wait_for(2)), ["passed", "failed"]);
    let pid = running.pid();
    let change = |script: &str| {
        let done = Command::new("nsenter").args(["-t", &pid, enter, "sh", "-c", script]).output().unwrap();
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    };
    change(take);
    for _ in 0..3 {
        running.feed(&right_and_wrong("pass"));
    }
    eventually("no worker can be made", || running.said().matches("a worker could not be made").count() >= 2);
    change(give);
    let (status, results, stderr) = running.end();
    assert!(stderr.contains(said), "{stderr}");
    assert_eq!(verdicts(&results), ["passed", "failed"].repeat(4), "{stderr}");
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// Every box needs a worker of its own.
const ONE_TASK: (&str, &str) = ("EVALMILL__WORKER__MAX_TASKS_PER_PROCESS", "1");

#[test]
fn user_namespaces_that_are_forbidden_for_a_while() {
    let mut wrapper = match is_root() {
        true => words(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]),
        false => Vec::new(),
    };
    wrapper.extend(words(&["unshare", "--user", "--map-root-user"]));
    let settings = [ONE_TASK, ("EVALMILL__SANDBOX__TIER", "namespaces")];
    let running = Running::start(&wrapper, &["--workers", "2"], &settings);
    let file = "/proc/sys/user/max_user_namespaces";
    let (take, give) = (format!("echo 0 > {file}"), format!("echo 10000 > {file}"));
    goes_on(running, &take, "--user", &give, "sysctl -w user.max_user_namespaces");
}

#[test]
fn cgroups_that_are_gone_for_a_while() {
    if !is_root() || !Path::new("/sys/fs/cgroup/pids/tasks").exists() {
        eprintln!("not run: it takes root and cgroups of version 1");
        return;
    }
    let settings = [ONE_TASK, ("EVALMILL__SANDBOX__TIER", "full")];
    let running = Running::start(&words(&["unshare", "--mount"]), &["--workers", "2"], &settings);
    let take = "mount -t tmpfs -o ro none /sys/fs/cgroup/pids";
    goes_on(running, take, "--mount", "umount /sys/fs/cgroup/pids", "cgroup: /sys/fs/cgroup/pids");
}
