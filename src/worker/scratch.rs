//! The directory of a pool's boxes, and what is left of those whose service was killed with its launcher.
//!
//! In each there is a file that is locked for as long as its service lives. A directory without such a file is nobody's
//! that is known here, and stays.
//!
//! Where the workers were killed, too, processes that programs left may still run, if there are no namespaces that
//! end them. Those are known by the environment that programs are started with; one that hides it stays.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use tempfile::TempDir;

use super::inside::{tree, wipe};

/// How long processes that are left may go on being made while they are killed.
const KILL_BOUND: Duration = Duration::from_secs(2);
/// Between two looks at them.
const PAUSE: Duration = Duration::from_millis(5);

const PREFIX: &str = "evalmill-";
const LOCK: &str = "in-use-by-evalmill";

/// A directory of this process, removed with it.
#[derive(Debug)]
pub struct Scratch {
    _remains: Remains,
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
        Ok(Self { _remains: Remains(dir.path().to_owned()), dir, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// What programs left while this process went on, where launcher and workers were killed together: it ends with the
/// directory.
#[derive(Debug)]
struct Remains(PathBuf);

impl Drop for Remains {
    fn drop(&mut self) {
        let killed = end_programs(&self.0);
        if killed > 0 {
            tracing::info!(dir = %self.0.display(), killed, "killed what programs of killed workers had left");
        }
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
        let killed = end_programs(&entry.path());
        if killed > 0 {
            tracing::info!(dir = %entry.path().display(), killed, "killed what programs of a killed run had left");
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

/// Kills what programs of these boxes have left, and what that makes meanwhile; answers how many.
fn end_programs(dir: &Path) -> usize {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let until = Instant::now() + KILL_BOUND;
    let mut all = 0;
    loop {
        let killed = processes().filter(|pid| end_program(*pid, &[dir, &real])).count();
        all += killed;
        if killed == 0 || Instant::now() >= until {
            return all;
        }
        tree::wait(PAUSE);
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Kills it if it is one of these boxes'.
fn end_program(pid: Pid, dirs: &[&Path]) -> bool {
    // What is looked at is then what is killed, whoever gets the number.
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
    is_of(&environment, dirs) && rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}

/// Whether a process with this environment was started in a box below one of these.
fn is_of(environment: &[u8], dirs: &[&Path]) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| {
        let path = variable.strip_prefix(b"HOME=").or_else(|| variable.strip_prefix(b"TMPDIR="));
        let path = path.map(|path| Path::new(OsStr::from_bytes(path)));
        path.is_some_and(|path| dirs.iter().any(|dir| path != *dir && path.starts_with(dir)))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::home("A=b\0HOME=/s/evalmill-a/w0/box-1\0", true)]
    #[case::tmpdir("HOME=/root\0TMPDIR=/s/evalmill-a/w0/box-1/tmp\0", true)]
    #[case::the_directory_itself("HOME=/s/evalmill-a\0", false)]
    #[case::another("HOME=/s/evalmill-ab/w0/box-1\0", false)]
    #[case::mentioned("PWD=/s/evalmill-a/w0/box-1\0XHOME=/s/evalmill-a/w0\0", false)]
    #[case::none("", false)]
    fn whose_processes(#[case] environment: &str, #[case] ours: bool) {
        assert_eq!(is_of(environment.as_bytes(), &[Path::new("/s/evalmill-a")]), ours);
    }

    /// The one that sees that `left` is. What another test starts has our lock until it has executed.
    fn next_after(base: &Path, left: &Path) -> Scratch {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let next = Scratch::create(base).unwrap();
            if !left.exists() {
                return next;
            }
            assert!(Instant::now() < until, "{} stays", left.display());
        }
    }

    #[test]
    fn only_processes_of_what_is_left_are_killed() {
        let base = tempfile::tempdir().unwrap();
        let (living, killed) = (Scratch::create(base.path()).unwrap(), Scratch::create(base.path()).unwrap());
        let start = |scratch: &Scratch| {
            Command::new("sleep").arg("60").env("HOME", scratch.path().join("w0/box-1")).spawn().unwrap()
        };
        let (mut stays, mut goes) = (start(&living), start(&killed));
        let Scratch { _remains, dir, _lock } = killed;
        std::mem::forget(_remains);
        let left = dir.keep();
        drop(_lock);
        let next = next_after(base.path(), &left);
        assert_eq!(goes.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(stays.try_wait().unwrap(), None);
        // With the directory of a living one, its own go.
        drop(living);
        assert_eq!(stays.wait().unwrap().signal(), Some(libc::SIGKILL));
        drop(next);
    }

    #[test]
    fn only_what_is_left_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let living = Scratch::create(base.path()).unwrap();
        let killed = Scratch::create(base.path()).unwrap();
        // As after a SIGKILL: the lock is gone, and the directory is not.
        let Scratch { _remains, dir, _lock } = killed;
        std::mem::forget(_remains);
        let left = dir.keep();
        fs::create_dir_all(left.join("w0/deep/er")).unwrap();
        let other = base.path().join("evalmill-errors");
        fs::create_dir(&other).unwrap();
        assert!(!is_left(&left));
        drop(_lock);
        let next = next_after(base.path(), &left);
        assert!(other.exists() && living.path().exists() && next.path().exists());
        drop((living, next));
        let names: Vec<_> = fs::read_dir(base.path()).unwrap().flatten().map(|entry| entry.path()).collect();
        assert_eq!(names, [other]);
    }
}
