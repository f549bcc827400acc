//! Nothing lost, nothing twice: what was put in, held against what came out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

/// The inputs of one test.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// What was sent, with or without a confirm: without one it may have arrived.
    sent: BTreeSet<String>,
    confirmed: BTreeSet<String>,
}

/// The figures of an audit that found nothing wrong.
#[derive(Debug, PartialEq)]
pub(crate) struct Audit {
    pub(crate) confirmed: usize,
    /// Distinct results.
    pub(crate) results: usize,
    /// Distinct parked inputs.
    pub(crate) parked: usize,
    /// Copies beyond the first of a result or of a parked input.
    pub(crate) duplicates: usize,
}

/// What became of one input.
#[derive(Default)]
struct Outcome {
    /// By `result_id`: the verdicts of its copies.
    results: BTreeMap<String, Vec<String>>,
    parked: usize,
}

impl Ledger {
    /// An input is about to be published.
    pub(crate) fn send(&mut self, id: impl Into<String>) {
        self.sent.insert(id.into());
    }

    /// The broker confirmed it.
    pub(crate) fn confirm(&mut self, id: impl Into<String>) {
        let id = id.into();
        self.sent.insert(id.clone());
        self.confirmed.insert(id);
    }

    /// The ids of what was confirmed.
    pub(crate) fn confirmed(&self) -> impl Iterator<Item = &str> {
        self.confirmed.iter().map(String::as_str)
    }

    /// Holds result bodies and the ids of parked inputs against what was sent. Each confirmed input
    /// must have exactly one `result_id` or be parked; one that was sent and not confirmed may.
    pub(crate) fn audit<R, P>(&self, results: R, parked: P, max_duplicates: usize) -> Result<Audit, String>
    where
        R: IntoIterator<Item: AsRef<[u8]>>,
        P: IntoIterator<Item: Into<String>>,
    {
        let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
        let mut unreadable = Vec::new();
        let mut copies = 0;
        for body in results {
            let body = body.as_ref();
            let value: Value = serde_json::from_slice(body).unwrap_or_default();
            let field = |name: &str| value[name].as_str().map(str::to_owned);
            let (Some(id), Some(result), Some(verdict)) = (field("id"), field("result_id"), field("verdict"))
            else {
                let body = String::from_utf8_lossy(body);
                unreadable.push(body.chars().take(80).collect());
                continue;
            };
            copies += 1;
            outcomes.entry(id).or_default().results.entry(result).or_default().push(verdict);
        }
        for id in parked {
            copies += 1;
            outcomes.entry(id.into()).or_default().parked += 1;
        }

        let mut unexpected = Vec::new();
        let mut several = Vec::new();
        let mut contradictory = Vec::new();
        let mut repeated = Vec::new();
        let (mut distinct, mut parked) = (0, 0);
        for (id, outcome) in &outcomes {
            distinct += outcome.results.len();
            parked += usize::from(outcome.parked > 0);
            let text = outcome.describe(id);
            if !self.sent.contains(id) {
                unexpected.push(text);
                continue;
            }
            if outcome.results.len() + usize::from(outcome.parked > 0) > 1 {
                several.push(text.clone());
            }
            if outcome.results.values().any(|verdicts| verdicts.iter().any(|verdict| *verdict != verdicts[0]))
            {
                contradictory.push(text.clone());
            }
            if outcome.parked > 1 || outcome.results.values().any(|verdicts| verdicts.len() > 1) {
                repeated.push(text);
            }
        }
        let lost: Vec<_> = self.confirmed.iter().filter(|id| !outcomes.contains_key(*id)).cloned().collect();
        let duplicates = copies - distinct - parked;
        if duplicates <= max_duplicates {
            repeated.clear();
        }

        let mut failures = String::new();
        for (what, ids) in [
            ("lost", lost),
            ("unexpected", unexpected),
            ("with more than one outcome", several),
            ("with verdicts that contradict each other", contradictory),
            ("unreadable results", unreadable),
            ("repeated too often", repeated),
        ] {
            list(&mut failures, what, &ids);
        }
        let confirmed = self.confirmed.len();
        if failures.is_empty() {
            return Ok(Audit { confirmed, results: distinct, parked, duplicates });
        }
        Err(format!(
            "{} sent, {confirmed} confirmed; {distinct} results, {parked} parked, \
             {duplicates} duplicates of at most {max_duplicates}{failures}",
            self.sent.len()
        ))
    }

    /// [`Ledger::audit`], which must find nothing wrong.
    #[track_caller]
    pub(crate) fn check<R, P>(&self, results: R, parked: P, max_duplicates: usize) -> Audit
    where
        R: IntoIterator<Item: AsRef<[u8]>>,
        P: IntoIterator<Item: Into<String>>,
    {
        self.audit(results, parked, max_duplicates).unwrap_or_else(|text| panic!("{text}"))
    }
}

impl Outcome {
    fn describe(&self, id: &str) -> String {
        let mut text = id.to_owned();
        for (result, verdicts) in &self.results {
            let _ = write!(text, " {result}={}", verdicts.join(","));
        }
        if self.parked > 0 {
            let _ = write!(text, " parked={}", self.parked);
        }
        text
    }
}

