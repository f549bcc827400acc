//! Which system calls are refused, as one table, and the filter made of it.
//!
//! The filter is installed once on the worker, after its set-up; commands inherit it. So the worker
//! lives with it, too. It is a list of what is refused: it takes away kernel surface that no judged
//! program needs, while namespaces, ids and the private root are what contains. A refused call
//! answers an errno and never a signal, so programs can try and fall back.
//!
//! - A worker that starts commands by `clone3` keeps that call, and each command loses it by a second, small filter of
//!   its own before it is executed ([`CommandFilter`]).
//! - Numbers above the newest that this table knows do not exist, like x32 and other architectures.
//! - In namespaces the worker is process 1, its second thread is number 2 where it has one, and where it has no ids
//!   of its own it shares the user with its programs. So every call that could change or inspect a process by number
//!   is refused for those, and for whole users and groups. Signals need no rule: process 1 has no handlers.
//! - Among the processes of the host ([`Place::Host`]) number 1 is a stranger. With a user of its own a program can
//!   change no other process anyway; as the same user it may name no process but itself (0), which also
//!   refuses threads named by number. Opening a pidfd is allowed there: it gives no right, and the worker needs it.
//! - There no socket can be made at all, unless there is a network: Landlock does not hold what is said to a
//!   socket in the file system, and the session bus of a user starts programs. With a network the
//!   internet's families can. Pairs of connected sockets work, but datagrams, which can be sent elsewhere.
//! - `AF_NETLINK` is refused: `getaddrinfo` gets by without it, `getifaddrs` and `if_nameindex` fail.
//! - System V IPC and message queues are refused because they outlive a box. POSIX semaphores and shared memory are
//!   files of `/dev/shm` and work.

use std::io;

use super::bpf::{self, Rule, Test, When};

/// Where a filter is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In namespaces of its own, as process 1.
    Namespaces {
        /// The worker has a second thread, [`SECOND_THREAD`].
        two_threads: bool,
        /// It starts commands by `clone3`.
        clones: bool,
    },
    /// Among the processes of the host.
    Host {
        /// The host's network may be used.
        network: bool,
        /// Programs are a user of their own.
        own_ids: bool,
    },
}

/// The newest call that was looked at: `file_setattr` (Linux 6.17).
const LAST: u32 = 469;

const PERM: i32 = libc::EPERM;

const fn always(call: i64) -> Rule {
    Rule { call, when: When::Always, errno: PERM }
}

const fn arg(call: i64, index: u8, test: Test) -> Rule {
    Rule { call, when: When::Arg(index, test), errno: PERM }
}

const fn or(rule: Rule, errno: i32) -> Rule {
    Rule { errno, ..rule }
}

/// Every `CLONE_NEW*` that fits into the 32 bits that `clone` takes; `CLONE_NEWTIME` has its bit only in `unshare`.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
const NEW_TIME: u32 = 0x80;

/// Unix, IPv4, IPv6.
const FAMILIES: Test = Test::NotIn(&[1, 2, 10]);
/// Default, ICMP (datagrams only: raw sockets need a capability), TCP, UDP, ICMPv6, multipath TCP. Others load modules.
const PROTOCOLS: Test = Test::NotIn(&[0, 1, 6, 17, 58, 262]);

/// The families of a program that may use the host's network and nothing else of it.
const INTERNET: Test = Test::NotIn(&[2, 10]);
/// Streams and sequenced packets, each with the flags that go with it: once connected they stay so.
const CONNECTED: Test = Test::NotIn(&[
    1,
    5,
    1 | CLOEXEC,
    5 | CLOEXEC,
    1 | NONBLOCK,
    5 | NONBLOCK,
    1 | CLOEXEC | NONBLOCK,
    5 | CLOEXEC | NONBLOCK,
]);
const CLOEXEC: u32 = 0o2_000_000;
const NONBLOCK: u32 = 0o4000;

