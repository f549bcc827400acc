//! One input: a file or standard input, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use rustix::event::{PollFd, PollFlags, poll};

use crate::transport::TransportError;

const BUFFER: usize = 64 * 1024;

/// An input that is open.
#[derive(Debug)]
pub(super) struct Input {
    /// As given.
    pub(super) name: String,
    pub(super) gzip: bool,
    /// Where it is a regular file.
    pub(super) size: Option<u64>,
    file: File,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, TransportError> {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
        let file =
            if is_stdin { stdin().as_fd().try_clone_to_owned().map(File::from) } else { File::open(path) };
        file.and_then(|file| Ok((file.metadata()?, file)))
            .and_then(|(metadata, file)| {
                if metadata.is_dir() {
                    return Err(io::Error::from(ErrorKind::IsADirectory));
                }
                Ok(Self {
                    gzip: !is_stdin && path.extension().is_some_and(|extension| extension == "gz"),
                    size: metadata.is_file().then_some(metadata.len()),
                    name: name.clone(),
                    file,
                })
            })
            .map_err(|error| TransportError::Read { name, reason: error.to_string() })
    }

    /// Its text. Reading ends with an error once the other end of `stop` is closed.
    pub(super) fn into_text(self, stop: Arc<OwnedFd>, consumed: Arc<AtomicU64>) -> Box<dyn BufRead> {
        let raw = BufReader::with_capacity(BUFFER, Raw { file: self.file, stop, consumed });
        if self.gzip {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        }
    }
}

/// Reads a descriptor, counts, and can be stopped while it waits.
struct Raw {
    file: File,
    stop: Arc<OwnedFd>,
    consumed: Arc<AtomicU64>,
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut watched =
                [PollFd::new(&self.file, PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
            match poll(&mut watched, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !watched[1].revents().is_empty() {
                return Err(io::Error::new(ErrorKind::BrokenPipe, "nobody reads on"));
            }
            match self.file.read(buffer) {
                Ok(count) => {
                    self.consumed.fetch_add(count as u64, Ordering::Relaxed);
                    return Ok(count);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
