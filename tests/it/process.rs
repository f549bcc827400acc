//! Hostile programs in the tier `process`: without namespaces, as in a plain container.
//!
//! As root every test runs twice: with users of their own for worker and programs, and as an ordinary user.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rstest::rstest;
use serde_json::{Value, json};

use crate::sandbox::{Who, python, told};
use crate::support::{eventually, processes_with};

/// Makes what a container's default profile forbids fail, and executes the rest of its arguments. `LANDLOCK`: whether
/// those calls fail, too.
const CONTAINER: &str = "\
import ctypes, os, platform, struct, sys
clone, unshare = {'x86_64': (56, 272), 'aarch64': (220, 97)}[platform.machine()]
EPERM, ENOSYS, ALLOW = 0x50001, 0x50026, 0x7fff0000
program = [(0x20, 0, 0, 0), (0x15, 4, 0, clone), (0x15, 3, 0, unshare), (0x15, 4, 0, 435), (0x15, LANDLOCK, 0, 444), (0x06, 0, 0, ALLOW),
           (0x20, 0, 0, 16), (0x45, 2, 0, 0x7e020000), (0x06, 0, 0, ALLOW), (0x06, 0, 0, ENOSYS), (0x06, 0, 0, EPERM)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *one) for one in program))
class Filter(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(program), ctypes.addressof(code)))) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
";
/// What Docker leaves root of a container.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

