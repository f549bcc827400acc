//! Whether the service can do its work, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Where the service is in its life. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Some condition has not held yet.
    Starting,
    /// All conditions held at some time.
    Ready,
    /// It finishes what runs, and takes nothing new.
    Draining,
    /// It has ended.
    Stopped,
}

impl Stage {
    /// The name in `/readyz`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Work can be done now.
    pub ready: bool,
    /// Where the service is in its life.
    pub stage: Stage,
    /// What does not hold, and why; empty when it is ready.
    pub reasons: BTreeMap<&'static str, String>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Why each condition does not hold; `None` when it does.
    conditions: BTreeMap<&'static str, Option<String>>,
}

/// The conditions of readiness and the stage of life. Clones are handles of the same.
#[derive(Debug, Clone)]
pub struct Health(Arc<Mutex<State>>);

impl Health {
    /// Starting: ready once each of these conditions has been set and holds.
    #[must_use]
    pub fn new(conditions: &[&'static str]) -> Self {
        let starting = |name: &&'static str| (*name, Some("starting".to_owned()));
        let conditions = conditions.iter().map(starting).collect();
        Self(Arc::new(Mutex::new(State { stage: Stage::Starting, conditions })))
    }

    /// A condition holds from now on, or does not, for this reason. A new name is a new condition.
    pub fn set(&self, condition: &'static str, state: Result<(), &str>) {
        let mut health = self.lock();
        health.conditions.insert(condition, state.err().map(str::to_owned));
        if health.stage == Stage::Starting && health.conditions.values().all(Option::is_none) {
            health.stage = Stage::Ready;
        }
    }

    /// Nothing new is taken any more: it is not ready again.
    pub fn draining(&self) {
        self.advance(Stage::Draining);
    }

    /// It has ended.
    pub fn stopped(&self) {
        self.advance(Stage::Stopped);
    }

    /// Where the service is in its life.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// Whether work can be done now.
    ///
    /// # Errors
    /// Every condition that does not hold, with its reason; `stage` is one of them from draining on.
    pub fn ready(&self) -> Result<(), BTreeMap<&'static str, String>> {
        let reasons = self.readiness().reasons;
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// The same with the stage, as `/readyz` says it.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let health = self.lock();
        let unmet = health.conditions.iter();
        let mut reasons: BTreeMap<_, _> =
            unmet.filter_map(|(name, reason)| Some((*name, reason.clone()?))).collect();
        let ends = match health.stage {
            Stage::Starting | Stage::Ready => None,
            Stage::Draining => Some("draining: nothing new is taken"),
            Stage::Stopped => Some("stopped"),
        };
        reasons.extend(ends.map(|reason| ("stage", reason.to_owned())));
        Readiness { ready: reasons.is_empty(), stage: health.stage, reasons }
    }

    fn advance(&self, stage: Stage) {
        let mut health = self.lock();
        health.stage = health.stage.max(stage);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(pairs: &[(&'static str, &str)]) -> Result<(), BTreeMap<&'static str, String>> {
        Err(pairs.iter().map(|(name, reason)| (*name, (*reason).to_owned())).collect())
    }

    #[test]
    fn ready_once_every_condition_was_set_and_while_each_holds() {
        let health = Health::new(&["consume", "publish"]);
        assert_eq!(health.ready(), reasons(&[("consume", "starting"), ("publish", "starting")]));
        health.set("consume", Ok(()));
        assert_eq!((health.ready(), health.stage()), (reasons(&[("publish", "starting")]), Stage::Starting));
        health.clone().set("publish", Ok(()));
        assert_eq!((health.ready(), health.stage()), (Ok(()), Stage::Ready));
        health.set("publish", Err("the broker blocks"));
        assert_eq!(
            (health.ready(), health.stage()),
            (reasons(&[("publish", "the broker blocks")]), Stage::Ready)
        );
        health.set("publish", Ok(()));
        assert_eq!(health.ready(), Ok(()));
        health.set("disk", Err("full"));
        assert_eq!(health.ready(), reasons(&[("disk", "full")]));
    }

    #[test]
    fn life_never_goes_back() {
        let health = Health::new(&["consume"]);
        health.draining();
        health.set("consume", Ok(()));
        assert_eq!(health.ready(), reasons(&[("stage", "draining: nothing new is taken")]));
        health.stopped();
        health.draining();
        assert_eq!((health.ready(), health.stage()), (reasons(&[("stage", "stopped")]), Stage::Stopped));
    }

    #[test]
    fn on_the_wire() {
        let health = Health::new(&["consume"]);
        let json = serde_json::to_string(&health.readiness()).unwrap();
        assert_eq!(json, r#"{"ready":false,"stage":"starting","reasons":{"consume":"starting"}}"#);
        for stage in [Stage::Starting, Stage::Ready, Stage::Draining, Stage::Stopped] {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
    }
}
