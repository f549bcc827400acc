//! Hostile programs behind walls: what they try, and that the next program notices nothing.
//!
//! As root every test runs three times: with ids of its own for each worker, the same in tier `full`, and as
//! an ordinary user.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{eventually, humaneval, processes_with, without_full};

/// Who starts evalmill.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Who {
    /// Whoever runs the tests.
    Tester,
    /// The same, in tier `full`; where that cannot be had, in `namespaces` again.
    Full,
    /// `nobody`, where the tests run as root.
    Nobody,
}

pub(crate) fn tier(who: Who) -> &'static str {
    static FULL: OnceLock<bool> = OnceLock::new();
    let can = || {
        let scratch = tempfile::tempdir().unwrap();
        let run = Command::new(env!("CARGO_BIN_EXE_evalmill"))
            .args(["run", "/dev/null"])
            .env("EXEC_TMP_DIR", scratch.path())
            .env("EVALMILL__SANDBOX__TIER", "full")
            .output()
            .unwrap();
        let full = run.status.success();
        if !full {
            without_full(&String::from_utf8_lossy(&run.stderr));
        }
        full
    };
    if who == Who::Full && *FULL.get_or_init(can) { "full" } else { "namespaces" }
}

fn command(who: Who, scratch: &Path) -> Command {
    let program = env!("CARGO_BIN_EXE_evalmill");
    let mut command = match who {
        Who::Nobody if rustix::process::geteuid().is_root() => {
            std::fs::set_permissions(scratch, std::fs::Permissions::from_mode(0o777)).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
            command
        }
        _ => Command::new(program),
    };
    command
        .env("EXEC_TMP_DIR", scratch)
        .env_remove("EVALMILL_CONFIG")
        .env("EVALMILL_TEST_SECRET", "in the service");
    command.env("EVALMILL__SANDBOX__TIER", tier(who));
    command
}

fn start(who: Who, scratch: &Path, args: &[&str]) -> Child {
    let piped = Stdio::piped;
    command(who, scratch)
        .arg("run")
        .args(args)
        .stdin(piped())
        .stdout(piped())
        .stderr(piped())
        .spawn()
        .unwrap()
}

/// Results of rows run one after another by one worker, and its standard error. Nothing may be left.
fn run(who: Who, rows: &[Value], args: &[&str]) -> (Vec<Value>, String) {
    let scratch = tempfile::tempdir().unwrap();
    let mut all = vec!["--workers", "1"];
    all.extend(args);
    let mut child = start(who, scratch.path(), &all);
    let mut pipe = child.stdin.take().unwrap();
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let writer = std::thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let results: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results.len(), rows.len(), "{stderr}");
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(scratch.path().to_str().unwrap()), "{mounts}");
    for result in &results {
        assert_eq!(result["worker"]["tier"], tier(who), "{result}\n{stderr}");
    }
    (results, stderr)
}

pub(crate) fn python(source: &str) -> Value {
    json!({"prediction": {"files": {"main.py": source}, "commands": [{"command": ["python3", "main.py"]}]}})
}

/// What a person wants to know of a result.
pub(crate) fn told(result: &Value) -> String {
    let commands = &result["executions"][0]["command_results"];
    let last = commands.as_array().and_then(|commands| commands.last()).cloned().unwrap_or_default();
    format!("{} {} {}", result["verdict"], result["detail"], last["stderr"].as_str().unwrap_or_default())
}

/// What every program finds, whatever ran before it.
const CLEAN: &str = "
import os
assert os.listdir('.') == ['main.py'], os.listdir('.')
for dir in ['/tmp', '/dev/shm', os.environ['TMPDIR']]:
    assert os.listdir(dir) == [], (dir, os.listdir(dir))
    open(dir + '/mine', 'w').close()
assert sorted(os.path.join('/box', name) for name in os.listdir('/box')) == sorted([os.getcwd(), os.environ['TMPDIR']]), os.listdir('/box')
assert [int(name) for name in os.listdir('/proc') if name.isdigit()] == [os.getpid()], os.listdir('/proc')
for dir in ['/box', '/tmp', '/dev/shm']:
    assert os.listxattr(dir) == [], dir
assert os.stat('/tmp').st_mode & 0o7777 == 0o1777 and os.stat('/dev/shm').st_mode & 0o7777 == 0o1777
assert os.getpriority(os.PRIO_PROCESS, 0) == 0 and len(os.sched_getaffinity(0)) > 0
os.chmod('/tmp', 0o700) if os.stat('/tmp').st_uid == os.getuid() else None
";

