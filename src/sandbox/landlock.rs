//! Landlock: which files may be opened, for a process and all that it starts, without any privilege.
//!
//! Two domains, one in the other: the worker's, which may read `/proc` beside what programs may, and the
//! command's, entered just before it is executed. Being in a domain of its own is also what
//! keeps a program from inspecting the worker, the service or anything else (every version), from signalling
//! it (Linux 6.12), and from its abstract sockets (6.12).
//!
//! | what | rights |
//! |---|---|
//! | trees of the system, the interpreter, `sandbox.binds` | read, execute |
//! | the worker's own directory | everything but devices and sockets |
//! | `/dev/null`, `zero`, `full`, `random`, `urandom` | read, write |
//! | a few files of `/proc` that speak of the machine | read |
//!
//! Of `/proc` a program cannot open what speaks of processes, its own neither: a rule cannot say "own only",
//! and command lines of others would be readable. Links of it still work where what they lead to may be
//! opened, so `/dev/stdin` and `/dev/fd/3` do.
//!
//! What Landlock does not do: hide names, sizes and times of files (or when they change), or keep modes, times and
//! attributes of files from being changed by who owns them; before Linux 6.2 it does not refuse to truncate.
#![expect(unsafe_code, reason = "the version and landlock_restrict_self by number have no safe interface")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

use super::missing::{Layer, Missing};
use super::policy::{DEVICES, NETWORK_FILES, Policy};
use super::trees::Trees;

/// What `landlock_create_ruleset` answers its version for.
const QUERY_VERSION: u32 = 1;
/// The newest version whose meaning was looked at.
const NEWEST: (i32, ABI) = (7, ABI::V7);
/// Files that say something of the machine and nothing of a process.
const OF_THE_MACHINE: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/vm/overcommit_memory",
    "/proc/uptime",
    "/proc/version",
];
/// From this version on files can be moved from one directory to another, which the worker does to remove
/// them. Before, no program can, and gets the error that makes `mv` copy.
const MOVES: i32 = 2;
/// From this version on truncation is refused.
const TRUNCATES: i32 = 3;
/// From this version on signals and abstract sockets are.
const SCOPES: i32 = 6;

/// What a command enters before it is executed.
#[derive(Debug)]
pub struct Domain {
    ruleset: OwnedFd,
    /// Files of `/proc` are known by what the kernel keeps of them only as long as they are held.
    _held: Vec<PathFd>,
}

impl Domain {
    /// For [`restrict`].
    #[must_use]
    pub fn ruleset(&self) -> RawFd {
        self.ruleset.as_raw_fd()
    }
}

/// The domains of one worker.
#[derive(Debug)]
pub(super) struct Domains {
    /// None where it could not remove what programs leave.
    pub(super) worker: Option<OwnedFd>,
    pub(super) command: Domain,
}

