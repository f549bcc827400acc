//! Boxes without end: nothing grows with their number.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::time::Instant;

use serde_json::{Value, json};

use super::host::{Holds, Host, Machine};

/// How many boxes, between two looks at what is held; a worker is replaced after so many.
struct Plan {
    boxes: usize,
    batch: usize,
    worker_tasks: usize,
}

const WORKERS: usize = 2;

/// More than a resting service may hold of each, compared with what it held when a tenth was done. Figures of the
/// machine have other work in them, and are looked at in the long version only.
mod most {
    /// Descriptors of one process: one that is kept for each worker, or box, makes hundreds.
    pub(super) const DESCRIPTORS: usize = 4;
    /// Memory of our processes. Less than 42 bytes for each of 100,000 boxes.
    pub(super) const MEMORY_KIB: u64 = 4 << 10;
    /// The kernel's for us: 168 bytes for each of 100,000 boxes.
    pub(super) const KERNEL_KIB: u64 = 16 << 10;
    /// All of the kernel's: 520 bytes for each of 100,000 boxes.
    pub(super) const SLAB_MIB: u64 = 50;
    /// A quarter of the workers that the long version makes.
    pub(super) const MEMORY_GROUPS: u64 = 100;
}

#[test]
fn nothing_grows_with_the_boxes() {
    run(&Plan { boxes: 1500, batch: 150, worker_tasks: 50 });
}

#[test]
#[ignore = "minutes of boxes: cargo test --release --test it a_hundred_thousand_boxes -- --ignored --nocapture"]
fn a_hundred_thousand_boxes() {
    let (first, last) = run(&Plan { boxes: 100_000, batch: 2500, worker_tasks: 250 });
    assert!(last.slab_mib <= first.slab_mib + most::SLAB_MIB, "{first:?}, then {last:?}");
    assert!(last.memory_groups <= first.memory_groups + most::MEMORY_GROUPS, "{first:?}, then {last:?}");
    assert!(last.mounts <= first.mounts, "{first:?}, then {last:?}");
}

/// Answers what the machine held when a tenth was done, and in the end.
fn run(plan: &Plan) -> (Machine, Machine) {
    let host = Host::new("boxes");
    let tier = host.strongest();
    let tasks = plan.worker_tasks.to_string();
    let workers = WORKERS.to_string();
    let settings = [("EVALMILL__WORKER__MAX_TASKS_PER_PROCESS", tasks.as_str())];
    let mut child = host.start(tier, &["--workers", &workers], &settings);
    let pid = child.id();
    let mut input = child.stdin.take().unwrap();
    let mut results = BufReader::new(child.stdout.take().unwrap()).lines();
    let row = json!({"prediction": {"commands": [{"command": ["true"]}]}});
    let batch = format!("{row}\n").repeat(plan.batch);
    let (mut seen, mut table) = (Vec::<(Holds, Machine)>::new(), String::from(HEAD));
    let begun = Instant::now();
    for done in (plan.batch..=plan.boxes).step_by(plan.batch) {
        std::thread::scope(|scope| {
            scope.spawn(|| input.write_all(batch.as_bytes()).unwrap());
            for _ in 0..plan.batch {
                let line = results.next().unwrap_or_else(|| panic!("it ended: {}", host.said())).unwrap();
                let result: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(
                    (&result["verdict"], &result["worker"]["tier"]),
                    (&json!("passed"), &json!(tier)),
                    "{line}"
                );
            }
        });
        let (holds, machine) = (host.holds(pid, WORKERS), Machine::now());
        row_of(&mut table, done, begun.elapsed().as_secs_f64(), &holds, machine);
        seen.push((holds, machine));
    }
    drop(input);
    assert!(child.wait().unwrap().success(), "{}", host.said());
    let took = begun.elapsed().as_secs_f64();
    eprintln!("{table}{} boxes in tier {tier}: {took:.1} s, {:.0}/s", plan.boxes, plan.boxes as f64 / took);
    let (first, first_machine) = &seen[plan.boxes / plan.batch / 10];
    for (holds, _) in &seen[plan.boxes / plan.batch / 10..] {
        is_flat(first, holds, &table);
    }
    host.ends_clean();
    (*first_machine, seen.last().unwrap().1)
}

fn is_flat(first: &Holds, later: &Holds, table: &str) {
    for (before, after) in first.descriptors.iter().zip(later.descriptors) {
        assert!(after <= before + most::DESCRIPTORS, "{first:?}, then {later:?}\n{table}");
    }
    let exact = |holds: &Holds| (holds.worker_mounts, holds.mounts, holds.groups, holds.files);
    assert_eq!(exact(later), exact(first), "{table}");
    assert_eq!(later.mounts, 0, "{table}");
    assert!(later.memory_kib <= first.memory_kib + most::MEMORY_KIB, "{first:?}, then {later:?}\n{table}");
    assert!(later.kernel_kib <= first.kernel_kib + most::KERNEL_KIB, "{first:?}, then {later:?}\n{table}");
}

const HEAD: &str = "\
   boxes  seconds  descriptors of supervisor, launcher, worker  mounts of worker, host  groups  files  memory KiB: ours, kernel's  machine: MiB available, slab MiB, memory groups, mounts
";

fn row_of(table: &mut String, done: usize, seconds: f64, holds: &Holds, machine: Machine) {
    let Holds {
        descriptors: [supervisor, launcher, worker],
        worker_mounts,
        mounts,
        groups,
        files,
        memory_kib,
        kernel_kib,
    } = holds;
    let Machine { available_mib, slab_mib, memory_groups, mounts: all_mounts } = machine;
    writeln!(
        table,
        "{done:>8} {seconds:>8.1} {supervisor:>4} {launcher:>3} {worker:>3} {worker_mounts:>3} {mounts} {groups:>3} {files:>3} {memory_kib:>7} {kernel_kib:>7} {available_mib:>7} {slab_mib:>5} {memory_groups:>4} {all_mounts:>3}"
    )
    .unwrap();
}
