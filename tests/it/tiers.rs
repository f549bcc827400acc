//! Which tier is reached where the machine gives less: user namespaces forbidden, roots with few ids or rights.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rstest::rstest;
use serde_json::Value;

use crate::process::is_root;
use crate::sandbox::{Who, python, told};

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

/// What a tier that was asked for lacks is stamped like what a machine lacks.
#[rstest]
#[case("process", "namespaces")]
#[case("namespaces", "cgroup")]
fn a_layer_that_was_not_asked_for_is_missing(#[case] tier: &str, #[case] layer: &str) {
    let scratch = tempfile::tempdir().unwrap();
    // Root's programs are another user.
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = crate::support::evalmill(scratch.path());
    command.arg("run").env("EVALMILL__SANDBOX__TIER", tier);
    let piped = Stdio::piped;
    let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", python("pass")).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert_eq!(result["worker"]["tier"], tier, "{stderr}");
    assert!(result["worker"]["missing"].as_array().unwrap().contains(&layer.into()), "{result}");
    assert!(stderr.contains(&format!("missing {layer}: sandbox.tier asks for \"{tier}\"")), "{stderr}");
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

/// A container whose root is nobody outside, with as many ids as containers usually get.
#[test]
fn a_container_with_ids_of_its_own_gives_them_to_programs() {
    if !is_root() {
        eprintln!("not run: only root gives ids away");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let wrapper = "
import ctypes, os, sys
(born, birth), (mapped, map) = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.close(birth); os.read(born, 1)
    for kind in ['uid', 'gid']:
        open(f'/proc/{child}/{kind}_map', 'w').write('0 1700000000 65536')
    os.write(map, b'x')
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert ctypes.CDLL(None).unshare(0x10000000) == 0
os.write(birth, b'x'); os.read(mapped, 1)
os.setgroups([]); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0)
open('/proc/sys/user/max_user_namespaces', 'w').write('0')
os.execv(sys.argv[1], sys.argv[1:])
";
    let source = "import os; assert 16384 <= os.getuid() == os.getgid() < 49152, os.getuid()";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", wrapper, env!("CARGO_BIN_EXE_evalmill"), "run"]);
    passes_in_process(&mut command, scratch.path(), source);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

/// Has `command`, a `run` that is wrapped, run one program, which passes in this tier.
fn passes_in_process(command: &mut Command, scratch: &Path, source: &str) {
    let piped = Stdio::piped;
    command.env("EXEC_TMP_DIR", scratch).stdin(piped()).stdout(piped()).stderr(piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", python(source)).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert_eq!(result["verdict"], "passed", "{}\n{stderr}", told(&result));
    assert_eq!(result["worker"]["tier"], "process");
}

/// Root of a user namespace that is an ordinary user outside, as in a rootless container.
#[test]
fn root_of_a_user_namespace_has_no_capability_inside() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let source = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
data = (ctypes.c_uint32 * 6)()
assert libc.capget((ctypes.c_uint32 * 2)(0x20080522, 0), data) == 0
assert list(data) == [0] * 6, list(data)
try:
    open('/etc/passwd')
except OSError:
    pass
else:
    raise SystemExit('read')
";
    let script =
        format!("echo 0 > /proc/sys/user/max_user_namespaces && exec {} run", env!("CARGO_BIN_EXE_evalmill"));
    let unshare = ["unshare", "--user", "--map-root-user", "sh", "-c", &script];
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let words: Vec<_> =
        if is_root() { as_nobody.iter().chain(&unshare).collect() } else { unshare.iter().collect() };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    passes_in_process(&mut command, scratch.path(), source);
}
