//! Users and groups: who is who inside, and what the worker keeps of its capabilities.
//!
//! | | inside | on the host |
//! |---|---|---|
//! | [`Ids::Own`] (root) | 0, for set-up only | the launcher's user |
//! | | 1, the worker | an id of this worker's own |
//! | | 1000, programs | another one |
//! | [`Ids::Single`] (ordinary user) | 1000, worker and programs | the launcher's user |
//!
//! Without a user namespace (tier `process`) there is no inside: [`Ids::Host`] are those of [`Ids::Own`] as the
//! host sees them, [`Ids::Same`] is the launcher's user.
//!
//! The worker makes files as the programs' user: it has that as its file-system id. Nobody is 0
//! after set-up, and programs lose every capability when they are executed.
#![expect(unsafe_code, reason = "setfsuid and setfsgid have no safe interface")]

use std::fs;
use std::io;

use rustix::process::{Gid, Pid, RawGid, RawUid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::missing::{Layer, Missing};
use super::policy::{PROGRAM_ID, WORKER_ID};

/// The first host id of workers: above every range that systemd or `subuid` gives away, below 2³¹.
const FIRST_HOST_ID: u32 = 1_900_000_000;
/// Pairs of host ids for one launcher, and launchers (by process id) before the ranges repeat. Two
/// workers with the same ids share per-user counts of the kernel and nothing else; without namespaces it is
/// Landlock that keeps them apart then.
const PAIRS: u64 = 8192;
const RANGES: u64 = 4096;

/// Ids of a user namespace from which workers can have their own.
const LEAST_RANGE: u32 = 16_384;

/// How ids are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// The worker and its programs have host ids of their own.
    Own {
        /// The first of the two.
        first: u32,
    },
    /// There is one id.
    Single,
    /// As [`Ids::Own`], without a user namespace.
    Host {
        /// The first of the two.
        first: u32,
    },
    /// As [`Ids::Single`], without a user namespace.
    Same,
}

impl Ids {
    /// Ids of their own for this worker of this launcher.
    #[must_use]
    pub fn own(launcher: Pid, worker: u64) -> Self {
        let launcher = u64::try_from(launcher.as_raw_nonzero().get()).unwrap_or(0) % RANGES;
        let pair = launcher * PAIRS + worker % PAIRS;
        Self::Own { first: FIRST_HOST_ID + 2 * u32::try_from(pair).unwrap_or(0) }
    }

    /// Whether [`Ids::Single`] contains: not where the launcher is the host's root. Programs would be that
    /// user, and files of `/proc` that only it may write ask for no capability.
    ///
    /// # Errors
    /// Why not.
    pub fn single() -> Result<Self, Missing> {
        if rustix::process::geteuid().is_root()
            && root_outside(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
        {
            return Err(Missing::said(
                Layer::Ids,
                "root without the right to give workers ids of their own (CAP_SETUID, CAP_SETGID)".to_owned(),
            ));
        }
        Ok(Self::Single)
    }

    /// The same ids where there is no user namespace of the worker's own; others where this is one that does not
    /// have them, as in a container without the host's root.
    #[must_use]
    pub fn on_host(self) -> Self {
        let map = |name: &str| fs::read_to_string(format!("/proc/self/{name}_map")).unwrap_or_default();
        match self {
            Self::Own { first } => Self::Host { first: existing(first, &map("uid"), &map("gid")) },
            Self::Single => Self::Same,
            other => other,
        }
    }

    /// The user and group that a program has to become before it is executed.
    #[must_use]
    pub fn program(self) -> Option<u32> {
        self.both().map(|(_, program)| program)
    }

    /// As whom, in the host's ids, the worker makes files and starts commands; `None`: as the launcher's user.
    #[must_use]
    pub fn host_program(self) -> Option<u32> {
        match self {
            Self::Own { first } | Self::Host { first } => Some(first + 1),
            Self::Single | Self::Same => None,
        }
    }

    /// Worker and program, where they are two.
    fn both(self) -> Option<(u32, u32)> {
        match self {
            Self::Own { .. } => Some((WORKER_ID, PROGRAM_ID)),
            Self::Host { first } => Some((first, first + 1)),
            Self::Single | Self::Same => None,
        }
    }

    /// Whether the kernel counts the processes of programs apart from everybody else's: by their own id, or since
    /// Linux 5.14 by their user namespace.
    #[must_use]
    pub fn counts_processes(self) -> bool {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        match self {
            Self::Own { .. } | Self::Host { .. } => true,
            Self::Single => is_at_least(&release, 5, 14),
            Self::Same => false,
        }
    }

    /// Gives the child its ids; from its parent.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub(super) fn write_maps(self, child: Pid) -> io::Result<()> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let child = child.as_raw_nonzero();
        let write = |file: &str, text: String| fs::write(format!("/proc/{child}/{file}"), text);
        match self {
            Self::Own { first } => {
                let map =
                    |own: u32| format!("0 {own} 1\n{WORKER_ID} {first} 1\n{PROGRAM_ID} {} 1\n", first + 1);
                write("uid_map", map(uid))?;
                write("gid_map", map(gid))
            }
            Self::Single => {
                // Without it the kernel allows an ordinary user no mapping of groups.
                write("setgroups", "deny".to_owned())?;
                write("uid_map", format!("{PROGRAM_ID} {uid} 1\n"))?;
                write("gid_map", format!("{PROGRAM_ID} {gid} 1\n"))
            }
            Self::Host { .. } | Self::Same => Ok(()),
        }
    }

