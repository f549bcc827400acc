//! The private root: what of the host is seen, read-only, and one place to write.
//!
//! - The root is a tmpfs, read-only in the end. Bound trees are attached read-only, without setuid and
//!   devices, each in one step: there is no moment at which they can be written.
//! - Directories above them are of this tmpfs and can be traversed, not listed. So a tree below a
//!   private directory is reached, and its neighbours are not there.
//! - One more tmpfs, with a size and a number of inodes, holds all that can be written: the box,
//!   `/tmp` and `/dev/shm` are three directories of it.
//! - A tree of the host's `/tmp`, `/dev/shm` or `/box` is shown there, on what can be written: its outermost
//!   directory is a mount point, which no program can move or remove.
//! - `/proc` is that of the namespace, and shows a program its own processes only.
//! - There is no `/sys`, no terminal, and no device but the five of
//!   [`policy::DEVICES`](super::policy::DEVICES).

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::missing::{Layer, Missing};
use super::mount_attr;
use super::policy::{BOX_DIR, DEVICE_LINKS, DEVICES, MADE_UP_FILES, NETWORK_FILES, PROGRAM_ID, Policy};
use super::trees::Trees;

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// What can be written, and so lies on what was made before.
const WRITABLE: [&str; 3] = ["/tmp", "/dev/shm", BOX_DIR];
/// Where the trees below it are put together.
const ASIDE: &str = "/.aside";
const DEVICE: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
/// A step's own words, and what the system said.
type Step = Result<(), Missing>;

/// Builds the root on the directory `at` of this mount namespace and makes it the process's root.
/// `at` must be outside of all trees that are shown.
///
/// # Errors
/// The first thing that failed.
pub(super) fn enter(policy: &Policy, trees: &Trees, at: &Path) -> Step {
    rustix::process::umask(rustix::fs::Mode::empty());
    let root = Root { policy, trees, at };
    // What is mounted here must not be seen outside, nor the other way round.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    failed("making mounts private", rustix::mount::mount_change("/", private))?;
    root.base()?;
    trees.binds.iter().try_for_each(|tree| root.show(tree))?;
    for (link, target) in &trees.links {
        let link = root.make_room(link)?;
        failed_at("linking", &link, symlink(target, &link))?;
    }
    root.made_up_files()?;
    root.devices()?;
    root.disk()?;
    root.proc()?;
    failed("entering the new root", rustix::process::chdir(at))?;
    failed("pivot_root", rustix::process::pivot_root(".", "."))?;
    // The old root lies on the new one now.
    failed("unmounting the old root", rustix::mount::unmount(".", UnmountFlags::DETACH))?;
    failed("entering the new root", rustix::process::chdir("/"))?;
    failed("making the root read-only", mount_attr::set(CWD, Path::new("/"), READ_ONLY, false))
}

fn failed<E: Into<io::Error>>(what: &str, done: Result<(), E>) -> Step {
    done.map_err(|error| Missing::new(Layer::Root, what, &error.into()))
}

fn failed_at<E: Into<io::Error>>(what: &str, path: &Path, done: Result<(), E>) -> Step {
    done.map_err(|error| Missing::new(Layer::Root, &format!("{what} {}", path.display()), &error.into()))
}

struct Root<'a> {
    policy: &'a Policy,
    trees: &'a Trees,
    /// Where the new root is, seen from the old one.
    at: &'a Path,
}