/// Puts the calling thread into a domain; `no_new_privs` must be set. Async-signal-safe.
///
/// # Errors
/// As the kernel says.
pub fn restrict(ruleset: RawFd) -> io::Result<()> {
    // SAFETY: a system call on integers.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Holds this thread and all that it starts to programs below its root, and, where it shares the `network` with the
/// host, to abstract sockets of its own. As far as [`root_shortfall`] does not say otherwise; sockets from Linux 6.12 on.
///
/// Evalmill's own executable is outside of that root, and the worker's `/proc/self/exe` leads to it all the same. A
/// program that has it executed can change its mode where it is the same user's.
///
/// # Errors
/// The kernel refuses.
pub(super) fn hold_to_root(network: bool) -> Result<(), Missing> {
    if version().unwrap_or(0) < MOVES {
        return Ok(());
    }
    let held = || -> Result<(), Box<dyn std::error::Error>> {
        // Moving from one directory to another is refused unless it is allowed.
        let access = make_bitflags!(AccessFs::{Execute | Refer});
        let mut ruleset = Ruleset::default().handle_access(access)?;
        if network {
            ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
        }
        let root = PathBeneath::new(PathFd::new("/")?, access);
        ruleset.create()?.add_rule(root)?.restrict_self()?;
        Ok(())
    };
    held().map_err(|error| failed(&*error))
}

/// What programs in namespaces can do where [`hold_to_root`] does nothing, if they are the user that evalmill is.
pub(super) fn root_shortfall(own_ids: bool) -> Option<Missing> {
    let said = match version() {
        Ok(version) if own_ids || version >= MOVES => return None,
        Ok(version) => format!("version {version}"),
        Err(error) => error.to_string(),
    };
    (!own_ids).then(|| Missing {
        layer: Layer::Landlock,
        said: format!("{said}: programs can change the mode of evalmill's own executable"),
        remedy: "it needs Linux 5.19 or newer with `landlock` in its lsm= list, or an executable that is another user's".to_owned(),
    })
}

/// The kernel's version of Landlock.
fn version() -> io::Result<i32> {
    // SAFETY: with this flag the kernel takes no structure, and answers a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<()>(), 0usize, QUERY_VERSION)
    };
    if version > 0 { Ok(i32::try_from(version).unwrap_or(i32::MAX)) } else { Err(io::Error::last_os_error()) }
}

fn abi(version: i32) -> ABI {
    match version {
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        _ => NEWEST.1,
    }
}

/// What this kernel's Landlock does not give of the tier; `own_ids`: programs are users of their own.
///
/// # Errors
/// There is no Landlock, or too little of it.
pub(super) fn shortfall(own_ids: bool) -> Result<Option<Missing>, Missing> {
    let version =
        version().map_err(|error| Missing::new(Layer::Landlock, "asking for its version", &error))?;
    lacks(version, own_ids)
}

fn lacks(version: i32, own_ids: bool) -> Result<Option<Missing>, Missing> {
    if version >= SCOPES || own_ids && version >= TRUNCATES {
        return Ok(None);
    }
    if own_ids {
        return Ok(Some(Missing {
            layer: Layer::Landlock,
            said: format!("version {version} lets programs empty files that every user may write"),
            remedy: "it needs Linux 6.2 or newer, or let no file of the host be writable by everybody"
                .to_owned(),
        }));
    }
    if version < TRUNCATES {
        return Err(Missing {
            layer: Layer::Landlock,
            said: format!("version {version} lets programs empty any file that this user may write"),
            remedy: "it needs Linux 6.2 or newer, or start evalmill as root, so that programs are users of their own".to_owned(),
        });
    }
    Ok(Some(Missing {
        layer: Layer::Landlock,
        said: format!("version {version} lets programs signal other processes of this user"),
        remedy:
            "it needs Linux 6.12 or newer, or start evalmill as root, so that programs are users of their own"
                .to_owned(),
    }))
}

