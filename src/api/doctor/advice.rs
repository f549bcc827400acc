//! What to do for the next tier, where evalmill runs.

use serde::{Deserialize, Serialize};

use crate::config::Tier;
use crate::sandbox::Missing;

/// The next tier, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// The tier.
    pub tier: Tier,
    /// What was tried for more than is in force, and failed.
    pub missing: Vec<Missing>,
    /// On a host.
    pub bare_metal: String,
    /// Options of `docker run`.
    pub docker: String,
    /// What stands in a pod's specification.
    pub kubernetes: String,
    /// What stands in a unit.
    pub systemd: String,
}

/// Each tier above the weakest: bare metal, Docker, Kubernetes, systemd. What a tier below it needs is needed, too.
const WAYS: [(Tier, [&str; 4]); 3] = [
    (
        Tier::Process,
        [
            "Linux 5.13 or newer with Landlock: `cat /sys/kernel/security/lsm` names it, or `lsm=landlock,...` on the kernel's command line adds it",
            "no option: the seccomp profile of Docker 23 or newer allows Landlock",
            "securityContext: {seccompProfile: {type: RuntimeDefault}}",
            "no option; where SystemCallFilter= is set, add @sandbox to it",
        ],
    ),
    (
        Tier::Namespaces,
        [
            "Linux 5.12 or newer, and `sysctl -w user.max_user_namespaces=65536`; Debian: `sysctl -w kernel.unprivileged_userns_clone=1`; Ubuntu: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined",
            "hostUsers: false, and securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}",
            "no RestrictNamespaces=, ProtectProc=, ProcSubset=, ProtectKernelTunables= or ProtectKernelLogs=; in SystemCallFilter= allow @mount, and clone with namespaces",
        ],
    ),
    (
        Tier::Full,
        [
            "`systemd-run --scope -p Delegate=yes evalmill ...` as root, or with --user as an ordinary user; with cgroup version 1 as root, where memory, pids and cpuacct are writable",
            "--cgroupns=private and --security-opt writable-cgroups=true (Docker 28; with cgroup version 1: -v /sys/fs/cgroup:/sys/fs/cgroup:rw), as root, beside the options for \"namespaces\"",
            "what \"namespaces\" needs, and a runtime that makes /sys/fs/cgroup writable (containerd 2.1: cgroup_writable = true); elsewhere stay with \"namespaces\" and limit the pod",
            "Delegate=yes, and no ProtectControlGroups=; with cgroup version 1 User=root, too",
        ],
    ),
];

/// The tier after `reached`.
pub(super) fn next(reached: Tier, missing: &[Missing]) -> Option<Next> {
    let (tier, ways) = WAYS.iter().find(|(tier, _)| *tier > reached)?;
    let [bare_metal, docker, kubernetes, systemd] = ways.map(str::to_owned);
    let missing = missing.to_vec();
    Some(Next { tier: *tier, missing, bare_metal, docker, kubernetes, systemd })
}