/// Runs a hostile program that must come to a good end, between two others, by the same worker.
fn survives(who: Who, source: &str) -> Vec<Value> {
    let summary = tempfile::tempdir().unwrap();
    std::fs::set_permissions(summary.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = summary.path().join("summary.json");
    let rows = [python(CLEAN), python(source), python(CLEAN)];
    let (results, stderr) = run(who, &rows, &["--summary", path.to_str().unwrap()]);
    for result in &results {
        assert_eq!(result["verdict"], "passed", "{}\n{stderr}", told(result));
    }
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(report["recycled"], json!({}), "the worker was replaced: {report}\n{stderr}");
    results
}

#[rstest]
#[case::nothing_of_the_host_is_read(
    "
import os
def absent(path):
    try:
        open(path, 'rb').read(1)
    except OSError:
        return
    raise SystemExit('readable: ' + path)
for path in ['/etc/shadow', '/etc/machine-id', '/proc/1/environ', '/proc/1/maps', '/proc/1/mem', '/proc/1/cmdline', '/proc/kcore', '/proc/kmsg',
             '/proc/sysrq-trigger', '/sys/kernel/notes', '/var/run/docker.sock', '/dev/mem', '/dev/vda', '/dev/kmsg', '/dev/tty', '/dev/ptmx', HOST]:
    absent(path)
assert 'EVALMILL_TEST_SECRET' not in os.environ
assert not os.path.exists('/root') and not os.path.exists('/home') and not os.path.exists('/var')
for line in open('/etc/passwd'):
    assert line.split(':')[0] in ('root', 'box', 'nobody'), line
import pwd, socket, tempfile
assert pwd.getpwuid(os.getuid()).pw_name == 'box' and socket.gethostname() == 'box'
assert tempfile.gettempdir() == os.environ['TMPDIR'] and os.path.expanduser('~') == os.getcwd()
"
)]
#[case::nothing_of_the_host_is_written(
    "
import os
for path in ['/x', '/usr/x', '/etc/x', '/etc/passwd', '/bin/x', '/bin/sh', '/dev/x', '/proc/x', '/proc/sys/kernel/hostname',
             '/proc/sys/net/ipv4/ip_forward', '/proc/self/uid_map', '/proc/self/gid_map', '/proc/1/oom_score_adj']:
    try:
        with open(path, 'w') as file:
            file.write('1')
    except OSError:
        continue
    raise SystemExit('written: ' + path)
for path in ['/usr', '/bin/ls', '/etc', '/']:
    try:
        os.rename(path, '/tmp/moved')
    except OSError:
        continue
    raise SystemExit('moved: ' + path)
os.makedirs(os.path.dirname(HOST), exist_ok=True)
open(HOST + '.new', 'w').write('in a /tmp of its own')
for target in ['/dev/null', '/dev/zero', '/dev/full', '/dev/urandom']:
    open(target, 'rb').close()
open('/dev/null', 'w').write('x')
try:
    os.mknod('/tmp/mem', 0o600 | 0o020000, os.makedev(1, 1))
except OSError:
    pass
else:
    raise SystemExit('a device was made')
"
)]
#[case::nothing_is_left_for_the_next(
    "
import os
for dir in ['/tmp', '/dev/shm', '/box', os.environ['TMPDIR'], os.path.expanduser('~')]:
    os.makedirs(dir + '/left/deep/er', exist_ok=True)
    open(dir + '/left/file', 'w').write('x')
    os.chmod(dir + '/left', 0)
    try:
        os.setxattr(dir, 'user.note', b'for the next')
    except OSError:
        pass
from multiprocessing import shared_memory
shared_memory.SharedMemory(name='mine', create=True, size=4096)
os.umask(0); os.nice(5); os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
for dir in ['/tmp', '/dev/shm', '/box']:
    try:
        os.chmod(dir, 0)
    except OSError:
        pass
os._exit(0)
"
)]
#[case::threads_and_processes_work(
    "
import concurrent.futures, multiprocessing, os, subprocess, threading
seen = []
threads = [threading.Thread(target=seen.append, args=(i,)) for i in range(8)]
[one.start() for one in threads]; [one.join() for one in threads]
assert sorted(seen) == list(range(8))
with multiprocessing.Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
lock = multiprocessing.Lock()
with lock:
    pass
assert subprocess.run(['bash', '-c', 'echo $((6*7)) | cat'], capture_output=True, text=True).stdout == '42\\n'
assert subprocess.run('exit 3', shell=True).returncode == 3
"
)]
fn hostile(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who, #[case] source: &str) {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let head = format!(
        "HOST = {:?}\nPORT = {}\n",
        secret.path().to_str().unwrap(),
        listener.local_addr().unwrap().port()
    );
    survives(who, &(head + source));
    assert_eq!(std::fs::read(secret.path()).unwrap(), b"secret");
    assert!(!secret.path().with_extension("new").exists());
}

