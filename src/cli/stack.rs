//! Stacks of threads that libraries start.
#![expect(unsafe_code, reason = "the environment can only be changed while there is one thread")]

/// The AMQP library parses headers by recursion, on a thread of its own, and they are dropped by
/// recursion, on ours: 128 KiB of nested arrays, the most that a message can carry, must not overflow a
/// stack. Memory that is not used costs nothing.
const BYTES: &str = "268435456";

/// Makes the stacks of threads that name no size of their own large. The first thing to do.
pub(super) fn deepen() {
    if std::env::var_os("RUST_MIN_STACK").is_none() {
        // SAFETY: `main` calls this before anything that starts a thread.
        unsafe { std::env::set_var("RUST_MIN_STACK", BYTES) };
    }
}
