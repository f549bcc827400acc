//! One process of the operator's program.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::value::RawValue;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec, LinesCodecError};
use tokio_util::task::TaskTracker;

use super::error::Said;
use super::{ExternalError, ExternalSettings, wire};

/// Longest line of standard error in the log, in bytes.
const LOG_LINE_BYTES: usize = 8 << 10;
/// Lines of standard error that an error tells.
const LAST_LINES: usize = 5;
/// How long a process may take to end once its standard input is closed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A running process that has answered an empty request.
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    requests: FramedWrite<ChildStdin, LinesCodec>,
    answers: FramedRead<ChildStdout, LinesCodec>,
    said: Arc<Mutex<VecDeque<String>>>,
    /// Items that it has answered.
    pub(super) answered: u64,
}

impl Process {
    /// Starts one and waits for its first answer.
    pub(super) async fn start(
        settings: &ExternalSettings,
        tracker: &TaskTracker,
    ) -> Result<Self, ExternalError> {
        let program = settings.command.first().map(String::as_str).unwrap_or_default();
        let failed = |reason: String| ExternalError::Start {
            name: settings.name.clone(),
            command: program.to_owned(),
            reason,
        };
        let mut child = Command::new(program)
            .args(settings.command.iter().skip(1))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("it has no pipes".to_owned()));
        };
        let said = Arc::new(Mutex::new(VecDeque::new()));
        tracker.spawn(log(settings.name.clone(), stderr, Arc::clone(&said)));
        let lines = LinesCodec::new_with_max_length(settings.max_answer_bytes);
        let mut process = Self {
            child,
            group,
            requests: FramedWrite::new(stdin, LinesCodec::new()),
            answers: FramedRead::new(stdout, lines),
            said,
            answered: 0,
        };
        match process.ask(settings, &[]).await {
            Ok(_) => Ok(process),
            Err(error) => {
                process.kill().await;
                Err(error)
            }
        }
    }

    /// The answers to `items`, in their order. After an error the process is of no use any more.
    pub(super) async fn ask(
        &mut self,
        settings: &ExternalSettings,
        items: &[&RawValue],
    ) -> Result<Vec<Box<RawValue>>, ExternalError> {
        let name = || settings.name.clone();
        let answer = |answer: &str, reason: String| ExternalError::Answer {
            name: name(),
            answer: answer.chars().take(80).collect(),
            reason,
        };
        let request = wire::request(items).map_err(|error| answer("", error.to_string()))?;
        let Self { requests, answers, .. } = self;
        // It may answer before it has read everything: nobody waits for the other one.
        let both = futures::future::join(requests.send(request), answers.next());
        let Ok((sent, line)) = tokio::time::timeout(settings.timeout, both).await else {
            return Err(ExternalError::Timeout {
                name: name(),
                limit: settings.timeout,
                stderr: self.said(),
            });
        };
        let line = match line {
            Some(Ok(line)) => line,
            Some(Err(LinesCodecError::MaxLineLengthExceeded)) => {
                let reason = format!("it is longer than {} bytes", settings.max_answer_bytes);
                return Err(answer("", reason));
            }
            Some(Err(LinesCodecError::Io(error))) => return Err(answer("", error.to_string())),
            None => return Err(self.ended(name()).await),
        };
        if let Err(error) = sent {
            return Err(answer(&line, format!("the request could not be written: {error}")));
        }
        let answers = wire::response(&line, items.len()).map_err(|reason| answer(&line, reason))?;
        self.answered += items.len() as u64;
        Ok(answers)
    }

    async fn ended(&mut self, name: String) -> ExternalError {
        let status = match tokio::time::timeout(END_LIMIT, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its standard output and goes on".to_owned(),
        };
        ExternalError::Ended { name, status, stderr: self.said() }
    }

    fn said(&self) -> Said {
        let said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Said(said.iter().cloned().collect())
    }

    /// Has it end by itself, and kills what does not.
    pub(super) async fn end(mut self) {
        drop(self.requests);
        let _ = tokio::time::timeout(END_LIMIT, self.child.wait()).await;
        kill(self.group);
    }

    /// Kills it with everything that it has started.
    pub(super) async fn kill(mut self) {
        kill(self.group);
        let _ = tokio::time::timeout(END_LIMIT, self.child.wait()).await;
    }
}

fn kill(group: Option<Pid>) {
    if let Some(group) = group {
        // Nobody of it may be left.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Standard error, line by line, into the log.
async fn log(name: String, stderr: ChildStderr, said: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = FramedRead::new(stderr, LinesCodec::new_with_max_length(LOG_LINE_BYTES));
    // Behind an error there is one `None`, and then what follows. Whoever stops there closes the pipe, and the
    // program is killed by its next word.
    let mut after_error = false;
    loop {
        let line = match lines.next().await {
            Some(Ok(line)) => line,
            Some(Err(LinesCodecError::Io(error))) if error.kind() != std::io::ErrorKind::InvalidData => {
                return;
            }
            Some(Err(error)) => {
                after_error = true;
                match error {
                    LinesCodecError::MaxLineLengthExceeded => "(a line that is too long)".to_owned(),
                    LinesCodecError::Io(_) => "(a line that is not UTF-8)".to_owned(),
                }
            }
            None if std::mem::take(&mut after_error) => continue,
            None => return,
        };
        tracing::info!(processor = name, "{line}");
        let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.len() == LAST_LINES {
            said.pop_front();
        }
        said.push_back(line);
    }
}
