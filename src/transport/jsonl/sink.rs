//! Results as lines of a file or of standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::{mpsc, oneshot};

use crate::transport::{Outgoing, Receipt, Sink, TransportError};

const QUEUED_LINES: usize = 64;
const BATCH: usize = 64 * 1024;

/// Writes each result as one line.
///
/// One thread writes whatever is there as one batch, so that a reader sees a result as soon as there
/// is a pause. Only what [`flush`](Sink::flush) has returned for is certain to be written.
#[derive(Debug)]
pub struct JsonlSink {
    name: String,
    orders: mpsc::Sender<Order>,
    failure: Arc<OnceLock<String>>,
}

#[derive(Debug)]
enum Order {
    Line(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

impl JsonlSink {
    /// Standard output.
    ///
    /// # Errors
    /// It is closed.
    pub fn stdout() -> Result<Self, TransportError> {
        let name = "stdout".to_owned();
        match io::stdout().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Self::start(name, Output { file: File::from(descriptor), length: None }),
            Err(error) => Err(TransportError::Write { name, reason: error.to_string() }),
        }
    }

    /// A file, created where there is none; what it holds is kept with `append` and removed without.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub fn file(path: &Path, append: bool) -> Result<Self, TransportError> {
        let name = path.display().to_string();
        let mut options = OpenOptions::new();
        if append {
            options.append(true);
        } else {
            options.write(true).truncate(true);
        }
        let opened = options.create(true).open(path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((metadata, file)) => {
                let length = metadata.is_file().then_some(metadata.len());
                Self::start(name, Output { file, length })
            }
            Err(error) => Err(TransportError::Write { name, reason: error.to_string() }),
        }
    }

    /// A file that is open for appending.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn over(path: &Path, file: File) -> Result<Self, TransportError> {
        let name = path.display().to_string();
        match file.metadata() {
            Ok(metadata) => Self::start(name, Output { file, length: Some(metadata.len()) }),
            Err(error) => Err(TransportError::Write { name, reason: error.to_string() }),
        }
    }

    fn start(name: String, output: Output) -> Result<Self, TransportError> {
        let (orders, received) = mpsc::channel(QUEUED_LINES);
        let failure = Arc::new(OnceLock::new());
        let thread_failure = Arc::clone(&failure);
        let started = thread::Builder::new().name("jsonl-sink".into()).spawn(move || {
            write_all_orders(received, output, &thread_failure);
        });
        match started {
            Ok(_) => Ok(Self { name, orders, failure }),
            Err(error) => Err(TransportError::Write { name, reason: error.to_string() }),
        }
    }

    fn error(&self) -> TransportError {
        let reason =
            self.failure.get().cloned().unwrap_or_else(|| "the thread that writes it is gone".into());
        TransportError::Write { name: self.name.clone(), reason }
    }
}

impl Sink for JsonlSink {
    async fn deliver(&mut self, result: Outgoing) -> Result<Receipt, TransportError> {
        if self.failure.get().is_some() {
            return Err(self.error());
        }
        self.orders.send(Order::Line(result.body)).await.map_err(|_| self.error())?;
        Ok(Receipt::Now)
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        let (done, written) = oneshot::channel();
        self.orders.send(Order::Flush(done)).await.map_err(|_| self.error())?;
        written.await.map_err(|_| self.error())
    }
}

fn write_all_orders(mut orders: mpsc::Receiver<Order>, mut output: Output, failure: &OnceLock<String>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut waiting = Vec::new();
    while let Some(first) = orders.blocking_recv() {
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Line(line) => {
                    batch.extend_from_slice(&line);
                    batch.push(b'\n');
                }
                Order::Flush(done) => waiting.push(done),
            }
            next = if batch.len() < BATCH { orders.try_recv().ok() } else { None };
        }
        if let Err(error) = output.write(&batch) {
            // Set before the channel closes: whoever sees it closed finds the reason.
            drop(failure.set(error.to_string()));
            return;
        }
        batch.clear();
        batch.shrink_to(BATCH);
        for done in waiting.drain(..) {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
    }
}