    /// From set-up to work: the worker's ids, and of its capabilities those that it needs.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn drop_privileges(self) -> io::Result<()> {
        let in_namespace = matches!(self, Self::Own { .. } | Self::Single);
        for capability in CapabilitySet::all() {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not have.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                // Nothing that is executed by another user than 0, or with no_new_privs, gets any of it.
                Err(rustix::io::Errno::PERM) if !in_namespace => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Seeing and killing programs, whatever they make of themselves.
        let mut kept = CapabilitySet::KILL | CapabilitySet::SYS_PTRACE;
        let permitted = rustix::thread::capabilities(None)?.permitted;
        match self {
            Self::Own { .. } | Self::Single => {}
            // A container's root seldom has it: then memory of programs is only estimated.
            Self::Host { .. } => kept &= permitted | CapabilitySet::KILL,
            // Programs of root of a user namespace, which is allowed to be that, would keep them.
            Self::Same => kept = CapabilitySet::empty(),
        }
        let both = self.both();
        if let Some((worker, _)) = both {
            // For making a command a program's user.
            kept |= CapabilitySet::SETUID | CapabilitySet::SETGID;
            rustix::thread::set_keep_capabilities(true)?;
            let (uid, gid) = (Uid::from_raw(worker), Gid::from_raw(worker));
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
            rustix::thread::set_keep_capabilities(false)?;
        }
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
        rustix::thread::clear_ambient_capability_set()?;
        if let Some((_, program)) = both {
            set_file_ids(program)?;
        }
        Ok(())
    }
}

/// Whether a kernel release is this one or newer.
fn is_at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

/// `first` if it and the next exist here, else a pair from the middle of what exists, where neither the system's
/// ids nor `nobody` are. Where there is no room it stays as it is, and cannot be had.
fn existing(first: u32, uids: &str, gids: &str) -> u32 {
    let ranges = |map: &str| -> Vec<(u32, u32)> {
        let numbers = |line: &str| -> Vec<u32> {
            line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
        };
        map.lines()
            .filter_map(|line| match numbers(line)[..] {
                [start, _, count] => Some((start, start.saturating_add(count))),
                _ => None,
            })
            .collect()
    };
    let holds = |(start, end): &(u32, u32)| *start <= first && first + 1 < *end;
    let (uids, gids) = (ranges(uids), ranges(gids));
    if uids.iter().any(holds) && gids.iter().any(holds) {
        return first;
    }
    let both = uids.iter().flat_map(|uid| gids.iter().map(move |gid| (uid.0.max(gid.0), uid.1.min(gid.1))));
    let (start, count) = both
        .map(|(start, end)| (start, end.saturating_sub(start)))
        .max_by_key(|one| one.1)
        .unwrap_or_default();
    if count < LEAST_RANGE {
        return first;
    }
    let pair = (first.saturating_sub(FIRST_HOST_ID) / 2) % (count / 4);
    start + count / 4 + 2 * pair
}

/// Whether root of this user namespace is root outside of it, too; unless it is known, it is.
fn root_outside(map: &str) -> bool {
    let lines = map.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let mut outside =
        lines.filter(|line| line.first() == Some(&"0")).filter_map(|line| line.get(1)?.parse::<u32>().ok());
    outside.next().is_none_or(|outside| outside == 0)
}

/// Files are made, opened and removed as this user and group.
fn set_file_ids(id: u32) -> io::Result<()> {
    // These answer the id before, also where they do nothing: asked again, that is the new one.
    // SAFETY: system calls on integers.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsgid, id);
        libc::syscall(libc::SYS_setfsuid, id);
        [libc::syscall(libc::SYS_setfsgid, RawGid::MAX), libc::syscall(libc::SYS_setfsuid, RawUid::MAX)]
    };
    if now == [i64::from(id); 2] { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_host_ids_of_its_own() {
        let pid = |pid| Pid::from_raw(pid).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for launcher in [1, 2, 4095] {
            for worker in [0, 1, 8191] {
                let Ids::Own { first } = Ids::own(pid(launcher), worker) else { panic!("not own") };
                assert!(seen.insert(first) && !seen.contains(&(first + 1)));
                assert!(first > FIRST_HOST_ID && first < i32::MAX.unsigned_abs());
            }
        }
        assert_eq!(Ids::Single.program(), None);
        let host = Ids::Own { first: 5 }.on_host();
        assert_eq!((host.program(), host.counts_processes()), (Some(6), true));
        assert_eq!((Ids::Single.on_host(), Ids::Same.counts_processes()), (Ids::Same, false));
    }

    #[test]
    fn a_container_has_ids_of_its_own() {
        let (all, remapped) = ("0 0 4294967295\n", "0 100000 65536\n");
        assert_eq!(existing(FIRST_HOST_ID + 6, all, all), FIRST_HOST_ID + 6);
        for pair in [0, 3, 16_383, 16_384, 8192 * 4096 - 1] {
            let first = existing(FIRST_HOST_ID + 2 * pair, "0 1000 1\n1 100000 65535\n", remapped);
            assert!((16_384..49_152).contains(&first), "{first}");
        }
        assert_ne!(existing(FIRST_HOST_ID, remapped, all), existing(FIRST_HOST_ID + 2, remapped, all));
        assert_eq!(existing(FIRST_HOST_ID, "0 1000 1\n", "0 1000 1\n"), FIRST_HOST_ID);
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        for (release, newer) in
            [("6.1.0-18-amd64", true), ("5.14", true), ("5.4.0", false), ("5.13.99-x", false), ("", false)]
        {
            assert_eq!(is_at_least(release, 5, 14), newer, "{release}");
        }
    }

    #[test]
    fn root_of_the_host_shares_its_id_with_nobody() {
        assert!(root_outside("         0          0 4294967295\n") && root_outside(""));
        assert!(!root_outside("         0       1000          1\n"));
    }
}
