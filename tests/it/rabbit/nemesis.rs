//! Faults at random, several at a time, for as long as it is given, over a stream of predictions. The
//! seed decides what is done and for how long; what it meets depends on the machine.
//!
//! `EVALMILL_NEMESIS_SECONDS` (20) and `EVALMILL_NEMESIS_SEED` (random) are read from the environment.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use serde_json::json;
use tokio::time::sleep;

use super::broker::Vhost;
use super::client::{Client, Message, produce};
use super::node::Node;
use super::proxy::{Mode, Proxy};
use super::service::{AUDIT, PREFETCH, Service, Stage, WORK, runs, verdicts};
use super::{MINUTE, SECOND};
use crate::dice::{self, Dice};
use crate::support::processes_with;

const PARKING: &str = "evalmill.parking";
const RETRY: &str = "evalmill.retry.default";
/// Predictions that wait in the work queue at most: what is left in the end must be done in the end.
const BACKLOG: u32 = 200;
/// Between two looks at the queues.
const LOOK: Duration = Duration::from_millis(100);
/// The logs of so many services are kept for whoever looks into a failure.
const LOGS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once() {
    let seconds = dice::number("EVALMILL_NEMESIS_SECONDS").unwrap_or(20);
    let seed = dice::seed("EVALMILL_NEMESIS_SEED");
    let again = format!(
        "EVALMILL_NEMESIS_SEED={seed} EVALMILL_NEMESIS_SECONDS={seconds} \
         cargo test --test it nemesis -- --nocapture"
    );
    eprintln!("nemesis: seed {seed}, {seconds} s; again: {again}");
    let story = Arc::new(Story::new());
    // Whatever fails, in whichever part of the harness, has the seed in its text.
    if let Err(panic) = AssertUnwindSafe(play(seed, seconds, &story)).catch_unwind().await {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
        let logs = story.keep_logs(seed);
        panic!(
            "nemesis: seed {seed}: {text}\n\nfaults:\n{}\nlogs of the services: {}\nagain: {again}",
            story.faults(),
            logs.display()
        );
    }
}

async fn play(seed: u64, seconds: u64, story: &Arc<Story>) {
    let node = Arc::new(tokio::task::spawn_blocking(Node::private).await.unwrap());
    let vhost = node.vhost();
    let proxy = Proxy::start(node.port());
    let urls = [proxy.url_for(&vhost), vhost.url.clone()];
    // No other test's processes have this in their command line.
    let nap = format!("0.03{}", std::process::id());
    let mut services = urls.clone().map(|url| start(&url));
    let mut stage = Stage::new(&vhost).await;
    for service in &services {
        service.until("ready", MINUTE, Service::is_ready).await;
    }
    // A quorum queue that is younger is lost by this broker when it is killed.
    sleep(2 * SECOND).await;

    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let seen = Seen::default();
    let produced = async {
        let inputs = publish(&vhost.url, &nap, Dice::new(seed, 0), end, &mut stage, &seen).await;
        (inputs, begun.elapsed())
    };
    let faults = async {
        tokio::join!(
            hurt_services(&mut services, &urls, Dice::new(seed, 1), end, story),
            hurt_link(&proxy, Dice::new(seed, 2), end, story),
            hurt_broker(&node, &vhost, Dice::new(seed, 3), end, story),
        );
        story.tell("all is well again");
    };
    let work = async { tokio::join!(produced, faults) };
    let ((mut inputs, took), ()) = unless_done(work, look(&vhost.url, &seen)).await;

    // Each part has put right what it did; now everything must come to its end by itself.
    for service in &mut services {
        assert!(service.is_running(), "it ended by itself:\n{}", service.log());
        service.until("ready again", MINUTE, Service::is_ready).await;
    }
    stage.reconnect().await;
    let last: Vec<_> = (0..20).map(|i| runs(&format!("ok-last-{i}"), &["true"])).collect();
    stage.publish(&last).await;
    inputs += last.len();
    let (results, parked) = collect(&node, &vhost, &stage, &services).await;
    let bound = story.bound() + stage.unsure;
    let audit = stage.ledger.check(&results, parked.iter().map(Message::input_id), bound);
    let wrong: Vec<_> = results.iter().map(Message::json).filter(|result| !is_right(result)).collect();
    assert!(wrong.is_empty(), "{} wrong verdicts, the first: {}", wrong.len(), wrong[0]);

    for service in services {
        let (code, log) = service.terminate(MINUTE).await;
        assert_eq!(code, Some(0), "{log}");
    }
    let orphans = processes_with(&format!("sleep\0{nap}"));
    assert!(orphans.is_empty(), "programs outlived the services: {orphans:?}");

    let mut once = HashSet::new();
    let distinct: Vec<_> =
        results.into_iter().filter(|result| once.insert(result.input_of_result())).collect();
    let mut table = story.table();
    let mut row = |name: &str, value: String| table += &format!("{name:<28}{value}\n");
    row("inputs", format!("{inputs} in {:.1} s", took.as_secs_f64()));
    row("publishes without a confirm", stage.unsure.to_string());
    row("distinct results", audit.results.to_string());
    for (verdict, count) in verdicts(&distinct) {
        row(&format!("  {verdict}"), count.to_string());
    }
    row("parked", audit.parked.to_string());
    row("duplicates", format!("{} of at most {bound}", audit.duplicates));
    row("longest time without result", format!("{:.1} s", seen.longest.lock().unwrap().as_secs_f64()));
    eprintln!("nemesis: seed {seed}: nothing lost, nothing unexpected\n{table}");
}