/// One line for each id, up to a number that a person reads.
fn list(text: &mut String, what: &str, ids: &[String]) {
    const SHOWN: usize = 20;
    if ids.is_empty() {
        return;
    }
    let _ = write!(text, "\n{what}: {}", ids.len());
    for id in ids.iter().take(SHOWN) {
        let _ = write!(text, "\n  {id}");
    }
    if ids.len() > SHOWN {
        let _ = write!(text, "\n  … and {} more", ids.len() - SHOWN);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// `"id result verdict"`, or the body itself.
    fn body(row: &str) -> String {
        match row.split(' ').collect::<Vec<_>>()[..] {
            [id, result, verdict] => json!({"id": id, "result_id": result, "verdict": verdict}).to_string(),
            _ => row.to_owned(),
        }
    }

    fn audit(results: &[&str], parked: &[&str], max_duplicates: usize) -> Result<Audit, String> {
        let mut ledger = Ledger::default();
        ledger.confirm("a");
        ledger.confirm("b");
        ledger.send("unsure");
        ledger.audit(results.iter().map(|row| body(row)), parked.iter().copied(), max_duplicates)
    }

    #[rstest]
    #[case::each_has_a_result(&["a 1 passed", "b 2 failed"], &[], 0, (2, 0, 0))]
    #[case::one_is_parked(&["a 1 passed"], &["b"], 0, (1, 1, 0))]
    #[case::the_unsure_one_arrived(&["a 1 passed", "b 2 passed", "unsure 3 passed"], &[], 0, (3, 0, 0))]
    #[case::duplicates_within_the_bound(&["a 1 passed", "a 1 passed"], &["b", "b"], 2, (1, 1, 2))]
    fn nothing_wrong(
        #[case] results: &[&str],
        #[case] parked: &[&str],
        #[case] max_duplicates: usize,
        #[case] (distinct, parked_once, duplicates): (usize, usize, usize),
    ) {
        let expected = Audit { confirmed: 2, results: distinct, parked: parked_once, duplicates };
        assert_eq!(audit(results, parked, max_duplicates), Ok(expected));
    }

    #[rstest]
    #[case::lost(&["a 1 passed"], &[], 9, "lost: 1\n  b")]
    #[case::unexpected_result(&["a 1 passed", "b 2 passed", "x 3 passed"], &[], 9, "unexpected: 1\n  x 3=passed")]
    #[case::unexpected_parked(&["a 1 passed", "b 2 passed"], &["x"], 9, "unexpected: 1\n  x parked=1")]
    #[case::two_results(
        &["a 1 passed", "a 3 passed", "b 2 passed"], &[], 9,
        "with more than one outcome: 1\n  a 1=passed 3=passed"
    )]
    #[case::result_and_parked(
        &["a 1 passed", "b 2 passed"], &["b"], 9,
        "with more than one outcome: 1\n  b 2=passed parked=1"
    )]
    #[case::unsure_twice(
        &["a 1 passed", "b 2 passed", "unsure 3 passed"], &["unsure"], 9,
        "with more than one outcome: 1\n  unsure 3=passed parked=1"
    )]
    #[case::contradiction(
        &["a 1 passed", "a 1 failed", "b 2 passed"], &[], 9,
        "with verdicts that contradict each other: 1\n  a 1=passed,failed"
    )]
    #[case::no_json(&["a 1 passed", "b 2 passed", "oops"], &[], 9, "unreadable results: 1\n  oops")]
    #[case::no_result_id(
        &["a 1 passed", "b 2 passed", r#"{"id":"a"}"#], &[], 9,
        "unreadable results: 1\n  {\"id\":\"a\"}"
    )]
    #[case::too_many_copies(
        &["a 1 passed", "a 1 passed", "b 2 passed"], &[], 0,
        "repeated too often: 1\n  a 1=passed,passed"
    )]
    #[case::parked_too_often(&["a 1 passed"], &["b", "b", "b"], 1, "repeated too often: 1\n  b parked=3")]
    fn wrong(
        #[case] results: &[&str],
        #[case] parked: &[&str],
        #[case] max_duplicates: usize,
        #[case] expected: &str,
    ) {
        let text = audit(results, parked, max_duplicates).unwrap_err();
        let (summary, failures) = text.split_once('\n').unwrap();
        assert_eq!(failures, expected);
        assert!(summary.starts_with("3 sent, 2 confirmed; "), "{summary}");
    }

    #[test]
    fn a_long_list_is_cut() {
        let mut ledger = Ledger::default();
        for i in 0..25 {
            ledger.confirm(format!("{i:02}"));
        }
        let text = ledger.audit([""; 0], [""; 0], 0).unwrap_err();
        assert!(text.ends_with("\n  19\n  … and 5 more"), "{text}");
    }

    #[test]
    #[should_panic = "lost: 1\n  a"]
    fn a_check_fails_with_the_text() {
        let mut ledger = Ledger::default();
        ledger.confirm("a");
        ledger.check([""; 0], [""; 0], 0);
    }
}
