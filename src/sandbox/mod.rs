//! Isolation: what a program may see and do, and how that is brought about.
//!
//! Policy is apart from mechanism. [`Policy`] says what is allowed, [`Trees`] finds what has to be shown for
//! it; each mechanism is one small file: namespaces (`birth`), processes born in cgroups ([`clone3`]), ids and capabilities (`ids`), the private root
//! (`root`, `mount_attr`), the network (`net`), the filter of system calls (`seccomp`, `bpf`), rules for files
//! where there are no namespaces ([`landlock`], `process`). [`Plan`] puts them in order. All of it is done once
//! for each worker; commands inherit it, but for the Landlock domain that each of them enters.
//!
//! | tier | what is guaranteed |
//! |---|---|
//! | `full` | as `namespaces`, and the kernel limits and counts memory, processes and CPU time of the whole tree (`cgroup`), files in memory included |
//! | `namespaces` | a program reaches nothing of the host but read-only trees that hold no secret; what it leaves dies with its box; limits of its tree are sampled |
//! | `process` | a program opens read-only trees, its own box and nothing else; it makes no sockets but connected pairs; limits of its tree are sampled, disk only for each file |
//! | `none` | nothing: sessions, resource limits and timeouts |
//!
//! Which tier can be had is tried, not looked up: the launcher makes a throw-away worker and runs the interpreter
//! in it. What cannot be had is a [`Missing`] with what the system said and the remedy; below
//! `sandbox.require` that is an error of start, and nothing is skipped silently.
//!
//! What this does not do:
//! - in the tier `process`: a `/tmp`, `/dev/shm` or loopback interface (so no POSIX semaphores, which
//!   `multiprocessing` needs), files of `/proc` that speak of processes, `/etc/passwd`; a limit of all files together;
//!   hiding that files and processes exist. Programs of an ordinary user are that user: they can change modes,
//!   times and attributes of its files, whose content they can neither read nor write; before Linux 6.12 they can
//!   signal its processes, which is said as a missing layer. Memory of programs is estimated where root lacks
//!   CAP_SYS_PTRACE;
//! - below tier `full`, count what is written to the tmpfs as a program's memory: its size is limited instead;
//! - hide how busy the machine is, the names of the host's devices in `/proc/self/mountinfo` and, in version 1, of its
//!   own groups in `/proc/self/cgroup` (with the launcher's process number), or locks and
//!   watches that programs of several workers put on files of a tree that both see;
//! - drop the supplementary groups of an ordinary user: the kernel does not allow it. No file that
//!   they could open is shown;
//! - with the host's network, keep programs from its loopback services, and before Linux 6.12 from its abstract
//!   sockets;
//! - keep the host's kernel from its own defects.

mod birth;
mod bpf;
pub mod cgroup;
pub mod clone3;
mod enter;
mod ids;
pub mod landlock;
mod missing;
mod mount_attr;
mod net;
mod policy;
mod process;
pub mod room;
mod root;
mod seccomp;
mod shortage;
mod trees;

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{Sandbox, Tier, TierChoice};

pub use birth::Born;
pub use enter::{Entered, Plan, limit_cores};
pub use ids::Ids;
pub use missing::{Layer, Missing};
pub use policy::{BOX_DIR, PROGRAM_ID, Policy};
pub use seccomp::{CommandFilter, SECOND_THREAD};
pub use shortage::{Seen, Shortage, Want};
pub use trees::Trees;

/// A tier that is asked for cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TierError {
    /// A bind is not there: a slip, and no reason to run with less isolation.
    #[error("sandbox.binds: {} does not exist here: make it, or take it out of the list", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
    },
    /// A bind is where boxes have something else, or holds what programs write.
    #[error("sandbox.binds: {} cannot be shown: {why}. Take it out of the list, or name what is needed below it", path.display())]
    NotToShow {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Less is asked for than is required.
    #[error(
        "sandbox.tier = \"{}\" is weaker than sandbox.require{}, which is \"{}\": set sandbox.require to \"{}\", too, where that is meant",
        tier.name(), by(*by_command), least.name(), tier.name()
    )]
    Weaker {
        /// What is asked for.
        tier: Tier,
        /// What is required.
        least: Tier,
        /// By the command, and not by the setting.
        by_command: bool,
    },
    /// This machine does not give it.
    #[error(
        "{setting}{} asks for isolation tier \"{}\", and this machine gives \"{}\". Missing: {}. Or set {setting} to \"{}\"{}",
        by(*by_command), asked.name(), reached.name(), list(missing), reached.name(), at_whose_risk(*reached)
    )]
    Missing {
        /// The setting.
        setting: &'static str,
        /// The tier.
        asked: Tier,
        /// What can be had.
        reached: Tier,
        /// What keeps it from being more.
        missing: Vec<Missing>,
        /// By the command, and not by the setting.
        by_command: bool,
    },
}

fn by(command: bool) -> &'static str {
    if command { " = \"auto\" for this command" } else { "" }
}

fn at_whose_risk(tier: Tier) -> &'static str {
    if tier == Tier::None { " and run untrusted code on a throw-away machine only" } else { "" }
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(". ")
}

