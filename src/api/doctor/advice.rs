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
            "start as root, where the controllers memory, pids and cpuacct are of cgroup version 1; this version uses no others",
            "--cgroupns=private and a writable /sys/fs/cgroup, as root, beside the options for \"namespaces\"; on a host with cgroup version 1",
            "a node with cgroup version 1, and what Docker needs; elsewhere stay with \"namespaces\" and limit the pod",
            "Delegate=yes, User=root, and no ProtectControlGroups=; on a host with cgroup version 1",
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