/// Limits that a program runs into: the verdict says so, and the next program notices nothing. Whether the worker
/// was replaced meanwhile is not the next one's concern.
#[rstest]
#[case::fork_bomb_of_sessions(
    "import os\nwhile True:\n  try:\n    if os.fork() == 0: os.setsid()\n  except OSError: pass",
    "process_limit"
)]
#[case::memory_of_one_that_hides(
    "import ctypes\nctypes.CDLL(None).prctl(4, 0)\nx = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))",
    "memory_limit"
)]
#[case::deep_directories_to_the_last_inode(
    "import os\nwhile True:\n  try:\n    os.mkdir('d'); os.chdir('d')\n  except OSError: os._exit(7)",
    "exited"
)]
fn limits(
    #[values(Who::Tester, Who::Full, Who::Nobody)] who: Who,
    #[case] source: &str,
    #[case] termination: &str,
) {
    let mut hostile = python(source);
    hostile["limits"] = json!({"timeout": 3, "memory_mb": 200});
    let (results, stderr) = run(who, &[hostile, python(CLEAN)], &[]);
    let command = &results[0]["executions"][0]["command_results"][0];
    assert_eq!(command["termination"], termination, "{}\n{stderr}", told(&results[0]));
    assert_eq!(results[1]["verdict"], "passed", "{}\n{stderr}", told(&results[1]));
}

#[rstest]
fn loopback_works_and_its_port_is_free_for_the_next(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who) {
    let source = "
import socket, threading
server = socket.socket()
server.bind(('127.0.0.1', 8080))
server.listen()
def serve():
    peer, _ = server.accept()
    peer.sendall(b'hello')
    peer.close()
thread = threading.Thread(target=serve)
thread.start()
client = socket.create_connection(('localhost', 8080))
assert client.recv(9) == b'hello' and client.recv(9) == b''
client.close()
thread.join()
v6 = socket.socket(socket.AF_INET6)
v6.bind(('::1', 8081))
";
    let (results, stderr) = run(who, &[python(source), python(source), python(source)], &[]);
    for result in results {
        assert_eq!(result["verdict"], "passed", "{}\n{stderr}", told(&result));
    }
}

/// Abstract names belong to a network, and here that is the host's.
#[rstest]
fn the_network_is_opened_and_no_abstract_socket(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who) {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("evalmill-test-{}-{who:?}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _named = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let source = format!(
        "
import os, socket
socket.create_connection(('127.0.0.1', {port}), timeout=5)
own = socket.socket(socket.AF_UNIX)
own.bind('\\0own-{name}'); own.listen()
socket.socket(socket.AF_UNIX).connect('\\0own-{name}')
peer = socket.socket(socket.AF_UNIX)
# Before 6.12 it is not kept from it.
kept = tuple(map(int, os.uname().release.split('.')[:2])) >= (6, 12)
try:
    peer.connect('\\0{name}')
except PermissionError:
    assert kept
else:
    assert not kept, 'connected'
"
    );
    let config = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(config.path(), "[sandbox]\nnetwork = true\n").unwrap();
    std::fs::set_permissions(config.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (results, stderr) = run(who, &[python(&source)], &["--config", config.path().to_str().unwrap()]);
    assert_eq!(results[0]["verdict"], "passed", "{}\n{stderr}", told(&results[0]));
}

#[rstest]
fn a_compiler_works_unconfigured(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who) {
    if !Path::new("/usr/bin/cc").exists() {
        eprintln!("not run: there is no /usr/bin/cc");
        return;
    }
    let row = json!({"prediction": {
        "files": {"main.c": "#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf(\"%.0f\\n\", pow(c + 1, 2)); return 0; }"},
        "commands": [{"command": ["cc", "-O1", "main.c", "-o", "main", "-lm"], "build": true}, {"command": ["./main"]}],
    }});
    let (results, stderr) = run(who, &[row], &[]);
    assert_eq!(results[0]["verdict"], "passed", "{}\n{stderr}", told(&results[0]));
    assert_eq!(results[0]["executions"][0]["command_results"][1]["stdout"], "4\n");
}

#[rstest]
fn a_killed_worker_leaves_nothing(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who) {
    let scratch = tempfile::tempdir().unwrap();
    let marker = format!("93{}", std::process::id());
    let marker = format!("{marker}{}", who as u8);
    let mut child = start(who, scratch.path(), &["--workers", "1"]);
    let row = json!({"prediction": {"commands": [{"command": ["sleep", marker], "timeout": 100}]}});
    let mut pipe = child.stdin.take().unwrap();
    writeln!(pipe, "{row}").unwrap();
    drop(pipe);
    let sleeping = format!("sleep\0{marker}");
    // It is run again once, and then it is taken for the program's own doing.
    for _ in 0..2 {
        eventually("the program runs", || processes_with(&sleeping).len() == 1);
        let program = processes_with(&sleeping)[0];
        let stat = std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap();
        let worker = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
        Command::new("kill").args(["-KILL", &worker]).status().unwrap();
        eventually("the program is gone", || !processes_with(&sleeping).contains(&program));
    }
    let output = child.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["verdict"], "crashed", "{result:#}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    assert!(
        !std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(scratch.path().to_str().unwrap())
    );
}