/// A process that is not for programs to change: the worker.
const WORKER: Test = Test::Is(1);
/// The same where it has a second thread: a call that names a thread may change its whole process.
const BOTH_THREADS: Test = Test::In(&[1, SECOND_THREAD]);
/// The number of a thread that the first process of a namespace makes before it starts anything else; it is
/// never given to another as long as that thread lives.
pub const SECOND_THREAD: u32 = 2;
/// The same where the worker has any number: none but the caller.
const OTHERS: Test = Test::NotIn(&[0]);

const PRIO_PROCESS: u32 = 0;
const IOPRIO_WHO_PROCESS: u32 = 1;

/// Pushing characters into a terminal, its selection, its line discipline.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const TIOCSETD: u32 = 0x5423;

const MAP_HUGETLB: u32 = libc::MAP_HUGETLB.unsigned_abs();

/// Not in every libc.
const OPEN_TREE_ATTR: i64 = 467;
const LISTMOUNT: i64 = 458;
const STATMOUNT: i64 = 457;

/// Threads are made by `clone` where `clone3`, whose flags are out of a filter's sight, is not there.
const NO_CLONE3: Rule = or(always(libc::SYS_clone3), libc::ENOSYS);

/// Numbers of one architecture only.
#[cfg(target_arch = "x86_64")]
const OLD: &[Rule] = &[
    always(libc::SYS_iopl),
    always(libc::SYS_ioperm),
    always(libc::SYS_modify_ldt),
    always(libc::SYS_uselib),
    always(libc::SYS_ustat),
    always(libc::SYS_sysfs),
    always(libc::SYS__sysctl),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Rule] = &[];

