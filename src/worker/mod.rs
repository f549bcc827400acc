//! Reusable worker processes, their launcher, and the pool that leases them.
//!
//! ```text
//! supervisor (tokio)            this process: manager.rs, pool.rs, client.rs
//! └─ launcher                   this binary re-executed, one thread: launcher.rs
//!    └─ worker                  forked from the launcher, one box at a time: inside/
//!       └─ the command's process tree
//! ```
//!
//! With the host's network for some programs there are two such launchers, each with its pool: pools.rs.
//!
//! A worker runs commands and reports what the kernel observed. It never judges, stops early or
//! compares: what is expected of a program never enters the process that runs it.

mod actor;
mod client;
mod fork;
pub mod frame;
pub mod inside;
mod isolation;
mod launch;
mod launcher;
mod manager;
mod packet;
mod pool;
mod pools;
pub mod protocol;
mod scratch;
mod settings;

pub use client::{Lease, Lost, LostReason, OpenBox, OpenError, Phase};
pub use launcher::{launcher_entry, launcher_main};
pub use manager::WorkerPool;
pub use pool::RecycleReason;
pub use pools::{Pools, Turn};
pub use scratch::Scratch;
pub use settings::{PoolSettings, PoolStats, WorkerError};
