//! The private network: a loopback interface, and nothing else.
#![expect(unsafe_code, reason = "interface flags are set by an ioctl without a safe interface")]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Brings `lo` up in this network namespace, and lets a port that a program has used be free for the next.
///
/// # Errors
/// What was done, and what the kernel said.
pub(super) fn set_up() -> Result<(), (&'static str, io::Error)> {
    loopback_up().map_err(|error| ("bringing the loopback interface up", error))?;
    // No connection may linger in TIME_WAIT: the next box would find its port taken.
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")
        .map_err(|error| ("setting net.ipv4.tcp_max_tw_buckets", error))
}

fn loopback_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: a zeroed request is valid; it names `lo` with a terminating NUL, outlives the call, and
    // SIOCSIFFLAGS reads the name and the flags.
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
