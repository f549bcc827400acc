//! Which trees are shown: the system's, the interpreter's, and those of the settings.
//!
//! A tree is shown at its own path. Where that path leads over symbolic links outside of any tree
//! that is shown, the links are made again, so that `/bin -> usr/bin` stays a link. The interpreter is asked
//! itself, once, with `-I -S -c`, in the environment that programs get: it is trusted, and what it says
//! is right also for version managers' shims, which are resolved on the way.
//!
//! What this does not do: follow `.pth` files, or find out what extension modules load at run time. A
//! tree below another user's private directory cannot be shown.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::missing::{Layer, Missing};
use super::policy::{Policy, SYSTEM_TREES};

/// Symbolic links followed for one path.
const MAX_LINKS: usize = 40;
/// How long the interpreter may take to answer.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Parts of a prefix that is too wide to be shown as a whole.
const PREFIX_PARTS: [&str; 5] = ["bin", "lib", "lib64", "include", "share"];
/// Answers lines of NUL-free paths: executable, prefixes, standard library, and what is mapped.
const QUESTION: &str = "\
import os, sys
out = [sys.executable]
out += [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.dirname(os.__file__)]
for line in open('/proc/self/maps', 'rb'):
    fields = line.rstrip(b'\\n').split(None, 5)
    if len(fields) == 6 and fields[5].startswith(b'/') and not fields[5].endswith(b' (deleted)'):
        out.append(os.fsdecode(fields[5]))
sys.stdout.buffer.write(b'\\0'.join(os.fsencode(one) for one in out))
";

/// What is shown, and how the interpreter is called inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trees {
    /// Files and directories, none below another; none reached over a link.
    pub(super) binds: BTreeSet<PathBuf>,
    /// Links to be made: path and target.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
    /// The interpreter; the real one where a shim was named.
    pub interpreter: PathBuf,
}

impl Trees {
    /// Finds everything.
    ///
    /// # Errors
    /// The interpreter does not answer.
    pub fn find(policy: &Policy, interpreter: &Path, path: &str) -> Result<Self, Missing> {
        let mut trees = Self::default();
        for tree in SYSTEM_TREES {
            trees.add(Path::new(tree));
        }
        policy.binds.iter().for_each(|bind| trees.add(bind));
        let answer = ask(interpreter, path).map_err(|error| {
            Missing::new(Layer::Interpreter, &format!("{} cannot be asked", interpreter.display()), &error)
        })?;
        trees.add_interpreter(&answer);
        trees.prune();
        Ok(trees)
    }

    fn add_interpreter(&mut self, answer: &[PathBuf]) {
        let (Some(executable), Some(prefixes), Some(mapped)) =
            (answer.first(), answer.get(1..6), answer.get(6..))
        else {
            return;
        };
        self.interpreter.clone_from(executable);
        // Without `site` the interpreter does not know that it belongs to a virtual environment.
        let dirs = executable.ancestors().skip(1).take(2);
        let environment = dirs.filter(|dir| dir.join("pyvenv.cfg").is_file()).map(Path::to_path_buf);
        for prefix in prefixes.iter().cloned().chain(environment) {
            if is_wide(&prefix) {
                PREFIX_PARTS.iter().for_each(|part| self.add(&prefix.join(part)));
            } else {
                self.add(&prefix);
            }
        }
        self.add(executable);
        for file in mapped {
            match file.parent() {
                // A library is found by its short name, a link beside it.
                Some(dir) if !self.covers(file) && !is_wide(dir) => self.add(dir),
                _ => self.add(file),
            }
        }
    }

    /// Shows `path` and what it is a link to; an absent one is passed over.
    fn add(&mut self, path: &Path) {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            match self.step(&path) {
                Some(next) => path = next,
                None => return,
            }
        }
    }

    /// Shows `path`, or makes the first link on it again and answers where that leads.
    fn step(&mut self, path: &Path) -> Option<PathBuf> {
        let mut at = PathBuf::from("/");
        let mut rest = path.components().filter(|part| matches!(part, Component::Normal(_)));
        while let Some(part) = rest.next() {
            at.push(part);
            if self.covers(&at) {
                // Shown with its links; where they lead may not be.
                let real = fs::canonicalize(path).ok()?;
                return (!self.covers(&real)).then_some(real);
            }
            let kind = fs::symlink_metadata(&at).ok()?.file_type();
            if kind.is_symlink() {
                let target = fs::read_link(&at).ok()?;
                let next =
                    resolve(at.parent().unwrap_or(Path::new("/")), &target).join(rest.collect::<PathBuf>());
                self.links.insert(at, target);
                return Some(next);
            }
        }
        // The host's root as a whole is never shown.
        if at.parent().is_some() && fs::symlink_metadata(&at).is_ok() {
            self.binds.insert(at);
        }
        None
    }

    pub(super) fn covers(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.binds.contains(above))
    }

    fn prune(&mut self) {
        let below = |path: &Path, binds: &BTreeSet<PathBuf>| {
            path.ancestors().skip(1).any(|above| binds.contains(above))
        };
        let all = self.binds.clone();
        self.binds.retain(|bind| !below(bind, &all));
        self.links.retain(|link, _| !below(link, &all));
    }
}

