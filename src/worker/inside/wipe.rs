//! Removing a tree of any depth and size.
//!
//! Neither recursion nor a descriptor per level: each directory is opened once, its subdirectories
//! are renamed into a flat trash directory beside the root, everything else in it is unlinked, and
//! it is removed. The trash is worked off the same way, so paths never grow. Where a program took the
//! last inode the trash is the directory that the root is in, under names that nobody knows. Symbolic
//! links are unlinked, never followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::path::Arg;

const BUFFER_BYTES: usize = 16 << 10;

/// Removes `name` in `parent`, whatever it is; an absent one is fine.
///
/// # Errors
/// What could not be removed, as the system said it.
pub(crate) fn wipe<P: Arg + Copy>(parent: BorrowedFd<'_>, name: P) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EISDIR is Linux's answer for a directory, EPERM what POSIX wants.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut work = Wipe { parent, trash: None, moved: 0, buffer: Vec::with_capacity(BUFFER_BYTES) };
    work.remove_dir(parent, name)?;
    let mut next = 0;
    while next < work.moved {
        // The trash exists once something was moved into it.
        let Some(trash) = &work.trash else { break };
        let (dir, prefix) = (trash.dir.try_clone()?, trash.prefix.clone());
        while next < work.moved {
            work.remove_dir(dir.as_fd(), format!("{prefix}{next}").as_str())?;
            next += 1;
        }
    }
    if let Some(Trash { made: Some(name), .. }) = work.trash {
        rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Removes everything in `dir` but `kept`, and leaves `dir` itself.
///
/// # Errors
/// As [`wipe`].
pub(crate) fn wipe_contents(dir: BorrowedFd<'_>, kept: &[CString]) -> io::Result<()> {
    let listed = open_dir(dir, ".")?;
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        // In batches: the program may have filled this directory, too.
        let mut entries = RawDir::new(&listed, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if !is_dots(entry.file_name()) && !is_kept(entry.file_name(), kept) {
                names.push(entry.file_name().to_owned());
            }
            if names.len() >= 1024 {
                break;
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        for name in names.drain(..) {
            wipe(dir, name.as_c_str())?;
        }
        rustix::fs::seek(&listed, rustix::fs::SeekFrom::Start(0))?;
    }
}

/// Opens a directory to be removed from.
///
/// # Errors
/// As the system says.
pub(crate) fn open(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

/// What is in `dir`.
///
/// # Errors
/// It cannot be read.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let listed = open_dir(dir, ".")?;
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut entries = RawDir::new(&listed, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !is_dots(entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Whether there is nothing but `kept` in `name`, a directory in `dir`.
///
/// # Errors
/// It cannot be read.
pub(crate) fn is_empty<P: Arg + Copy>(dir: BorrowedFd<'_>, name: P, kept: &[CString]) -> io::Result<bool> {
    let listed = open_dir(dir, name)?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut entries = RawDir::new(&listed, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !is_dots(entry.file_name()) && !is_kept(entry.file_name(), kept) {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Wipe<'a> {
    parent: BorrowedFd<'a>,
    /// Made when the first subdirectory turns up.
    trash: Option<Trash>,
    /// Subdirectories moved so far; each is named by its number.
    moved: u64,
    buffer: Vec<u8>,
}

/// Where subdirectories are moved to.
struct Trash {
    dir: OwnedFd,
    /// Its name, where it was made.
    made: Option<String>,
    /// What names in it begin with.
    prefix: String,
}

impl Wipe<'_> {
    fn remove_dir<P: Arg + Copy>(&mut self, parent: BorrowedFd<'_>, name: P) -> io::Result<()> {
        let dir = open_dir(parent, name)?;
        loop {
            let emptied = self.empty_once(dir.as_fd())?;
            match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) => return Ok(()),
                // Some file systems skip entries of a directory that changes while it is read.
                Err(Errno::NOTEMPTY | Errno::EXIST) if emptied > 0 => {
                    rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(0))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One pass over a directory; answers how many entries left it.
    fn empty_once(&mut self, dir: BorrowedFd<'_>) -> io::Result<u64> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut left = 0;
        {
            let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry?;
                let name = entry.file_name();
                if is_dots(name) {
                    continue;
                }
                let directory = match entry.file_type() {
                    FileType::Directory => true,
                    FileType::Unknown => {
                        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                        FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                    }
                    _ => false,
                };
                if directory {
                    self.move_out(dir, name)?;
                } else {
                    rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                }
                left += 1;
            }
        }
        self.buffer = buffer;
        Ok(left)
    }

    fn move_out(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        // An empty one needs no move.
        if rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        if self.trash.is_none() {
            self.trash = Some(make_trash(self.parent)?);
        }
        let Some(Trash { dir: trash, prefix, .. }) = &self.trash else { return Ok(()) };
        let target = format!("{prefix}{}", self.moved);
        match rustix::fs::renameat(dir, name, trash, &target) {
            // Moving a directory rewrites its `..`, which needs write permission on it.
            Err(Errno::ACCESS) => {
                allow(dir, name)?;
                rustix::fs::renameat(dir, name, trash, &target)?;
            }
            other => other?,
        }
        self.moved += 1;
        Ok(())
    }
}

fn make_trash(parent: BorrowedFd<'_>) -> io::Result<Trash> {
    for number in 0..1000 {
        let name = format!(".trash-{number}");
        match rustix::fs::mkdirat(parent, &name, Mode::RWXU) {
            Ok(()) => {
                let dir = open_dir(parent, name.as_str())?;
                return Ok(Trash { dir, made: Some(name), prefix: String::new() });
            }
            Err(Errno::EXIST) => {}
            Err(Errno::NOSPC | Errno::DQUOT) => return beside(parent),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EXIST.into())
}

/// Moving needs no inode.
fn beside(parent: BorrowedFd<'_>) -> io::Result<Trash> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())?;
    let prefix = format!(".trash-{:032x}-", u128::from_ne_bytes(random));
    Ok(Trash { dir: open_dir(parent, ".")?, made: None, prefix })
}

/// Opens a directory so that its entries can be removed.
fn open_dir<P: Arg + Copy>(parent: BorrowedFd<'_>, name: P) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(parent, name, flags, Mode::empty());
    let dir = match open() {
        Err(Errno::ACCESS) => {
            allow(parent, name)?;
            open()?
        }
        other => other?,
    };
    let mode = rustix::fs::fstat(&dir)?.st_mode;
    if mode & 0o700 != 0o700 {
        rustix::fs::fchmod(&dir, Mode::RWXU)?;
    }
    Ok(dir)
}

/// `chmod u+rwx` of a directory that cannot even be opened, and never of what a link points to.
fn allow<P: Arg>(parent: BorrowedFd<'_>, name: P) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", dir.as_raw_fd()), Mode::RWXU)?;
    Ok(())
}

fn is_kept(name: &CStr, kept: &[CString]) -> bool {
    kept.iter().any(|kept| kept.as_c_str() == name)
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn scratch() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    fn entries(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path()).unwrap().count()
    }

    #[test]
    fn absent_and_plain_file() {
        let (dir, fd) = scratch();
        wipe(fd.as_fd(), "none").unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        wipe(fd.as_fd(), "file").unwrap();
        assert_eq!(entries(&dir), 0);
    }

    #[test]
    fn deep_tree() {
        let (dir, fd) = scratch();
        let mut at = fd.try_clone().unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        rustix::fs::openat(&at, "leaf", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        drop(at);
        wipe(fd.as_fd(), "d").unwrap();
        assert_eq!(entries(&dir), 0);
    }

    #[test]
    fn without_an_inode_for_a_trash() {
        let (dir, fd) = scratch();
        fs::create_dir_all(dir.path().join("root/a/b/c")).unwrap();
        fs::create_dir_all(dir.path().join("root/x/y")).unwrap();
        fs::write(dir.path().join("kept"), "x").unwrap();
        let parent = fd.as_fd();
        let trash = beside(parent).unwrap();
        let mut work =
            Wipe { parent, trash: Some(trash), moved: 0, buffer: Vec::with_capacity(BUFFER_BYTES) };
        work.remove_dir(parent, "root").unwrap();
        assert_eq!((work.moved, entries(&dir)), (2, 3));
        wipe_contents(parent, &[c"kept".to_owned()]).unwrap();
        assert_eq!(entries(&dir), 1);
    }

    #[test]
    fn wide_and_unreadable() {
        let (dir, fd) = scratch();
        for outer in 0..20 {
            let outer = dir.path().join(format!("root/{outer}"));
            for inner in 0..20 {
                let inner = outer.join(inner.to_string());
                fs::create_dir_all(&inner).unwrap();
                for file in 0..5 {
                    fs::write(inner.join(file.to_string()), "x").unwrap();
                }
                fs::set_permissions(&inner, fs::Permissions::from_mode(0o000)).unwrap();
            }
            fs::set_permissions(&outer, fs::Permissions::from_mode(0o100)).unwrap();
        }
        fs::set_permissions(dir.path().join("root"), fs::Permissions::from_mode(0o444)).unwrap();
        wipe(fd.as_fd(), "root").unwrap();
        assert_eq!(entries(&dir), 0);
    }

    #[test]
    fn many_files_in_one_directory() {
        let (dir, fd) = scratch();
        fs::create_dir(dir.path().join("root")).unwrap();
        for file in 0..5000 {
            fs::write(dir.path().join(format!("root/{file}")), "").unwrap();
        }
        wipe(fd.as_fd(), "root").unwrap();
        assert_eq!(entries(&dir), 0);
    }

    #[test]
    fn links_are_not_followed() {
        let (outside, _) = scratch();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let (dir, fd) = scratch();
        fs::create_dir(dir.path().join("root")).unwrap();
        symlink(outside.path(), dir.path().join("root/link")).unwrap();
        symlink(outside.path(), dir.path().join("direct")).unwrap();
        wipe_contents(fd.as_fd(), &[]).unwrap();
        assert_eq!(entries(&dir), 0);
        assert_eq!(entries(&outside), 1);
    }
}