/// The first one's value; the second goes on only as long as that takes.
async fn unless_done<T>(work: impl Future<Output = T>, beside: impl Future<Output = ()>) -> T {
    tokio::select! {
        value = work => value,
        () = beside => unreachable!("it looks for ever"),
    }
}

fn start(url: &str) -> Service {
    // A drain that cannot come to its end, because the broker is away, is given up after this.
    Service::start_with(url, &[("RABBITMQ__DRAIN_SECONDS", "10")])
}

/// Whether a result has the verdict that its input was made for.
fn is_right(result: &serde_json::Value) -> bool {
    let kind = result["id"].as_str().unwrap_or_default().split('-').next();
    let verdict = result["verdict"].as_str().unwrap_or_default();
    matches!(
        (kind, verdict),
        (Some("ok" | "nap"), "passed") | (Some("no"), "failed") | (Some("bad"), "invalid")
    )
}

/// Publishes small batches until the end; how many predictions that were.
async fn publish(
    url: &str,
    nap: &str,
    mut dice: Dice,
    end: Instant,
    stage: &mut Stage,
    seen: &Seen,
) -> usize {
    let mut count = 0;
    while Instant::now() < end {
        if seen.waiting.load(Ordering::Relaxed) > BACKLOG {
            sleep(LOOK).await;
            continue;
        }
        let batch: Vec<_> = (0..dice.range(1, 40))
            .map(|_| {
                count += 1;
                match dice.range(0, 20) {
                    0 => {
                        let id = format!("bad-{count}");
                        let body = json!({"id": id, "preprocessor": "nope", "prediction": {}}).to_string();
                        (id, body.into_bytes())
                    }
                    1 => (format!("bad-{count}"), b"{\"id\": ".to_vec()),
                    2..=6 => runs(&format!("no-{count}"), &["false"]),
                    7..=10 => runs(&format!("nap-{count}"), &["sleep", nap]),
                    _ => runs(&format!("ok-{count}"), &["true"]),
                }
            })
            .collect();
        stage.unsure += produce(url, &batch, &mut stage.ledger, 2 * MINUTE).await.unwrap();
    }
    count
}

