//! A layer that cannot be had: its name, what the system said, and how to get it.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One part of the isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The namespaces themselves.
    Namespaces,
    /// The ids of the user namespace.
    Ids,
    /// The private root: binds, tmpfs, `pivot_root`.
    Root,
    /// A `/proc` of its own.
    Proc,
    /// The private network.
    Network,
    /// Capabilities and ids of the worker.
    Privileges,
    /// The filter of system calls.
    Seccomp,
    /// The interpreter: it cannot be asked, or does not run inside.
    Interpreter,
    /// The process itself: sockets, descriptors, time.
    Process,
    /// Limits of a whole process tree by the kernel.
    Cgroup,
    /// Rules for files and signals that need no privilege.
    Landlock,
}

impl Layer {
    /// Its name in messages and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Ids => "ids",
            Self::Root => "root",
            Self::Proc => "proc",
            Self::Network => "network",
            Self::Privileges => "privileges",
            Self::Seccomp => "seccomp",
            Self::Interpreter => "interpreter",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Landlock => "landlock",
        }
    }
}

/// A layer that was tried and failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub layer: Layer,
    /// What was done and what the system said to it.
    pub said: String,
    /// How to get it.
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.layer.name(), self.said, self.remedy)
    }
}

impl Missing {
    /// A step of the set-up failed; the remedy is looked for here, where the machine can be asked.
    pub(super) fn new(layer: Layer, what: &str, error: &io::Error) -> Self {
        Self { layer, said: format!("{what}: {error}"), remedy: remedy(layer, error, &Machine::look()) }
    }

    /// No limits of a process tree by the kernel.
    pub(crate) fn cgroup(said: String) -> Self {
        Self::said(Layer::Cgroup, said)
    }

    /// As [`Self::new`], where it is not the system that said it.
    pub(super) fn said(layer: Layer, said: String) -> Self {
        let remedy = remedy(layer, &io::Error::other(""), &Machine::look());
        Self { layer, said, remedy }
    }
}

/// What a remedy depends on.
#[derive(Debug, Default)]
struct Machine {
    /// `user.max_user_namespaces` is 0.
    no_user_namespaces: bool,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian).
    only_privileged: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu).
    apparmor: bool,
    container: bool,
    /// The controllers of memory are in cgroup version 2.
    version_2: bool,
    /// evalmill is root.
    root: bool,
}

impl Machine {
    fn look() -> Self {
        let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
        Self {
            no_user_namespaces: is("/proc/sys/user/max_user_namespaces", "0"),
            only_privileged: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            apparmor: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            container: Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists(),
            version_2: fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
                .is_ok_and(|there| there.split_whitespace().any(|one| one == "memory")),
            root: rustix::process::geteuid().is_root(),
        }
    }
}

fn remedy(layer: Layer, error: &io::Error, machine: &Machine) -> String {
    let code = error.raw_os_error().unwrap_or(0);
    if layer == Layer::Landlock {
        return match code {
            libc::EOPNOTSUPP => "boot with `landlock` in the kernel's lsm= list (/sys/kernel/security/lsm shows what is in it)",
            libc::ENOSYS | libc::EPERM => "it needs Linux 5.13 or newer, built with Landlock, and in a container a seccomp profile that allows the landlock_* calls, as Docker's default does",
            _ => "it needs Linux 5.13 or newer with `landlock` in its lsm= list",
        }
        .to_owned();
    }
    if code == libc::ENOSYS && layer != Layer::Interpreter {
        return "it needs Linux 5.12 or newer, and in a container a seccomp profile that allows it"
            .to_owned();
    }
    if matches!(code, libc::EAGAIN | libc::ENOMEM) && layer != Layer::Interpreter {
        return "there is no process or no memory left for it: look at the user's limit (ulimit -u) and at pids.max and the limit of memory of evalmill's own cgroup (systemd: TasksMax=, MemoryMax=; Docker: --pids-limit, --memory)".to_owned();
    }
    let by_container = "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined (evalmill filters system calls itself), or with a seccomp profile that allows clone with CLONE_NEW*, the mount family and pivot_root";
    match layer {
        Layer::Namespaces if machine.no_user_namespaces => {
            "sysctl -w user.max_user_namespaces=65536 allows user namespaces".to_owned()
        }
        Layer::Namespaces if machine.only_privileged => {
            "sysctl -w kernel.unprivileged_userns_clone=1 allows user namespaces, or start evalmill as root".to_owned()
        }
        Layer::Namespaces | Layer::Ids | Layer::Root | Layer::Network | Layer::Privileges | Layer::Proc
            if machine.apparmor && !machine.container =>
        {
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 lifts AppArmor's restriction, or start evalmill as root, or give it a profile with `userns,`".to_owned()
        }
        Layer::Namespaces | Layer::Root | Layer::Proc | Layer::Network if machine.container => by_container.to_owned(),
        Layer::Namespaces if code == libc::ENOSPC => {
            "raise user.max_user_namespaces and the other user.max_*_namespaces".to_owned()
        }
        Layer::Ids => {
            "start evalmill as an ordinary user, or leave root its capabilities CAP_SETUID, CAP_SETGID, CAP_CHOWN and CAP_KILL".to_owned()
        }
        Layer::Proc => {
            "the host's /proc must be there in full: nothing may be mounted over parts of it".to_owned()
        }
        Layer::Interpreter => {
            "set python.interpreter to a Python that an ordinary user can run, and sandbox.binds to what it needs beside its own prefix".to_owned()
        }
        Layer::Cgroup => format!("{}; limits of the tree are watched meanwhile", cgroup(machine)),
        _ => "start evalmill where namespaces can be made: on a host, or in a container that allows it".to_owned(),
    }
}