/// Where evalmill is started.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Where {
    /// On this machine, with `sandbox.tier = "process"`.
    Here,
    /// Where the kernel makes no namespaces.
    Container,
    /// Where it has no Landlock either.
    OldContainer,
    /// Where root has no capability.
    BareContainer,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn command(who: Who, place: Where, scratch: &Path) -> Command {
    std::fs::set_permissions(scratch, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut words: Vec<String> = Vec::new();
    let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
    match (who, place) {
        (Who::Nobody, _) if is_root() => {
            add(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        (_, Where::Here) => add(&["env"]),
        _ if is_root() => {
            let kept = if place == Where::BareContainer { "-all" } else { CAPABILITIES };
            add(&["setpriv", "--inh-caps=-all", &format!("--bounding-set={kept}")]);
        }
        _ => add(&["env"]),
    }
    if place != Where::Here {
        let over = if place == Where::OldContainer { "4" } else { "0" };
        add(&["/usr/bin/python3", "-c", &CONTAINER.replace("LANDLOCK", over)]);
    }
    add(&[env!("CARGO_BIN_EXE_evalmill")]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("EXEC_TMP_DIR", scratch).env_remove("EVALMILL_CONFIG");
    command.env("EVALMILL_TEST_SECRET", "in the service");
    if place == Where::Here {
        command.env("EVALMILL__SANDBOX__TIER", "process");
    }
    let piped = Stdio::piped;
    command.arg("run").args(["--workers", "1"]).stdin(piped()).stdout(piped()).stderr(piped());
    command
}

/// Exit code, results, standard error. Nothing may be left.
fn run(who: Who, place: Where, rows: &[Value], change: &[(&str, &str)]) -> (Option<i32>, Vec<Value>, String) {
    let scratch = tempfile::tempdir().unwrap();
    let mut child = command(who, place, scratch.path()).envs(change.iter().copied()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let writer = std::thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let results = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (output.status.code(), results.collect(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether the tier can be had: as an ordinary user it takes Linux 6.2, and before that is what the start says.
fn can(who: Who) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let is_old = (numbers.next().unwrap(), numbers.next().unwrap()) < (6, 2);
    let cannot = is_old && (who == Who::Nobody || !is_root());
    if cannot {
        let (code, _, stderr) = run(who, Where::Here, &[], &[]);
        assert!(code == Some(69) && stderr.contains("it needs Linux 6.2 or newer"), "{code:?} {stderr}");
        eprintln!("not run: as an ordinary user it takes Linux 6.2");
    }
    !cannot
}

/// What every program finds, whatever ran before it.
const CLEAN: &str = "
import os, subprocess, tempfile
assert os.listdir('.') == ['main.py'], os.listdir('.')
assert os.listdir(os.environ['TMPDIR']) == []
above = os.path.dirname(os.getcwd())
assert sorted(os.path.join(above, name) for name in os.listdir(above)) == sorted([os.getcwd(), os.environ['TMPDIR']])
assert os.stat(above).st_mode & 0o7777 == 0o700
with tempfile.TemporaryFile() as file:
    file.write(b'x')
open(os.environ['TMPDIR'] + '/mine', 'w').close()
assert subprocess.run(['bash', '-c', 'cat <(echo $((6*7)))'], capture_output=True, text=True).stdout == '42\\n'
";

#[rstest]
#[case::nothing_else_is_read(
    "
import os
def absent(path):
    try:
        open(path, 'rb').read(1)
    except OSError:
        return
    raise SystemExit('readable: ' + path)
for path in ['/etc/shadow', '/etc/passwd', '/etc/machine-id', '/proc/1/environ', '/proc/1/cmdline', '/proc/self/environ', '/proc/kcore', '/proc/net/tcp',
             '/sys/kernel/notes', '/var/lib/dpkg/status', '/dev/mem', '/dev/vda', '/dev/tty', '/dev/ptmx', HOST, CONFIG,
             f'/proc/{os.getppid()}/environ', f'/proc/{os.getppid()}/mem', f'/proc/{TESTER}/environ']:
    absent(path)
for path in ['/', '/root', '/home', '/tmp', '/proc', '/dev/shm', os.path.dirname(os.path.dirname(os.getcwd()))]:
    try:
        os.listdir(path)
    except OSError:
        continue
    raise SystemExit('listed: ' + path)
assert 'EVALMILL_TEST_SECRET' not in os.environ
os.symlink(HOST, 'link')
absent('link')
open('/dev/null', 'w').write('x'); open('/dev/urandom', 'rb').read(1); open('/proc/meminfo').read()
"
)]
#[case::nothing_else_is_written(
    "
import os
os.symlink(HOST, 'link')
open('own', 'w').write('x')
shm = '/dev/shm/' + os.path.basename(HOST)
changes = [lambda path=path: open(path, 'w') for path in ['/tmp/x' + os.path.basename(HOST), shm, '/usr/x', '/etc/passwd', HOST, 'link', '/proc/self/oom_score_adj', CONFIG]]
changes += [lambda: open(HOST, 'a'), lambda: os.truncate(HOST, 0), lambda: os.open(HOST, os.O_RDONLY | os.O_TRUNC), lambda: os.rename(HOST, 'moved'), lambda: os.unlink(HOST),
            lambda: os.link(HOST, 'linked'), lambda: os.rename('own', HOST), lambda: os.mkdir(HOST + '.new'), lambda: os.symlink('x', HOST + '.new'), lambda: os.mkfifo(HOST + '.new'),
            lambda: os.mknod('device', 0o600 | 0o020000, os.makedev(1, 1)), lambda: os.rename(os.path.dirname(os.getcwd()), HOST + '.new')]
for number, change in enumerate(changes):
    try:
        change()
    except OSError:
        continue
    raise SystemExit(f'change {number}')
"
)]
#[case::no_network(
    "
import errno, os, socket
for family in [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, 40]:
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]:
        try:
            socket.socket(family, kind)
        except OSError as error:
            assert error.errno == errno.EAFNOSUPPORT, error
            continue
        raise SystemExit('a socket')
a, b = socket.socketpair()
a.send(b'x'); assert b.recv(1) == b'x'
try:
    a.connect(SOCKET)
except OSError as error:
    assert error.errno == errno.EISCONN, error
else:
    raise SystemExit('connected')
try:
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
except OSError:
    pass
else:
    raise SystemExit('datagrams')
"
)]
#[case::nobody_else_is_signalled(
    "