#[derive(Debug)]
struct Output {
    file: File,
    /// Of a regular file that is ours, where it can be cut back.
    length: Option<u64>,
}

impl Output {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match write_counted(&mut Patient(&self.file), batch) {
            Ok(()) => {
                self.length = self.length.map(|length| length + batch.len() as u64);
                Ok(())
            }
            Err((written, error)) => {
                self.cut_back(&batch[..written]);
                Err(error)
            }
        }
    }

    /// After `written`, the part of a batch that came through: removes its torn last line.
    fn cut_back(&self, written: &[u8]) {
        if let Some(length) = self.length {
            let complete = written.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            // The first error is the one to tell; a torn line is dropped by `--resume`, too.
            drop(self.file.set_len(length + complete as u64));
        }
    }
}

/// Waits for room where somebody has made the descriptor a non-blocking one.
struct Patient<'a>(&'a File);

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(self.0, PollFlags::OUT)], None)?;
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `write_all`, and how much was written where it fails.
fn write_counted(writer: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use rustix::pipe::{PipeFlags, pipe_with};
    use tempfile::TempDir;

    use super::*;
    use crate::transport::Address;

    fn line(text: &str) -> Outgoing {
        Outgoing { body: text.as_bytes().to_vec(), to: Address::Retry { attempt: 1 }, envelope: None }
    }

    #[tokio::test]
    async fn appends_or_replaces() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("out");
        for (append, text, expected) in
            [(false, "a", "a\n"), (true, "b", "a\nb\n"), (false, "c", "c\n"), (true, "d", "c\nd\n")]
        {
            let mut sink = JsonlSink::file(&path, append).unwrap();
            sink.deliver(line(text)).await.unwrap();
            sink.flush().await.unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn many_lines_keep_their_order() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("out");
        let mut sink = JsonlSink::file(&path, false).unwrap();
        for number in 0..5_000 {
            sink.deliver(line(&number.to_string())).await.unwrap();
        }
        sink.flush().await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().map(|line| line.parse::<u32>().unwrap()).eq(0..5_000));
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_with_the_name() {
        let mut sink = JsonlSink::file(Path::new("/dev/full"), true).unwrap();
        sink.deliver(line("a")).await.unwrap();
        let error = sink.flush().await.unwrap_err().to_string();
        assert!(error.starts_with("cannot write /dev/full: No space left"), "{error}");
        assert!(sink.deliver(line("b")).await.is_err());
    }

    #[tokio::test]
    async fn a_pipe_sees_lines_without_a_flush_and_a_closed_one_is_an_error() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut sink = JsonlSink::start("pipe".into(), Output { file: writer.into(), length: None }).unwrap();
        sink.deliver(line("a")).await.unwrap();
        let mut reader = File::from(reader);
        let mut seen = [0; 2];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"a\n");
        drop(reader);
        sink.deliver(line("b")).await.unwrap();
        assert!(sink.flush().await.unwrap_err().to_string().contains("Broken pipe"));
    }

    #[tokio::test]
    async fn a_non_blocking_pipe_that_is_full_is_waited_for() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut sink = JsonlSink::start("pipe".into(), Output { file: writer.into(), length: None }).unwrap();
        let long = "x".repeat(300_000);
        sink.deliver(line(&long)).await.unwrap();
        drop(sink);
        let mut seen = String::new();
        File::from(reader).read_to_string(&mut seen).unwrap();
        assert_eq!(seen, long + "\n");
    }

    #[test]
    fn what_was_written_before_an_error_is_counted() {
        let mut room = [0; 5];
        let (written, error) = write_counted(&mut &mut room[..], b"ab\ncd\n").unwrap_err();
        assert_eq!((written, error.kind()), (5, ErrorKind::WriteZero));
    }

    #[test]
    fn a_torn_line_is_cut_off() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "kept\nab\nc").unwrap();
        let output = Output { file: OpenOptions::new().append(true).open(&path).unwrap(), length: Some(5) };
        output.cut_back(b"ab\nc");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept\nab\n");
    }
}