impl Root<'_> {
    /// A path of the new root, seen from the old one, for what is written while it is made: what is
    /// covered later is made aside.
    fn inside(&self, path: &Path) -> PathBuf {
        let covered = WRITABLE.iter().any(|dir| path != Path::new(dir) && path.starts_with(dir));
        let path =
            if covered { &Path::new(ASIDE).join(path.strip_prefix("/").unwrap_or(path)) } else { path };
        self.at.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn base(&self) -> Step {
        let (flags, options) = (MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755,size=4m,nr_inodes=4096");
        failed("mounting a tmpfs", rustix::mount::mount("tmpfs", self.at, "tmpfs", flags, Some(options)))?;
        for (dir, mode) in [
            ("/etc", 0o755),
            ("/dev", 0o755),
            ("/dev/shm", 0o755),
            ("/proc", 0o555),
            ("/tmp", 0o755),
            (BOX_DIR, 0o755),
        ] {
            let path = self.inside(Path::new(dir));
            // In the order of the list, and with exactly this mode: there is no umask.
            failed_at("making", &path, DirBuilder::new().mode(mode).create(&path))?;
        }
        let aside = self.inside(Path::new(ASIDE));
        failed_at("making", &aside, DirBuilder::new().mode(0o700).create(&aside))?;
        failed("mounting a tmpfs", rustix::mount::mount("tmpfs", &aside, "tmpfs", flags, Some(options)))
    }

    /// The directories above `path`, and its place.
    fn make_room(&self, path: &Path) -> Result<PathBuf, Missing> {
        let path = self.inside(path);
        if let Some(parent) = path.parent() {
            failed_at("making", parent, DirBuilder::new().recursive(true).mode(0o711).create(parent))?;
        }
        Ok(path)
    }

    fn show(&self, source: &Path) -> Step {
        let what = |step: &str| format!("{step} {}", source.display());
        let bad = |step: &str, error: io::Error| Missing::new(Layer::Root, &what(step), &error);
        let target = self.make_room(source)?;
        let kind = fs::symlink_metadata(source).map_err(|error| bad("showing", error))?;
        if kind.is_dir() {
            failed_at("making", &target, DirBuilder::new().recursive(true).mode(0o755).create(&target))?;
        } else {
            failed_at("making", &target, fs::write(&target, ""))?;
        }
        attach(source, &target, READ_ONLY, true).map_err(|error| bad("showing", error))
    }

    fn made_up_files(&self) -> Step {
        let write = |path: &Path, content: &[u8]| -> Step {
            // A tree of the settings goes before.
            if self.trees.covers(path) || self.trees.links.contains_key(path) {
                return Ok(());
            }
            let target = self.inside(path);
            failed_at("writing", &target, fs::write(&target, content))?;
            failed_at("writing", &target, fs::set_permissions(&target, Permissions::from_mode(0o444)))
        };
        MADE_UP_FILES.iter().try_for_each(|(path, content)| write(Path::new(path), content.as_bytes()))?;
        if self.policy.network {
            for path in NETWORK_FILES.iter().map(Path::new) {
                if let Ok(content) = fs::read(path) {
                    let _ = fs::remove_file(self.inside(path));
                    write(path, &content)?;
                }
            }
        }
        Ok(())
    }

    fn devices(&self) -> Step {
        for name in DEVICES {
            let source = Path::new("/dev").join(name);
            let target = self.inside(&source);
            failed_at("making", &target, fs::write(&target, ""))?;
            failed_at("showing", &source, attach(&source, &target, DEVICE, false))?;
        }
        for (name, aim) in DEVICE_LINKS {
            let link = self.inside(&Path::new("/dev").join(name));
            failed_at("linking", &link, symlink(aim, &link))?;
        }
        Ok(())
    }

    fn disk(&self) -> Step {
        let place = self.inside(Path::new(BOX_DIR));
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let options =
            format!("mode=0755,size={},nr_inodes={}", self.policy.disk_bytes, self.policy.disk_inodes);
        let options = std::ffi::CString::new(options).unwrap_or_default();
        failed(
            "mounting a tmpfs",
            rustix::mount::mount("tmpfs", &place, "tmpfs", flags, Some(options.as_c_str())),
        )?;
        let dirs = [("tmp", "/tmp", 0o1777), ("shm", "/dev/shm", 0o1777), ("box", BOX_DIR, 0o700)];
        let mut opened = Vec::new();
        for (name, target, mode) in dirs {
            let dir = place.join(name);
            failed_at("making", &dir, DirBuilder::new().mode(mode).create(&dir))?;
            if mode & 0o1000 == 0 {
                failed_at("giving away", &dir, chown(&dir, Some(PROGRAM_ID), Some(PROGRAM_ID)))?;
            }
            let tree = rustix::mount::open_tree(CWD, &dir, clone_flags(false));
            let tree =
                tree.map_err(|error| Missing::new(Layer::Root, "open_tree of a tmpfs", &error.into()))?;
            opened.push((tree, self.inside(Path::new(target))));
        }
        failed("unmounting a tmpfs", rustix::mount::unmount(&place, UnmountFlags::DETACH))?;
        for (tree, target) in opened {
            failed_at("attaching a tmpfs at", &target, move_to(tree.as_fd(), &target))?;
        }
        WRITABLE.iter().try_for_each(|dir| self.show_aside(Path::new(dir)))?;
        let aside = self.inside(Path::new(ASIDE));
        failed("unmounting a tmpfs", rustix::mount::unmount(&aside, UnmountFlags::DETACH))?;
        failed_at("removing", &aside, fs::remove_dir(&aside))
    }

    /// Shows what was put together for a directory that can be written.
    fn show_aside(&self, dir: &Path) -> Step {
        let aside = self.inside(Path::new(ASIDE)).join(dir.strip_prefix("/").unwrap_or(dir));
        let Ok(entries) = fs::read_dir(&aside) else { return Ok(()) };
        for entry in entries.flatten() {
            let source = entry.path();
            let target = self.at.join(dir.strip_prefix("/").unwrap_or(dir)).join(entry.file_name());
            let made = match entry.file_type() {
                Ok(kind) if kind.is_dir() => DirBuilder::new().mode(0o711).create(&target),
                Ok(kind) if kind.is_symlink() => continue,
                _ => fs::write(&target, ""),
            };
            failed_at("making", &target, made)?;
            failed_at("showing", &target, attach(&source, &target, READ_ONLY, true))?;
        }
        Ok(())
    }

    /// Before the old root is gone: the kernel shows a new `/proc` only to those who see another one
    /// in full.
    fn proc(&self) -> Step {
        let mount = || -> rustix::io::Result<()> {
            let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_set_string(&context, "hidepid", "invisible")?;
            rustix::mount::fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let proc = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
            move_to(proc.as_fd(), &self.inside(Path::new("/proc")))
        };
        mount().map_err(|error| Missing::new(Layer::Proc, "mounting /proc", &error.into()))?;
        // What is there for administrators is read-only whoever the program's user is.
        for name in ["sys", "sysrq-trigger", "irq", "bus", "fs"] {
            let path = self.inside(Path::new("/proc")).join(name);
            match attach(&path, &path, READ_ONLY, false) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Missing::new(Layer::Proc, &format!("making /proc/{name} read-only"), &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Shows `source` at `target`: with its attributes before it is there at all.
fn attach(source: &Path, target: &Path, attributes: u64, recursive: bool) -> io::Result<()> {
    let tree = rustix::mount::open_tree(CWD, source, clone_flags(recursive))?;
    mount_attr::set(tree.as_fd(), Path::new(""), attributes, recursive)?;
    Ok(move_to(tree.as_fd(), target)?)
}

fn move_to(tree: std::os::fd::BorrowedFd<'_>, target: &Path) -> rustix::io::Result<()> {
    rustix::mount::move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
