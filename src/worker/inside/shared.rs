//! The directories of a sandbox that outlive a box: `/tmp`, `/dev/shm`, and the one that boxes are made in.
//!
//! After each box nothing that its programs did to them is left: no entry, no mode, no attribute.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{IFlags, Mode, OFlags};
use rustix::io::Errno;

use super::wipe;

/// What programs can write to, beside their box.
pub(super) const EMPTIED: [&str; 2] = ["/tmp", "/dev/shm"];

/// What the names of attributes begin with that hold access control lists.
const ACCESS_LISTS: &[u8] = b"system.posix_acl_";

/// One directory, as it is to be for each box.
#[derive(Debug)]
pub(super) struct Shared {
    dir: OwnedFd,
    mode: Mode,
    flags: IFlags,
    emptied: bool,
    /// What was in it before the first box: places at which the host's trees are shown.
    kept: Vec<CString>,
}

impl Shared {
    /// Notes the directory as it is now; `emptied`: nothing in it is ours.
    pub(super) fn new(path: &Path, emptied: bool) -> io::Result<Self> {
        let dir =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let (mode, flags) = (mode_of(&dir)?, flags(dir.as_fd())?);
        let kept = wipe::names(dir.as_fd())?;
        Ok(Self { dir, mode, flags, emptied, kept })
    }

    /// Makes it as it was. Cheap where nothing was done to it.
    ///
    /// # Errors
    /// Something cannot be undone: the worker must go.
    pub(super) fn reset(&self) -> io::Result<()> {
        // First: without rights it can be neither listed nor emptied.
        if mode_of(&self.dir)? != self.mode {
            rustix::fs::fchmod(&self.dir, self.mode)?;
        }
        if flags(self.dir.as_fd())? != self.flags {
            rustix::fs::ioctl_setflags(&self.dir, self.flags)?;
        }
        for name in attributes(self.dir.as_fd())? {
            rustix::fs::fremovexattr(&self.dir, &name)?;
        }
        if self.emptied && !wipe::is_empty(self.dir.as_fd(), ".", &self.kept)? {
            wipe::wipe_contents(self.dir.as_fd(), &self.kept)?;
        }
        Ok(())
    }
}

/// Extended attributes that a program may set: those that begin with `user.`, and access control lists, of which a
/// default one gives every box after it the rights that a program chose.
///
/// # Errors
/// They cannot be read: there are more than any honest program makes.
pub(super) fn attributes(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = [0; 1024];
    let length = match rustix::fs::flistxattr(dir, &mut names) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let names = names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    let of_programs = |name: &&[u8]| name.starts_with(b"user.") || name.starts_with(ACCESS_LISTS);
    Ok(names.filter(of_programs).filter_map(|name| CString::new(name).ok()).collect())
}

/// Flags of the file system, which what is made in a directory inherits: one makes every write wait for the disk.
///
/// # Errors
/// They cannot be read.
pub(super) fn flags(dir: BorrowedFd<'_>) -> io::Result<IFlags> {
    match rustix::fs::ioctl_getflags(dir) {
        // A file system without.
        Err(Errno::NOTTY | Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => Ok(IFlags::empty()),
        other => Ok(other?),
    }
}

fn mode_of(dir: &OwnedFd) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(rustix::fs::fstat(dir)?.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn nothing_of_a_program_is_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        let shared = Shared::new(dir.path(), true).unwrap();
        shared.reset().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/c"), "x").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o000)).unwrap();
        shared.reset().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o7777, 0o1777);
        fs::write(dir.path().join("kept"), "x").unwrap();
        Shared::new(dir.path(), false).unwrap().reset().unwrap();
        assert!(dir.path().join("kept").exists());
    }
}
