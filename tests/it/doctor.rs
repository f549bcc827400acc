//! `evalmill doctor` tells the truth: on this machine, and where a layer is taken away.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::eventually;

/// How doctor ended.
struct Examined {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Examined {
    fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{}", self.told()))
    }

    fn told(&self) -> String {
        format!("{:?}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Runs doctor after `wrapper`; nothing may be left, and no host's file touched.
fn examine(wrapper: &[&str], args: &[&str], settings: &[(&str, &str)]) -> Examined {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = env!("CARGO_BIN_EXE_evalmill");
    let mut words = wrapper.iter().copied().chain([program, "doctor"]).chain(args.iter().copied());
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env("EXEC_TMP_DIR", scratch.path()).env_remove("EVALMILL_CONFIG");
    command.envs(settings.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let examined =
        Examined { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "{}", examined.told());
    let left = |dir: &str| {
        let names = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("left-")).collect::<Vec<_>>()
    };
    assert!(left("/tmp").is_empty() && left("/dev/shm").is_empty());
    examined
}

const NOBODY: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
/// As in a container or under a service manager that takes new privileges away from everything it starts.
const TAMED: &[&str] = &["setpriv", "--no-new-privs"];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether what this process starts can gain no privileges anyway: then doctor cannot show that programs do not.
fn is_tamed() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]))
}

/// Names of checks with an outcome.
fn with<'a>(report: &'a Value, outcome: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().unwrap();
    let those = checks.iter().filter(|check| check["outcome"] == outcome);
    those.map(|check| check["name"].as_str().unwrap()).collect()
}

#[rstest]
#[case::tester(&[])]
#[case::nobody(NOBODY)]
#[case::tamed(TAMED)]
fn what_is_promised_holds_here(#[case] who: &[&str]) {
    let who = if is_root() || who == TAMED { who } else { &[] };
    let tamed = who == TAMED || is_tamed();
    let examined = examine(who, &["--format", "json"], &[("EVALMILL__SANDBOX__REQUIRE", "namespaces")]);
    let report = examined.report();
    assert_eq!(examined.code, Some(0), "{}", examined.told());
    assert!(report["healthy"] == true && report["refused"].is_null(), "{}", examined.told());
    assert!(report["seconds"].as_f64().unwrap() < 30.0);
    assert_eq!(report["required"]["serve"], "namespaces");
    assert!(with(&report, "failed").is_empty(), "{}", examined.told());
    let ok = with(&report, "ok");
    for name in [
        "a host's file that anybody may read cannot be read",
        "a bound file that anybody may write is not written",
        "evalmill's listener on 127.0.0.1 is not reached",
        "a program reaches its own server on 127.0.0.1",
        "no process of others in /proc",
        "a pid namespace of its own",
        "mount is refused",
        "clone3 is refused",
        "socket AF_NETLINK is refused",
        "one process is stopped at 128 MiB",
        "many processes together are stopped at 128 MiB",
        "a fork bomb is stopped at 16 processes",
        "a sleeper is stopped after 0.5 s",
        "a flood of output is stopped at 1 MiB",
        "a program opens no more than 64 files",
        "no open descriptors beside 0, 1, 2",
        "/tmp is empty for the next program",
        "a daemon is killed with its program",
        "a harmless program runs after all this",
    ] {
        assert!(ok.contains(&name), "{name}\n{}", examined.told());
    }
    // What anything that is started here cannot do anyway shows nothing.
    let not_shown = with(&report, "not_shown");
    let gains = if tamed { &not_shown } else { &ok };
    assert!(gains.contains(&"no executed program gains privileges"), "{}", examined.told());
    if is_root() && who != NOBODY {
        for name in ["/etc/shadow cannot be read", "no capabilities"] {
            assert!(ok.contains(&name), "{name}\n{}", examined.told());
        }
        let setuid = "a setuid program of root's gains nothing";
        assert!(gains.contains(&setuid), "{}", examined.told());
    } else {
        // What an ordinary user cannot do anyway shows nothing.
        assert!(not_shown.contains(&"/etc/shadow cannot be read"), "{}", examined.told());
    }
    for part in ["bare_metal", "docker", "kubernetes", "systemd"] {
        let next = &report["next"];
        assert!(next.is_null() || !next[part].as_str().unwrap().is_empty(), "{}", examined.told());
    }
    let tools = report["toolchains"].as_array().unwrap();
    let python = json!({"name": "python3", "languages": ["python"], "found": true});
    let found = |tool: &Value| python.as_object().unwrap().iter().all(|(key, value)| tool[key] == *value);
    assert!(tools.iter().any(found), "{tools:?}");
    assert!(
        tools.iter().any(|tool| tool["name"] == "g++" && tool["languages"] == json!(["cpp"])),
        "{tools:?}"
    );
    assert!(report["interpreter"]["version"].as_str().unwrap().starts_with('3'));
}

