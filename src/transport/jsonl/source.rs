//! Lines of files and standard input, as deliveries.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;

use super::input::Input;
use super::lines::{Line, Lines};
use crate::transport::{BodyError, Delivery, Source, TransportError};

const QUEUED_LINES: usize = 64;
/// The setting that limits a line.
const LIMIT: &str = "pipeline.max_line_mb";
const QUEUED_BYTES: usize = 32 * 1024 * 1024;

/// Lines of several inputs, one after the other.
///
/// One thread reads ahead, by a bounded number of lines and bytes. Dropping the source ends it.
#[derive(Debug)]
pub struct JsonlSource {
    items: mpsc::Receiver<Item>,
    budget: Arc<Budget>,
    /// Closing it wakes the thread where it waits for input.
    stop: Option<OwnedFd>,
    sequence: u64,
    ended: bool,
    bytes_total: Option<u64>,
    consumed: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Item {
    Line { origin: String, body: Result<Vec<u8>, BodyError> },
    End,
}

impl JsonlSource {
    /// Opens all inputs: `-` is standard input, and a name that ends in `.gz` is decompressed.
    ///
    /// # Errors
    /// An input cannot be opened for reading, is a directory, or is standard input a second time.
    pub fn open(inputs: &[PathBuf], max_line_bytes: usize) -> Result<Self, TransportError> {
        if inputs.iter().filter(|path| *path == Path::new("-")).count() > 1 {
            return Err(TransportError::Read {
                name: "stdin".into(),
                reason: "it is named twice, and can be read once".into(),
            });
        }
        let inputs = inputs.iter().map(|path| Input::open(path)).collect::<Result<Vec<_>, _>>()?;
        let bytes_total = inputs.iter().map(|input| input.size).sum();
        let consumed = Arc::new(AtomicU64::new(0));
        let budget = Arc::new(Budget::default());
        let (sender, items) = mpsc::channel(QUEUED_LINES);
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| no_thread(&error.into()))?;
        let reading = Reading {
            sender,
            budget: Arc::clone(&budget),
            stopped: Arc::new(stopped),
            consumed: Arc::clone(&consumed),
            max_line_bytes,
        };
        thread::Builder::new()
            .name("jsonl-source".into())
            .spawn(move || reading.run(inputs))
            .map_err(|error| no_thread(&error))?;
        Ok(Self { items, budget, stop: Some(stop), sequence: 0, ended: false, bytes_total, consumed })
    }

    /// Bytes of all inputs as they lie on disk; `None` where one of them is no regular file.
    #[must_use]
    pub fn bytes_total(&self) -> Option<u64> {
        self.bytes_total
    }

    /// Bytes read so far, in the measure of [`bytes_total`](Self::bytes_total).
    #[must_use]
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.consumed)
    }
}

fn no_thread(error: &std::io::Error) -> TransportError {
    TransportError::Read { name: "the inputs".into(), reason: format!("no thread for it: {error}") }
}

impl Drop for JsonlSource {
    fn drop(&mut self) {
        self.items.close();
        self.budget.close();
        self.stop.take();
    }
}

impl Source for JsonlSource {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        if self.ended {
            return None;
        }
        match self.items.recv().await {
            Some(Item::Line { origin, body }) => {
                self.budget.give_back(body.as_ref().map_or(0, Vec::len));
                let sequence = self.sequence;
                self.sequence += 1;
                let arrived = Instant::now();
                Some(Ok(Delivery {
                    sequence,
                    origin,
                    body,
                    arrived,
                    attempt: 1,
                    redelivered: false,
                    envelope: None,
                }))
            }
            Some(Item::End) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                let reason = "the thread that reads it is gone".into();
                Some(Err(TransportError::Read { name: "the inputs".into(), reason }))
            }
        }
    }
}

/// Nobody takes what is read.
struct Stopped;

