//! A filter program for system calls: assembled from rules, and installed.
//!
//! Hand-made, because the crates that do it answer a foreign architecture with a deadly signal and have
//! one errno for each filter. The program is a list of comparisons with the call's number; most calls
//! never run it, because the kernel knows the numbers that are always allowed.
#![expect(unsafe_code, reason = "prctl(PR_SET_SECCOMP) takes a pointer")]

use std::io;

/// A test of one argument. The kernel takes the arguments in question as 32-bit numbers, so only
/// the lower half is compared: flags in the upper half change nothing, there as here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// The argument is this.
    Is(u32),
    /// The argument is one of these.
    In(&'static [u32]),
    /// The argument has at least one of these bits.
    AnyOf(u32),
    /// The argument is none of these.
    NotIn(&'static [u32]),
}

/// When a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Whatever its arguments are.
    Always,
    /// Where the argument of this index passes the test.
    Arg(u8, Test),
    /// Where the argument of this index is this, and the one of the last index, a pointer, is not null.
    Setting(u8, u32, u8),
}

/// One call that is refused, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) call: i64,
    pub(super) when: When,
    pub(super) errno: i32,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const IS: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const BITS: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const ANSWER: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

pub(super) type Instruction = libc::sock_filter;

fn ins(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Where an argument begins: little-endian, the lower half comes first.
fn lower_half(index: u8) -> u32 {
    16 + 8 * u32::from(index)
}

fn refuse(errno: i32) -> Instruction {
    ins(ANSWER, 0, 0, 0x0005_0000 | (errno.unsigned_abs() & 0xffff))
}

/// The program: other architectures and every number above `last` (among them all of x32) do not
/// exist, what a rule refuses is refused, everything else is allowed. Rules of one call stand together.
pub(super) fn assemble(rules: &[Rule], last: u32) -> Vec<Instruction> {
    let mut program = vec![
        ins(LOAD, 0, 0, ARCHITECTURE),
        ins(IS, 1, 0, NATIVE),
        refuse(libc::ENOSYS),
        ins(LOAD, 0, 0, NUMBER),
        ins(ABOVE, 0, 1, last),
        refuse(libc::ENOSYS),
    ];
    for group in rules.chunk_by(|a, b| a.call == b.call) {
        let mut body = Vec::new();
        for rule in group {
            match rule.when {
                When::Always => body.push(refuse(rule.errno)),
                When::Setting(index, value, pointer) => body.extend([
                    ins(LOAD, 0, 0, lower_half(index)),
                    ins(IS, 0, 5, value),
                    ins(LOAD, 0, 0, lower_half(pointer)),
                    ins(IS, 0, 2, 0),
                    ins(LOAD, 0, 0, lower_half(pointer) + 4),
                    ins(IS, 1, 0, 0),
                    refuse(rule.errno),
                ]),
                When::Arg(index, test) => {
                    body.push(ins(LOAD, 0, 0, lower_half(index)));
                    match test {
                        Test::Is(value) => body.push(ins(IS, 0, 1, value)),
                        Test::In(values) => {
                            for (at, value) in values.iter().enumerate() {
                                let last = at + 1 == values.len();
                                let over = u8::try_from(values.len() - at - 1).unwrap_or(u8::MAX);
                                body.push(ins(IS, over, u8::from(last), *value));
                            }
                        }
                        Test::AnyOf(bits) => body.push(ins(BITS, 0, 1, bits)),
                        Test::NotIn(values) => {
                            for (at, value) in values.iter().enumerate() {
                                let over = u8::try_from(values.len() - at).unwrap_or(u8::MAX);
                                body.push(ins(IS, over, 0, *value));
                            }
                        }
                    }
                    body.push(refuse(rule.errno));
                }
            }
        }
        body.push(ins(ANSWER, 0, 0, ALLOW));
        let over = u8::try_from(body.len()).unwrap_or(u8::MAX);
        program.push(ins(IS, 0, over, u32::try_from(group[0].call).unwrap_or(u32::MAX)));
        program.append(&mut body);
    }
    program.push(ins(ANSWER, 0, 0, ALLOW));
    program
}

/// Filters the system calls of this thread and of everything it starts from now on. Async-signal-safe, allocates
/// nothing.
///
/// # Errors
/// As the kernel says; `no_new_privs` must be set.
pub(super) fn install(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the pointer is to `length` instructions that outlive the call; the kernel copies them and changes none.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the program answers to a call: an errno, or `None` where it is allowed. The kernel's machine in small.
#[cfg(test)]
pub(super) fn evaluate(
    program: &[Instruction],
    architecture: u32,
    number: u32,
    args: [u64; 6],
) -> Option<i32> {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let (mut at, mut loaded) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        let taken = match code {
            LOAD => {
                let from = k as usize;
                loaded = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                at += 1;
                continue;
            }
            ANSWER if k == ALLOW => return None,
            ANSWER => return Some(i32::try_from(k & 0xffff).unwrap()),
            IS => loaded == k,
            ABOVE => loaded > k,
            BITS => loaded & k != 0,
            _ => panic!("unknown instruction {code:#x}"),
        };
        at += 1 + usize::from(if taken { jt } else { jf });
    }
}

#[cfg(test)]
pub(super) const NATIVE_ARCHITECTURE: u32 = NATIVE;
