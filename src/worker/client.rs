//! A leased worker, seen from its user: [`Lease`] → [`OpenBox`] → given back.
//!
//! Every request is bounded in time, and an answer in size; buffers grow as bytes arrive. A worker
//! that breaks off, answers nonsense or not in time is [`Lost`]: its socket is closed and the pool
//! kills it. The same happens when a request is cancelled half-way or an [`OpenBox`] is dropped. A
//! [`Lease`] that is dropped unused goes back to the pool as it is.

use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::frame;
use super::protocol::{Close, Closed, FromWorker, MAX_FRAME_BYTES, Open, Ran, Run, ToWorker};

/// Bound of opening and of closing a box.
const OPEN_CLOSE_LIMIT: Duration = Duration::from_secs(60);
/// What a run may take beyond twice its wall limit.
const RUN_SLACK: Duration = Duration::from_secs(15);

/// What the worker was doing when it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Making a box.
    Opening,
    /// Running a command.
    Running,
    /// Reading back and wiping.
    Closing,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening a box",
            Self::Running => "running a command",
            Self::Closing => "closing a box",
        })
    }
}

/// The worker is gone, and the box with it.
#[derive(Debug, thiserror::Error)]
#[error("worker {worker} was lost while {phase}: {reason}")]
pub struct Lost {
    /// The worker's number.
    pub worker: u64,
    /// What it was doing.
    pub phase: Phase,
    /// How it was lost.
    #[source]
    pub reason: LostReason,
}

/// How a worker was lost.
#[derive(Debug, thiserror::Error)]
pub enum LostReason {
    /// Its socket ended.
    #[error("it ended")]
    Ended,
    /// Its socket failed.
    #[error("its socket failed: {0}")]
    Socket(#[source] io::Error),
    /// It did not answer.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Its answer is no message.
    #[error("its answer cannot be decoded: {0}")]
    Undecodable(String),
    /// Its answer is to another question.
    #[error("its answer is of the wrong kind")]
    WrongAnswer,
    /// Its answer is larger than any may be.
    #[error("its answer has {bytes} bytes, the limit is {MAX_FRAME_BYTES}")]
    TooLong {
        /// The size that it announced.
        bytes: usize,
    },
    /// The request is larger than any may be.
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
    /// An earlier request of this box failed or was cancelled.
    #[error("it was lost before")]
    Before,
}

impl LostReason {
    /// Is the worker at fault though its process may live?
    fn is_protocol_error(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Undecodable(_) | Self::WrongAnswer | Self::TooLong { .. } => true,
            Self::Ended | Self::Socket(_) | Self::Unsendable(_) | Self::Before => false,
        }
    }
}

/// Why there is no box.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The worker could not make it. The next one might fail as well, so the worker is replaced.
    #[error("the box could not be made: {0}")]
    Refused(String),
    /// The worker is gone.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// How a lease ended; not said at all (the sender dropped): the worker is lost.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The worker is idle again. `rss`: its size, `None` if it was not used.
    Returned { stream: UnixStream, rss: Option<u64>, clean: Result<(), String> },
    /// The worker broke the protocol.
    Broken,
}

#[derive(Debug)]
struct Held {
    worker: u64,
    stream: UnixStream,
    ending: oneshot::Sender<Ending>,
}

impl Held {
    fn give_back(self, rss: Option<u64>, clean: Result<(), String>) {
        // If the pool is gone, the stream closes and the worker ends.
        let _ = self.ending.send(Ending::Returned { stream: self.stream, rss, clean });
    }

    /// One request and its answer. The worker goes in and comes out, so that it is dropped (and
    /// lost) when this is cancelled half-way.
    async fn ask(
        mut self,
        phase: Phase,
        request: &ToWorker,
        limit: Duration,
    ) -> Result<(Self, FromWorker), Lost> {
        let reason = match tokio::time::timeout(limit, exchange(&mut self.stream, request)).await {
            Ok(Ok(answer)) => return Ok((self, answer)),
            Ok(Err(reason)) => reason,
            Err(_) => LostReason::Timeout(limit),
        };
        Err(self.lose(phase, reason))
    }

    fn lose(self, phase: Phase, reason: LostReason) -> Lost {
        if reason.is_protocol_error() {
            let _ = self.ending.send(Ending::Broken);
        }
        Lost { worker: self.worker, phase, reason }
    }
}

async fn exchange<T: Serialize>(stream: &mut UnixStream, request: &T) -> Result<FromWorker, LostReason> {
    let request = frame::encode(request).map_err(|error| LostReason::Unsendable(error.to_string()))?;
    stream.write_all(&request).await.map_err(ended_or_failed)?;
    drop(request);
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.map_err(ended_or_failed)?;
    let bytes = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if bytes > MAX_FRAME_BYTES {
        return Err(LostReason::TooLong { bytes });
    }
    let mut body = Vec::new();
    stream.take(bytes as u64).read_to_end(&mut body).await.map_err(ended_or_failed)?;
    if body.len() < bytes {
        return Err(LostReason::Ended);
    }
    frame::decode(&body).map_err(|error| LostReason::Undecodable(error.to_string()))
}

fn ended_or_failed(error: io::Error) -> LostReason {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            LostReason::Ended
        }
        _ => LostReason::Socket(error),
    }
}

/// An idle worker that nobody else has.
#[derive(Debug)]
pub struct Lease {
    worker: u64,
    held: Option<Held>,
}

