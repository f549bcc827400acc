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

fn tier(who: Who) -> &'static str {
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
#[case::a_daemon_is_gone(
    "
import os, signal, sys, time
for number in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for one in range(1, 32):
                try:
                    signal.signal(one, signal.SIG_IGN)
                except OSError:
                    pass
            while True:
                time.sleep(1)
        os._exit(0)
"
)]
#[case::a_respawner_is_gone(
    "
import os
if os.fork() == 0:
    while True:
        if os.fork() > 0:
            os._exit(0)
"
)]
#[case::signals_to_the_worker_do_nothing(
    "
import os, signal, subprocess
child = subprocess.Popen(['sleep', '60'])
for target in [1, os.getppid()]:
    for one in range(1, 65):
        try:
            os.kill(target, one)
        except OSError:
            pass
os.kill(-1, signal.SIGKILL)
assert child.wait() == -signal.SIGKILL
"
)]
#[case::setuid_does_nothing(
    "
import os, shutil, subprocess
status = dict(line.strip().split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line.strip())
assert status['NoNewPrivs'] == '1' and status['Seccomp'] == '2', status
for name in ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']:
    assert int(status[name], 16) == 0, name
shutil.copy('/usr/bin/id', 'id')
os.chmod('id', 0o6755)
assert subprocess.run(['./id', '-u'], capture_output=True, text=True).stdout == '1000\\n'
su = subprocess.run(['su', '-c', 'id -u', 'root'], capture_output=True, stdin=subprocess.DEVNULL)
assert b'0\\n' != su.stdout, su
for change in [lambda: os.setuid(0), lambda: os.setuid(1), lambda: os.setgid(0), lambda: os.setgroups([0])]:
    try:
        change()
    except OSError:
        continue
    raise SystemExit('another id')
"
)]
#[case::the_disk_is_limited(
    "
import errno, os
def fill(dir):
    with open(dir + '/big', 'wb', buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
for dir in ['/tmp', '.', '/dev/shm']:
    try:
        fill(dir)
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.EFBIG), error
assert sum(os.stat(dir + '/big').st_size for dir in ['/tmp', '.', '/dev/shm']) <= 256 << 20
"
)]
#[case::inodes_are_limited(
    "
import errno, os
try:
    for number in range(100000):
        os.close(os.open(f'/tmp/{number}', os.O_CREAT))
except OSError as error:
    assert error.errno == errno.ENOSPC and number < 10000, (number, error)
else:
    raise SystemExit('no limit')
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
#[case::no_network(
    "
import socket, time
begun = time.monotonic()
for address in [('1.1.1.1', 53), ('169.254.169.254', 80), ('10.0.0.1', 22), ('127.0.0.1', PORT)]:
    try:
        socket.create_connection(address, timeout=3)
    except OSError:
        continue
    raise SystemExit(f'connected: {address}')
try:
    socket.getaddrinfo('example.com', 80)
except OSError:
    pass
else:
    raise SystemExit('resolved')
assert socket.getaddrinfo('localhost', 80)
assert time.monotonic() - begun < 2
assert [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]] == ['lo']
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
#[case::fork_bomb("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "process_limit")]
#[case::fork_bomb_of_sessions(
    "import os\nwhile True:\n  try:\n    if os.fork() == 0: os.setsid()\n  except OSError: pass",
    "process_limit"
)]
#[case::thread_bomb(
    "import threading, time\nwhile True:\n  try: threading.Thread(target=time.sleep, args=(60,)).start()\n  except RuntimeError: time.sleep(0.1)",
    "process_limit"
)]
#[case::memory("x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))", "memory_limit")]
#[case::memory_of_one_that_hides(
    "import ctypes\nctypes.CDLL(None).prctl(4, 0)\nx = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))",
    "memory_limit"
)]
#[case::deep_directories_to_the_last_inode(
    "import os\nwhile True:\n  try:\n    os.mkdir('d'); os.chdir('d')\n  except OSError: os._exit(7)",
    "exited"
)]
#[case::stopped("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "wall_limit")]
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

#[cfg(target_arch = "x86_64")]
#[rstest]
fn refused_calls_answer_an_errno(#[values(Who::Tester, Who::Full, Who::Nobody)] who: Who) {
    let source = "
import ctypes, errno, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    answer = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg & (1 << 64) - 1) for arg in args])
    return errno.errorcode.get(ctypes.get_errno()) if answer == -1 else answer
EVERY = [
    ('mount', 165), ('umount2', 166), ('pivot_root', 155), ('chroot', 161), ('open_tree', 428), ('move_mount', 429),
    ('fsopen', 430), ('mount_setattr', 442), ('setns', 308), ('ptrace', 101), ('process_vm_readv', 310),
    ('process_vm_writev', 311), ('bpf', 321), ('io_uring_setup', 425), ('io_uring_enter', 426), ('keyctl', 250),
    ('add_key', 248), ('request_key', 249), ('userfaultfd', 323), ('perf_event_open', 298), ('shmget', 29), ('semget', 64),
    ('msgget', 68), ('mq_open', 240), ('kexec_load', 246), ('init_module', 175), ('finit_module', 313), ('swapon', 167),
    ('reboot', 169), ('settimeofday', 164), ('clock_settime', 227), ('open_by_handle_at', 304), ('name_to_handle_at', 303),
    ('fanotify_init', 300), ('acct', 163), ('quotactl', 179), ('syslog', 103), ('iopl', 172), ('ioperm', 173), ('memfd_secret', 447),
    ('pidfd_getfd', 438), ('kcmp', 312), ('process_madvise', 440), ('sethostname', 170),
]
for name, number in EVERY:
    assert call(number, 0, 0, 0, 0, 0) == 'EPERM', (name, call(number, 0, 0, 0, 0, 0))
