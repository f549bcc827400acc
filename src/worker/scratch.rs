//! The directory of a pool's boxes, and what is left of those whose service was killed with its launcher.
//!
//! In each there is a file that is locked for as long as its service lives. A directory without such a file is nobody's
//! that is known here, and stays.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use tempfile::TempDir;

use super::inside::wipe;

const PREFIX: &str = "evalmill-";
const LOCK: &str = "in-use-by-evalmill";

/// A directory of this process, removed with it.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one in `base`, and removes those there that are left.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(base: &Path) -> io::Result<Self> {
        sweep(base);
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(base)?;
        let (made, named) = (dir.path().join("new"), dir.path().join(LOCK));
        let lock = File::create_new(&made)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // It is there only once it is locked.
        fs::rename(made, named)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes what services of this user have left; what cannot go is said.
fn sweep(base: &Path) {
    let Ok(parent) = wipe::open(base) else { return };
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if !is_left(&entry.path()) {
            continue;
        }
        match wipe::wipe(parent.as_fd(), name) {
            Ok(()) => tracing::info!(dir = %entry.path().display(), "removed what a killed run had left"),
            Err(error) => {
                tracing::warn!(dir = %entry.path().display(), %error, "what a killed run left cannot be removed");
            }
        }
    }
}

/// Whether this is a directory of this user's whose service is gone.
fn is_left(dir: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    if !fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == own) {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(lock) = rustix::fs::openat(CWD, dir.join(LOCK), flags, Mode::empty()) else { return false };
    let ours = rustix::fs::fstat(&lock).is_ok_and(|stat| stat.st_uid == own);
    ours && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_left_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let living = Scratch::create(base.path()).unwrap();
        let killed = Scratch::create(base.path()).unwrap();
        // As after a SIGKILL: the lock is gone, and the directory is not.
        let Scratch { dir, _lock } = killed;
        let left = dir.keep();
        fs::create_dir_all(left.join("w0/deep/er")).unwrap();
        let other = base.path().join("evalmill-errors");
        fs::create_dir(&other).unwrap();
        assert!(!is_left(&left));
        drop(_lock);
        let next = Scratch::create(base.path()).unwrap();
        assert!(!left.exists() && other.exists() && living.path().exists() && next.path().exists());
        drop((living, next));
        let names: Vec<_> = fs::read_dir(base.path()).unwrap().flatten().map(|entry| entry.path()).collect();
        assert_eq!(names, [other]);
    }
}