#[test]
fn a_table_for_people_says_the_same() {
    let examined = examine(&[], &[], &[]);
    assert_eq!((examined.code, &*examined.stderr), (Some(0), ""), "{}", examined.told());
    assert!(examined.stdout.lines().all(|line| line.chars().count() < 80), "{}", examined.told());
    for part in
        ["network      ok ", " system calls are refused", "required by run: process, by serve: namespaces"]
    {
        assert!(examined.stdout.contains(part), "{part}\n{}", examined.told());
    }
}

#[rstest]
#[case::enough(&[("EVALMILL__SANDBOX__REQUIRE", "none")], 0)]
#[case::not_enough(&[], 1)]
fn tier_none_contains_nothing(#[case] settings: &[(&str, &str)], #[case] code: i32) {
    let examined = examine(&[], &["--tier", "none", "--format", "json"], settings);
    let report = examined.report();
    assert_eq!(examined.code, Some(code), "{}", examined.told());
    assert_eq!(report["tier"], "none");
    assert!(report["notice"].as_str().unwrap().contains("files and network are not contained"));
    let not_reached = with(&report, "not_reached");
    for name in [
        "a host's file that anybody may read cannot be read",
        "no file is made in a host's directory that anybody may write",
        "evalmill's listener on 127.0.0.1 is not reached",
        "no process of others in /proc",
        "mount is refused",
    ] {
        assert!(not_reached.contains(&name), "{name}\n{}", examined.told());
    }
    // Limits hold all the same.
    assert!(with(&report, "ok").contains(&"one process is stopped at 128 MiB"), "{}", examined.told());
    assert_eq!(examined.stderr.contains("sandbox.require"), code == 1, "{}", examined.told());
}

/// Where there are no namespaces, as in a plain container: `/proc` is closed there, also to who looks.
#[rstest]
#[case::tester(&[])]
#[case::nobody(NOBODY)]
fn what_tier_process_promises_holds_here(#[case] who: &[&str]) {
    let who = if is_root() { who } else { &[] };
    let settings = [("EVALMILL__SANDBOX__REQUIRE", "process")];
    let examined = examine(who, &["--tier", "process", "--format", "json"], &settings);
    let report = examined.report();
    assert_eq!((examined.code, &report["tier"]), (Some(0), &json!("process")), "{}", examined.told());
    let ok = with(&report, "ok");
    for name in [
        "a host's file that anybody may read cannot be read",
        "no file is made in a host's directory that anybody may write",
        "evalmill's listener on 127.0.0.1 is not reached",
        "threads can be started",
        "no open descriptors beside 0, 1, 2",
        "mount is refused",
        "socket AF_NETLINK is refused",
        "one process is stopped at 128 MiB",
        "a daemon is killed with its program",
        "the interpreter is the same inside and outside",
    ] {
        assert!(ok.contains(&name), "{name}\n{}", examined.told());
    }
    assert!(with(&report, "not_reached").contains(&"no process of others in /proc"), "{}", examined.told());
}

#[test]
fn the_hosts_network_is_seen() {
    let examined = examine(&[], &["--format", "json"], &[("EVALMILL__SANDBOX__NETWORK", "true")]);
    let report = examined.report();
    assert_eq!(examined.code, Some(1), "{}", examined.told());
    let failed = with(&report, "failed");
    for name in ["evalmill's listener on 127.0.0.1 is not reached", "a net namespace of its own"] {
        assert!(failed.contains(&name), "{name}\n{}", examined.told());
    }
    assert!(!failed.contains(&"a pid namespace of its own"));
    assert!(examined.stdout.contains("set sandbox.network to false"));
}