/// Makes the domains of a worker whose directory is `home`.
///
/// # Errors
/// A tree cannot be opened, or the kernel refuses.
pub(super) fn domains(policy: &Policy, trees: &Trees, home: &Path) -> Result<Domains, Missing> {
    let version =
        version().map_err(|error| Missing::new(Layer::Landlock, "asking for its version", &error))?;
    let abi = abi(version);
    let read = AccessFs::from_read(abi);
    let file = make_bitflags!(AccessFs::{ReadFile | WriteFile});
    let all =
        AccessFs::from_all(abi) & !make_bitflags!(AccessFs::{MakeChar | MakeBlock | MakeSock | IoctlDev});
    let mut rules: Vec<(PathBuf, BitFlags<AccessFs>)> =
        trees.binds.iter().map(|bind| (bind.clone(), read)).collect();
    rules.push((home.to_path_buf(), all));
    rules.extend(DEVICES.iter().map(|device| (Path::new("/dev").join(device), file)));
    let machine = OF_THE_MACHINE.iter();
    let network = NETWORK_FILES.iter().chain(&["/etc/nsswitch.conf"]).filter(|_| policy.network);
    rules.extend(machine.chain(network).map(|path| (path.into(), AccessFs::ReadFile.into())));
    let mut opened = Vec::new();
    for (path, rights) in rules {
        match PathFd::new(&path) {
            Ok(fd) => opened.push((fd, rights)),
            Err(PathFdError::OpenCall { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    let proc = PathFd::new("/proc").map_err(|error| failed(&error))?;
    let proc = (proc, make_bitflags!(AccessFs::{ReadFile | ReadDir}));
    let make = |more: Option<&(PathFd, BitFlags<AccessFs>)>| {
        let ruleset =
            ruleset(abi, policy.network, opened.iter().chain(more)).map_err(|error| failed(&error))?;
        ruleset.ok_or_else(|| Missing::said(Layer::Landlock, "it made no ruleset".to_owned()))
    };
    let worker = (version >= MOVES).then(|| make(Some(&proc))).transpose()?;
    let ruleset = make(None)?;
    let held = opened.into_iter().map(|(fd, _)| fd).collect();
    Ok(Domains { worker, command: Domain { ruleset, _held: held } })
}

fn ruleset<'a>(
    abi: ABI,
    network: bool,
    rules: impl Iterator<Item = &'a (PathFd, BitFlags<AccessFs>)>,
) -> Result<Option<OwnedFd>, RulesetError> {
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi))?;
    let (net, scopes) = (AccessNet::from_all(abi), Scope::from_all(abi));
    if !network && !net.is_empty() {
        ruleset = ruleset.handle_access(net)?;
    }
    if !scopes.is_empty() {
        ruleset = ruleset.scope(scopes)?;
    }
    let mut created = ruleset.create()?;
    for (fd, rights) in rules {
        created = created.add_rule(PathBeneath::new(fd, *rights))?;
    }
    Ok(created.into())
}

fn failed(error: &dyn std::error::Error) -> Missing {
    Missing::said(Layer::Landlock, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_told_apart() {
        assert_eq!(lacks(7, false), Ok(None));
        assert_eq!(lacks(3, true), Ok(None));
        let missing = lacks(2, true).unwrap().unwrap();
        assert!(missing.said.contains("every user may write"), "{missing}");
        let missing = lacks(5, false).unwrap().unwrap();
        assert!(missing.said.contains("signal") && missing.remedy.contains("6.12"), "{missing}");
        let missing = lacks(2, false).unwrap_err();
        assert!(missing.said.contains("empty any file") && missing.remedy.contains("6.2"), "{missing}");
    }

    #[test]
    fn a_domain_holds_the_thread_that_enters_it() {
        if version().is_err() {
            eprintln!("not run: there is no Landlock here");
            return;
        }
        let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let sandbox = crate::config::Settings::default().sandbox;
        let policy = super::super::wanted(&sandbox, home.path(), crate::config::Tier::None).unwrap().unwrap();
        let domains = domains(&policy, &Trees::default(), home.path()).unwrap();
        let in_domain = move || {
            std::fs::read(outside.path()).unwrap();
            rustix::thread::set_no_new_privs(true).unwrap();
            domains.worker.iter().for_each(|worker| restrict(worker.as_raw_fd()).unwrap());
            std::fs::read("/proc/self/stat").unwrap();
            restrict(domains.command.ruleset()).unwrap();
            for path in [outside.path(), Path::new("/proc/self/stat"), Path::new("/etc/passwd")] {
                let error = std::fs::read(path).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{}", path.display());
            }
            std::fs::write(home.path().join("x"), "x").unwrap();
            std::fs::write("/dev/null", "x").unwrap();
            std::fs::read("/proc/meminfo").unwrap();
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err() || version().unwrap() < 4);
        };
        std::thread::spawn(in_domain).join().unwrap();
    }
}
