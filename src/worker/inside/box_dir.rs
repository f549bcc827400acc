//! The box: a fresh directory for each task, and reading tracked files back out of it.
//!
//! Programs own what is in a box, so nothing in it is believed when it is read back: no link is
//! followed at any level, only regular files are opened, and reading is bounded by bytes.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, IFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{shared, wipe};
use crate::worker::protocol::{BoxFile, Close, Tracked};

/// The directory of one worker: `<scratch>/w<id>/`, or in the tier `namespaces` all of
/// [`BOX_DIR`](crate::sandbox::BOX_DIR).
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    dir: OwnedFd,
    /// Where it is to be removed from in the end, and its name there; a sandbox's dies with it, or the launcher
    /// removes it.
    above: Option<(OwnedFd, String)>,
    /// What was in it before the first box.
    kept: Vec<CString>,
    boxes: u64,
    tmp: Option<Tmp>,
}

/// The directory that is `TMPDIR`, kept for the next box where this one has left it alone.
#[derive(Debug)]
struct Tmp {
    name: CString,
    /// As it was made.
    made: Stat,
    flags: IFlags,
}

/// One open box.
#[derive(Debug)]
pub(crate) struct BoxDir {
    /// Absolute path; the working directory of commands.
    pub(crate) path: PathBuf,
    /// `TMPDIR` of commands.
    pub(crate) tmp: PathBuf,
    /// Opened while the box was new, so that a box that was renamed is still found.
    dir: OwnedFd,
}

impl Home {
    /// Makes the directory, and first removes what an earlier run may have left under its name.
    pub(crate) fn new(scratch: &Path, worker: u64) -> io::Result<Self> {
        let name = format!("w{worker}");
        let path = scratch.join(&name);
        let scratch = open_dir(scratch)?;
        wipe::wipe(scratch.as_fd(), &name)?;
        rustix::fs::mkdirat(&scratch, &name, Mode::RWXU)?;
        Ok(Self {
            dir: open_dir(&path)?,
            path,
            above: Some((scratch, name)),
            kept: Vec::new(),
            boxes: 0,
            tmp: None,
        })
    }

    /// Takes a directory that is the worker's alone and ends with it.
    pub(crate) fn whole(path: &Path) -> io::Result<Self> {
        let dir = open_dir(path)?;
        let kept = wipe::names(dir.as_fd())?;
        Ok(Self { dir, path: path.to_path_buf(), above: None, kept, boxes: 0, tmp: None })
    }

    /// Where boxes are made.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A fresh box with these files in it. After an error nothing of the box is left.
    pub(crate) fn open(&mut self, files: &[BoxFile]) -> Result<BoxDir, String> {
        self.boxes += 1;
        let made = self.make(files);
        if made.is_err() {
            self.wipe_boxes().map_err(|error| format!("cannot remove a half-made box: {error}"))?;
        }
        made
    }

    fn make(&mut self, files: &[BoxFile]) -> Result<BoxDir, String> {
        let path = self.path.join(format!("box-{}", self.boxes));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let tmp =
            self.tmp().map_err(|error| format!("{}/tmp-{}: {error}", self.path.display(), self.boxes))?;
        let dir = open_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for file in files {
            check_path(&file.path).map_err(|reason| format!("cannot write {:?}: {reason}", file.path))?;
            let target = path.join(&file.path);
            let parent = target.parent().filter(|parent| *parent != path);
            parent
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::write(&target, &file.content))
                .map_err(|error| format!("cannot write {:?}: {error}", file.path))?;
        }
        Ok(BoxDir { path, tmp, dir })
    }

    fn tmp(&mut self) -> io::Result<PathBuf> {
        let tmp = match &mut self.tmp {
            Some(tmp) => tmp,
            none => {
                let name = CString::new(format!("tmp-{}", self.boxes))?;
                rustix::fs::mkdirat(&self.dir, &name, Mode::RWXU)?;
                let made = open_dir(&self.path.join(OsStr::from_bytes(name.as_bytes())))?;
                let flags = shared::flags(made.as_fd())?;
                none.insert(Tmp { name, made: rustix::fs::fstat(&made)?, flags })
            }
        };
        Ok(self.path.join(OsStr::from_bytes(tmp.name.as_bytes())))
    }

    /// Removes everything that any box has left, renamed or not.
    ///
    /// # Errors
    /// Something cannot be removed, or a program has put another directory in this one's place: the
    /// next box must not be made in it.
    pub(crate) fn wipe_boxes(&mut self) -> io::Result<()> {
        let dir = self.dir.as_fd();
        self.tmp.take_if(|tmp| !tmp.is_untouched(dir));
        let mut kept = self.kept.clone();
        kept.extend(self.tmp.as_ref().map(|tmp| tmp.name.clone()));
        wipe::wipe_contents(dir, &kept)?;
        let (ours, named) = (rustix::fs::fstat(dir)?, fs::symlink_metadata(&self.path)?);
        if (ours.st_dev, ours.st_ino) != (named.dev(), named.ino()) {
            return Err(io::Error::other(format!("{} is not the worker's any more", self.path.display())));
        }
        Ok(())
    }

    /// Removes the worker's directory itself.
    pub(crate) fn wipe(&self) -> io::Result<()> {
        match &self.above {
            Some((scratch, name)) => wipe::wipe(scratch.as_fd(), name),
            None => Ok(()),
        }
    }
}