/// `target` as seen from `dir`, which is reached over no link.
fn resolve(dir: &Path, target: &Path) -> PathBuf {
    let mut at = if target.is_absolute() { PathBuf::from("/") } else { dir.to_path_buf() };
    for part in target.components() {
        match part {
            Component::ParentDir => {
                at.pop();
            }
            Component::Normal(name) => at.push(name),
            _ => {}
        }
    }
    at
}

/// Whether more than an interpreter is below this: then only parts of it are shown.
fn is_wide(path: &Path) -> bool {
    const WIDE: [&str; 12] =
        ["/", "/etc", "/home", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys", "/tmp", "/var"];
    let home_of_somebody = path.parent() == Some(Path::new("/home"));
    let home = std::env::var_os("HOME").is_some_and(|home| path == Path::new(&home));
    home_of_somebody || home || WIDE.iter().any(|wide| path == Path::new(wide)) || path.join(".ssh").exists()
}

/// What the interpreter says of itself.
fn ask(interpreter: &Path, path: &str) -> io::Result<Vec<PathBuf>> {
    let mut child = Command::new(interpreter)
        .args(["-I", "-S", "-c", QUESTION])
        .env_clear()
        .env("PATH", path)
        .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let until = Instant::now() + ASK_LIMIT;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            // The answer fits into a pipe: it ends without a reader.
            None if Instant::now() < until => std::thread::park_timeout(Duration::from_millis(2)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other(format!("no answer within {ASK_LIMIT:?}")));
            }
        }
    };
    let mut answer = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut answer)?;
    }
    if !status.success() {
        return Err(io::Error::other(format!("it ended with {status}")));
    }
    let paths: Vec<PathBuf> =
        answer.split(|byte| *byte == 0).map(|one| OsString::from_vec(one.to_vec()).into()).collect();
    match paths.first() {
        Some(executable) if executable.is_absolute() && paths.len() >= 6 => Ok(paths),
        _ => Err(io::Error::other("its answer is not the expected one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_outside_of_trees_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("real/bin")).unwrap();
        fs::create_dir_all(root.join("other")).unwrap();
        fs::write(root.join("real/bin/python"), "").unwrap();
        symlink("../real", root.join("other/link")).unwrap();
        symlink(root.join("other/link/bin"), root.join("far")).unwrap();
        let mut trees = Trees::default();
        trees.add(&root.join("far/python"));
        assert_eq!(trees.binds, BTreeSet::from([root.join("real/bin/python")]));
        assert_eq!(
            trees.links,
            BTreeMap::from([
                (root.join("far"), root.join("other/link/bin")),
                (root.join("other/link"), "../real".into())
            ])
        );
        // What covers them makes them unnecessary.
        trees.add(&root);
        trees.prune();
        assert_eq!((trees.binds.len(), trees.links.len()), (1, 0));
        // A link inside of a tree that leads out of it.
        let out = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(out.path()).unwrap();
        symlink(&real, root.join("out")).unwrap();
        trees.add(&root.join("out"));
        assert!(trees.covers(&real));
    }

    #[test]
    fn nothing_is_shown_of_what_is_absent_or_all() {
        let mut trees = Trees::default();
        trees.add(Path::new("/no/such/tree"));
        trees.add(Path::new("/"));
        assert_eq!(trees, Trees::default());
        let dir = tempfile::tempdir().unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        trees.add(&dir.path().join("loop"));
        assert!(trees.binds.is_empty());
    }

    #[test]
    fn wide_directories_are_not_shown_as_a_whole() {
        assert!(
            is_wide(Path::new("/")) && is_wide(Path::new("/root")) && is_wide(Path::new("/home/somebody"))
        );
        assert!(!is_wide(Path::new("/usr")) && !is_wide(Path::new("/root/.pyenv/versions/3.12.1")));
    }
}
