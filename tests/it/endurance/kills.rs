//! Workers and launchers that are killed at random instants, over a stream of predictions: nothing is lost, nothing
//! comes twice, no verdict is a wrong one, and nothing is left.
//!
//! `EVALMILL_KILLS_SEED` (random) and, for the long version, `EVALMILL_KILLS` (500) are read from the environment.
//! The seed decides what is killed and when; what it meets depends on the machine.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::ChildStdout;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use super::host::Host;
use crate::dice::{self, Dice};
use crate::faults::children;

const WORKERS: usize = 2;
/// Predictions that the service has and has not answered.
const BACKLOG: usize = 64;
/// Kills in a row without a result in between: whoever kills everything again and again may not expect more than
/// `infra_error`.
const IN_A_ROW: u32 = 3;

#[rstest]
fn killed_workers_and_launchers_lose_nothing(#[values("full", "namespaces", "process", "none")] tier: &str) {
    strike(tier, dice::seed("EVALMILL_KILLS_SEED"), 15);
}

#[test]
#[ignore = "minutes of kills: cargo test --release --test it five_hundred_killed_workers -- --ignored --nocapture"]
fn five_hundred_killed_workers() {
    let kills = dice::number("EVALMILL_KILLS").unwrap_or(500);
    strike("full", dice::seed("EVALMILL_KILLS_SEED"), kills);
}

/// What was killed.
#[derive(Debug, Default)]
struct Killed {
    workers: u64,
    launchers: u64,
    /// Workers of a launcher that was killed before.
    orphans: u64,
}

fn strike(tier: &str, seed: u64, kills: u64) {
    let host = Host::new(&format!("kills-{tier}"));
    if tier == "full" && host.strongest() != tier {
        return;
    }
    let again = format!("EVALMILL_KILLS_SEED={seed}");
    eprintln!("kills in tier {tier}: {kills}; again: {again}");
    let mut child = host.start(tier, &["--workers", &WORKERS.to_string()], &[]);
    let pid = child.id();
    let mut input = child.stdin.take().unwrap();
    let output = child.stdout.take().unwrap();
    let (enough, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begun = Instant::now();
    let (killed, asked, results) = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            let mut asked = 0;
            while !enough.load(Ordering::Relaxed) {
                if asked < answered.load(Ordering::Relaxed) + BACKLOG {
                    // A service that has ended is found by what is missing.
                    let _ = writeln!(input, "{}", prediction(asked, &host.mark));
                    asked += 1;
                } else {
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
            drop(input);
            asked
        });
        let reading = scope.spawn(|| read(output, &answered));
        let killed = kill(pid, kills, Dice::new(seed, 0), &answered);
        enough.store(true, Ordering::Relaxed);
        if killed.is_err() {
            child.kill().unwrap();
        }
        (killed, feeding.join().unwrap(), reading.join().unwrap())
    });
    let code = child.wait().unwrap().code();
    let killed = killed.unwrap_or_else(|why| panic!("{why}; again: {again}\n{}", host.said()));
    let told = |why: String| format!("{why}\n{killed:?}; again: {again}\n{}", host.said());
    let lost = audit(asked, &results, tier).unwrap_or_else(|why| panic!("{}", told(why)));
    assert_eq!(code, Some(0), "{}", told(String::new()));
    let all = killed.workers + killed.launchers + killed.orphans;
    assert!(lost * 2 <= all, "{}", told(format!("{lost} lost")));
    let took = begun.elapsed().as_secs_f64();
    eprintln!("{killed:?} in tier {tier}: {asked} predictions, {lost} of them lost twice, {took:.1} s");
    host.ends_clean();
}

/// Of each four programs one ends well, one badly, one by a signal, and one leaves a file that is read back.
fn prediction(number: usize, mark: &str) -> Value {
    let end = ["exit 0", "exit 3", "kill -SEGV $$", "echo $0 > out"][number % 4];
    let nap = number * 7 % 40;
    // The mark is an argument that nobody reads.
    let source = format!("sleep 0.{nap:03}; echo $0; {end}");
    json!({"id": number.to_string(), "prediction": {
        "commands": [{"command": ["sh", "-c", source, number.to_string(), mark]}],
        "tracked_files": ["out"],
    }})
}

fn read(output: ChildStdout, answered: &AtomicUsize) -> Vec<Value> {
    let mut results = Vec::new();
    for line in BufReader::new(output).lines() {
        results.push(serde_json::from_str(&line.unwrap()).unwrap());
        answered.fetch_add(1, Ordering::Relaxed);
    }
    results
}

