//! Which tier works here: tried once by the launcher, with a worker that is thrown away, and then used for
//! every worker.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions};

use super::inside::Newborn;
use super::packet;
use super::protocol::WorkerPolicy;
use crate::config::{Tier, TierChoice};
use crate::sandbox::cgroup::Cgroups;
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
        let mut missing = Vec::new();
        let mut cgroups = None;
        if matches!(sandbox.choice, TierChoice::Auto | TierChoice::Full) {
            match Cgroups::create() {
                Ok(made) => cgroups = Some(Box::new(made)),
                Err(error) => missing.push(Missing::cgroup(error.to_string())),
            }
        }
        let walls = [walls.clone(), Walls { own_ids: false, ..walls }];
        // An ordinary user, and root without all of its rights, has one id only.
        let mut which = usize::from(!rustix::process::geteuid().is_root());
        while let Some(walls) = walls.get(which) {
            match walls.probe(policy, own, cgroups.as_deref()) {
                None => return Start::Probe,
                Some(Ok(())) => {
                    let tier = if cgroups.is_some() { Tier::Full } else { Tier::Namespaces };
                    missing.retain(|one| tier < Tier::Full && one.layer == Layer::Cgroup);
                    return Start::Ready(Self { tier, missing, walls: Some(walls.clone()), cgroups });
                }
                Some(Err(one)) => {
                    let layer = one.layer;
                    missing.push(one);
                    match (layer, cgroups.take()) {
                        // The same once more, without.
                        (Layer::Cgroup, Some(unusable)) => unusable.end(),
                        (Layer::Ids | Layer::Privileges, kept) => {
                            cgroups = kept;
                            which += 1;
                        }
                        (_, kept) => {
                            cgroups = kept;
                            break;
                        }
                    }
                }
            }
        }
        if let Some(unused) = cgroups {
            unused.end();
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
        Ok(Self { plan: Plan { policy: sandbox.clone(), trees }, own_ids: true })
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
        let (ours, theirs) = packet::pair().map_err(|error| process("a socket", error))?;
        let job = match cgroups.map(|cgroups| cgroups.job(worker)).transpose() {
            Ok(job) => job.map(Box::new),
            Err(error) => return Err(Missing::cgroup(error.to_string())),
        };
        let born = match self.plan.birth(ids) {
            Ok(Some(born)) => born,
            Ok(None) => return Ok(Err(Newborn { plan: self.plan.clone(), ids, control: theirs, job })),
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

    /// Whether all of it works; `None`: this is the throw-away worker.
    fn probe(
        &self,
        policy: &WorkerPolicy,
        own: Pid,
        cgroups: Option<&Cgroups>,
    ) -> Option<Result<(), Missing>> {
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
            _ => Err(ended(format!("did not answer within {:?}", Duration::from_secs(8)))),
        };
        let _ = rustix::process::pidfd_send_signal(&child.born.pidfd, Signal::KILL);
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(child.born.pid), WaitOptions::empty())
        });
        if let Some(cgroups) = cgroups {
            cgroups.remove_soon(PROBE);
        }
        Some(answer)
    }
}