/// The table. Rules of one call stand together; the common calls come first.
const RULES: &[Rule] = &[
    // Pages of another pool, which no limit of memory counts; the answer is that of an empty pool.
    or(arg(libc::SYS_mmap, 3, Test::AnyOf(MAP_HUGETLB)), libc::ENOMEM),
    arg(libc::SYS_clone, 0, Test::AnyOf(NEW_NAMESPACES)),
    NO_CLONE3,
    arg(libc::SYS_ioctl, 1, Test::Is(TIOCSTI)),
    arg(libc::SYS_ioctl, 1, Test::Is(TIOCLINUX)),
    arg(libc::SYS_ioctl, 1, Test::Is(TIOCSETD)),
    or(arg(libc::SYS_socket, 0, FAMILIES), libc::EAFNOSUPPORT),
    or(arg(libc::SYS_socket, 2, PROTOCOLS), libc::EPROTONOSUPPORT),
    or(arg(libc::SYS_socketpair, 0, FAMILIES), libc::EAFNOSUPPORT),
    // Process 1, users and groups.
    arg(libc::SYS_prlimit64, 0, WORKER),
    // The limit by which no core is written is not lowered to one by which it is handed to a program of the host.
    Rule { call: libc::SYS_prlimit64, when: When::Setting(1, libc::RLIMIT_CORE, 2), errno: PERM },
    arg(libc::SYS_setrlimit, 0, Test::Is(libc::RLIMIT_CORE)),
    arg(libc::SYS_sched_setaffinity, 0, WORKER),
    arg(libc::SYS_sched_setscheduler, 0, WORKER),
    arg(libc::SYS_sched_setparam, 0, WORKER),
    arg(libc::SYS_sched_setattr, 0, WORKER),
    arg(libc::SYS_setpriority, 0, Test::NotIn(&[PRIO_PROCESS])),
    arg(libc::SYS_setpriority, 1, WORKER),
    arg(libc::SYS_ioprio_set, 0, Test::NotIn(&[IOPRIO_WHO_PROCESS])),
    arg(libc::SYS_ioprio_set, 1, WORKER),
    arg(libc::SYS_get_robust_list, 0, WORKER),
    arg(libc::SYS_migrate_pages, 0, WORKER),
    arg(libc::SYS_move_pages, 0, WORKER),
    arg(libc::SYS_pidfd_open, 0, WORKER),
    always(libc::SYS_pidfd_getfd),
    always(libc::SYS_kcmp),
    always(libc::SYS_ptrace),
    always(libc::SYS_process_vm_readv),
    always(libc::SYS_process_vm_writev),
    always(libc::SYS_process_madvise),
    always(libc::SYS_process_mrelease),
    // 0 and the query are all that programs do with it; other personalities weaken address randomisation.
    arg(libc::SYS_personality, 0, Test::NotIn(&[0, u32::MAX])),
    // Namespaces and mounts.
    arg(libc::SYS_unshare, 0, Test::AnyOf(NEW_NAMESPACES | NEW_TIME)),
    always(libc::SYS_setns),
    always(libc::SYS_mount),
    always(libc::SYS_umount2),
    always(libc::SYS_pivot_root),
    always(libc::SYS_chroot),
    always(libc::SYS_open_tree),
    always(OPEN_TREE_ATTR),
    always(libc::SYS_move_mount),
    always(libc::SYS_fsopen),
    always(libc::SYS_fsconfig),
    always(libc::SYS_fsmount),
    always(libc::SYS_fspick),
    always(libc::SYS_mount_setattr),
    always(STATMOUNT),
    always(LISTMOUNT),
    // Files behind the back of paths.
    always(libc::SYS_open_by_handle_at),
    always(libc::SYS_name_to_handle_at),
    always(libc::SYS_fanotify_init),
    always(libc::SYS_fanotify_mark),
    always(libc::SYS_quotactl),
    always(libc::SYS_quotactl_fd),
    always(libc::SYS_acct),
    always(libc::SYS_swapon),
    always(libc::SYS_swapoff),
    // Large parts of the kernel that judged programs do not need.
    always(libc::SYS_bpf),
    always(libc::SYS_perf_event_open),
    always(libc::SYS_userfaultfd),
    or(arg(libc::SYS_memfd_create, 1, Test::AnyOf(libc::MFD_HUGETLB)), libc::ENOMEM),
    // Without it the other calls of its kind have nothing to work on. Events are of the whole machine, and few.
    always(libc::SYS_io_setup),
    always(libc::SYS_io_uring_setup),
    always(libc::SYS_io_uring_enter),
    always(libc::SYS_io_uring_register),
    always(libc::SYS_memfd_secret),
    // What outlives a box.
    always(libc::SYS_add_key),
    always(libc::SYS_request_key),
    always(libc::SYS_keyctl),
    always(libc::SYS_shmget),
    always(libc::SYS_shmat),
    always(libc::SYS_shmctl),
    always(libc::SYS_shmdt),
    always(libc::SYS_semget),
    always(libc::SYS_semop),
    always(libc::SYS_semtimedop),
    always(libc::SYS_semctl),
    always(libc::SYS_msgget),
    always(libc::SYS_msgsnd),
    always(libc::SYS_msgrcv),
    always(libc::SYS_msgctl),
    always(libc::SYS_mq_open),
    always(libc::SYS_mq_unlink),
    always(libc::SYS_mq_timedsend),
    always(libc::SYS_mq_timedreceive),
    always(libc::SYS_mq_notify),
    always(libc::SYS_mq_getsetattr),
    // The machine.
    always(libc::SYS_init_module),
    always(libc::SYS_finit_module),
    always(libc::SYS_delete_module),
    always(libc::SYS_kexec_load),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_kexec_file_load),
    always(libc::SYS_reboot),
    always(libc::SYS_syslog),
    always(libc::SYS_settimeofday),
    always(libc::SYS_clock_settime),
    always(libc::SYS_clock_adjtime),
    always(libc::SYS_adjtimex),
    always(libc::SYS_sethostname),
    always(libc::SYS_setdomainname),
    always(libc::SYS_vhangup),
    always(libc::SYS_nfsservctl),
    always(libc::SYS_lookup_dcookie),
];

