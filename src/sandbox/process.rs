//! The tier `process`: a worker without namespaces, where they cannot be had.
//!
//! It lives among the processes of the host. What holds its programs is Landlock for files, the filter of
//! system calls for sockets, and where evalmill is root a user of their own.

use std::ffi::CString;
use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{DumpableBehavior, Gid, Uid};

use super::enter::{Entered, Plan, limit};
use super::ids::Ids;
use super::landlock::{self, Domain, Domains};
use super::missing::{Layer, Missing};
use super::seccomp::{self, Place};

/// A worker of this tier, before it is sealed.
#[derive(Debug)]
pub struct Settled {
    /// As in the other tiers.
    pub entered: Entered,
    /// The worker's own directory.
    pub home: PathBuf,
    domains: Domains,
}

impl Plan {
    /// Takes this process, just made, to its place: a directory of its own below `scratch`, its ids, its limits.
    /// `removed`: makes sure that there is nothing of that name.
    ///
    /// # Errors
    /// The layer that failed; the process must end.
    pub fn settle(
        &self,
        ids: Ids,
        scratch: &Path,
        name: &str,
        removed: impl FnOnce(&Path, &str) -> io::Result<()>,
    ) -> Result<Settled, Missing> {
        let process = |what: &'static str| move |error: io::Error| Missing::new(Layer::Process, what, &error);
        rustix::process::setsid().map_err(|error| process("setsid")(error.into()))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| process("becoming a subreaper")(error.into()))?;
        let home = scratch.join(name);
        removed(scratch, name).and_then(|()| make_home(ids, scratch, &home)).map_err(|error| {
            // Root without that right, or of a user namespace without these ids.
            let of_ids = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL));
            let layer = if of_ids && ids.program().is_some() { Layer::Ids } else { Layer::Process };
            Missing::new(layer, "making the worker's directory", &error)
        })?;
        let domains = landlock::domains(&self.policy, &self.trees, &home)?;
        limit().map_err(process("setting limits"))?;
        let clear_refs = OpenOptions::new().write(true).open("/proc/self/clear_refs").ok();
        ids.drop_privileges()
            .map_err(|error| Missing::new(Layer::Privileges, "giving up privileges", &error))?;
        // From here on as a program's user: whether it can be reached.
        fs::metadata(home.join(".")).map_err(|error| Missing {
            layer: Layer::Process,
            said: format!("{} cannot be reached by a user of its own: {error}", home.display()),
            remedy: "set worker.scratch_dir or EXEC_TMP_DIR to a directory that every user may pass through (mode o+x, and all above it)".to_owned(),
        })?;
        for bind in &self.policy.binds {
            let (here, effective) = (rustix::fs::CWD, rustix::fs::AtFlags::EACCESS);
            rustix::fs::accessat(here, bind, rustix::fs::Access::READ_OK, effective).map_err(|error| {
                Missing {
                    layer: Layer::Process,
                    said: format!("{} of sandbox.binds cannot be read by programs: {error}", bind.display()),
                    remedy: "let every user read it and pass through what is above it".to_owned(),
                }
            })?;
        }
        Ok(Settled { entered: Entered { clear_refs }, home, domains })
    }

    /// Closes the door; answers what commands enter in turn.
    ///
    /// # Errors
    /// The layer that failed; the process must end.
    pub fn seal_process(&self, ids: Ids, settled: Settled) -> Result<Domain, Missing> {
        let privileges = |error: rustix::io::Errno| Missing::new(Layer::Privileges, "sealing", &error.into());
        let Domains { worker, command } = settled.domains;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(privileges)?;
        rustix::thread::set_no_new_privs(true).map_err(privileges)?;
        if let Some(worker) = worker {
            landlock::restrict(worker.as_raw_fd())
                .map_err(|error| Missing::new(Layer::Landlock, "entering a domain", &error))?;
        }
        let place = Place::Host { network: self.policy.network, own_ids: ids.program().is_some() };
        seccomp::install(place)
            .map_err(|error| Missing::new(Layer::Seccomp, "installing the filter", &error))?;
        Ok(command)
    }
}

fn make_home(ids: Ids, scratch: &Path, home: &Path) -> io::Result<()> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW;
    let above = rustix::fs::open(scratch, flags, rustix::fs::Mode::empty())?;
    let name = CString::new(home.file_name().unwrap_or_default().as_bytes())?;
    rustix::fs::mkdirat(above.as_fd(), &name, rustix::fs::Mode::RWXU)?;
    if let Some(id) = ids.program() {
        // It is entered by name, and nothing but that can be done with it.
        fs::set_permissions(scratch, fs::Permissions::from_mode(0o711))?;
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        let not_followed = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(above.as_fd(), &name, Some(uid), Some(gid), not_followed)?;
    }
    Ok(())
}
