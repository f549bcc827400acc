//! How many deliveries of one class are taken at once.

use std::time::{Duration, Instant};

/// A suspect whose prediction is running is vouched for at once; one that has not been by then has to be
/// run.
const VERDICT_LIMIT: Duration = Duration::from_secs(2);

/// A message that takes the service down must not take many others with it, and what is given back is
/// counted by the broker as a failed hand-over: so little is taken at first, and after each suspect, and
/// twice as much once all of that has turned out well.
#[derive(Debug)]
pub(super) struct Ramp {
    full: u16,
    size: u16,
    /// Since the last suspect: deliveries that were none, and suspects that did no harm.
    well: u16,
    rest: Rest,
}

/// What becomes of deliveries that came along with a suspect, by consumers that took too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// They are taken as all others are.
    Take,
    /// They wait until it is known whether the suspect does harm, but no longer than this.
    Keep(Instant),
    /// They are given back: the suspect has to run with no other beside it.
    GiveBack,
}

impl Ramp {
    pub(super) fn new(full: u16) -> Self {
        Self { full: full.max(1), size: 1, well: 0, rest: Rest::Take }
    }

    /// So many are taken at once.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn rest(&self) -> Rest {
        self.rest
    }

    /// A delivery that is not suspect; answers how many more to take at once.
    pub(super) fn sound(&mut self) -> u16 {
        self.well = self.well.saturating_add(1);
        if self.well < self.size {
            return 0;
        }
        let more = self.size.min(self.full - self.size);
        self.size += more;
        more
    }

    /// A suspect; answers whether to begin again with one at a time.
    pub(super) fn suspect(&mut self, now: Instant) -> bool {
        let again = self.size > 1;
        (self.size, self.well, self.rest) = (1, 0, Rest::Keep(now + VERDICT_LIMIT));
        again
    }

    /// A suspect does no harm; answers how many more to take at once.
    pub(super) fn vouched(&mut self) -> u16 {
        self.rest = Rest::Take;
        self.sound()
    }

    /// Whether what was kept is to be given back from now on.
    pub(super) fn is_late(&mut self, now: Instant) -> bool {
        let late = matches!(self.rest, Rest::Keep(until) if until <= now);
        if late {
            self.rest = Rest::GiveBack;
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// `.`: a sound delivery, `S`: a suspect, `v`: it is vouched for, `t`: time passes.
    #[rstest]
    #[case::careful_at_first("", 1, Rest::Take)]
    #[case::doubled_when_all_came(".", 2, Rest::Take)]
    #[case("..", 4, Rest::Take)]
    #[case("...", 4, Rest::Take)]
    #[case("....", 8, Rest::Take)]
    #[case::no_more_than_all("..........", 10, Rest::Take)]
    #[case::careful_again("....St", 1, Rest::GiveBack)]
    #[case::once_more("....St.", 2, Rest::GiveBack)]
    #[case::vouched("....Sv", 2, Rest::Take)]
    #[case::one_after_another("SvSvSvSv", 2, Rest::Take)]
    #[case::late_but_vouched("Stv", 2, Rest::Take)]
    #[case::nothing_is_kept_without_a_suspect("..t", 4, Rest::Take)]
    fn what_comes_decides(#[case] comes: &str, #[case] size: u16, #[case] rest: Rest) {
        let mut ramp = Ramp::new(10);
        let (mut now, mut taken) = (Instant::now(), 1);
        for what in comes.chars() {
            match what {
                '.' => taken += ramp.sound(),
                'S' => {
                    assert_eq!(ramp.suspect(now), taken > 1);
                    assert!(!ramp.is_late(now) && matches!(ramp.rest(), Rest::Keep(_)));
                    taken = 1;
                }
                'v' => taken += ramp.vouched(),
                _ => {
                    now += VERDICT_LIMIT;
                    let kept = matches!(ramp.rest(), Rest::Keep(_));
                    assert_eq!((ramp.is_late(now), ramp.is_late(now)), (kept, false));
                }
            }
            assert_eq!(ramp.size(), taken);
        }
        assert_eq!((ramp.size(), ramp.rest()), (size, rest));
    }

    /// Whatever lies between two suspects, few are given back for each that was taken.
    #[test]
    fn what_is_given_back_is_paid_for() {
        let mut ramp = Ramp::new(72);
        for taken in 1..200 {
            ramp.sound();
            assert!(ramp.size() <= 2 * taken);
        }
        assert_eq!(ramp.size(), 72);
    }
}