/// Exactly one result for each prediction, and it is the right one. Answers how many were given up because their
/// worker was lost twice while they ran, which is told, and no verdict on the program.
fn audit(asked: usize, results: &[Value], tier: &str) -> Result<u64, String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut lost = 0;
    for result in results {
        let id = result["id"].as_str().unwrap_or_default().to_owned();
        let number = id.parse().ok().filter(|number: &usize| *number < asked);
        let number = number.ok_or_else(|| format!("nobody asked for this: {result}"))?;
        *seen.entry(id.clone()).or_default() += 1;
        let command = &result["executions"][0]["command_results"][0];
        if command["termination"] == "worker_lost" {
            lost += 1;
            if result["verdict"] != "crashed" {
                return Err(format!("a verdict on what was not seen: {result}"));
            }
            continue;
        }
        let verdict = ["passed", "failed", "crashed", "passed"][number % 4];
        let code = [json!(0), json!(3), Value::Null, json!(0)][number % 4].clone();
        let signal = if number % 4 == 2 { json!(11) } else { Value::Null };
        let said = format!("{id}\n");
        let file = if number % 4 == 3 { json!(said) } else { Value::Null };
        let expected = [json!(verdict), code, signal, json!(said), file, json!(tier)];
        let got = [
            &result["verdict"],
            &command["return_code"],
            &command["signal"],
            &command["stdout"],
            &result["executions"][0]["tracked_files"]["out"],
            &result["worker"]["tier"],
        ];
        if got.into_iter().ne(&expected) {
            return Err(format!("expected {expected:?}: {result}"));
        }
    }
    if seen.len() != asked || results.len() != asked {
        return Err(format!(
            "{asked} predictions, {} results, {} of them distinct",
            results.len(),
            seen.len()
        ));
    }
    Ok(lost)
}

fn kill(service: u32, kills: u64, mut dice: Dice, answered: &AtomicUsize) -> Result<Killed, String> {
    let mut killed = Killed::default();
    // Each worker that was seen and has not ended, with its launcher.
    let mut living: BTreeMap<i32, (i32, OwnedFd)> = BTreeMap::new();
    let (mut progress, mut in_a_row) = ((0, Instant::now()), 0);
    for _ in 0..kills {
        loop {
            std::thread::park_timeout(dice.millis(0, 120));
            let now = answered.load(Ordering::Relaxed);
            if now > progress.0 {
                (progress, in_a_row) = ((now, Instant::now()), 0);
            } else if progress.1.elapsed() > Duration::from_secs(60) {
                return Err(format!("a minute without a result: {killed:?}"));
            }
            // Which tier works is tried at the start; a fault there ends it, with the reason.
            if now == 0 || in_a_row == IN_A_ROW {
                continue;
            }
            let launcher = children(service).into_iter().next();
            for worker in launcher.iter().flat_map(|launcher| children(*launcher as u32)) {
                if let (Some(pidfd), Some(launcher)) = (child_of(worker, launcher), launcher) {
                    living.insert(worker, (launcher, pidfd));
                }
            }
            living.retain(|_, (_, pidfd)| !has_ended(pidfd));
            if dice.index(8) == 0 {
                let pidfd = launcher.and_then(|launcher| child_of(launcher, Some(service as i32)));
                if pidfd.is_some_and(|pidfd| pidfd_send_signal(&pidfd, Signal::KILL).is_ok()) {
                    killed.launchers += 1;
                    in_a_row += 1;
                    break;
                }
            } else if !living.is_empty() {
                let (of, pidfd) = living.values().nth(dice.index(living.len())).unwrap();
                if pidfd_send_signal(pidfd, Signal::KILL).is_ok() {
                    *if Some(*of) == launcher { &mut killed.workers } else { &mut killed.orphans } += 1;
                    in_a_row += 1;
                    break;
                }
            }
        }
    }
    Ok(killed)
}

/// A pidfd of what is a child of `parent`, and not of what has come to have its number.
fn child_of(pid: i32, parent: Option<i32>) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    children(parent? as u32).contains(&pid).then_some(pidfd)
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(1))
}

/// The audit can fail.
#[rstest]
#[case::right(&[(0, "passed", 0, "0\n"), (1, "failed", 3, "1\n")], "")]
#[case::lost(&[(0, "passed", 0, "0\n")], "2 predictions, 1 results")]
#[case::twice(&[(0, "passed", 0, "0\n"), (0, "passed", 0, "0\n")], "1 of them distinct")]
#[case::more(&[(0, "passed", 0, "0\n"), (1, "failed", 3, "1\n"), (1, "failed", 3, "1\n")], "3 results")]
#[case::wrong(&[(0, "passed", 0, "0\n"), (1, "passed", 0, "1\n")], "expected")]
#[case::infra_error(&[(0, "infra_error", 0, ""), (1, "failed", 3, "1\n")], "expected")]
#[case::of_another(&[(0, "passed", 0, "1\n"), (1, "failed", 3, "1\n")], "expected")]
#[case::asked_by_nobody(&[(0, "passed", 0, "0\n"), (5, "failed", 3, "5\n")], "nobody asked")]
fn an_audit(#[case] results: &[(usize, &str, i32, &str)], #[case] finds: &str) {
    let results: Vec<_> = results
        .iter()
        .map(|(number, verdict, code, said)| {
            let command = json!({"return_code": code, "stdout": said, "termination": "exited"});
            json!({
                "id": number.to_string(), "verdict": verdict, "worker": {"tier": "full"},
                "executions": [{"command_results": [command], "tracked_files": {"out": null}}],
            })
        })
        .collect();
    match audit(2, &results, "full") {
        Ok(lost) => assert_eq!((lost, finds), (0, "")),
        Err(why) => assert!(!finds.is_empty() && why.contains(finds), "{why}"),
    }
}
