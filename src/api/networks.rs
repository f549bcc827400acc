//! Which network programs have, by their processor.

use std::collections::BTreeMap;

use crate::config::{Settings, Tier};
use crate::pipeline::Walls;
use crate::sandbox::Layer;
use crate::worker::{Pools, WorkerError};

/// Who has the host's network.
pub(super) struct Networks {
    /// Programs of processors that are not in `others`.
    pub(super) default: bool,
    /// Processors whose programs have what most have not.
    others: Vec<String>,
}

impl Networks {
    /// `contained`: there are walls that could be open. Without any, there is no telling apart.
    pub(super) fn new(settings: &Settings, contained: bool) -> Self {
        let default = contained && settings.sandbox.network;
        let differs = |name: &&String| contained && settings.network_of(name) != default;
        Self { default, others: settings.processors.keys().filter(differs).cloned().collect() }
    }

    /// The kinds of workers that are wanted, most jobs' first.
    pub(super) fn wanted(&self) -> impl Iterator<Item = bool> {
        [Some(self.default), (!self.others.is_empty()).then_some(!self.default)].into_iter().flatten()
    }

    /// What is said of the others at start, behind what is said of most.
    pub(super) fn notice(&self, pools: &Pools) -> Result<String, WorkerError> {
        if self.others.is_empty() {
            return Ok(String::new());
        }
        let what = if self.default { "no network" } else { "the host's network" };
        let (theirs, most) = (pools.of(!self.default)?.tier(), pools.of(self.default)?.tier());
        // A machine may give namespaces, and none for the network.
        let tier = if theirs == most { String::new() } else { format!(" and tier \"{}\"", theirs.name()) };
        Ok(format!("; but programs of {} have {what}{tier}", self.others.join(", ")))
    }

    /// What programs with this network are behind. One that is open is a layer that is missing.
    pub(super) fn walls(&self, pools: &Pools, network: bool) -> Result<Walls, WorkerError> {
        let pool = pools.of(network)?;
        let mut missing: Vec<_> = pool.missing().iter().map(|one| one.layer).collect();
        if network && pool.tier() > Tier::None {
            missing.push(Layer::Network);
        }
        let missing = missing.into_iter().map(|layer| layer.name().to_owned()).collect();
        Ok(Walls { network, tier: pool.tier().name().to_owned(), missing })
    }

    /// The same for the others.
    pub(super) fn walls_of(&self, pools: &Pools) -> Result<BTreeMap<String, Walls>, WorkerError> {
        self.others.iter().map(|name| Ok((name.clone(), self.walls(pools, !self.default)?))).collect()
    }
}