/// The way to cgroups.
fn cgroup(machine: &Machine) -> &'static str {
    match machine {
        Machine { version_2: true, container: true, .. } => {
            "start the container with a group of its own that is writable, and evalmill as its root and without other processes (Docker 28 or newer: --cgroupns=private --security-opt writable-cgroups=true; containerd 2.1 or newer: cgroup_writable = true of the runtime)"
        }
        Machine { version_2: true, root: true, .. } => {
            "start evalmill in a group of its own: `systemd-run --scope -p Delegate=yes evalmill …`, or in a unit with Delegate=yes"
        }
        Machine { version_2: true, .. } => {
            "start evalmill in a group of its own that is this user's: `systemd-run --user --scope -p Delegate=yes evalmill …`, or in a unit with User= and Delegate=yes; without systemd, root makes a group with the controllers memory and pids, gives it and its cgroup.procs and cgroup.subtree_control to the user (chown), and starts evalmill in it as that user"
        }
        Machine { container: true, .. } => {
            "start the container as root with --cgroupns=private and -v /sys/fs/cgroup:/sys/fs/cgroup:rw, so that the cgroups of version 1 are writable"
        }
        _ => {
            "start evalmill as root (below systemd: `systemd-run --scope -p Delegate=yes evalmill …`), where the controllers memory, pids and cpuacct of cgroup version 1 are mounted writable"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(libc::EOPNOTSUPP, "lsm=")]
    #[case(libc::ENOSYS, "5.13")]
    #[case(libc::EPERM, "landlock_* calls")]
    fn how_to_get_landlock(#[case] code: i32, #[case] says: &str) {
        let remedy = remedy(Layer::Landlock, &io::Error::from_raw_os_error(code), &Machine::default());
        assert!(remedy.contains(says), "{remedy}");
    }

    #[rstest]
    #[case(Machine { no_user_namespaces: true, ..Machine::default() }, libc::ENOSPC, "user.max_user_namespaces=")]
    #[case(Machine { only_privileged: true, ..Machine::default() }, libc::EPERM, "unprivileged_userns_clone=1")]
    #[case(Machine { apparmor: true, ..Machine::default() }, libc::EACCES, "apparmor_restrict")]
    #[case(Machine { container: true, ..Machine::default() }, libc::EPERM, "--security-opt seccomp=")]
    #[case(Machine::default(), libc::ENOSYS, "5.12")]
    #[case(Machine { container: true, ..Machine::default() }, libc::EAGAIN, "ulimit -u")]
    #[case(Machine::default(), libc::EPERM, "start evalmill where")]
    fn a_remedy_fits_the_machine(#[case] machine: Machine, #[case] code: i32, #[case] says: &str) {
        let remedy = remedy(Layer::Namespaces, &io::Error::from_raw_os_error(code), &machine);
        assert!(remedy.contains(says), "{remedy}");
        assert!(!remedy.contains("privileged=true"));
    }

    #[rstest]
    #[case(Machine::default(), "systemd-run --scope -p Delegate=yes")]
    #[case(Machine { container: true, ..Machine::default() }, "--cgroupns=private")]
    #[case(Machine { version_2: true, container: true, ..Machine::default() }, "writable-cgroups=true")]
    #[case(Machine { version_2: true, root: true, ..Machine::default() }, "`systemd-run --scope -p Delegate=yes")]
    #[case(Machine { version_2: true, ..Machine::default() }, "`systemd-run --user --scope -p Delegate=yes")]
    #[case(Machine { version_2: true, ..Machine::default() }, "chown")]
    fn a_remedy_for_limits(#[case] machine: Machine, #[case] says: &str) {
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let remedy = remedy(Layer::Cgroup, &error, &machine);
        assert!(remedy.contains(says) && remedy.contains("limits of the tree are watched"), "{remedy}");
    }
}
