//! Programs sent through the engine, as predictions are, and the same outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::expect::Seen;
use super::host::Host;
use crate::api::Engine;
use crate::config::Settings;
use crate::model::{CommandResult, ResultMessage, Termination};
use crate::service::{self, Flow};
use crate::transport::{MemorySink, MemorySource};

const PROGRAM: &str = include_str!("probe.py");
/// How long the program may take outside.
const OUTSIDE: Duration = Duration::from_secs(8);

pub(super) struct Probe<'a> {
    pub(super) engine: &'a Engine,
    /// What the program is told.
    pub(super) given: Value,
    pub(super) interpreter: &'a Path,
    pub(super) host: &'a Host,
    /// Nothing is tried any more after this.
    pub(super) until: Instant,
}

impl Probe<'_> {
    /// Runs one part of the program in a box, with these limits; or why it did not run.
    pub(super) async fn run(&self, part: &str, mut limits: Value) -> Result<CommandResult, String> {
        if limits.get("timeout").is_none() {
            limits["timeout"] = json!(5);
        }
        let message = json!({
            "id": part, "limits": limits,
            "prediction": {
                "files": {"probe.py": PROGRAM, "given.json": self.given.to_string()},
                "commands": [{"command": ["python3", "probe.py", part]}],
            },
        });
        let mut source = MemorySource::new([message.to_string().into_bytes()]);
        let mut sink = MemorySink::default();
        let flow = Flow {
            pipeline: self.engine.pipeline(),
            settings: Settings::default().flow(true),
            tracker: self.engine.tracker(),
            draining: CancellationToken::new(),
            forced: CancellationToken::new(),
            done_already: Arc::new(Mutex::new(|_: &str| false)),
            observe: &mut |_| {},
        };
        let left = self.until.saturating_duration_since(Instant::now());
        let done = tokio::time::timeout(left, service::run(flow, &mut source, &mut sink)).await;
        done.map_err(|_| "the time for all checks is over".to_owned())?.map_err(|error| error.to_string())?;
        let results = sink.results();
        let result: ResultMessage = results
            .first()
            .and_then(|line| serde_json::from_slice(line).ok())
            .ok_or("there is no result of it")?;
        let ran = result.executions.first().and_then(|execution| execution.command_results.first());
        ran.cloned().ok_or_else(|| result.detail.unwrap_or_else(|| result.verdict.as_str().to_owned()))
    }

    /// As [`Self::run`]; once more with twice the time where that was over before the limit that is wanted.
    pub(super) async fn patiently(
        &self,
        part: &str,
        mut limits: Value,
        wanted: Termination,
    ) -> Result<CommandResult, String> {
        let ran = self.run(part, limits.clone()).await?;
        if ran.termination != Termination::WallLimit
            || matches!(wanted, Termination::WallLimit | Termination::CpuLimit)
        {
            return Ok(ran);
        }
        limits["timeout"] = json!(limits["timeout"].as_f64().unwrap_or(5.0) * 2.0);
        self.run(part, limits).await
    }

    /// Runs one part of the program in a box; what it saw, or why it saw nothing.
    pub(super) async fn seen(&self, part: &str, limits: Value) -> Result<BTreeMap<String, Seen>, String> {
        let ran = self.run(part, limits).await?;
        if ran.termination != Termination::Exited || ran.return_code != Some(0) {
            let said = ran.stderr.trim().lines().last().unwrap_or_default().to_owned();
            return Err(format!("the program was {}: {said}", ran.termination));
        }
        read(&ran.stdout).ok_or_else(|| "the program's answer cannot be understood".to_owned())
    }

    /// Runs one part of the program outside; empty where that does not work.
    pub(super) async fn outside(&self, part: &str) -> BTreeMap<String, Seen> {
        let mut given = self.given.clone();
        given["control"] = json!(true);
        let dir = self.host.control();
        let files = [("probe.py", PROGRAM), ("given.json", &*given.to_string())];
        if files.iter().any(|(name, text)| std::fs::write(dir.join(name), text).is_err()) {
            return BTreeMap::new();
        }
        let mut command = Command::new(self.interpreter);
        command.args(["probe.py", part]).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(OUTSIDE, command.output()).await {
            Ok(Ok(output)) => read(&String::from_utf8_lossy(&output.stdout)).unwrap_or_default(),
            _ => BTreeMap::new(),
        }
    }
}

/// The last line of what was printed.
fn read(text: &str) -> Option<BTreeMap<String, Seen>> {
    serde_json::from_str(text.trim().lines().last()?).ok()
}
