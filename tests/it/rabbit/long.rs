//! What takes too long for every test run: see docs/faults.md for the command.

use std::time::Instant;

use serde_json::json;
use tokio::time::sleep;

use super::client::{Client, produce};
use super::ledger::Ledger;
use super::node::Node;
use super::service::{AUDIT, PREFETCH, Service, Stage, WORK, many};
use super::{MINUTE, SECOND};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half a minute of kills: cargo test --test it twenty_kills -- --ignored --nocapture"]
async fn twenty_kills() {
    const INPUTS: usize = 5000;
    const KILLS: usize = 20;
    let vhost = Node::shared().vhost();
    let mut service = Service::start(&vhost.url);
    let mut stage = Stage::new(&vhost).await;
    stage.publish(&many("k", INPUTS, &["true"])).await;
    let begun = Instant::now();
    for kill in 1..=KILLS {
        // Spread over the backlog; each service has done some of it.
        let at = u32::try_from(kill * INPUTS / (KILLS + 1)).unwrap();
        stage.client.wait_for_messages(AUDIT, at, MINUTE).await.unwrap();
        service.kill9();
        service = Service::start(&vhost.url);
    }
    let (audit, _) = stage.audit(&service, INPUTS, KILLS * PREFETCH).await;
    let took = begun.elapsed();
    assert_eq!((audit.results, audit.parked), (INPUTS, 0));
    eprintln!("twenty_kills: {audit:?} in {:.1} s", took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of load: cargo test --release --test it three_hundred_thousand -- --ignored --nocapture"]
async fn three_hundred_thousand() {
    const INPUTS: usize = 300_000;
    const BATCH: usize = 2000;
    /// From here on memory must be flat: caches and buffers are full.
    const SETTLED: usize = 10_000;
    let vhost = Node::shared().vhost();
    let service = Service::start_with(&vhost.url, &[("RABBITMQ__PREFETCH", "256")]);
    let stage = Stage::new(&vhost).await;
    let mut tap = stage.client.results(&["result.#"]).await.unwrap();
    // The queue that keeps everything would only make the broker slower.
    stage.client.channel.queue_delete(AUDIT.into(), Default::default()).await.unwrap();
    let begun = Instant::now();
    let (mut ledger, url) = (Ledger::default(), vhost.url.clone());
    let publishing = async {
        let client = Client::connect(&url).await.unwrap();
        let mut unsure = 0;
        for from in (0..INPUTS).step_by(BATCH) {
            let inputs: Vec<_> = (from..from + BATCH).map(no_op).collect();
            while client.wait_for_queue(WORK, SECOND).await.unwrap() > 2 * BATCH as u32 {
                sleep(SECOND / 50).await;
            }
            unsure += produce(&url, &inputs, &mut ledger, MINUTE).await.unwrap();
        }
        unsure
    };
    let taking = async {
        let (mut results, mut memory) = (Vec::with_capacity(INPUTS), Vec::new());
        while results.len() < INPUTS {
            let result = tap.next(MINUTE).await.unwrap_or_else(|why| panic!("{why:?}\n{}", service.log()));
            let result = result.json();
            let part =
                json!({"id": result["id"], "result_id": result["result_id"], "verdict": result["verdict"]});
            results.push(part.to_string());
            if results.len() % SETTLED == 0 {
                memory.push(resident_kb(service.pid()));
            }
        }
        (results, memory)
    };
    let (unsure, (results, memory)) = tokio::join!(publishing, taking);
    let took = begun.elapsed().as_secs_f64();
    let audit = ledger.check(&results, [""; 0], unsure);
    assert_eq!(audit.results, INPUTS);
    assert!(results.iter().all(|result| result.contains(r#""invalid""#)));
    eprintln!(
        "three_hundred_thousand: {took:.0} s, {:.0} results/s; resident KiB at each {SETTLED}th: {memory:?}",
        INPUTS as f64 / took
    );
    let (first, most) = (memory[0], *memory.iter().max().unwrap());
    assert!(most * 10 <= first * 11, "{first} KiB at the {SETTLED}th result, up to {most} KiB later");
}

/// A prediction of 1.5 KB that has its result at once: nothing is run.
fn no_op(number: usize) -> (String, Vec<u8>) {
    let id = format!("n-{number}");
    let body =
        json!({"id": id, "run": "r", "preprocessor": "nope", "prediction": {"filler": "x".repeat(1400)}});
    (id, body.to_string().into_bytes())
}

/// The memory of the supervisor alone.
fn resident_kb(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
