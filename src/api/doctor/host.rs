//! What the checks need on the host, and what is looked at there.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DoctorError;
use crate::worker::Scratch;

/// Time between two looks at processes.
const LOOK: Duration = Duration::from_millis(20);
/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(2);

/// Files, directories and sockets that programs are to reach, or not.
pub(super) struct Host {
    mark: String,
    tcp: TcpListener,
    _abstract: UnixListener,
    secret: PathBuf,
    bound: PathBuf,
    outside: PathBuf,
    control: PathBuf,
    setuid: Option<PathBuf>,
    _inherited: OwnedFd,
    _dir: Scratch,
}

/// A daemon as the host sees it.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    pub(super) pid: u32,
    /// Its user.
    pub(super) user: u32,
    pub(super) cgroup: String,
}

impl Host {
    /// Makes everything in `/var/tmp`, or in `dir` where that cannot be; it goes when this is dropped. Boxes have a `/tmp` of
    /// their own, so that what is shown below that is no example of the rest.
    pub(super) fn new(dir: &Path) -> Result<Self, DoctorError> {
        let failed = |what: String| move |source| DoctorError::Host { what, source };
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let listener = || Ok((TcpListener::bind("127.0.0.1:0")?, UnixListener::bind_addr(&address(&mark)?)?));
        let (tcp, unix) = listener().map_err(failed("a listener on this host".to_owned()))?;
        let made = top(Path::new("/var/tmp")).or_else(|_| top(dir));
        made.and_then(|top| Self::below(top, &mark, tcp, unix))
            .map_err(failed(format!("a directory in {}", dir.display())))
    }

    fn below(dir: Scratch, mark: &str, tcp: TcpListener, unix: UnixListener) -> io::Result<Self> {
        let directory = |name: &str, mode: u32| {
            let path = fs::canonicalize(dir.path())?.join(name);
            fs::create_dir(&path)?;
            open_to(&path, mode)?;
            Ok::<_, io::Error>(path)
        };
        let (bound, outside) = (directory("bound", 0o777)?, directory("outside", 0o777)?);
        let control = directory("control", 0o700)?;
        let (marker, secret) = (bound.join("marker"), outside.join("secret"));
        for (file, mode) in [(&marker, 0o666), (&secret, 0o644)] {
            fs::write(file, "x")?;
            open_to(file, mode)?;
        }
        // What starts a process may have left it descriptors, or none: one is surely there. `dup` keeps it
        // open where programs are executed.
        let inherited = rustix::io::dup(fs::File::open(&secret)?)?;
        let setuid = if rustix::process::geteuid().is_root() {
            // Where there is no such program, or it cannot be made, the check is not shown.
            let file = directory("setuid", 0o755)?.join("id");
            fs::copy("/usr/bin/id", &file).and_then(|_| open_to(&file, 0o4755)).ok().map(|()| file)
        } else {
            None
        };
        let mark = mark.to_owned();
        Ok(Self {
            mark,
            tcp,
            _abstract: unix,
            secret,
            bound,
            outside,
            control,
            setuid,
            _inherited: inherited,
            _dir: dir,
        })
    }

    /// What names things of this run.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// The port of a listener on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.tcp.local_addr().map_or(0, |address| address.port())
    }

    /// The name of a listening abstract socket.
    pub(super) fn abstract_name(&self) -> String {
        abstract_name(&self.mark)
    }

    /// A file that anybody may read and no box shows.
    pub(super) fn secret(&self) -> &Path {
        &self.secret
    }

    /// A directory that anybody may write and boxes show.
    pub(super) fn bound(&self) -> &Path {
        &self.bound
    }

    /// A directory that anybody may write and no box shows.
    pub(super) fn outside(&self) -> &Path {
        &self.outside
    }

    /// Where programs run outside of a box.
    pub(super) fn control(&self) -> &Path {
        &self.control
    }

    /// A program of root's that is run with its rights by whoever runs it, and prints whose it has.
    pub(super) fn setuid(&self) -> Option<&Path> {
        self.setuid.as_deref()
    }

    /// An argument of the daemon.
    pub(super) fn daemon_name(&self) -> String {
        format!("evalmill-doctor-daemon-{}", self.mark)
    }

    /// Removes what programs left in directories of the host, where they have no others.
    pub(super) fn forget_leftovers(&self) {
        for dir in ["/tmp", "/dev/shm"] {
            let _ = fs::remove_file(Path::new(dir).join(format!("left-{}", self.mark)));
        }
    }

    /// What `work` comes to, and the daemon where one was seen meanwhile.
    pub(super) async fn watch<T>(&self, work: impl Future<Output = T>) -> (T, Option<Daemon>) {
        let mut seen = None;
        let name = self.daemon_name();
        let done = {
            let look = async {
                loop {
                    tokio::time::sleep(LOOK).await;
                    // Young, it may be seen before it is where it belongs: the last look counts.
                    seen = find(&name).or(seen.take());
                }
            };
            tokio::select! {
                done = work => done,
                () = look => unreachable!("it does not end"),
            }
        };
        (done, seen)
    }

    /// Whether the daemon is gone, or goes within a moment.
    pub(super) async fn is_gone(&self) -> bool {
        let name = self.daemon_name();
        let look = async {
            while find(&name).is_some() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(GONE, look).await.is_ok()
    }
}

/// The directory of everything else. What an earlier doctor that was killed has left is removed, its program of
/// root's with it.
fn top(within: &Path) -> io::Result<Scratch> {
    let dir = Scratch::create(within)?;
    open_to(dir.path(), 0o755)?;
    Ok(dir)
}

fn open_to(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn abstract_name(mark: &str) -> String {
    format!("evalmill-doctor-{mark}")
}

fn address(mark: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(abstract_name(mark))
}

/// The process with this argument.
fn find(argument: &str) -> Option<Daemon> {
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let named = line.split(|byte| *byte == 0).any(|one| one == argument.as_bytes());
        let status = named.then(|| fs::read_to_string(format!("/proc/{pid}/status")).ok()).flatten()?;
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let user = user.split_whitespace().next()?.parse().ok()?;
        Some(Daemon { pid, user, cgroup: cgroup(&pid.to_string())? })
    })
    .next()
}

/// The cgroups of a process.
pub(super) fn cgroup(process: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{process}/cgroup")).ok()
}

/// Which of a program's cgroups are not ours.
pub(super) fn difference(theirs: &str, ours: &str) -> String {
    let own: Vec<_> = theirs.lines().filter(|line| !ours.lines().any(|our| our == *line)).collect();
    if own.is_empty() { "evalmill's own".to_owned() } else { own.join(" ") }
}

/// The namespaces that this process is in.
pub(super) fn namespaces(names: &[&'static str]) -> BTreeMap<&'static str, String> {
    let link = |name: &&'static str| {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
        Some((*name, link.to_string_lossy().into_owned()))
    };
    names.iter().filter_map(link).collect()
}

/// The program that the kernel hands cores to.
pub(super) fn core_handler() -> Option<String> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").ok()?;
    pattern.trim().strip_prefix('|').and_then(|handler| Some(handler.split_whitespace().next()?.to_owned()))
}
