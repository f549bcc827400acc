//! evalmill runs model-generated code and says what came of it.
//!
//! Predictions come in as messages, become *executables* (files and commands), run under limits in
//! recycled worker processes, and leave as results with verdicts and timings. `evalmill run` does so
//! from JSONL to JSONL, `evalmill serve` from RabbitMQ to RabbitMQ; a library call does it in memory.
//!
//! # One prediction, one direction
//! ```text
//! Source ─ decode ─ preprocess ─ open box, write ─ run commands ─ read back, wipe ─ postprocess ─ Sink
//!          └──────── pipeline ─┘ └───────────── executor ───────────────────────┘ └ pipeline ┘
//! └───────────────────────────────────── service::run ─────────────────────────────────────────────┘
//! ```
//! Start reading at [`service::run`] (the loop), then [`pipeline::Pipeline::process`] (the stages),
//! then [`executor::PoolExecutor`] (one executable), then [`worker`] (processes). The broker's side is
//! [`transport::rabbitmq`]; [`api::serve()`] puts it all together.
//!
//! # Processes
//! ```text
//! evalmill (tokio: supervisor)
//! └─ launcher   this binary re-executed, one thread, restartable at any time
//!    ├─ worker  one box at a time, recycled
//!    │  └─ the command's process tree, killed as a whole
//!    └─ worker  …
//! ```
//!
//! # Layers
//! A module imports only from lower layers; modules of one layer do not import each other. A test
//! reads this table and holds every `use crate::…` against it.
//!
//! | layer | modules |
//! |---|---|
//! | 0 | `model`, `util` |
//! | 1 | `config`, `code_trees` |
//! | 2 | `metrics`, `telemetry` |
//! | 3 | `transport`, `sandbox`, `processors` |
//! | 4 | `worker` |
//! | 5 | `executor` |
//! | 6 | `pipeline` |
//! | 7 | `service` |
//! | 8 | `api` |
//! | 9 | `cli` |
//!
//! # Invariants
//! - Every delivery gets exactly one result, whatever its bytes are, or is given back. From a broker, it
//!   is settled only once what it came to is confirmed.
//! - What untrusted code does is data ([`model::Termination`]); what our machine does is an error.
//!   Trouble of ours is retried and then `infra_error`, never a wrong answer.
//! - What is expected of a program never enters the process that runs it.
//! - A worker runs one box at a time, and is replaced on any doubt that it is clean.
//! - Every queue and every wait is bounded; what is unsettled is bounded in count and bytes.
//! - No fork without exec in a threaded process: workers are forked by the launcher, which has one
//!   thread.

pub mod api;
pub mod cli;
pub mod code_trees;
pub mod config;
pub mod executor;
pub mod metrics;
pub mod model;
pub mod pipeline;
pub mod processors;
pub mod sandbox;
pub mod service;
pub mod telemetry;
pub mod transport;
pub mod util;
pub mod worker;

pub use api::{execute_predictions, execute_predictions_blocking};

/// First call of `main`, before any thread or runtime exists: becomes the launcher of worker
/// processes when this process was started as one, and then does not return.
pub fn init() {
    if let Some(code) = worker::launcher_entry() {
        std::process::exit(code);
    }
}