NEWUSER = 0x10000000
for flags in [NEWUSER, 0x20000, 0x40000000, 0x80, NEWUSER | 1 << 33]:
    assert call(272, flags) in ('EPERM', 'EINVAL'), hex(flags)
for flags in [NEWUSER | 17, NEWUSER | 1 << 32 | 17, 0x20000011, 0x40000011]:
    assert call(56, flags, 0, 0, 0, 0) == 'EPERM', hex(flags)
assert call(435, 0, 0) == 'ENOSYS' and call(470) == 'ENOSYS' and call(0x40000027) == 'ENOSYS'
for family in [16, 17, 38, 40, 21]:
    assert call(41, family, 2, 0) == 'EAFNOSUPPORT', family
assert call(41, 2, 3, 1) == 'EPERM' and call(41, 2, 1, 132) == 'EPROTONOSUPPORT'
assert call(135, 0x40000) == 'EPERM' and call(135, 0xffffffff) == 0
assert call(302, 1, 7, 0, 0) == 'EPERM' and call(302, 0, 7, 0, 0) == 0
assert call(141, 0, 1, 5) == 'EPERM' and call(141, 1, 0, 5) == 'EPERM' and call(141, 2, 0, 5) == 'EPERM' and call(141, 0, 0, 5) == 0
assert call(203, 1, 8, 0) == 'EPERM' and call(434, 1, 0) == 'EPERM' and call(251, 3, 0, 0) == 'EPERM'
assert call(16, 0, 0x5412, 0) == 'EPERM' and call(16, 0, 1 << 32 | 0x5412, 0) == 'EPERM'
# getpid by int 0x80, and of x32: neither exists.
def machine(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return function()
assert machine(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3') == -errno.ENOSYS
assert machine(b'\\xb8\\x27\\x00\\x00\\x40\\x0f\\x05\\xc3') == -errno.ENOSYS
assert machine(b'\\xb8\\x27\\x00\\x00\\x00\\x0f\\x05\\xc3') == os.getpid()
";
    survives(who, source);
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

/// evalmill where the kernel makes no namespaces.
fn without_namespaces(settings: &str) -> (Option<i32>, String, String) {
    let scratch = tempfile::tempdir().unwrap();
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && echo '{{\"prediction\": {{\"commands\": [{{\"command\": [\"true\"]}}]}}}}' | EXEC_TMP_DIR={} {settings} exec {} run",
        scratch.path().display(),
        env!("CARGO_BIN_EXE_evalmill")
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script])
        .output()
        .expect("unshare (package util-linux) is needed");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_cannot_be_had_is_said_with_the_remedy() {
    let (code, stdout, stderr) = without_namespaces("EVALMILL__SANDBOX__REQUIRE=none");
    assert_eq!(code, Some(0), "{stderr}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    // The one id of that user namespace is the host's root, and programs are never that.
    let reached = if rustix::process::geteuid().is_root() { "none" } else { "process" };
    assert_eq!(result["worker"]["tier"], reached);
    assert_eq!(result["worker"]["missing"][0], "namespaces");
    let tier = format!("isolation tier \"{reached}\"");
    for part in [&*tier, "missing namespaces: clone", "user.max_user_namespaces"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    for setting in ["EVALMILL__SANDBOX__REQUIRE=namespaces", "EVALMILL__SANDBOX__TIER=namespaces"] {
        let (code, stdout, stderr) = without_namespaces(setting);
        assert_eq!((code, &*stdout), (Some(69), ""), "{stderr}");
        let reached = format!("gives \"{reached}\"");
        for part in
            ["\"namespaces\"", &*reached, "clone into new namespaces", "sysctl -w user.max_user_namespaces"]
        {
            assert!(stderr.contains(part), "{stderr}");
        }
    }
}

/// `run` by the root of a user namespace that has one id only: that of whoever makes it.
fn root_with_one_id(who: Who) -> (Option<i32>, String, String) {
    let (scratch, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&scratch, &dir] {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let input = dir.path().join("in.jsonl");
    let row = python("import os; assert os.getuid() == 1000; assert not os.path.exists('/root')");
    std::fs::write(&input, row.to_string()).unwrap();
    let mut command = Command::new("unshare");
    if who == Who::Nobody && rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare"]);
    }
    let output = command
        .args(["--user", "--map-root-user", env!("CARGO_BIN_EXE_evalmill"), "run", input.to_str().unwrap()])
        .env("EXEC_TMP_DIR", scratch.path())
        .env("EVALMILL__SANDBOX__TIER", "namespaces")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn root_with_one_id_only_is_an_ordinary_user() {
    let (code, stdout, stderr) = root_with_one_id(Who::Nobody);
    assert_eq!(code, Some(0), "{stderr}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["verdict"], "passed", "{}\n{stderr}", told(&result));
    assert_eq!(result["worker"]["tier"], "namespaces");
}

#[test]
fn programs_are_never_the_hosts_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: it takes the host's root");
        return;
    }
    // The one id of that namespace is the host's root.
    let (code, stdout, stderr) = root_with_one_id(Who::Tester);
    assert_eq!((code, &*stdout), (Some(69), ""), "{stderr}");
    assert!(stderr.contains("CAP_SETUID"), "{stderr}");
}