#[rstest]
#[case::auto(&[], false)]
#[case::required(&["--tier", "namespaces"], true)]
fn user_namespaces_that_are_forbidden_are_named(#[case] args: &[&str], #[case] refused: bool) {
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"];
    let examined = examine(&wrapper, &[&["--format", "json"], args].concat(), &[]);
    let report = examined.report();
    // Not enough for `serve` in any case.
    assert_eq!(examined.code, Some(1), "{}", examined.told());
    assert!(report["tier"] == "none" || report["tier"] == "process", "{}", examined.told());
    let checks = report["checks"].as_array().unwrap();
    let missing = checks.iter().find(|check| check["name"] == "the layer can be had");
    let missing = missing.unwrap_or_else(|| panic!("{}", examined.told()));
    assert_eq!(missing["layer"], "namespaces");
    assert!(missing["remedy"].as_str().unwrap().contains("sysctl -w user.max_user_namespaces"));
    assert!(report["next"]["docker"].is_string());
    assert_eq!(report["refused"].is_string(), refused);
}

/// Runs doctor after `wrapper`, which takes away `layer` and leaves no tier above `process`.
#[rstest]
#[case::a_covered_proc(
    &["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc/irq && exec \"$@\"", "sh"],
    "proc",
    "mounting /proc"
)]
#[case::no_other_ids(&["setpriv", "--bounding-set=-setuid,-setgid"], "ids", "CAP_SETUID")]
fn what_root_lacks_is_named(#[case] wrapper: &[&str], #[case] layer: &str, #[case] said: &str) {
    if !is_root() {
        eprintln!("not run: it takes the host's root");
        return;
    }
    let examined = examine(wrapper, &["--format", "json"], &[("EVALMILL__SANDBOX__REQUIRE", "namespaces")]);
    let report = examined.report();
    assert_eq!(examined.code, Some(1), "{}", examined.told());
    let mut checks = report["checks"].as_array().unwrap().iter();
    let named = checks.any(|check| {
        check["layer"] == layer
            && check["said"].as_str().unwrap().contains(said)
            && check["remedy"].is_string()
    });
    assert!(named, "{}", examined.told());
    assert!(examined.stderr.contains("sandbox.require asks for tier \"namespaces\""), "{}", examined.told());
}

#[rstest]
#[case::usage(&["--format", "xml"], &[], 2)]
#[case::tier(&["--tier", "strong"], &[], 2)]
#[case::settings(&[], &[("EVALMILL__SANDBOX__REQUIRE", "strong")], 78)]
#[case::interpreter(&[], &[("EVALMILL__PYTHON__INTERPRETER", "/no/such/python")], 2)]
fn what_cannot_be_examined(#[case] args: &[&str], #[case] settings: &[(&str, &str)], #[case] code: i32) {
    let examined = examine(&[], args, settings);
    assert_eq!((examined.code, &*examined.stdout), (Some(code), ""), "{}", examined.told());
}

#[test]
fn the_configuration_file_is_out_of_sight() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("evalmill.toml");
    std::fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    let examined = examine(&[], &["--format", "json", "--config", path], &[]);
    assert!(with(&examined.report(), "ok").contains(&"the configuration file cannot be read"));
    // Shown, it is seen.
    let binds = format!("sandbox.binds = [{:?}]", Path::new(dir.path()));
    std::fs::write(&file, binds).unwrap();
    let examined = examine(&[], &["--format", "json", "--config", path], &[]);
    assert_eq!(examined.code, Some(1), "{}", examined.told());
    assert_eq!(with(&examined.report(), "failed"), ["the configuration file cannot be read"]);
}

#[test]
fn what_a_killed_doctor_leaves_the_next_start_removes() {
    let scratch = tempfile::tempdir().unwrap();
    let null = std::process::Stdio::null;
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_evalmill"));
    doctor.arg("doctor").env("EXEC_TMP_DIR", scratch.path()).env_remove("EVALMILL_CONFIG");
    let mut doctor = doctor.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
    let opened = format!("/proc/{}/fd", doctor.id());
    let mut dir = None;
    eventually("it has a directory", || {
        let opened = std::fs::read_dir(&opened).into_iter().flatten().flatten();
        let lock = |path: &PathBuf| path.starts_with("/var/tmp") && path.ends_with("in-use-by-evalmill");
        dir = opened.filter_map(|entry| std::fs::read_link(entry.path()).ok()).find(lock);
        dir.is_some()
    });
    doctor.kill().unwrap();
    doctor.wait().unwrap();
    let dir = dir.as_deref().and_then(Path::parent).unwrap();
    eventually("the next start removes it", || {
        let mut next = Command::new(env!("CARGO_BIN_EXE_evalmill"));
        next.args(["run", "/dev/null"]).env("EXEC_TMP_DIR", "/var/tmp").env_remove("EVALMILL_CONFIG");
        let next = next.output().unwrap();
        assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
        !dir.exists()
    });
}
