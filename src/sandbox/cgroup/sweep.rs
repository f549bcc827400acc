//! What is ours, what of it is over, and its end.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::unexpected;

const PREFIX: &str = "evalmill-";

/// Which process of which pid namespace this is, for ever.
pub(super) fn own_name() -> io::Result<String> {
    let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
    let pid = std::process::id();
    let started = started(pid).ok_or_else(|| unexpected("/proc/self/stat"))?;
    Ok(format!("{PREFIX}{namespace}-{pid}-{started}"))
}

/// When a process was started, in ticks since boot; `None`: there is none, or it has ended and nobody has
/// reaped it.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !has_ended)
}

/// Whether the process that this name speaks of is gone; never for a name that is not ours.
fn is_stale(name: &OsStr) -> bool {
    let parts = || {
        let mut parts = name.to_str()?.strip_prefix(PREFIX)?.split('-').map(str::parse::<u64>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let Some((namespace, pid, start)) = parts() else { return false };
    let ours = fs::metadata("/proc/self/ns/pid").is_ok_and(|ours| ours.ino() == namespace);
    ours && u32::try_from(pid).is_ok_and(|pid| started(pid) != Some(start))
}

/// Removes the stale groups in `dir`. `false`: something still runs in one.
pub(super) fn sweep(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return true };
    let stale = entries.flatten().filter(|entry| is_stale(&entry.file_name()));
    stale.map(|entry| remove_empty(&entry.path())).fold(true, |all, one| all & one)
}

fn groups_in(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Removes a group and those in it, as far as nothing runs in them. `false`: it is still in use.
fn remove_empty(dir: &Path) -> bool {
    for group in groups_in(dir) {
        remove_empty(&group);
    }
    // Any other error: it is gone, or there is nothing that we could do; the next start looks again.
    !fs::remove_dir(dir).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

/// As [`remove_empty`], of a worker's group or ours: what still runs there is killed.
pub(super) fn remove(dir: &Path) -> bool {
    remove_empty(dir) || {
        kill(dir);
        false
    }
}

fn kill(dir: &Path) {
    // v2 since 5.14: all at once, whatever they fork meanwhile.
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for group in groups_in(dir) {
        kill(&group);
    }
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sandbox::cgroup::Group;

    #[test]
    fn only_stale_and_empty_groups_are_swept() {
        let Some(place) = Group::new() else { return };
        let own = own_name().unwrap();
        let stale = format!("{}-1", own.rsplit_once('-').unwrap().0);
        for name in [&*own, &stale, "evalmill-own", "docker"] {
            for group in ["w0/init", "w0/job", "w1/job"] {
                fs::create_dir_all(place.path().join(name).join(group)).unwrap();
            }
        }
        let procs = place.path().join(&stale).join("w0/job/cgroup.procs");
        let mut busy =
            Command::new("sh").args(["-c", "echo $$ > \"$0\"; exec sleep 60"]).arg(&procs).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while fs::read_to_string(&procs).unwrap().is_empty() {
            assert!(Instant::now() < until, "the process enters");
            std::thread::yield_now();
        }
        assert!(!sweep(place.path()));
        // As much of it as is empty.
        assert!(procs.exists() && !place.path().join(&stale).join("w1").exists());
        assert!(busy.try_wait().unwrap().is_none());
        assert!(!remove(&place.path().join(&stale)));
        assert!(!busy.wait().unwrap().success(), "it was killed");
        assert!(sweep(place.path()));
        let mut left: Vec<_> = groups_in(place.path()).collect();
        left.sort();
        let mut expected = ["docker", &own, "evalmill-own"].map(|name| place.path().join(name));
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn only_what_is_ours_and_over_is_stale() {
        let own = own_name().unwrap();
        assert!(!is_stale(OsStr::new(&own)));
        let (rest, _) = own.rsplit_once('-').unwrap();
        assert!(is_stale(OsStr::new(&format!("{rest}-1"))));
        let mut ended = Command::new("true").spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while started(ended.id()).is_some() {
            assert!(Instant::now() < until, "a process that waits to be reaped is over");
            std::thread::yield_now();
        }
        ended.wait().unwrap();
        for other in ["docker", "evalmill-own", "evalmill-1-2", "evalmill-x-1-1", "evalmill-1-999999-1"] {
            assert!(!is_stale(OsStr::new(other)), "{other}");
        }
    }
}
