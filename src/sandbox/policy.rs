//! What a sandboxed program is given: plain values, with no idea of how they are brought about.

use std::path::PathBuf;

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