impl Tmp {
    /// Neither its attributes nor what is in it have changed. A change within the kernel's clock tick
    /// of its making can leave the times alone, so times alone do not answer for its content.
    fn is_untouched(&self, dir: BorrowedFd<'_>) -> bool {
        let identity = |stat: &Stat| {
            (
                stat.st_dev,
                stat.st_ino,
                stat.st_mode,
                stat.st_uid,
                stat.st_gid,
                stat.st_ctime,
                stat.st_ctime_nsec,
                stat.st_mtime,
                stat.st_mtime_nsec,
            )
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(tmp) = rustix::fs::openat(dir, &self.name, flags, Mode::empty()) else { return false };
        rustix::fs::fstat(&tmp).is_ok_and(|now| identity(&now) == identity(&self.made))
            && shared::attributes(tmp.as_fd()).is_ok_and(|attributes| attributes.is_empty())
            && shared::flags(tmp.as_fd()).is_ok_and(|flags| flags == self.flags)
            && wipe::is_empty(tmp.as_fd(), ".", &[]).unwrap_or(false)
    }
}

impl BoxDir {
    /// Every tracked file, in the order asked for.
    pub(crate) fn collect(&self, close: &Close) -> Vec<Tracked> {
        let mut left = close.max_total_bytes;
        let mut one = |path: &String| {
            let cap = close.max_file_bytes.min(left);
            let tracked = self.read(path, cap).unwrap_or_else(|failed| match failed {
                NotRead::Absent => Tracked::Absent,
                NotRead::Because(reason) => Tracked::Refused(reason),
                NotRead::TooLarge(bytes) if bytes > close.max_file_bytes => {
                    Tracked::Refused(format!("{bytes} bytes, the limit is {}", close.max_file_bytes))
                }
                NotRead::TooLarge(bytes) => Tracked::Refused(format!(
                    "{bytes} bytes, and the limit of all tracked files together is {}",
                    close.max_total_bytes
                )),
            });
            if let Tracked::Content(content) = &tracked {
                left = left.saturating_sub(content.len() as u64);
            }
            tracked
        };
        close.tracked.iter().map(&mut one).collect()
    }

