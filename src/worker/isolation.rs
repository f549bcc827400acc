//! Which tier works here: tried once by the launcher, with a worker that is thrown away, and then used for
//! every worker.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions};

use super::inside::{Newborn, OUTSIDE};
use super::launcher::remove;
use super::packet;
use super::protocol::WorkerPolicy;
use crate::config::{Tier, TierChoice};
use crate::sandbox::cgroup::{Cgroups, WorkerGroups};
use crate::sandbox::{Born, Ids, Layer, Missing, Plan, Policy, Trees};

/// How long the throw-away worker may take.
const PROBE_LIMIT: Timespec = Timespec { tv_sec: 8, tv_nsec: 0 };
/// The number of the throw-away worker; no worker comes to have it.
const PROBE: u64 = u64::MAX;

/// How workers are isolated.
pub(super) struct Isolation {
    /// What was reached.
    pub(super) tier: Tier,
    /// What keeps it from being more.
    pub(super) missing: Vec<Missing>,
    walls: Option<Walls>,
    /// Where programs are counted and limited.
    cgroups: Option<Box<Cgroups>>,
}

#[derive(Clone)]
struct Walls {
    plan: Plan,
    /// Workers have ids of their own.
    own_ids: bool,
}

/// The walls that work and what they lack, or why none do.
type Found = Result<(Walls, Option<Missing>), Vec<Missing>>;

/// What came of trying.
pub(super) enum Start {
    /// This is the launcher.
    Ready(Isolation),
    /// This is the throw-away worker, which has done its work.
    Probe,
}

/// A worker seen from the launcher.
pub(super) struct BornWorker {
    pub(super) born: Born,
    /// Our end of its control socket; it has been let go.
    pub(super) control: OwnedFd,
}

impl Isolation {
    fn none(missing: Vec<Missing>) -> Self {
        Self { tier: Tier::None, missing, walls: None, cgroups: None }
    }

    /// Tries the strongest tier that `policy` asks for.
    pub(super) fn start(policy: &WorkerPolicy, own: Pid) -> Start {
        let Some(sandbox) = &policy.sandbox else { return Start::Ready(Self::none(Vec::new())) };
        let walls = match Walls::new(sandbox, policy) {
            Ok(walls) => walls,
            Err(missing) => return Start::Ready(Self::none(vec![missing])),
        };
        let (mut missing, mut cgroups) = (Vec::new(), None);
        match sandbox.choice {
            TierChoice::Process => missing.push(not_asked_for(Layer::Namespaces, "process")),
            TierChoice::Auto | TierChoice::Full => match Cgroups::create() {
                Ok(made) => cgroups = Some(Box::new(made)),
                Err(error) => missing.push(Missing::cgroup(error.to_string())),
            },
            TierChoice::Namespaces | TierChoice::None => {}
        }
        // Weaker ones than what is asked for are tried, too: the error says what can be had.
        let mut tier = match sandbox.choice {
            TierChoice::Process => Some(Tier::Process),
            _ if cgroups.is_some() => Some(Tier::Full),
            _ => Some(Tier::Namespaces),
        };
        while let Some(trying) = tier {
            match walls.any(trying, policy, own, cgroups.as_deref()) {
                None => return Start::Probe,
                Some(Ok((walls, lacks))) => {
                    // With namespaces, cgroups alone are more.
                    missing.retain(|one: &Missing| trying == Tier::Process || one.layer == Layer::Cgroup);
                    missing.extend(lacks);
                    if trying == Tier::Namespaces && sandbox.choice == TierChoice::Namespaces {
                        missing.push(not_asked_for(Layer::Cgroup, "namespaces"));
                    }
                    missing.sort_by_key(|one| one.layer == Layer::Cgroup);
                    return Start::Ready(Self { tier: trying, missing, walls: Some(walls), cgroups });
                }
                Some(Err(failed)) => {
                    let of_groups = failed.iter().any(|one| one.layer == Layer::Cgroup);
                    missing.extend(failed);
                    tier = match trying {
                        Tier::Full if of_groups => Some(Tier::Namespaces),
                        Tier::Full | Tier::Namespaces => Some(Tier::Process),
                        Tier::Process | Tier::None => None,
                    };
                }
            }
            if let Some(unused) = cgroups.take() {
                unused.end();
            }
        }
        // What keeps it from any tier stands first.
        missing.sort_by_key(|one| one.layer == Layer::Cgroup);
        Start::Ready(Self::none(missing))
    }

    /// Whether nothing is left of a worker that has ended; else to be asked again.
    pub(super) fn forget(&self, worker: u64) -> bool {
        self.cgroups.as_ref().is_none_or(|cgroups| cgroups.remove(worker))
    }

    /// Whether nothing is left of launchers before this one.
    pub(super) fn sweep(&self) -> bool {
        self.cgroups.as_ref().is_none_or(|cgroups| cgroups.sweep())
    }

    /// After the last worker.
    pub(super) fn end(&self) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.end();
        }
    }

    /// Makes a worker behind walls; `None`: workers are made without. In the worker the answer is what it has to do.
    pub(super) fn birth(
        &self,
        own: Pid,
        worker: u64,
    ) -> Option<Result<Result<BornWorker, Newborn>, Missing>> {
        self.walls.as_ref().map(|walls| walls.birth(own, worker, self.cgroups.as_deref()))
    }
}

