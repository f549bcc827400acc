//! `evalmill serve` as a process, and the stage that most tests play on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::MINUTE;
use super::broker::Vhost;
use super::client::{Client, Message, RESULTS, produce};
use super::ledger::{Audit, Ledger};
use super::node::free_port;
use crate::support::evalmill;

/// The queue that the service takes predictions from.
pub(super) const WORK: &str = "evalmill.work.default";
/// What the service declares last.
pub(super) const LAST_DECLARED: &str = "evalmill.retry.default";
/// The queue of the test, which gets every result.
pub(super) const AUDIT: &str = "audit";
/// Deliveries that a service holds at most in these tests.
pub(super) const PREFETCH: usize = 32;

/// A running service; dropped, it is killed.
pub(super) struct Service {
    child: Child,
    dir: TempDir,
    http: u16,
}

impl Service {
    pub(super) fn start(url: &str) -> Self {
        Self::start_with(url, &[])
    }

    /// With these settings, as `("RABBITMQ__PREFETCH", "1")`.
    pub(super) fn start_with(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_as(url, settings, |_, _| None)
    }

    /// With a scratch directory on a disk of 100 MiB, which nobody else sees.
    pub(super) fn start_on_a_small_disk(url: &str) -> Self {
        // A root that has one id only can give none to programs.
        let settings = [("SANDBOX__TIER", "none"), ("SANDBOX__REQUIRE", "none")];
        Self::start_as(url, &settings, |program, scratch| {
            let mut command = Command::new("unshare");
            let mount =
                format!("mount -t tmpfs -o size=100m none {} && exec {program} serve", scratch.display());
            command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]);
            Some(command)
        })
    }

    fn start_as(
        url: &str,
        settings: &[(&str, &str)],
        other: impl FnOnce(&str, &Path) -> Option<Command>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let http = free_port();
        let prefetch = PREFETCH.to_string();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        std::fs::create_dir(dir.path().join("scratch")).unwrap();
        let defaults = [
            ("RABBITMQ__URL", url.to_owned()),
            ("RABBITMQ__HEARTBEAT", "2".to_owned()),
            ("RABBITMQ__PREFETCH", prefetch),
            ("RABBITMQ__RETRY_SECONDS", "0.1".to_owned()),
            ("WORKER__NUM_WORKERS", "2".to_owned()),
            ("TELEMETRY__LISTEN", format!("127.0.0.1:{http}")),
        ];
        let scratch = dir.path().join("scratch");
        let mut command = other(env!("CARGO_BIN_EXE_evalmill"), &scratch).unwrap_or_else(|| {
            let mut command = evalmill(&scratch);
            command.arg("serve");
            command
        });
        command.env("EXEC_TMP_DIR", &scratch);
        for (name, value) in defaults {
            command.env(format!("EVALMILL__{name}"), value);
        }
        for (name, value) in settings {
            command.env(format!("EVALMILL__{name}"), value);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, dir, http }
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Its scratch directory, as the service itself sees it.
    pub(super) fn scratch(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.pid(), self.dir.path().join("scratch").display()))
    }

    pub(super) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let end = log.floor_char_boundary(log.len().saturating_sub(6000));
        log[end..].to_owned()
    }

    /// Its answer to a GET; nothing where it does not listen.
    pub(super) fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Why it is not ready.
    pub(super) fn reasons(&self) -> Option<Value> {
        let answer = self.get("/readyz")?;
        let body = answer.split_once("\r\n\r\n")?.1;
        let body: Value = serde_json::from_str(body).ok()?;
        Some(body["reasons"].clone())
    }

    /// Whether it is not ready, and this condition's reason contains `text`.
    pub(super) fn says(&self, condition: &str, text: &str) -> bool {
        let reasons = self.reasons().unwrap_or_default();
        reasons[condition].as_str().is_some_and(|why| why.contains(text))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The sum of a metric over its labels.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").unwrap_or_default();
        let of = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits (bounded) until it says so.
    pub(super) async fn until(&self, what: &str, bound: Duration, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + bound;
        while !done(self) {
            assert!(Instant::now() < end, "not within {bound:?}: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(super) fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn signal_term(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// SIGTERM, and how it ended within the bound.
    pub(super) async fn terminate(mut self, bound: Duration) -> (Option<i32>, String) {
        self.signal_term();
        let end = Instant::now() + bound;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.log());
            }
            assert!(Instant::now() < end, "it does not end within {bound:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A prediction that runs this.
pub(super) fn runs(id: &str, argv: &[&str]) -> (String, Vec<u8>) {
    let body = json!({"id": id, "run": "r", "prediction": {"commands": [{"command": argv, "timeout": 60}]}});
    (id.to_owned(), body.to_string().into_bytes())
}

/// `count` predictions that run `argv`; the ids begin with `name`.
pub(super) fn many(name: &str, count: usize, argv: &[&str]) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|i| runs(&format!("{name}-{i}"), argv)).collect()
}

/// A client beside a service that is there: every result reaches the queue [`AUDIT`], too.
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) ledger: Ledger,
    /// Publishes without a confirm: they may stand twice.
    pub(super) unsure: usize,
    url: String,
}

impl Stage {
    /// Waits until the service has declared what it needs.
    pub(super) async fn new(vhost: &Vhost) -> Self {
        let client = Client::connect(&vhost.url).await.unwrap();
        client.wait_for_queue(LAST_DECLARED, MINUTE).await.unwrap();
        client.wait_for_exchange(RESULTS, MINUTE).await.unwrap();
        client.keep(AUDIT, RESULTS, &["result.#"]).await.unwrap();
        Self { client, ledger: Ledger::default(), unsure: 0, url: vhost.url.clone() }
    }

    /// Publishes until all of it is confirmed, over whatever happens to the broker.
    pub(super) async fn publish(&mut self, inputs: &[(String, Vec<u8>)]) {
        self.unsure += produce(&self.url, inputs, &mut self.ledger, MINUTE).await.unwrap();
    }

    /// A new connection, after the broker was away.
    pub(super) async fn reconnect(&mut self) {
        let end = Instant::now() + MINUTE;
        self.client = loop {
            match Client::connect(&self.url).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < end, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
    }

    /// Waits for so many distinct results, and audits them; the results come along.
    pub(super) async fn audit(
        &self,
        service: &Service,
        results: usize,
        duplicates: usize,
    ) -> (Audit, Vec<Message>) {
        let end = Instant::now() + MINUTE;
        let (mut all, mut distinct) = (Vec::new(), std::collections::HashSet::new());
        while distinct.len() < results {
            for message in self.client.drain(AUDIT).await.unwrap() {
                distinct.insert(message.json()["result_id"].to_string());
                all.push(message);
            }
            let have = distinct.len();
            assert!(Instant::now() < end, "{have} of {results} results\n{}", service.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let parked = self.client.drain("evalmill.parking").await.unwrap();
        let parked = parked.iter().map(Message::input_id);
        let audit = self.ledger.check(&all, parked, duplicates + self.unsure);
        (audit, all)
    }
}

/// Verdicts, sorted, with how often each occurs.
pub(super) fn verdicts(results: &[Message]) -> Vec<(String, usize)> {
    let mut all = std::collections::BTreeMap::<String, usize>::new();
    for result in results {
        *all.entry(result.json()["verdict"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
    }
    all.into_iter().collect()
}
