//! What a sandboxed program is given: plain values, with no idea of how they are brought about.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::TierChoice;

/// What is allowed. Everything that is not named here is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The tier asked for; [`TierChoice::Auto`]: the strongest that can be had, down to none.
    pub choice: TierChoice,
    /// Files and directories shown read-only, beside the system's and the interpreter's.
    pub binds: Vec<PathBuf>,
    /// Bytes of all files of one worker together: the box, `/tmp` and `/dev/shm`. Only where they are on a file
    /// system of their own: not in the tier `process`.
    pub disk_bytes: u64,
    /// Their number, directories included.
    pub disk_inodes: u64,
    /// The host's network, instead of a loopback interface and nothing else.
    pub network: bool,
}

/// Where boxes are made, as programs see it.
pub const BOX_DIR: &str = "/box";
/// The user and group that the worker is, where it has ids of its own.
pub(super) const WORKER_ID: u32 = 1;
/// The user and group that programs are.
pub const PROGRAM_ID: u32 = 1000;
/// The host's name, as programs see it.
pub(super) const HOST_NAME: &str = "box";

/// The system's trees: what compilers, linkers and interpreters of a distribution need. Absent ones
/// are passed over. Nothing of `/etc` but what holds no secret and no name of this host.
pub(super) const SYSTEM_TREES: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld-musl-x86_64.path",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

/// What the network needs beside the system's trees; copied, because it is often a link to a place
/// that is not shown.
pub(super) const NETWORK_FILES: &[&str] = &["/etc/hosts", "/etc/resolv.conf"];

/// Files that are made up.
pub(super) const MADE_UP_FILES: &[(&str, &str)] = &[
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/bin/sh\nbox:x:1000:1000:box:/box:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("/etc/group", "root:x:0:\nbox:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost box\n::1 localhost\n"),
    ("/etc/hostname", "box\n"),
    (
        "/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    ),
];

/// Device files; nothing else of `/dev` is there.
pub(super) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];
/// Links in `/dev`.
pub(super) const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// What boxes have of their own, in the place of the host's.
const OWN: [&str; 4] = ["/dev", "/dev/shm", "/tmp", BOX_DIR];

/// Why a bind cannot be shown; `None`: it can. What is made in its place would hide it, or it would show what other
/// programs write.
pub(super) fn not_to_show(bind: &Path, scratch_dir: &Path) -> Option<&'static str> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (named, bind) = (bind, real(bind));
    let is_own = |path: &Path| path.starts_with("/proc") || OWN.iter().any(|own| path == Path::new(own));
    if bind.parent().is_none() {
        Some("the host's root is not shown as a whole")
    } else if is_own(named) || is_own(&bind) {
        Some("boxes have their own")
    } else if real(scratch_dir).starts_with(&bind) {
        Some("the scratch directory is in it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::root("/", Some("as a whole"))]
    #[case::root_by_another_name("/usr/..", Some("as a whole"))]
    #[case::processes("/proc", Some("their own"))]
    #[case::settings_of_the_kernel("/proc/sys", Some("their own"))]
    #[case::devices("/dev/", Some("their own"))]
    #[case::shared_memory("/dev/shm", Some("their own"))]
    #[case::files_of_all("/tmp", Some("their own"))]
    #[case::boxes("/box", Some("their own"))]
    #[case::above_the_boxes_of_others("/var/no-such", Some("scratch"))]
    #[case::boxes_of_others("/var/no-such/scratch", Some("scratch"))]
    #[case::beside_them("/var/no-such/scratch-tools", None)]
    #[case::below_what_boxes_have("/tmp/no-such/tools", None)]
    #[case::a_tree("/usr/lib", None)]
    fn binds(#[case] bind: &str, #[case] why: Option<&str>) {
        let said = not_to_show(Path::new(bind), Path::new("/var/no-such/scratch"));
        assert_eq!(said.is_some(), why.is_some(), "{said:?}");
        assert!(why.is_none_or(|why| said.unwrap_or_default().contains(why)), "{said:?}");
    }
}