/// What is seen of the queues from outside.
#[derive(Default)]
struct Seen {
    /// Ready in the work queue.
    waiting: AtomicU32,
    /// The longest time in which no result arrived.
    longest: Mutex<Duration>,
}

/// Looks at the queues, for ever, over whatever happens to the broker.
async fn look(url: &str, seen: &Seen) {
    let (mut results, mut since) = (0, Instant::now());
    loop {
        let Ok(client) = Client::connect(url).await else {
            sleep(LOOK).await;
            continue;
        };
        while let Ok(count) = client.wait_for_queue(AUDIT, SECOND).await
            && let Ok(waiting) = client.wait_for_queue(WORK, SECOND).await
        {
            seen.waiting.store(waiting, Ordering::Relaxed);
            if count > results {
                let silence = since.elapsed();
                let mut longest = seen.longest.lock().unwrap();
                *longest = silence.max(*longest);
                (results, since) = (count, Instant::now());
            }
            sleep(LOOK).await;
        }
    }
}

/// Takes results until each confirmed input has one or is parked, and nothing is left anywhere.
async fn collect(
    node: &Arc<Node>,
    vhost: &Vhost,
    stage: &Stage,
    services: &[Service],
) -> (Vec<Message>, Vec<Message>) {
    let (mut results, mut parked) = (Vec::new(), Vec::new());
    let mut missing: HashSet<String> = stage.ledger.confirmed().map(str::to_owned).collect();
    // What was accepted while faults came and went is at most the backlog; this is ample.
    let end = Instant::now() + 2 * MINUTE;
    let mut quiet = Instant::now();
    loop {
        let (new, put_aside) =
            (stage.client.drain(AUDIT).await.unwrap(), stage.client.drain(PARKING).await.unwrap());
        let done = new.iter().map(Message::input_of_result).chain(put_aside.iter().map(Message::input_id));
        let before = missing.len();
        done.for_each(|id| drop(missing.take(&id)));
        if missing.len() < before {
            quiet = Instant::now();
        }
        results.extend(new);
        parked.extend(put_aside);
        if missing.is_empty() || quiet.elapsed() > 5 * SECOND {
            let left = left(node, vhost).await;
            // With nothing left anywhere, what is missing is lost: the ledger says so.
            if [WORK, RETRY, AUDIT, PARKING].iter().all(|queue| left.get(*queue) == Some(&0)) {
                return (results, parked);
            }
            let count = missing.len();
            assert!(
                Instant::now() < end,
                "it does not drain: {count} inputs have no result, left: {left:?}\n{}",
                logs(services)
            );
        }
        sleep(LOOK).await;
    }
}