#[rstest]
fn the_worker_holds_nothing_of_the_host(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root may look at the worker's descriptors");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let marker = format!("92{}{}", std::process::id(), who as u8);
    let mut child = start(who, scratch.path(), &["--workers", "1"]);
    let mut pipe = child.stdin.take().unwrap();
    writeln!(
        pipe,
        "{}",
        json!({"prediction": {"commands": [{"command": ["sleep", marker], "timeout": 100}]}})
    )
    .unwrap();
    let sleeping = format!("sleep\0{marker}");
    eventually("the program runs", || processes_with(&sleeping).len() == 1);
    let program = processes_with(&sleeping)[0];
    let stat = std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap();
    let worker = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{worker}/fd")).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned();
        let known = [
            "socket:",
            "pipe:",
            "anon_inode:",
            "/dev/null",
            "/dev/shm",
            "/box",
            "/tmp",
            "/proc/1/clear_refs",
            // Of its own group, and none of them can move a process.
            "/sys/fs/cgroup/",
        ];
        assert!(
            known.iter().any(|known| target.starts_with(known))
                && !target.contains(scratch.path().to_str().unwrap()),
            "{target}"
        );
        assert!(!target.ends_with("/tasks") && !target.ends_with("/cgroup.procs"), "{target}");
        open.push(target);
    }
    assert!(open.len() < 28, "{open:?}");
    for link in ["root", "cwd"] {
        assert_eq!(std::fs::read_link(format!("/proc/{worker}/{link}")).unwrap(), Path::new("/"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(pipe);
    eventually("everything is gone", || {
        processes_with(&sleeping).is_empty() && std::fs::read_dir(scratch.path()).unwrap().count() == 0
    });
}

#[rstest]
fn an_interpreter_of_its_own_is_followed(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who) {
    // Below a private directory where the tester is root, who may go there.
    let dir = tempfile::tempdir().unwrap();
    let mode = if who == Who::Tester { 0o700 } else { 0o755 };
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::write(dir.path().join("neighbour"), "x").unwrap();
    let venv = dir.path().join("a/venv");
    let made =
        Command::new("/usr/bin/python3").args(["-m", "venv", "--without-pip"]).arg(&venv).status().unwrap();
    assert!(made.success());
    let toml = dir.path().join("evalmill.toml");
    std::fs::write(&toml, format!("[python]\ninterpreter = {:?}\n", venv.join("bin/python3"))).unwrap();
    let source = format!(
        "
import os, sys
assert sys.prefix == {venv:?}, sys.prefix
assert not os.path.exists({neighbour:?})
try:
    assert os.listdir({dir:?}) == ['a']
except PermissionError:
    pass
for change in [lambda: os.rename({dir:?}, '/tmp/moved'), lambda: os.rmdir({venv:?}), lambda: open({dir:?} + '/x', 'w')]:
    try:
        change()
    except OSError:
        continue
    raise SystemExit('changed')
open('/tmp/left', 'w')
",
        neighbour = dir.path().join("neighbour"),
        dir = dir.path()
    );
    let source = format!("import os\nassert not os.path.exists('/tmp/left')\n{source}");
    let rows = [python(&source), python(&source)];
    let (results, stderr) = run(who, &rows, &["--config", toml.to_str().unwrap()]);
    for result in &results {
        assert_eq!(result["verdict"], "passed", "{}\n{stderr}", told(result));
    }
}

#[rstest]
fn humaneval_passes_inside(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who) {
    let scratch = tempfile::tempdir().unwrap();
    let problems = tempfile::tempdir().unwrap();
    std::fs::set_permissions(problems.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = problems.path().join("HumanEval.jsonl.gz");
    std::fs::copy(humaneval(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = command(who, scratch.path())
        .args(["run", "--preprocessor", "humaneval", copy.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<_> = text.lines().filter(|line| !line.contains("\"verdict\":\"passed\"")).collect();
    assert!(
        wrong.is_empty() && text.lines().count() == 164,
        "{wrong:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
