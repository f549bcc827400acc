//! Whether what a box took is free again, where that can be seen: files without a name take room, too.
//!
//! A file that a program has sent over a socket to itself, and the socket over itself, is held by nobody and still
//! there. The kernel looks for such garbage when any local socket is closed, some time later: without that
//! the disk and the memory of the next program would be smaller than its limits say.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, StatVfs};

use super::account::Account;
use super::tree;

/// How long the kernel may take to be done with what is left of a box.
const BOUND: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);
/// The directory that is `TMPDIR` outlives its box.
const KEPT_FILES: u64 = 1;
/// Memory of files that the kernel's counters may be wrong by.
const SLACK_BYTES: u64 = 8 << 20;

/// A file system on which boxes are alone.
#[derive(Debug)]
pub(super) struct Room {
    dir: OwnedFd,
    blocks: u64,
    files: u64,
}

impl Room {
    /// Notes what the file system of `path` holds now.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let dir = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let (blocks, files) = used(&rustix::fs::fstatvfs(dir.as_fd())?);
        Ok(Self { dir, blocks, files })
    }

    /// Blocks and files more than then.
    fn left(&self) -> io::Result<(u64, u64)> {
        let (blocks, files) = used(&rustix::fs::fstatvfs(self.dir.as_fd())?);
        Ok((blocks.saturating_sub(self.blocks), files.saturating_sub(self.files + KEPT_FILES)))
    }
}

fn used(stat: &StatVfs) -> (u64, u64) {
    (stat.f_blocks.saturating_sub(stat.f_bfree), stat.f_files.saturating_sub(stat.f_ffree))
}

/// Has the kernel remove what nobody holds any more, after a box was wiped.
///
/// # Errors
/// Something of the box still takes room: the worker must go.
pub(super) fn freed(room: Option<&Room>, account: Option<&Account>) -> io::Result<()> {
    let until = Instant::now() + BOUND;
    loop {
        drop(UnixStream::pair());
        let (blocks, files) = room.map_or(Ok((0, 0)), Room::left)?;
        let bytes = account.map_or(0, Account::file_bytes);
        if (blocks, files) == (0, 0) && bytes <= SLACK_BYTES {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(io::Error::other(format!(
                "{blocks} blocks and {files} files without a name are left, and {bytes} bytes of memory"
            )));
        }
        tree::wait(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::BorrowedFd;

    use rustix::event::{PollFd, PollFlags, Timespec};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    fn send(over: &UnixStream, what: BorrowedFd<'_>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let what = [what];
        assert!(control.push(SendAncillaryMessage::ScmRights(&what)));
        rustix::net::sendmsg(over, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn what_only_messages_hold_goes() {
        let (watched, held) = std::io::pipe().unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        send(&one, held.as_fd());
        for over in [&one, &other] {
            send(over, one.as_fd());
            send(over, other.as_fd());
        }
        drop((held, one, other));
        freed(None, None).unwrap();
        // The end is seen once nobody holds the other one.
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        let mut watched = [PollFd::new(&watched, PollFlags::empty())];
        assert_eq!(rustix::event::poll(&mut watched, Some(&limit)), Ok(1));
    }

    #[test]
    fn what_is_left_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room { blocks: 0, ..Room::new(dir.path()).unwrap() };
        let error = freed(Some(&room), None).unwrap_err().to_string();
        assert!(error.contains("blocks and"), "{error}");
    }
}
