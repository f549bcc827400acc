//! Packets of the launcher's `SOCK_SEQPACKET` socket: postcard bodies, each with at most one
//! descriptor.
//!
//! A packet arrives whole or not at all, so there is no framing and receiving is cancel-safe. An
//! empty packet is never sent: reading nothing means that the peer is gone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::protocol::MAX_PACKET_BYTES;

/// Two ends of a packet socket, both close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// The body of a packet.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = postcard::to_stdvec(message).map_err(|error| invalid(error.to_string()))?;
    if body.is_empty() || body.len() > MAX_PACKET_BYTES {
        return Err(invalid(format!(
            "a launcher packet of {} bytes, the limit is {MAX_PACKET_BYTES}",
            body.len()
        )));
    }
    Ok(body)
}

/// Sends one packet; blocks only where the socket does.
pub(crate) fn send(socket: BorrowedFd<'_>, body: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = passed.into_iter().collect();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(invalid("no room for the descriptor of a packet".into()));
    }
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(body)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one packet and the descriptor that came with it; `None`: the peer is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut body = vec![0; MAX_PACKET_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut body)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    let mut passed = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            passed = descriptors.last();
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(invalid("a launcher packet was cut short".into()));
    }
    let message = postcard::from_bytes(&body[..got.bytes]).map_err(|error| invalid(error.to_string()))?;
    Ok(Some((message, passed)))
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The supervisor's end, on the runtime.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: AsyncFd<OwnedFd>,
}

impl PacketSocket {
    /// Makes the socket non-blocking; needs a runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket: super::fork::watch(socket, Interest::READABLE)? })
    }

    /// Sends now, or says that the peer is not reading (`WouldBlock`).
    pub(crate) fn try_send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        send(self.socket.get_ref().as_fd(), &encode(message)?, None)
    }

    /// Waits for the next packet; cancel-safe.
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        self.socket.async_io(Interest::READABLE, |socket| receive(socket.as_fd())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_a_message_and_a_descriptor() {
        let (left, right) = pair().unwrap();
        let (passed, kept) = pair().unwrap();
        send(left.as_fd(), &encode(&"one").unwrap(), Some(passed.as_fd())).unwrap();
        drop(passed);
        let (message, descriptor) = receive::<String>(right.as_fd()).unwrap().unwrap();
        assert_eq!(message, "one");
        send(descriptor.unwrap().as_fd(), &encode(&7u64).unwrap(), None).unwrap();
        assert!(matches!(receive::<u64>(kept.as_fd()), Ok(Some((7, None)))));
        drop(left);
        assert!(receive::<String>(right.as_fd()).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error() {
        let (left, right) = pair().unwrap();
        send(left.as_fd(), &[0xff; 9], None).unwrap();
        assert!(receive::<super::super::protocol::ToLauncher>(right.as_fd()).is_err());
        assert!(encode(&vec![0u8; MAX_PACKET_BYTES + 1]).is_err());
    }
}