/// Messages by queue, those that a service holds included.
async fn left(node: &Arc<Node>, vhost: &Vhost) -> HashMap<String, u64> {
    let (node, name) = (Arc::clone(node), vhost.name.clone());
    let list = move || node.ctl(&["list_queues", "-p", &name, "name", "messages", "--no-table-headers"]);
    let text = tokio::task::spawn_blocking(list).await.unwrap();
    let row = |line: &str| {
        let (name, count) = line.split_once('\t')?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

fn logs(services: &[Service]) -> String {
    services.iter().map(Service::log).collect::<Vec<_>>().join("\n----\n")
}

/// Kills services, their workers and their launchers, and ends services in order.
async fn hurt_services(
    services: &mut [Service; 2],
    urls: &[String; 2],
    mut dice: Dice,
    end: Instant,
    story: &Story,
) {
    const NAMES: [&str; 2] = ["behind the proxy", "direct"];
    while dice.pause(end, 200, 2500).await {
        let which = dice.index(2);
        let (kind, later) = (dice.range(0, 8), dice.millis(0, 800));
        let service = &mut services[which];
        assert!(service.is_running(), "it ended by itself:\n{}", service.log());
        match kind {
            0..=2 => {
                let killed = std::mem::replace(service, start(&urls[which]));
                // It is replaced at once or a moment before it is gone: both happen.
                story.fault("SIGKILL of a service", NAMES[which], PREFETCH);
                sleep(later).await;
                story.log(killed.log());
                killed.kill9();
            }
            3..=4 => {
                let twice = kind == 4;
                let what = if twice { "SIGTERM twice" } else { "SIGTERM of a service" };
                story.fault(what, NAMES[which], PREFETCH);
                let ended = std::mem::replace(service, start(&urls[which]));
                if twice {
                    ended.signal_term();
                    sleep(later).await;
                }
                let (code, log) = ended.terminate(MINUTE).await;
                // Given up (143) only where it was told so, or the broker did not take what was done.
                assert!(matches!(code, Some(0 | 143)), "{code:?}\n{log}");
                story.tell(&format!("  it ended with {code:?}"));
                story.log(log);
            }
            _ => {
                let launchers = children(service.pid(), "evalmill-launch");
                let workers = launchers.iter().flat_map(|pid| children(*pid, "evalmill-worker")).collect();
                let (what, pids): (_, Vec<i32>) = if kind == 5 {
                    ("SIGKILL of a launcher", launchers)
                } else {
                    ("SIGKILL of a worker", workers)
                };
                // There is none for a moment after a start or another kill.
                if !pids.is_empty() {
                    story.fault(what, NAMES[which], PREFETCH);
                    kill(pids[dice.index(pids.len())]);
                }
            }
        }
    }
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // It may be gone already.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// The children of a process that have this name.
fn children(parent: i32, name: &str) -> Vec<i32> {
    let stat = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, rest) = text.rsplit_once(") ")?;
        let (_, comm) = head.split_once('(')?;
        let its: i32 = rest.split(' ').nth(1)?.parse().ok()?;
        (its == parent && comm == name).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(stat).collect()
}

/// Does to the link of one service what networks do.
async fn hurt_link(proxy: &Proxy, mut dice: Dice, end: Instant, story: &Story) {
    while dice.pause(end, 300, 3000).await {
        // Heartbeats are 2 s apart: some of these are seen, some are over before.
        let (kind, hold) = (dice.range(0, 9), dice.millis(200, 6000));
        let (what, mode) = match kind {
            0 => ("blackhole", Mode::Blackhole),
            1 => ("blackhole to the broker", Mode::BlackholeToBroker),
            2 => ("blackhole to the service", Mode::BlackholeToClient),
            3 => ("stall", Mode::Stall),
            4 => ("reset", Mode::Reset),
            5 => ("delay", Mode::Delay(dice.millis(5, 400))),
            6 => ("throttle", Mode::Throttle(u32::try_from(dice.range(2_000, 60_000)).unwrap())),
            7 => ("cut after bytes", Mode::CutAfter(dice.range(1, 60_000))),
            _ => ("cut of all links", Mode::Pass),
        };
        story.fault(what, &format!("{mode:?} for {hold:?}"), PREFETCH);
        proxy.set(mode);
        if mode == Mode::Pass {
            proxy.cut_all();
        } else {
            sleep(hold).await;
        }
        if matches!(mode, Mode::Blackhole | Mode::BlackholeToBroker | Mode::BlackholeToClient) {
            // No network takes bytes out of the middle of a connection: those that lost some must not
            // live to see the rest.
            proxy.set(Mode::Reset);
        }
        proxy.set(Mode::Pass);
    }
}

/// Kills the broker, alarms it, closes its connections and changes its policies.
async fn hurt_broker(node: &Arc<Node>, vhost: &Vhost, mut dice: Dice, end: Instant, story: &Story) {
    while dice.pause(end, 500, 4000).await {
        let (kind, hold) = (dice.range(0, 6), dice.millis(100, 2500));
        let (node, name) = (Arc::clone(node), vhost.name.clone());
        let (what, detail) = match kind {
            0 | 1 => ("kill -9 of the broker", format!("down for {hold:?}")),
            2 => ("memory alarm", format!("for {hold:?}")),
            3 | 4 => ("all connections closed", String::new()),
            _ => ("policy", format!("for {hold:?}")),
        };
        // Both services have to do with it.
        story.fault(what, &detail, 2 * PREFETCH);
        let policy = format!("policies/{name}/nemesis");
        match kind {
            0 | 1 => {
                let node = blocking(node, Node::kill9).await;
                sleep(hold).await;
                blocking(node, Node::start_again).await;
                story.tell("  the broker is there again");
            }
            2 => {
                let node = blocking(node, |node| node.alarm(true)).await;
                sleep(hold).await;
                blocking(node, |node| node.alarm(false)).await;
            }
            3 | 4 => {
                let close =
                    move |node: &Node| drop(node.ctl(&["close_all_connections", "-p", &name, "nemesis"]));
                blocking(node, close).await;
            }
            _ => {
                let body = json!({"pattern": "^evalmill", "apply-to": "queues", "definition": {"max-length": 1_000_000}});
                let path = policy.clone();
                let node = blocking(node, move |node| drop(node.api("PUT", &path, Some(&body)))).await;
                sleep(hold).await;
                blocking(node, move |node| drop(node.api("DELETE", &policy, None))).await;
            }
        }
    }
}

/// Does something that blocks to the broker.
async fn blocking(node: Arc<Node>, work: impl FnOnce(&Node) + Send + 'static) -> Arc<Node> {
    let done = tokio::task::spawn_blocking(move || {
        work(&node);
        node
    });
    done.await.unwrap()
}

/// What was done, when.
struct Story {
    begun: Instant,
    told: Mutex<Vec<String>>,
    /// By kind: how often.
    kinds: Mutex<BTreeMap<&'static str, usize>>,
    /// Copies of results that the faults may have made: each as many as were in flight.
    bound: Mutex<usize>,
    logs: Mutex<VecDeque<String>>,
}

impl Story {
    fn new() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            told: Mutex::default(),
            kinds: Mutex::default(),
            bound: Mutex::default(),
            logs: Mutex::default(),
        }
    }

    fn tell(&self, what: &str) {
        let line = format!("{:8.2} s  {what}", self.begun.elapsed().as_secs_f64());
        self.told.lock().unwrap().push(line);
    }

    fn fault(&self, what: &'static str, detail: &str, in_flight: usize) {
        self.tell(&format!("{what}: {detail}"));
        *self.kinds.lock().unwrap().entry(what).or_default() += 1;
        *self.bound.lock().unwrap() += in_flight;
    }

    fn bound(&self) -> usize {
        *self.bound.lock().unwrap()
    }

    fn log(&self, log: String) {
        let mut logs = self.logs.lock().unwrap();
        logs.push_back(log);
        if logs.len() > LOGS {
            logs.pop_front();
        }
    }

    fn faults(&self) -> String {
        self.told.lock().unwrap().join("\n")
    }

    fn keep_logs(&self, seed: u64) -> PathBuf {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nemesis-{seed}.log"));
        let logs = Vec::from(self.logs.lock().unwrap().clone()).join("\n----\n");
        std::fs::write(&path, logs).unwrap();
        path
    }

    fn table(&self) -> String {
        let kinds = self.kinds.lock().unwrap();
        let mut text = format!("{:<28}{}\n", "faults", kinds.values().sum::<usize>());
        for (kind, count) in kinds.iter() {
            let _ = writeln!(text, "{:<28}{count}", format!("  {kind}"));
        }
        text
    }
}

impl Dice {
    /// Lets some time pass; whether there is time for another fault.
    async fn pause(&mut self, end: Instant, low: u64, high: u64) -> bool {
        let pause = self.millis(low, high);
        sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
        Instant::now() < end
    }
}