/// What is asked for, or the reason why it is known before anything is tried that it cannot be had. `least`:
/// the weakest tier where `sandbox.require` leaves that to the command. `scratch_dir`: where boxes are, or their roots
/// are made.
///
/// # Errors
/// Less is asked for than is required, or a bind cannot be shown.
pub fn wanted(settings: &Sandbox, scratch_dir: &Path, least: Tier) -> Result<Option<Policy>, TierError> {
    let by_command = settings.require == TierChoice::Auto;
    let least = settings.require.tier().unwrap_or(least);
    if let Some(tier) = settings.tier.tier().filter(|tier| *tier < least) {
        return Err(TierError::Weaker { tier, least, by_command });
    }
    if settings.tier == TierChoice::None {
        return Ok(None);
    }
    let binds: Vec<PathBuf> = settings.binds.iter().map(Into::into).collect();
    if let Some(path) = binds.iter().find(|path| !path.exists()) {
        return Err(TierError::Bind { path: path.clone() });
    }
    for path in &binds {
        if let Some(why) = policy::not_to_show(path, scratch_dir) {
            return Err(TierError::NotToShow { path: path.clone(), why });
        }
    }
    Ok(Some(Policy {
        choice: settings.tier,
        binds,
        disk_bytes: settings.disk_mb << 20,
        disk_inodes: settings.disk_inodes,
        network: settings.network,
    }))
}

/// Whether what was reached is enough; `least` as in [`wanted`].
///
/// # Errors
/// It is not; the error says what is missing and how to get it.
pub fn suffices(
    settings: &Sandbox,
    least: Tier,
    reached: Tier,
    missing: &[Missing],
) -> Result<(), TierError> {
    let by_command = settings.require == TierChoice::Auto;
    let asked = [
        ("sandbox.tier", settings.tier.tier(), false),
        ("sandbox.require", Some(settings.require.tier().unwrap_or(least)), by_command),
    ];
    for (setting, asked, by_command) in asked {
        if let Some(asked) = asked.filter(|asked| *asked > reached) {
            return Err(TierError::Missing {
                setting,
                asked,
                reached,
                missing: missing.to_vec(),
                by_command,
            });
        }
    }
    Ok(())
}

/// What a person is told once at start, in one line.
#[must_use]
pub fn notice(tier: Tier, network: bool, missing: &[Missing]) -> String {
    let name = tier.name();
    if tier >= Tier::Namespaces {
        let network = if network { "the host's network" } else { "no network" };
        let mut text = format!(
            "isolation tier \"{name}\": programs see read-only system files, their own box and processes, and {network}"
        );
        for missing in missing {
            let what = match missing.layer {
                Layer::Cgroup => "; their limits are watched, not enforced by the kernel",
                _ => "",
            };
            text.push_str(&format!("{what} (missing {missing})"));
        }
        return text;
    }
    let mut text = if tier == Tier::Process {
        let network = if network { "the host's network" } else { "no network" };
        format!(
            "isolation tier \"{name}\": programs open read-only system files and their own box, nothing else, \
             and have {network}; they can see that other files and processes exist"
        )
    } else {
        format!(
            "isolation tier \"{name}\": programs run with this user's rights; time, memory, output and processes \
             are limited, files and network are not contained"
        )
    };
    if let Some(missing) = missing.first() {
        text.push_str(&format!(" (missing {missing})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    const SCRATCH: &str = "/var/no-such";

    #[test]
    fn more_than_there_is_is_refused_by_name() {
        let mut sandbox = Settings::default().sandbox;
        assert!(wanted(&sandbox, Path::new(SCRATCH), Tier::Process).unwrap().is_some());
        sandbox =
            crate::config::Sandbox { binds: vec!["/no/such/tree".into()], ..Settings::default().sandbox };
        let error = wanted(&sandbox, Path::new(SCRATCH), Tier::Process).unwrap_err().to_string();
        assert!(error.contains("sandbox.binds: /no/such/tree"), "{error}");
        sandbox.binds = vec!["/usr".into(), "/proc".into()];
        let error = wanted(&sandbox, Path::new(SCRATCH), Tier::Process).unwrap_err().to_string();
        assert!(error.contains("sandbox.binds: /proc cannot be shown: boxes have their own"), "{error}");
    }

    #[test]
    fn no_isolation_must_be_written_out() {
        let mut sandbox = Settings::default().sandbox;
        sandbox.tier = TierChoice::None;
        let error = wanted(&sandbox, Path::new(SCRATCH), Tier::Process).unwrap_err().to_string();
        for part in ["sandbox.tier = \"none\"", "\"auto\"", "\"process\"", "set sandbox.require to \"none\""]
        {
            assert!(error.contains(part), "{error}");
        }
        sandbox.require = TierChoice::None;
        assert_eq!(wanted(&sandbox, Path::new(SCRATCH), Tier::Process), Ok(None));
        assert_eq!(suffices(&sandbox, Tier::Process, Tier::None, &[]), Ok(()));
    }

    #[test]
    fn less_than_is_required_names_the_layer_and_the_remedy() {
        let mut sandbox = Settings::default().sandbox;
        let missing =
            [Missing { layer: Layer::Proc, said: "mounting /proc: EPERM".into(), remedy: "do this".into() }];
        let error = suffices(&sandbox, Tier::Namespaces, Tier::Process, &missing).unwrap_err().to_string();
        assert!(error.starts_with("sandbox.require = \"auto\" for this command asks for"), "{error}");
        assert!(error.ends_with("Or set sandbox.require to \"process\""), "{error}");
        assert_eq!(suffices(&sandbox, Tier::Process, Tier::Process, &missing), Ok(()));
        sandbox.require = TierChoice::Namespaces;
        let error = suffices(&sandbox, Tier::Process, Tier::None, &missing).unwrap_err().to_string();
        for part in [
            "sandbox.require asks",
            "proc: mounting /proc: EPERM; do this",
            "\"none\" and",
            "throw-away machine",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(suffices(&sandbox, Tier::Process, Tier::Namespaces, &[]), Ok(()));
    }
}