/// The thread's part.
struct Reading {
    sender: mpsc::Sender<Item>,
    budget: Arc<Budget>,
    stopped: Arc<OwnedFd>,
    consumed: Arc<AtomicU64>,
    max_line_bytes: usize,
}

impl Reading {
    fn run(self, inputs: Vec<Input>) {
        for input in inputs {
            if self.read(input).is_err() {
                return;
            }
        }
        // Nobody is there to miss it where this fails.
        drop(self.sender.blocking_send(Item::End));
    }

    fn read(&self, input: Input) -> Result<(), Stopped> {
        let name = input.name.clone();
        let what = if input.gzip { "the gzip stream is truncated or damaged" } else { "reading broke off" };
        let text = input.into_text(Arc::clone(&self.stopped), Arc::clone(&self.consumed));
        let mut lines = Lines::new(text, self.max_line_bytes);
        loop {
            let body = match lines.next_line() {
                Ok(None) => return Ok(()),
                Ok(Some(Line::Blank)) => continue,
                Ok(Some(Line::Whole(line))) => Ok(line),
                Ok(Some(Line::TooLong)) => {
                    Err(BodyError::TooLong { limit: self.max_line_bytes, setting: LIMIT })
                }
                Err(error) => {
                    let number = lines.number();
                    let text =
                        format!("{what} after line {number}: {error}; lines after it in this file are lost");
                    let origin = format!("{name}:{}", number + 1);
                    return self.send(origin, Err(BodyError::Damaged(text)));
                }
            };
            self.send(format!("{name}:{}", lines.number()), body)?;
        }
    }

    fn send(&self, origin: String, body: Result<Vec<u8>, BodyError>) -> Result<(), Stopped> {
        self.budget.take(body.as_ref().map_or(0, Vec::len))?;
        self.sender.blocking_send(Item::Line { origin, body }).map_err(|_| Stopped)
    }
}

/// Bytes that may be queued. One line is let through however long it is.
#[derive(Debug, Default)]
struct Budget {
    state: Mutex<BudgetState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct BudgetState {
    queued: usize,
    closed: bool,
}

impl Budget {
    fn take(&self, bytes: usize) -> Result<(), Stopped> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .changed
            .wait_while(state, |state| {
                !state.closed && state.queued > 0 && state.queued.saturating_add(bytes) > QUEUED_BYTES
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.queued += bytes;
        if state.closed { Err(Stopped) } else { Ok(()) }
    }

    fn give_back(&self, bytes: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).queued -= bytes;
        self.changed.notify_all();
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    async fn all(source: &mut JsonlSource) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while let Some(delivery) = source.next().await {
            deliveries.push(delivery.unwrap());
        }
        assert!(source.next().await.is_none(), "the end stays the end");
        deliveries
    }

    fn place(delivery: &Delivery) -> &str {
        delivery.origin.rsplit('/').next().unwrap()
    }

    #[tokio::test]
    async fn several_inputs_in_order() {
        let dir = TempDir::new().unwrap();
        let (plain, packed, empty) =
            (dir.path().join("a.jsonl"), dir.path().join("b.gz"), dir.path().join("c.jsonl"));
        fs::write(&plain, b"\xef\xbb\xbf{}\r\n\n[1]\n12345678901\n2").unwrap();
        let members = [gzip(b"x\ny"), gzip(b"z\n")].concat();
        fs::write(&packed, &members).unwrap();
        fs::write(&empty, b"").unwrap();
        let mut source = JsonlSource::open(&[plain, empty, packed], 10).unwrap();
        let total = source.bytes_total().unwrap();
        let progress = source.progress();
        let deliveries = all(&mut source).await;
        let seen: Vec<_> = deliveries
            .iter()
            .map(|delivery| {
                let body = delivery.body.as_ref().map(|body| str::from_utf8(body).unwrap());
                (delivery.sequence, place(delivery), body.unwrap_or("!"))
            })
            .collect();
        assert_eq!(
            seen,
            [
                (0, "a.jsonl:1", "{}"),
                (1, "a.jsonl:3", "[1]"),
                (2, "a.jsonl:4", "!"),
                (3, "a.jsonl:5", "2"),
                (4, "b.gz:1", "x"),
                (5, "b.gz:2", "yz"),
            ]
        );
        assert_eq!(deliveries[2].body, Err(BodyError::TooLong { limit: 10, setting: LIMIT }));
        assert_eq!(progress.load(Ordering::Relaxed), total);
    }