impl Lease {
    pub(crate) fn new(worker: u64, stream: UnixStream, ending: oneshot::Sender<Ending>) -> Self {
        Self { worker, held: Some(Held { worker, stream, ending }) }
    }

    /// The worker's number.
    #[must_use]
    pub fn worker(&self) -> u64 {
        self.worker
    }

    /// An idle worker says nothing: is its socket silent and open?
    pub(crate) fn is_sound(&self) -> bool {
        self.held.as_ref().is_some_and(|held| {
            matches!(held.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        })
    }

    /// Gives up a worker that is not sound.
    pub(crate) fn discard(mut self) {
        self.held = None;
    }

    /// Makes a box with these files.
    ///
    /// # Errors
    /// [`OpenError::Refused`]: the worker could not; [`OpenError::Lost`]: it is gone.
    pub async fn open(mut self, open: Open) -> Result<OpenBox, OpenError> {
        let phase = Phase::Opening;
        let Some(held) = self.held.take() else {
            return Err(Lost { worker: self.worker, phase, reason: LostReason::Before }.into());
        };
        match held.ask(phase, &ToWorker::Open(open), OPEN_CLOSE_LIMIT).await? {
            (held, FromWorker::Opened(opened)) => match opened.outcome {
                Ok(path) => Ok(OpenBox { worker: held.worker, held: Some(held), path }),
                Err(reason) => {
                    held.give_back(Some(0), Err(reason.clone()));
                    Err(OpenError::Refused(reason))
                }
            },
            (held, _) => Err(held.lose(phase, LostReason::WrongAnswer).into()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.give_back(None, Ok(()));
        }
    }
}

/// A box in a worker; dropped without [`OpenBox::close`], box and worker are destroyed.
#[derive(Debug)]
pub struct OpenBox {
    worker: u64,
    /// `None` once lost.
    held: Option<Held>,
    path: String,
}

impl OpenBox {
    /// The worker's number.
    #[must_use]
    pub fn worker(&self) -> u64 {
        self.worker
    }

    /// Absolute path of the box.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Runs one command to its end.
    ///
    /// # Errors
    /// [`Lost`]: the worker is gone; nothing but dropping the box makes sense then.
    pub async fn run(&mut self, run: Run) -> Result<Ran, Lost> {
        let limit = run.limits.wall.saturating_mul(2).saturating_add(RUN_SLACK);
        let phase = Phase::Running;
        match self.take(phase)?.ask(phase, &ToWorker::Run(run), limit).await? {
            (held, FromWorker::Ran(ran)) => {
                self.held = Some(held);
                Ok(ran)
            }
            (held, _) => Err(held.lose(phase, LostReason::WrongAnswer)),
        }
    }

    /// Reads the tracked files back, wipes the box and gives the worker back to the pool.
    ///
    /// # Errors
    /// [`Lost`]: the worker is gone.
    pub async fn close(mut self, close: Close) -> Result<Closed, Lost> {
        let phase = Phase::Closing;
        match self.take(phase)?.ask(phase, &ToWorker::Close(close), OPEN_CLOSE_LIMIT).await? {
            (held, FromWorker::Closed(closed)) => {
                held.give_back(Some(closed.worker_rss_bytes), closed.clean.clone());
                Ok(closed)
            }
            (held, _) => Err(held.lose(phase, LostReason::WrongAnswer)),
        }
    }

    fn take(&mut self, phase: Phase) -> Result<Held, Lost> {
        self.held.take().ok_or(Lost { worker: self.worker, phase, reason: LostReason::Before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened_against(answer: &[u8]) -> (OpenError, Option<Ending>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (ending, ended) = oneshot::channel();
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let lease = Lease::new(1, ours, ending);
        (lease.open(Open { files: Vec::new() }).await.unwrap_err(), ended.await.ok())
    }

    #[tokio::test]
    async fn nonsense_loses_the_worker() {
        let (error, ending) = opened_against(&[]).await;
        assert!(matches!(error, OpenError::Lost(Lost { reason: LostReason::Ended, .. })), "{error}");
        assert!(ending.is_none());
        let (error, ending) = opened_against(&[0xff; 8]).await;
        assert!(matches!(error, OpenError::Lost(Lost { reason: LostReason::TooLong { .. }, .. })), "{error}");
        assert!(matches!(ending, Some(Ending::Broken)));
        let (error, ending) = opened_against(&[2, 0, 0, 0, 0xff, 0xff]).await;
        assert!(matches!(error, OpenError::Lost(Lost { reason: LostReason::Undecodable(_), .. })), "{error}");
        assert!(matches!(ending, Some(Ending::Broken)));
    }

    #[tokio::test]
    async fn a_worker_that_makes_no_box_is_not_used_again() {
        use crate::worker::protocol::Opened;
        let refusal = FromWorker::Opened(Opened { outcome: Err("no room".to_owned()) });
        let (error, ending) = opened_against(&frame::encode(&refusal).unwrap()).await;
        assert!(matches!(error, OpenError::Refused(reason) if reason == "no room"));
        assert!(matches!(ending, Some(Ending::Returned { clean: Err(_), .. })));
    }

    #[tokio::test]
    async fn an_unused_lease_goes_back() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (ending, ended) = oneshot::channel();
        drop(Lease::new(1, ours, ending));
        assert!(matches!(ended.await, Ok(Ending::Returned { rss: None, clean: Ok(()), .. })));
    }
}