    fn read(&self, path: &str, cap: u64) -> Result<Tracked, NotRead> {
        check_path(path).map_err(|reason| NotRead::Because(reason.to_owned()))?;
        // NONBLOCK: opening a FIFO must not wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = match rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), resolve) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(NotRead::Absent),
            Err(Errno::LOOP) => return Err(NotRead::Because("a symbolic link, or behind one".to_owned())),
            Err(Errno::NXIO | Errno::NODEV) => {
                return Err(NotRead::Because("not a regular file".to_owned()));
            }
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(NotRead::Because("not a regular file".to_owned()));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > cap {
            return Err(NotRead::TooLarge(size));
        }
        let mut content = Vec::new();
        File::from(file).take(cap.saturating_add(1)).read_to_end(&mut content)?;
        let read = content.len() as u64;
        if read > cap { Err(NotRead::TooLarge(read)) } else { Ok(Tracked::Content(content)) }
    }
}

enum NotRead {
    Absent,
    TooLarge(u64),
    Because(String),
}

impl From<io::Error> for NotRead {
    fn from(error: io::Error) -> Self {
        Self::Because(error.to_string())
    }
}

/// A relative path that stays in the box and names a file.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the path is empty");
    }
    if path.contains('\0') {
        return Err("the path contains a NUL");
    }
    if path.ends_with('/') {
        return Err("the path names a directory");
    }
    let mut named = false;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir => return Err("the path contains `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("the path is absolute"),
        }
    }
    if named { Ok(()) } else { Err("the path names no file") }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn file(path: &str, content: &str) -> BoxFile {
        BoxFile { path: path.into(), content: content.into() }
    }

    fn close(paths: &[&str]) -> Close {
        Close {
            tracked: paths.iter().map(|path| (*path).to_owned()).collect(),
            max_file_bytes: 10,
            max_total_bytes: 15,
        }
    }

    fn left(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[rstest]
    #[case::untouched(|_: &Path| (), true)]
    #[case::a_file(|tmp: &Path| fs::write(tmp.join("x"), "").unwrap(), false)]
    #[case::other_rights(|tmp: &Path| fs::set_permissions(tmp, fs::Permissions::from_mode(0o500)).unwrap(), false)]
    #[case::an_attribute(|tmp: &Path| rustix::fs::setxattr(tmp, "user.x", b"x", rustix::fs::XattrFlags::empty()).unwrap(), false)]
    #[case::another(|tmp: &Path| { fs::rename(tmp, tmp.with_file_name("y")).unwrap(); fs::create_dir(tmp).unwrap() }, false)]
    #[case::a_link(|tmp: &Path| { fs::remove_dir(tmp).unwrap(); symlink("/etc", tmp).unwrap() }, false)]
    #[case::none(|tmp: &Path| fs::remove_dir(tmp).unwrap(), false)]
    fn only_an_untouched_tmp_is_used_again(#[case] program: fn(&Path), #[case] again: bool) {
        let scratch = tempfile::tempdir().unwrap();
        let mut home = Home::new(scratch.path(), 1).unwrap();
        let first = home.open(&[]).unwrap().tmp;
        program(&first);
        home.wipe_boxes().unwrap();
        let second = home.open(&[]).unwrap().tmp;
        assert_eq!(first == second, again);
        assert_eq!(left(&second), [""; 0]);
        assert_eq!(fs::symlink_metadata(&second).unwrap().permissions().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_directory_in_place_of_the_workers_is_not_used() {
        let scratch = tempfile::tempdir().unwrap();
        let mut home = Home::new(scratch.path(), 1).unwrap();
        home.open(&[]).unwrap();
        fs::rename(scratch.path().join("w1"), scratch.path().join("x")).unwrap();
        fs::create_dir(scratch.path().join("w1")).unwrap();
        let error = home.wipe_boxes().unwrap_err().to_string();
        assert!(error.contains("not the worker's any more"), "{error}");
    }

    #[rstest]
    #[case("../x")]
    #[case("a/../../x")]
    #[case("/etc/x")]
    #[case("")]
    #[case(".")]
    #[case("a\0b")]
    #[case("a/")]
    fn bad_paths_are_refused_and_wiped(#[case] path: &str) {
        let scratch = tempfile::tempdir().unwrap();
        let mut home = Home::new(scratch.path(), 1).unwrap();
        let error = home.open(&[file("good", "x"), file(path, "x")]).unwrap_err();
        assert!(error.contains(&format!("{path:?}")), "{error}");
        assert_eq!(left(&scratch.path().join("w1")), ["tmp-1"]);
    }

    #[test]
    fn the_error_names_the_file_and_the_reason() {
        let scratch = tempfile::tempdir().unwrap();
        let mut home = Home::new(scratch.path(), 1).unwrap();
        let long = "x".repeat(5000);
        let error = home.open(&[file(&long, "")]).unwrap_err();
        assert!(error.contains("xxx") && error.contains("too long"), "{error}");
    }

    #[test]
    fn tracked_files() {
        let scratch = tempfile::tempdir().unwrap();
        let mut home = Home::new(scratch.path(), 7).unwrap();
        let one =
            home.open(&[file("a/b.txt", "0123456789"), file("./c", "big enough"), file("e", "")]).unwrap();
        symlink("/etc/passwd", one.path.join("link")).unwrap();
        symlink("a", one.path.join("dirlink")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, one.path.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        File::create(one.path.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let close = close(&[
            "a/b.txt",
            "c",
            "e",
            "link",
            "dirlink/b.txt",
            "fifo",
            "sparse",
            "a",
            "no",
            "e/x",
            "../w7",
        ]);
        let got = one.collect(&close);
        assert_eq!(got[0], Tracked::Content(b"0123456789".to_vec()));
        assert!(matches!(&got[1], Tracked::Refused(reason) if reason.contains("together is 15")));
        assert_eq!(got[2], Tracked::Content(vec![]));
        assert!(matches!(&got[3], Tracked::Refused(reason) if reason.contains("symbolic link")));
        assert!(matches!(&got[4], Tracked::Refused(reason) if reason.contains("symbolic link")));
        assert_eq!(got[5], Tracked::Refused("not a regular file".into()));
        assert_eq!(got[6], Tracked::Refused("1099511627776 bytes, the limit is 10".into()));
        assert_eq!(got[7], Tracked::Refused("not a regular file".into()));
        assert_eq!(got[8], Tracked::Absent);
        assert_eq!(got[9], Tracked::Absent);
        assert!(matches!(&got[10], Tracked::Refused(_)));
        fs::rename(&one.path, scratch.path().join("w7/elsewhere")).unwrap();
        home.wipe_boxes().unwrap();
        assert_eq!(left(&scratch.path().join("w7")), ["tmp-1"]);
        home.wipe().unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