import os, resource, signal, subprocess
child = subprocess.Popen(['sleep', '60'])
parent = os.getppid()
for one in [0, *range(1, 65)]:
    try:
        os.kill(parent, one)
    except PermissionError:
        continue
    raise SystemExit(f'the worker gets {one}')
for pid in [1, TESTER, *range(max(parent - 300, 2), os.getpid() + 50)]:
    if pid in (os.getpid(), child.pid):
        continue
    try:
        os.kill(pid, 0)
    except (PermissionError, ProcessLookupError):
        continue
    raise SystemExit(f'a signal for {pid}')
for change in [lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (1, 1)), lambda: os.sched_setaffinity(parent, [0]), lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
               lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19)]:
    try:
        change()
    except PermissionError:
        continue
    raise SystemExit('the worker was changed')
os.kill(-1, signal.SIGKILL)
assert child.wait() == -signal.SIGKILL
"
)]
#[case::nothing_is_left_for_the_next(
    "
import os
above = os.path.dirname(os.getcwd())
for dir in ['.', above, os.environ['TMPDIR']]:
    os.makedirs(dir + '/left/deep/er', exist_ok=True)
    open(dir + '/left/file', 'w').write('x')
    os.chmod(dir + '/left', 0)
    try:
        os.setxattr(dir, 'user.note', b'for the next')
    except OSError:
        pass
os.umask(0); os.nice(5)
for dir in [os.environ['TMPDIR'], '.', above]:
    os.chmod(dir, 0)
os._exit(0)
"
)]
#[case::threads_and_processes_work(
    "