fn rules(place: Place) -> Vec<Rule> {
    let mut rules: Vec<Rule> = RULES.iter().chain(OLD).copied().collect();
    // The rule of a process by its number.
    let of_worker = |rule: &Rule| matches!(rule.when, When::Arg(_, test) if test == WORKER);
    let (network, own_ids) = match place {
        Place::Namespaces { two_threads, clones } => {
            rules.retain(|rule| !(clones && *rule == NO_CLONE3));
            for rule in rules.iter_mut().filter(|rule| two_threads && of_worker(rule)) {
                if let When::Arg(_, test) = &mut rule.when {
                    *test = BOTH_THREADS;
                }
            }
            return rules;
        }
        Place::Host { network, own_ids } => (network, own_ids),
    };
    rules.retain(|rule| !of_worker(rule) || !(own_ids || rule.call == libc::SYS_pidfd_open));
    for rule in &mut rules {
        rule.when = match rule.when {
            When::Arg(index, test) if test == WORKER => When::Arg(index, OTHERS),
            When::Arg(0, test) if test == FAMILIES && rule.call == libc::SYS_socket => {
                if network {
                    When::Arg(0, INTERNET)
                } else {
                    When::Always
                }
            }
            other => other,
        };
    }
    let pair = rules.iter().position(|rule| rule.call == libc::SYS_socketpair).unwrap_or(rules.len());
    rules.insert(pair, or(arg(libc::SYS_socketpair, 1, CONNECTED), libc::EPROTONOSUPPORT));
    rules
}

/// Installs the filter on this thread, and so on everything that it starts. `no_new_privs` must be set.
pub(super) fn install(place: Place) -> io::Result<()> {
    bpf::install(&bpf::assemble(&rules(place), LAST))
}

/// What a command is refused in addition, where its worker needs it to start the command: `clone3`.
pub struct CommandFilter(Vec<bpf::Instruction>);

impl CommandFilter {
    /// Assembles it, once for a worker.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "there is nothing default about it")]
    pub fn new() -> Self {
        Self(bpf::assemble(&[NO_CLONE3], LAST))
    }

