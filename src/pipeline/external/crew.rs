//! All processes of one program, and who asks them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ExternalError;
use super::child::Process;
use crate::util::retry::Retry;

/// A program of the operator's, and how it is run.
#[derive(Debug, Clone)]
pub struct ExternalSettings {
    /// The processor's name.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Processes of it.
    pub processes: usize,
    /// Most items of one request.
    pub batch_size: usize,
    /// Items after which a process is replaced; `None`: never.
    pub max_tasks_per_process: Option<u64>,
    /// Time for one request.
    pub timeout: Duration,
    /// Longest answer to one request, in bytes.
    pub max_answer_bytes: usize,
}

/// A running program of the operator's.
#[derive(Debug, Clone)]
pub struct External {
    name: Arc<str>,
    calls: mpsc::Sender<Call>,
}

type Reply = oneshot::Sender<Result<Box<RawValue>, ExternalError>>;

/// One item that is asked.
struct Call {
    item: Box<RawValue>,
    reply: Reply,
}

impl External {
    /// Starts the processes; the first has answered when this returns. They end once `closing` is cancelled,
    /// or no clone of this is left.
    ///
    /// # Errors
    /// The program cannot be started, or does not answer.
    pub async fn start(
        settings: ExternalSettings,
        tracker: &TaskTracker,
        closing: CancellationToken,
    ) -> Result<Self, ExternalError> {
        let settings = Arc::new(settings);
        let first = Process::start(&settings, tracker).await?;
        let processes = settings.processes.max(1);
        let (calls, waiting) = mpsc::channel(processes * settings.batch_size.max(1));
        let (free, idle) = mpsc::channel(processes);
        let mut first = Some(first);
        for _ in 0..processes {
            let worker = Worker {
                settings: Arc::clone(&settings),
                tracker: tracker.clone(),
                process: first.take(),
                pause: Retry::new(Duration::from_millis(100), Duration::from_secs(5)),
            };
            tracker.spawn(worker.run(free.clone()));
        }
        drop(free);
        let hand_out = hand_out(waiting, idle, settings.batch_size.max(1));
        tracker.spawn(async move { closing.run_until_cancelled(hand_out).await });
        Ok(Self { name: settings.name.as_str().into(), calls })
    }

    /// The answer to one item.
    ///
    /// # Errors
    /// There is none, twice.
    pub async fn ask(&self, item: Box<RawValue>) -> Result<Box<RawValue>, ExternalError> {
        let closed = || ExternalError::Closed(self.name.to_string());
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { item, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// The processor's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Gives to each idle process what waits, as many as go into a request.
async fn hand_out(
    mut waiting: mpsc::Receiver<Call>,
    mut idle: mpsc::Receiver<oneshot::Sender<Vec<Call>>>,
    batch_size: usize,
) {
    while let Some(process) = idle.recv().await {
        let mut calls = Vec::with_capacity(batch_size);
        if waiting.recv_many(&mut calls, batch_size).await == 0 {
            return;
        }
        // A process that is gone was ended by a panic; its calls are answered as closed.
        let _ = process.send(calls);
    }
}

/// One place in which processes follow each other.
struct Worker {
    settings: Arc<ExternalSettings>,
    tracker: TaskTracker,
    process: Option<Process>,
    pause: Retry,
}

impl Worker {
    async fn run(mut self, free: mpsc::Sender<oneshot::Sender<Vec<Call>>>) {
        loop {
            let (mine, calls) = oneshot::channel();
            if free.send(mine).await.is_err() {
                break;
            }
            let Ok(calls) = calls.await else { break };
            self.serve(calls).await;
        }
        if let Some(process) = self.process {
            process.end().await;
        }
    }

    async fn serve(&mut self, calls: Vec<Call>) {
        let error = match self.ask(&calls.iter().map(|call| &*call.item).collect::<Vec<_>>()).await {
            Ok(answers) => {
                for (call, answer) in calls.into_iter().zip(answers) {
                    // Who asked may have gone.
                    let _ = call.reply.send(Ok(answer));
                }
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(processor = self.settings.name, %error, items = calls.len(), "asking again, one by one");
        for Call { item, reply } in calls {
            let answer = self.ask(&[&item]).await;
            let _ = reply.send(answer.map(|mut answers| answers.swap_remove(0)));
        }
    }

    /// Asks, with a process that is started where there is none; what has failed is replaced.
    async fn ask(&mut self, items: &[&RawValue]) -> Result<Vec<Box<RawValue>>, ExternalError> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => match Process::start(&self.settings, &self.tracker).await {
                Ok(process) => process,
                Err(error) => {
                    // It cannot work now; the machine is not kept busy with that.
                    tokio::time::sleep(self.pause.next_delay()).await;
                    return Err(error);
                }
            },
        };
        let answers = process.ask(&self.settings, items).await;
        if answers.is_err() {
            process.kill().await;
            return answers;
        }
        self.pause.reset();
        if self.settings.max_tasks_per_process.is_some_and(|most| process.answered >= most) {
            self.tracker.spawn(process.end());
        } else {
            self.process = Some(process);
        }
        answers
    }
}
