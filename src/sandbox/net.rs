//! The private network: a loopback interface, and nothing else.
#![expect(unsafe_code, reason = "interface flags are set by an ioctl without a safe interface")]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Settings of `net.ipv4` in a namespace of its own.
const SETTINGS: [(&str, &str); 3] = [
    // No connection may linger in TIME_WAIT: the next box would find its port taken.
    ("tcp_max_tw_buckets", "0"),
    // What stands between two ends of a program is memory of the kernel, and a limit of the machine for everybody.
    ("tcp_rmem", "4096 131072 524288"),
    ("tcp_wmem", "4096 65536 524288"),
];

/// Brings `lo` up in this network namespace, lets a port that a program has used be free for the next, and keeps
/// the buffers of connections small.
///
/// # Errors
/// What was done, and what the kernel said.
pub(super) fn set_up() -> Result<(), (&'static str, io::Error)> {
    loopback_up().map_err(|error| ("bringing the loopback interface up", error))?;
    SETTINGS.iter().try_for_each(|(name, value)| {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
            .map_err(|error| ("setting net.ipv4.tcp_*", error))
    })
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