import os, subprocess, threading
seen = []
threads = [threading.Thread(target=seen.append, args=(i,)) for i in range(8)]
[one.start() for one in threads]; [one.join() for one in threads]
assert sorted(seen) == list(range(8))
assert subprocess.run('exit 3', shell=True).returncode == 3
assert os.sched_getaffinity(0) and os.cpu_count()
import asyncio
assert asyncio.run(asyncio.sleep(0, 7)) == 7
open('run', 'w').write('#!/bin/sh\\necho $1 > out\\n')
os.chmod('run', 0o755)
os.makedirs('a/b')
subprocess.run(['./run', 'x'], check=True)
os.rename('out', 'a/b/out')
assert open('a/b/out').read() == 'x\\n' and open('/dev/stdin').read() == ''
"
)]
fn hostile(
    #[values(Who::Tester, Who::Nobody)] who: Who,
    #[values(Where::Here, Where::Container)] place: Where,
    #[case] source: &str,
) {
    if !can(who) {
        return;
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    let config = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    std::fs::write(config.path(), "[worker]\nmax_memory_mb = 300\n").unwrap();
    for file in [&secret, &config] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    // One that everybody may connect to.
    let meeting = tempfile::tempdir().unwrap();
    let socket = meeting.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for path in [meeting.path(), &socket] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let head = format!(
        "SOCKET = {socket:?}\nHOST = {:?}\nCONFIG = {:?}\nTESTER = {}\n",
        secret.path(),
        config.path(),
        std::process::id()
    );
    let rows = [python(CLEAN), python(&(head + source)), python(CLEAN)];
    let change = [("EVALMILL_CONFIG", config.path().to_str().unwrap())];
    let (code, results, stderr) = run(who, place, &rows, &change);
    assert_eq!((code, results.len()), (Some(0), 3), "{stderr}");
    for result in &results {
        assert_eq!(result["verdict"], "passed", "{}\n{stderr}", told(result));
        assert_eq!(result["worker"]["tier"], "process");
        assert_eq!(result["worker"]["missing"][0], "namespaces");
    }
    assert_eq!(std::fs::read(secret.path()).unwrap(), b"secret");
}

#[rstest]
fn a_compiler_works_unconfigured(#[values(Who::Tester, Who::Nobody)] who: Who) {
    if !can(who) {
        return;
    }
    if !Path::new("/usr/bin/cc").exists() {
        eprintln!("not run: there is no /usr/bin/cc");
        return;
    }
    let row = json!({"prediction": {
        "files": {"main.c": "#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf(\"%.0f\\n\", pow(c + 1, 2)); return 0; }"},
        "commands": [{"command": ["cc", "-O1", "main.c", "-o", "main", "-lm"], "build": true}, {"command": ["./main"]}],
    }});
    let (_, results, stderr) = run(who, Where::Here, &[row], &[]);
    assert_eq!(results[0]["verdict"], "passed", "{}\n{stderr}", told(&results[0]));
    assert_eq!(results[0]["executions"][0]["command_results"][1]["stdout"], "4\n");
}

#[rstest]
fn a_killed_worker_leaves_nothing(#[values(Who::Tester, Who::Nobody)] who: Who) {
    if !can(who) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let marker = format!("95{}{}", std::process::id(), who as u8);
    let mut child = command(who, Where::Here, scratch.path()).spawn().unwrap();
    let source =
        format!("import os\nif os.fork() == 0:\n    os.setsid()\nos.execvp('sleep', ['sleep', '{marker}'])");
    let mut pipe = child.stdin.take().unwrap();
    writeln!(pipe, "{}", python(&source)).unwrap();
    drop(pipe);
    let sleeping = format!("sleep\0{marker}");
    for _ in 0..2 {
        eventually("both run", || processes_with(&sleeping).len() == 2);
        let programs = processes_with(&sleeping);
        let first = programs.iter().min().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
        let worker = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
        Command::new("kill").args(["-KILL", &worker]).status().unwrap();
        eventually("they are gone", || {
            processes_with(&sleeping).iter().all(|process| !programs.contains(process))
        });
    }
    let output = child.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["verdict"], "crashed", "{result:#}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[rstest]
fn a_plain_container_reaches_it(#[values(Who::Tester, Who::Nobody)] who: Who) {
    if !can(who) {
        return;
    }
    let (code, results, stderr) =
        run(who, Where::Container, &[python("import os; assert os.getuid() != 0")], &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(results[0]["verdict"], "passed", "{}\n{stderr}", told(&results[0]));
    assert_eq!(results[0]["worker"]["tier"], "process");
    assert_eq!(results[0]["worker"]["missing"][0], "namespaces");
    for part in ["isolation tier \"process\"", "missing namespaces: clone into new namespaces"] {
        assert!(stderr.contains(part), "{stderr}");
    }
    let (code, results, stderr) =
        run(who, Where::Container, &[], &[("EVALMILL__SANDBOX__REQUIRE", "namespaces")]);
    assert_eq!((code, results.len()), (Some(69), 0), "{stderr}");
    for part in ["sandbox.require", "\"namespaces\"", "gives \"process\"", "clone into new namespaces"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[rstest]
fn without_landlock_the_start_fails_and_says_why(#[values(Who::Tester, Who::Nobody)] who: Who) {
    let (code, results, stderr) = run(who, Where::OldContainer, &[], &[]);
    assert_eq!((code, results.len()), (Some(69), 0), "{stderr}");
    for part in
        ["for this command asks for isolation tier \"process\"", "gives \"none\"", "landlock: ", "5.13"]
    {
        assert!(stderr.contains(part), "{stderr}");
    }
    let row = [python("pass")];
    let (_, results, stderr) = run(who, Where::OldContainer, &row, &[("EVALMILL__SANDBOX__REQUIRE", "none")]);
    assert_eq!(results[0]["worker"]["tier"], "none", "{stderr}");
}

#[test]
fn root_without_capabilities_is_told_which_it_takes() {
    if !is_root() {
        eprintln!("not run: it takes root");
        return;
    }
    let (code, results, stderr) = run(Who::Tester, Where::BareContainer, &[], &[]);
    assert_eq!((code, results.len()), (Some(69), 0), "{stderr}");
    assert!(stderr.contains("gives \"none\"") && stderr.contains("CAP_SETUID"), "{stderr}");
}

#[test]
fn no_isolation_must_be_written_out() {
    let none = ("EVALMILL__SANDBOX__TIER", "none");
    let (code, results, stderr) = run(Who::Tester, Where::Here, &[], &[none]);
    assert_eq!((code, results.len()), (Some(69), 0), "{stderr}");
    assert!(stderr.contains("set sandbox.require to \"none\""), "{stderr}");
    let row = [python("pass")];
    let (_, results, stderr) =
        run(Who::Tester, Where::Here, &row, &[none, ("EVALMILL__SANDBOX__REQUIRE", "none")]);
    assert_eq!(results[0]["worker"]["tier"], "none", "{stderr}");
}

#[test]
fn a_scratch_directory_that_others_cannot_reach_is_said() {
    if !is_root() {
        eprintln!("not run: only root gives programs users of their own");
        return;
    }
    let above = tempfile::tempdir().unwrap();
    let scratch = above.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    std::fs::set_permissions(above.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let output = command(Who::Tester, Where::Here, &scratch).stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("worker.scratch_dir") && stderr.contains("cannot be reached"), "{stderr}");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

#[rstest]
fn the_network_is_opened_and_nothing_else(#[values(Who::Tester, Who::Nobody)] who: Who) {
    if !can(who) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let source = format!(
        "
import socket
socket.create_connection(('127.0.0.1', {port}), timeout=5)
assert socket.getaddrinfo('localhost', 80)
server = socket.create_server(('127.0.0.1', 0))
for family in [socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET]:
    try:
        socket.socket(family, socket.SOCK_DGRAM)
    except OSError:
        continue
    raise SystemExit(family)
try:
    open('/etc/passwd')
except OSError:
    pass
else:
    raise SystemExit('read')
"
    );
    let change = [("EVALMILL__SANDBOX__NETWORK", "true")];
    let (_, results, stderr) = run(who, Where::Here, &[python(&source)], &change);
    assert_eq!(results[0]["verdict"], "passed", "{}\n{stderr}", told(&results[0]));
    assert!(stderr.contains("the host's network"), "{stderr}");
}

#[rstest]
fn a_bind_is_read_and_not_written(#[values(Who::Tester, Who::Nobody)] who: Who) {
    if !can(who) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bind = dir.path().join("bound");
    std::fs::create_dir(&bind).unwrap();
    std::fs::write(bind.join("data"), "data").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&bind, std::fs::Permissions::from_mode(0o777)).unwrap();
    let source = format!(
        "
import os
assert os.listdir({bind:?}) == ['data'] and open({bind:?} + '/data').read() == 'data'
for change in [lambda: open({bind:?} + '/new', 'w'), lambda: os.unlink({bind:?} + '/data')]:
    try:
        change()
    except OSError:
        continue
    raise SystemExit('changed')
"
    );
    let change = [("EVALMILL__SANDBOX__BINDS", bind.to_str().unwrap())];
    let (_, results, stderr) = run(who, Where::Here, &[python(&source)], &change);
    assert_eq!(results[0]["verdict"], "passed", "{}\n{stderr}", told(&results[0]));
    if who == Who::Tester && is_root() {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let (code, _, stderr) = run(who, Where::Here, &[], &change);
        assert_eq!(code, Some(69), "{stderr}");
        assert!(stderr.contains("of sandbox.binds cannot be read"), "{stderr}");
    }
}

#[test]
fn serve_asks_for_more_than_a_plain_container_gives() {
    if !can(Who::Nobody) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let command = command(Who::Nobody, Where::Container, scratch.path());
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let serve = args.iter().take_while(|argument| *argument != "run");
    let output = Command::new(command.get_program())
        .args(serve)
        .arg("serve")
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("EVALMILL__RABBITMQ__URL", "amqp://127.0.0.1:9/%2f")
        .env("EVALMILL__TELEMETRY__LISTEN", "")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    for part in ["for this command asks for isolation tier \"namespaces\"", "gives \"process\""] {
        assert!(stderr.contains(part), "{stderr}");
    }
}