    #[rstest]
    #[case::truncated(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 9))]
    #[case::no_trailer(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 3))]
    #[case::checksum(|bytes: &mut Vec<u8>| { let at = bytes.len() - 6; bytes[at] ^= 1; })]
    #[case::trailing_garbage(|bytes: &mut Vec<u8>| bytes.extend(b"garbage behind it"))]
    #[tokio::test]
    async fn a_damaged_gzip_loses_only_its_rest(#[case] damage: fn(&mut Vec<u8>)) {
        let dir = TempDir::new().unwrap();
        let (packed, plain) = (dir.path().join("a.gz"), dir.path().join("b.jsonl"));
        let mut bytes = gzip(b"one\ntwo\n");
        damage(&mut bytes);
        fs::write(&packed, bytes).unwrap();
        fs::write(&plain, b"after\n").unwrap();
        let deliveries = all(&mut JsonlSource::open(&[packed, plain], 100).unwrap()).await;
        let (last, before) = deliveries.split_last().unwrap();
        assert_eq!(last.body.as_deref(), Ok(&b"after"[..]));
        let (damaged, before) = before.split_last().unwrap();
        assert!(before.iter().all(|delivery| delivery.body.is_ok()));
        let Err(BodyError::Damaged(text)) = &damaged.body else { panic!("{damaged:?}") };
        let start = format!("the gzip stream is truncated or damaged after line {}: ", before.len());
        assert!(
            text.starts_with(&start) && text.ends_with("; lines after it in this file are lost"),
            "{text}"
        );
        assert_eq!(place(damaged), format!("a.gz:{}", before.len() + 1));
    }

    #[test]
    fn a_typo_fails_at_once() {
        let dir = TempDir::new().unwrap();
        let good = dir.path().join("a");
        fs::write(&good, "1\n").unwrap();
        let missing = JsonlSource::open(&[good, dir.path().join("missing")], 10).unwrap_err().to_string();
        assert!(missing.contains("missing: No such file"), "{missing}");
        let directory = JsonlSource::open(&[dir.path().into()], 10).unwrap_err().to_string();
        assert!(directory.contains("is a directory"), "{directory}");
        assert!(JsonlSource::open(&["-".into(), "-".into()], 10).is_err());
    }

    #[tokio::test]
    async fn a_dropped_source_ends_its_thread() {
        let dir = TempDir::new().unwrap();
        let many = dir.path().join("many");
        fs::write(&many, "1\n".repeat(10_000)).unwrap();
        // One thread waits for room, the other for input that does not come.
        let (silent, _writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let silent_path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&silent));
        for path in [many, silent_path.into()] {
            let source = JsonlSource::open(&[path], 10).unwrap();
            let progress = source.progress();
            drop(source);
            // The thread holds the other reference.
            tokio::time::timeout(Duration::from_secs(10), async {
                while Arc::strong_count(&progress) > 1 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await
            .unwrap();
        }
    }

    #[tokio::test]
    async fn more_bytes_than_may_be_queued() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("large");
        let line = "x".repeat(QUEUED_BYTES / 3);
        fs::write(&path, format!("{line}\n").repeat(5)).unwrap();
        let mut source = JsonlSource::open(&[path], line.len()).unwrap();
        assert_eq!(all(&mut source).await.len(), 5);
        assert_eq!(source.budget.state.lock().unwrap().queued, 0);
    }
}
