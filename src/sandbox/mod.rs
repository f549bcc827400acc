//! Isolation: which tier is in force, and what it does not cover.
//!
//! So far one tier exists, [`Tier::None`]: sessions, resource limits and timeouts, and no
//! containment. What runs can read and write whatever the service's user can. A setting that asks
//! for more is refused at start: nothing is skipped silently.

pub mod cgroup;

use thiserror::Error;

use crate::config::{Sandbox, Tier};

/// The strongest tier that can be reached so far.
const REACHED: Tier = Tier::None;

/// A tier that is asked for cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{setting} asks for isolation tier \"{asked}\", and \"{reached}\" is the only one that this version has: set it to \"{reached}\" and run untrusted code in a container or a throw-away machine", reached = REACHED.name())]
pub struct TierError {
    /// The setting.
    pub setting: &'static str,
    /// The tier's name.
    pub asked: &'static str,
}

/// The tier that will be in force.
///
/// # Errors
/// A tier is asked for, or required, that cannot be reached.
pub fn reach(settings: &Sandbox) -> Result<Tier, TierError> {
    let asked = [("sandbox.tier", settings.tier.tier()), ("sandbox.require", Some(settings.require))];
    for (setting, tier) in asked {
        if let Some(tier) = tier.filter(|&tier| tier > REACHED) {
            return Err(TierError { setting, asked: tier.name() });
        }
    }
    Ok(REACHED)
}

/// What a person is told once at start, in one line.
#[must_use]
pub fn notice(tier: Tier) -> String {
    format!(
        "isolation tier \"{}\": programs run with this user's rights; time, memory, output and processes are \
         limited, files and network are not contained",
        tier.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, TierChoice};

    #[test]
    fn more_than_there_is_is_refused_by_name() {
        let mut sandbox = Settings::default().sandbox;
        assert_eq!(reach(&sandbox), Ok(Tier::None));
        sandbox.require = Tier::Process;
        let error = reach(&sandbox).unwrap_err().to_string();
        assert!(error.contains("sandbox.require") && error.contains("\"process\""), "{error}");
        sandbox.require = Tier::None;
        sandbox.tier = TierChoice::Full;
        assert!(reach(&sandbox).unwrap_err().to_string().contains("sandbox.tier"));
    }
}