    /// Installs it on the calling process. Async-signal-safe, allocates nothing.
    ///
    /// # Errors
    /// As the kernel says; `no_new_privs` must be set.
    pub fn install(&self) -> io::Result<()> {
        bpf::install(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The table read without the machine: the expectation.
    fn expected(place: Place, number: u32, args: [u64; 6]) -> Option<i32> {
        if number > LAST {
            return Some(libc::ENOSYS);
        }
        let refuses = |rule: &Rule| match rule.when {
            When::Always => true,
            When::Setting(index, value, pointer) => {
                args[usize::from(index)] as u32 == value && args[usize::from(pointer)] != 0
            }
            When::Arg(index, test) => {
                let value = args[usize::from(index)] as u32;
                match test {
                    Test::Is(one) => value == one,
                    Test::In(values) => values.contains(&value),
                    Test::AnyOf(bits) => value & bits != 0,
                    Test::NotIn(values) => !values.contains(&value),
                }
            }
        };
        rules(place)
            .iter()
            .find(|rule| rule.call == i64::from(number) && refuses(rule))
            .map(|rule| rule.errno)
    }

    const WORKER_ALONE: Place = Place::Namespaces { two_threads: false, clones: false };
    const TWO_THREADS: Place = Place::Namespaces { two_threads: true, clones: false };
    const CLONES: Place = Place::Namespaces { two_threads: false, clones: true };
    const HOST: Place = Place::Host { network: false, own_ids: false };
    const HOST_OWN: Place = Place::Host { network: false, own_ids: true };
    const HOST_NETWORK: Place = Place::Host { network: true, own_ids: false };

    #[rstest]
    fn the_filter_is_the_table(
        #[values(WORKER_ALONE, TWO_THREADS, CLONES, HOST, HOST_OWN, HOST_NETWORK)] place: Place,
    ) {
        let program = bpf::assemble(&rules(place), LAST);
        let values =
            [0, 1, 2, 3, 4, 10, 16, 17, 40, 0x80, 0x5412, 0x541c, 0x1000_0000, 0x7e02_0000, 0xffff_ffff];
        for number in 0..=512 {
            for value in values {
                for high in [0, 1 << 32] {
                    let args = [value | high; 6];
                    let answer = bpf::evaluate(&program, bpf::NATIVE_ARCHITECTURE, number, args);
                    assert_eq!(answer, expected(place, number, args), "call {number} with {value:#x}");
                }
            }
        }
    }

    #[test]
    fn other_architectures_and_x32_do_not_exist() {
        let program = bpf::assemble(&rules(WORKER_ALONE), LAST);
        // i386 and arm.
        for architecture in [0x4000_0003, 0x4000_0028] {
            assert_eq!(bpf::evaluate(&program, architecture, 1, [0; 6]), Some(libc::ENOSYS));
        }
        let x32 = 0x4000_0000 | 1;
        assert_eq!(bpf::evaluate(&program, bpf::NATIVE_ARCHITECTURE, x32, [0; 6]), Some(libc::ENOSYS));
        assert_eq!(bpf::evaluate(&program, bpf::NATIVE_ARCHITECTURE, 1, [0; 6]), None);
    }

    #[rstest]
    fn rules_of_one_call_stand_together(
        #[values(WORKER_ALONE, TWO_THREADS, CLONES, HOST, HOST_OWN, HOST_NETWORK)] place: Place,
    ) {
        let rules = rules(place);
        let groups = rules.chunk_by(|a, b| a.call == b.call).count();
        let mut calls: Vec<_> = rules.iter().map(|rule| rule.call).collect();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(groups, calls.len());
    }

    #[rstest]
    #[case::thread(libc::SYS_clone, [0x003d_0f00, 0, 0, 0, 0, 0], None)]
    #[case::user_namespace(libc::SYS_clone, [0x1000_0011, 0, 0, 0, 0, 0], Some(libc::EPERM))]
    #[case::flags_in_the_upper_half(libc::SYS_clone, [0x1_1000_0011, 0, 0, 0, 0, 0], Some(libc::EPERM))]
    #[case::clone3(libc::SYS_clone3, [0; 6], Some(libc::ENOSYS))]
    #[case::vsock(libc::SYS_socket, [40, 1, 0, 0, 0, 0], Some(libc::EAFNOSUPPORT))]
    #[case::netlink(libc::SYS_socket, [16, 3, 0, 0, 0, 0], Some(libc::EAFNOSUPPORT))]
    #[case::tcp(libc::SYS_socket, [2, 1, 6, 0, 0, 0], None)]
    #[case::sctp(libc::SYS_socket, [2, 1, 132, 0, 0, 0], Some(libc::EPROTONOSUPPORT))]
    #[case::own_limits(libc::SYS_prlimit64, [0; 6], None)]
    #[case::limits_of_the_worker(libc::SYS_prlimit64, [1, 7, 0, 0, 0, 0], Some(libc::EPERM))]
    #[case::own_cores(libc::SYS_prlimit64, [0, 4, 0x7fff_0000_1000, 0, 0, 0], Some(libc::EPERM))]
    #[case::from_far_up(libc::SYS_prlimit64, [0, 4, 0x1_0000_0000, 0, 0, 0], Some(libc::EPERM))]
    #[case::read(libc::SYS_prlimit64, [0, 4, 0, 0x7fff_0000_1000, 0, 0], None)]
    #[case::own_files(libc::SYS_prlimit64, [0, 7, 0x7fff_0000_1000, 0, 0, 0], None)]
    #[case::own_cores_of_old(libc::SYS_setrlimit, [4, 0, 0, 0, 0, 0], Some(libc::EPERM))]
    #[case::own_files_of_old(libc::SYS_setrlimit, [7, 0, 0, 0, 0, 0], None)]
    #[case::own_priority(libc::SYS_setpriority, [0, 0, 5, 0, 0, 0], None)]
    #[case::priority_of_the_user(libc::SYS_setpriority, [2, 0, 5, 0, 0, 0], Some(libc::EPERM))]
    #[case::query(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0], None)]
    #[case::no_randomisation(libc::SYS_personality, [0x4_0000, 0, 0, 0, 0, 0], Some(libc::EPERM))]
    #[case::memory(libc::SYS_mmap, [0, 4096, 3, 0x22, u64::MAX, 0], None)]
    #[case::huge_pages(libc::SYS_mmap, [0, 4096, 3, 0x1504_0022, u64::MAX, 0], Some(libc::ENOMEM))]
    #[case::huge_pages_in_a_file(libc::SYS_memfd_create, [0, 0x5400_0004, 0, 0, 0, 0], Some(libc::ENOMEM))]
    #[case::push(libc::SYS_ioctl, [0, 0xffff_ffff_0000_5412, 0, 0, 0, 0], Some(libc::EPERM))]
    fn cases(#[case] call: i64, #[case] args: [u64; 6], #[case] answer: Option<i32>) {
        let program = bpf::assemble(&rules(WORKER_ALONE), LAST);
        let number = u32::try_from(call).unwrap();
        assert_eq!(bpf::evaluate(&program, bpf::NATIVE_ARCHITECTURE, number, args), answer);
    }

    #[rstest]
    #[case::second_thread(TWO_THREADS, libc::SYS_prlimit64, [2, 7, 0, 0, 0, 0], Some(libc::EPERM))]
    #[case::first_thread(TWO_THREADS, libc::SYS_setpriority, [0, 1, 5, 0, 0, 0], Some(libc::EPERM))]
    #[case::a_program(TWO_THREADS, libc::SYS_prlimit64, [3, 7, 0, 0, 0, 0], None)]
    #[case::first_program(WORKER_ALONE, libc::SYS_prlimit64, [2, 7, 0, 0, 0, 0], None)]
    #[case::no_network(HOST, libc::SYS_socket, [2, 1, 0, 0, 0, 0], Some(libc::EAFNOSUPPORT))]
    #[case::no_unix_socket(HOST_OWN, libc::SYS_socket, [1, 1, 0, 0, 0, 0], Some(libc::EAFNOSUPPORT))]
    #[case::network(HOST_NETWORK, libc::SYS_socket, [2, 1, 0, 0, 0, 0], None)]
    #[case::network_is_not_unix(HOST_NETWORK, libc::SYS_socket, [1, 1, 0, 0, 0, 0], Some(libc::EAFNOSUPPORT))]
    #[case::pair(HOST, libc::SYS_socketpair, [1, 0o2_000_001, 0, 0, 0, 0], None)]
    #[case::pair_of_datagrams(HOST, libc::SYS_socketpair, [1, 2, 0, 0, 0, 0], Some(libc::EPROTONOSUPPORT))]
    #[case::own_limits(HOST, libc::SYS_prlimit64, [0; 6], None)]
    #[case::limits_of_others(HOST, libc::SYS_prlimit64, [77, 7, 0, 0, 0, 0], Some(libc::EPERM))]
    #[case::limits_by_a_user_of_its_own(HOST_OWN, libc::SYS_prlimit64, [77, 7, 0, 0, 0, 0], None)]
    #[case::pidfd(HOST, libc::SYS_pidfd_open, [77, 0, 0, 0, 0, 0], None)]
    #[case::getfd(HOST_OWN, libc::SYS_pidfd_getfd, [0; 6], Some(libc::EPERM))]
    #[case::priority_of_the_user(HOST_OWN, libc::SYS_setpriority, [2, 0, 5, 0, 0, 0], Some(libc::EPERM))]
    fn cases_of_places(
        #[case] place: Place,
        #[case] call: i64,
        #[case] args: [u64; 6],
        #[case] answer: Option<i32>,
    ) {
        let program = bpf::assemble(&rules(place), LAST);
        let number = u32::try_from(call).unwrap();
        assert_eq!(bpf::evaluate(&program, bpf::NATIVE_ARCHITECTURE, number, args), answer);
    }

    /// Every call that is always refused, really made. The filter binds only the thread that has it.
    #[test]
    #[expect(unsafe_code, reason = "system calls by number")]
    fn the_kernel_agrees() {
        let sweep = |place| {
            rustix::thread::set_no_new_privs(true).unwrap();
            install(place).unwrap();
            for number in 0..=512 {
                let Some(errno) = expected(place, number, [0; 6]) else { continue };
                // By an argument of 0 only: those have a table of their own above.
                // SAFETY: the filter refuses the call before the kernel looks at its arguments.
                let answer = unsafe { libc::syscall(i64::from(number), 0, 0, 0, 0, 0, 0) };
                let said = io::Error::last_os_error().raw_os_error();
                assert_eq!((answer, said), (-1, Some(errno)), "call {number}");
            }
        };
        for place in [WORKER_ALONE, TWO_THREADS, CLONES, HOST, HOST_OWN] {
            std::thread::spawn(move || sweep(place)).join().unwrap();
        }
    }
}