impl Walls {
    fn new(sandbox: &Policy, policy: &WorkerPolicy) -> Result<Self, Missing> {
        let trees = Trees::find(sandbox, &policy.interpreter, &policy.path)?;
        Ok(Self { plan: Plan { policy: sandbox.clone(), trees, tier: Tier::Namespaces }, own_ids: true })
    }

    /// Tries these walls for `tier`, with ids of the worker's own or without; the first that work, and what
    /// they lack. `None`: this is the throw-away worker.
    fn any(&self, tier: Tier, policy: &WorkerPolicy, own: Pid, cgroups: Option<&Cgroups>) -> Option<Found> {
        let mut failed = Vec::new();
        // An ordinary user, and root without all of its rights, has one id only.
        let first = usize::from(!rustix::process::geteuid().is_root());
        for own_ids in [true, false].into_iter().skip(first) {
            // Cgroups do not change the walls.
            let plan = Plan { tier: tier.min(Tier::Namespaces), ..self.plan.clone() };
            let walls = Self { plan, own_ids };
            match walls.probe(policy, own, cgroups)? {
                Ok(lacks) => return Some(Ok((walls, lacks))),
                Err(one) => {
                    let of_ids = matches!(one.layer, Layer::Ids | Layer::Privileges);
                    failed.push(one);
                    if !of_ids {
                        break;
                    }
                }
            }
        }
        Some(Err(failed))
    }

    fn birth(
        &self,
        own: Pid,
        worker: u64,
        cgroups: Option<&Cgroups>,
    ) -> Result<Result<BornWorker, Newborn>, Missing> {
        let process = |what: &str, error: std::io::Error| Missing {
            layer: Layer::Process,
            said: format!("{what}: {error}"),
            remedy: "look at the limits of open files and memory".to_owned(),
        };
        let ids = if self.own_ids { Ids::own(own, worker) } else { Ids::single()? };
        let ids = if self.plan.tier == Tier::Process { ids.on_host() } else { ids };
        let (ours, theirs) = packet::pair().map_err(|error| process("a socket", error))?;
        let groups = cgroups
            .map(|cgroups| cgroups.worker(worker, ids.host_program()))
            .transpose()
            .map_err(|error| Missing::cgroup(error.to_string()))?;
        let born = match self.plan.birth(ids, groups.as_ref().and_then(WorkerGroups::birthplace)) {
            Ok(Some(born)) => born,
            Ok(None) => {
                return Ok(Err(Newborn { plan: self.plan.clone(), ids, worker, control: theirs, groups }));
            }
            Err(missing) => {
                if let Some(cgroups) = cgroups {
                    cgroups.remove_soon(worker);
                }
                return Err(missing);
            }
        };
        let go = packet::encode(&1u8).map_err(|error| process("a packet", error))?;
        // One that has already ended is found by its pidfd.
        let _ = packet::send(ours.as_fd(), &go, None);
        Ok(Ok(BornWorker { born, control: ours }))
    }

    /// Whether all of it works, and what it lacks; `None`: this is the throw-away worker.
    fn probe(
        &self,
        policy: &WorkerPolicy,
        own: Pid,
        cgroups: Option<&Cgroups>,
    ) -> Option<Result<Option<Missing>, Missing>> {
        let lacks = match self.plan.shortfall(self.own_ids) {
            Ok(lacks) => lacks,
            Err(missing) => return Some(Err(missing)),
        };
        let child = match self.birth(own, PROBE, cgroups) {
            Ok(Ok(child)) => child,
            Ok(Err(newborn)) => {
                newborn.probe(policy.clone());
                return None;
            }
            Err(missing) => return Some(Err(missing)),
        };
        let ended = |said: String| {
            Missing {
            layer: Layer::Process,
            said: format!("the worker that was made to see what works {said}"),
            remedy: "try again on a machine with less load, or set sandbox.tier to \"none\" where nothing is untrusted"
                .to_owned(),
        }
        };
        let answered = poll(&mut [PollFd::new(&child.control, PollFlags::IN)], Some(&PROBE_LIMIT));
        let answer = match answered {
            Ok(1) => match packet::receive::<Result<(), Missing>>(child.control.as_fd()) {
                Ok(Some((answer, _))) => answer,
                Ok(None) => Err(ended("ended without an answer".to_owned())),
                Err(error) => Err(ended(format!("cannot be understood: {error}"))),
            },
            _ => Err(ended(format!("did not answer within {} s", PROBE_LIMIT.tv_sec))),
        };
        let _ = rustix::process::pidfd_send_signal(&child.born.pidfd, Signal::KILL);
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(child.born.pid), WaitOptions::empty())
        });
        if let Some(cgroups) = cgroups {
            cgroups.remove_soon(PROBE);
        }
        if self.plan.tier == Tier::Process {
            remove(&policy.scratch_dir, OUTSIDE);
            remove(&policy.scratch_dir, &format!("w{PROBE}"));
        }
        Some(answer.map(|()| lacks))
    }
}

/// Why a layer that was not tried is not there.
fn not_asked_for(layer: Layer, tier: &str) -> Missing {
    Missing {
        layer,
        said: format!("sandbox.tier asks for \"{tier}\""),
        remedy: "set sandbox.tier to \"auto\"".to_owned(),
    }
}
