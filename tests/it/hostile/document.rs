//! `docs/hostile.md`, from the table.

use std::fmt::Write as _;

use super::Who;
use super::table::{Case, Expected, TIERS};

fn shown(expected: &Expected) -> String {
    let verdict = expected.verdict.as_deref().unwrap_or("passed");
    let ends = expected.ends.as_deref().unwrap_or("exited");
    let mut text = if ends == "exited" { verdict.to_owned() } else { format!("{verdict} ({ends})") };
    let out = expected.out.as_deref().filter(|out| !out.is_empty());
    let bytes = expected.out_bytes.map(|bytes| format!("{bytes} bytes of output"));
    let said = bytes.or(out.map(|out| match out.char_indices().nth(90) {
        Some((end, _)) => format!("`{}…`", &out[..end]),
        None => format!("`{}`", out.replace('\0', "\\0")),
    }));
    let tracked = expected.tracked.as_ref().map(|tracked| format!("`{tracked}`"));
    let next = expected.next.as_ref().map(|next| format!("the next: `{next}`"));
    for part in [said, tracked, next].into_iter().flatten() {
        write!(text, "; {part}").unwrap();
    }
    let limited = expected.limit.as_ref().is_some_and(|limit| !limit.is_empty());
    // A bar would end the cell.
    (if limited { format!("**{text}**") } else { text }).replace('|', "\\|")
}

fn cell(case: &Case, tier: &str) -> String {
    let (root, user) = (shown(&case.expected(tier, Who::Root)), shown(&case.expected(tier, Who::User)));
    if root == user { root } else { format!("root: {root}<br>user: {user}") }
}

/// `docs/hostile.md` as the table has it.
pub(super) fn document(cases: &[Case]) -> String {
    let mut text = "# The hostile suite

Made from `tests/hostile/expectations.toml` by a test, which holds this file against it
(`EVALMILL_HOSTILE_DOC=write cargo test --test it hostile::documented` writes it anew). Every program runs in every
tier that the machine can reach, started by root and by an ordinary user, all of them in one worker; after each a
harmless task must find its box clean. At the end no process, mount, file, cgroup or System V object may be left.

What a tier does not contain stands in bold and is explained below. It is asserted to be so, not skipped. Where
a program could harm the machine because nothing contains it, it only finds out whether it could (`permitted`).
`\"` in a cell: as in the tier to its left.

| # | what it tries | full | namespaces | process | none |
|---|---|---|---|---|---|
"
    .to_owned();
    for case in cases {
        write!(text, "| {} | {} |", case.number, case.tries).unwrap();
        let mut left = String::new();
        for tier in TIERS {
            let cell = cell(case, tier);
            let same = cell == left;
            write!(text, " {} |", if same { "\"" } else { &cell }).unwrap();
            left = cell;
        }
        text.push('\n');
    }
    for tier in TIERS {
        write!(text, "\n## What `{tier}` does not contain\n").unwrap();
        let mut limits: Vec<(String, Vec<u32>)> = Vec::new();
        for case in cases {
            for who in [Who::Root, Who::User] {
                let limit = case.expected(tier, who).limit.unwrap_or_default();
                match limits.iter_mut().find(|(known, _)| *known == limit) {
                    Some((_, numbers)) if numbers.last() == Some(&case.number) => {}
                    Some((_, numbers)) => numbers.push(case.number),
                    None if limit.is_empty() => {}
                    None => limits.push((limit, vec![case.number])),
                }
            }
        }
        for (limit, numbers) in limits {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            writeln!(text, "- {}: {limit}", numbers.join(", ")).unwrap();
        }
    }
    text
}
