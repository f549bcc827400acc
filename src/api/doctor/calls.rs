//! System calls that a program is refused, each with arguments that change nothing where it is not, and
//! that the kernel answers with something else than the refusal.

use serde::Serialize;

/// One of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Call {
    pub(super) name: &'static str,
    number: i64,
    args: &'static [i64],
    /// What the filter answers.
    refused: &'static str,
}

const fn call(name: &'static str, number: i64, args: &'static [i64]) -> Call {
    Call { name, number, args, refused: "EPERM" }
}

const fn socket(name: &'static str, args: &'static [i64]) -> Call {
    Call { name, number: libc::SYS_socket, args, refused: "EAFNOSUPPORT" }
}

const NEW_USER: i64 = libc::CLONE_NEWUSER as i64;

/// All of them.
pub(super) const CALLS: &[Call] = &[
    call("mount", libc::SYS_mount, &[0, 0, 1, 0, 0]),
    call("umount2", libc::SYS_umount2, &[1, 0xffff]),
    call("pivot_root", libc::SYS_pivot_root, &[1, 1]),
    call("chroot", libc::SYS_chroot, &[1]),
    call("open_tree", libc::SYS_open_tree, &[-1, 0, -1]),
    call("move_mount", libc::SYS_move_mount, &[-1, 0, -1, 0, -1]),
    call("fsopen", libc::SYS_fsopen, &[1, -1]),
    call("mount_setattr", libc::SYS_mount_setattr, &[-1, 0, -1, 0, 0]),
    call("unshare", libc::SYS_unshare, &[NEW_USER]),
    call("setns", libc::SYS_setns, &[-1, 0]),
    Call { name: "clone3", number: libc::SYS_clone3, args: &[0, 0], refused: "ENOSYS" },
    call("ptrace", libc::SYS_ptrace, &[0, 0, 0, 0]),
    call("process_vm_readv", libc::SYS_process_vm_readv, &[0, 0, 0, 0, 0, 1]),
    call("pidfd_getfd", libc::SYS_pidfd_getfd, &[-1, -1, 1]),
    call("kcmp", libc::SYS_kcmp, &[0, 0, 99, 0, 0]),
    call("personality", libc::SYS_personality, &[0x4_0000]),
    call("bpf", libc::SYS_bpf, &[0xffff, 0, 0]),
    call("perf_event_open", libc::SYS_perf_event_open, &[0, 0, 0, 0, -1]),
    call("userfaultfd", libc::SYS_userfaultfd, &[-1]),
    call("io_uring_setup", libc::SYS_io_uring_setup, &[0, 1]),
    call("memfd_secret", libc::SYS_memfd_secret, &[-1]),
    call("keyctl", libc::SYS_keyctl, &[0xffff]),
    call("add_key", libc::SYS_add_key, &[1, 1, 0, 0, 0]),
    call("shmget", libc::SYS_shmget, &[1, 1, 0]),
    call("semget", libc::SYS_semget, &[1, 0, 0]),
    call("msgget", libc::SYS_msgget, &[1, 0]),
    call("mq_open", libc::SYS_mq_open, &[1, 0, 0, 0]),
    call("name_to_handle_at", libc::SYS_name_to_handle_at, &[-1, 0, 0, 0, -1]),
    call("open_by_handle_at", libc::SYS_open_by_handle_at, &[-1, 0, 0]),
    call("fanotify_init", libc::SYS_fanotify_init, &[-1, -1]),
    call("swapon", libc::SYS_swapon, &[1, -1]),
    call("init_module", libc::SYS_init_module, &[1, 1, 1]),
    call("clock_settime", libc::SYS_clock_settime, &[0, 1]),
    // Characters pushed into a terminal; standard output is a pipe.
    call("ioctl TIOCSTI", libc::SYS_ioctl, &[1, 0x5412, 0]),
    socket("socket AF_NETLINK", &[16, 3, 0]),
    socket("socket AF_PACKET", &[17, 3, 0]),
    socket("socket AF_ALG", &[38, 5, 0]),
    socket("socket AF_VSOCK", &[40, 1, 0]),
];
