//! What each tier promises, in one table, and what follows from what was seen.

use serde::Deserialize;

use super::{Check, Outcome};
use crate::config::Tier;

/// Whether `none`, `process`, `namespaces` and `full` promise something.
pub(super) type Promised = [bool; 4];

/// What every tier promises.
pub(super) const ALWAYS: Promised = [true, true, true, true];
/// What is kept from a program wherever there is any wall.
pub(super) const WALLED: Promised = [false, true, true, true];
/// What takes namespaces.
pub(super) const SEPARATE: Promised = [false, false, true, true];
/// What takes everything.
pub(super) const FULL: Promised = [false, false, false, true];

/// Whether `tier` is among them.
pub(super) fn promises(promised: Promised, tier: Tier) -> bool {
    promised[match tier {
        Tier::None => 0,
        Tier::Process => 1,
        Tier::Namespaces => 2,
        Tier::Full => 3,
    }]
}

/// What a probe saw.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Seen {
    /// It got through.
    pub(super) reached: bool,
    /// What the system said, or what was found.
    pub(super) said: String,
}

/// What is wanted of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// It must not get through.
    Refused,
    /// It must.
    Works,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(super) struct Expect {
    pub(super) layer: &'static str,
    /// The probe's name for it.
    pub(super) key: String,
    /// For people.
    pub(super) name: String,
    pub(super) want: Want,
    pub(super) promised: Promised,
}

/// The rows that do not depend on the machine: layer, key, name, what is wanted, who promises it.
const ROWS: &[(&str, &str, &str, Want, Promised)] = &[
    ("root", "read bound", "a bound file is readable", Want::Works, SEPARATE),
    ("root", "write bound", "a bound file that anybody may write is not written", Want::Refused, SEPARATE),
    (
        "root",
        "write outside",
        "no file is made in a host's directory that anybody may write",
        Want::Refused,
        WALLED,
    ),
    ("root", "write box", "a file is made in the box", Want::Works, ALWAYS),
    ("network", "host tcp", "evalmill's listener on 127.0.0.1 is not reached", Want::Refused, WALLED),
    ("network", "host abstract", "evalmill's abstract unix socket is not reached", Want::Refused, SEPARATE),
    ("network", "interfaces", "no interface but the loopback one", Want::Refused, SEPARATE),
    ("network", "loopback", "a program reaches its own server on 127.0.0.1", Want::Works, SEPARATE),
    ("proc", "proc", "no process of others in /proc", Want::Refused, SEPARATE),
    ("proc", "signal", "evalmill's process cannot be sent a signal", Want::Refused, SEPARATE),
    ("privileges", "capabilities", "no capabilities", Want::Refused, WALLED),
    // An ordinary user may not take it from itself; nothing that is executed gains any of it then.
    ("privileges", "bounding set", "no capability that a program could be given", Want::Refused, SEPARATE),
    ("privileges", "new privileges", "no executed program gains privileges", Want::Refused, WALLED),
    ("process", "threads", "threads can be started", Want::Works, ALWAYS),
    ("process", "environment", "no environment variable of evalmill's", Want::Refused, ALWAYS),
    ("process", "list descriptors", "an open descriptor is found by looking", Want::Works, ALWAYS),
    ("process", "descriptors", "no open descriptors beside 0, 1, 2", Want::Refused, ALWAYS),
];

/// Those rows.
pub(super) fn rows() -> Vec<Expect> {
    let row = |&(layer, key, name, want, promised): &(_, &str, &str, _, _)| Expect {
        layer,
        key: key.to_owned(),
        name: name.to_owned(),
        want,
        promised,
    };
    ROWS.iter().map(row).collect()
}

impl Expect {
    /// An attempt that must not get through.
    pub(super) fn refused(layer: &'static str, key: &str, name: String, promised: Promised) -> Self {
        Self { layer, key: key.to_owned(), name, want: Want::Refused, promised }
    }

    /// The verdict. `inside`: what came of it in a box, or why it was not tried; `outside`: the control, where
    /// there can be one: the same attempt, where nothing keeps it from getting through.
    pub(super) fn judge(
        &self,
        tier: Tier,
        inside: Result<&Seen, &str>,
        outside: Option<&Seen>,
    ) -> (Outcome, String) {
        let promised = promises(self.promised, tier);
        let inside = match inside {
            Ok(inside) => inside,
            Err(why) if promised => return (Outcome::Failed, format!("not tried: {why}")),
            Err(why) => return (Outcome::NotReached, why.to_owned()),
        };
        let holds = inside.reached == (self.want == Want::Works);
        if !promised {
            let also = if holds { "; it holds all the same" } else { "" };
            let said = format!("not promised: {}{also}", inside.said);
            return (Outcome::NotReached, said);
        }
        match (holds, outside) {
            (false, _) => (Outcome::Failed, inside.said.clone()),
            (true, Some(outside)) if !outside.reached => {
                (Outcome::NotShown, format!("{}; in the control, too: {}", inside.said, outside.said))
            }
            (true, _) => (Outcome::Ok, inside.said.clone()),
        }
    }
}

impl Check {
    pub(super) fn new(
        layer: &str,
        name: impl Into<String>,
        outcome: Outcome,
        said: impl Into<String>,
    ) -> Self {
        Self { layer: layer.to_owned(), name: name.into(), outcome, said: said.into(), remedy: None }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn seen(reached: bool) -> Seen {
        Seen { reached, said: "x".to_owned() }
    }

    #[rstest]
    #[case::kept_out(Want::Refused, Tier::Namespaces, Some(false), Some(true), Outcome::Ok)]
    #[case::got_through(Want::Refused, Tier::Namespaces, Some(true), Some(true), Outcome::Failed)]
    #[case::could_not_fail(Want::Refused, Tier::Namespaces, Some(false), Some(false), Outcome::NotShown)]
    #[case::not_tried(Want::Refused, Tier::Full, None, Some(true), Outcome::Failed)]
    #[case::nobody_promised(Want::Refused, Tier::Process, Some(true), Some(true), Outcome::NotReached)]
    #[case::nor_tried(Want::Refused, Tier::None, None, None, Outcome::NotReached)]
    #[case::works(Want::Works, Tier::Full, Some(true), Some(true), Outcome::Ok)]
    #[case::does_not(Want::Works, Tier::Full, Some(false), Some(true), Outcome::Failed)]
    fn what_follows(
        #[case] want: Want,
        #[case] tier: Tier,
        #[case] inside: Option<bool>,
        #[case] outside: Option<bool>,
        #[case] outcome: Outcome,
    ) {
        let expect = Expect { want, ..Expect::refused("root", "k", "n".to_owned(), SEPARATE) };
        let (inside, outside) = (inside.map(seen), outside.map(seen));
        assert_eq!(expect.judge(tier, inside.as_ref().ok_or("no answer"), outside.as_ref()).0, outcome);
    }
}
