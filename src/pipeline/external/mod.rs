//! Processors that are programs of the operator's own, in any language.
//!
//! Such a program reads requests, a JSON object a line, from its standard input, and answers each with
//! one line on its standard output, in the order of the requests. What it writes to standard error
//! goes into the log. It is as trusted as evalmill itself: it runs with evalmill's rights and environment,
//! outside of every sandbox.
//!
//! ```json
//! {"version": 1, "items": [{"preprocess": {"prediction": {"code": "…"}}}, {"postprocess": {"prediction": {}, "results": []}}]}
//! {"items": [{"run": {"files": {}, "commands": []}}, {"judged": {"passed": true, "detail": null, "output": {}}}]}
//! ```
//!
//! An answer to `preprocess` is `run` (one executable or a list of them), `filtered` (`detail`,
//! `output`) or `invalid` (a text); to `postprocess`, `judged`; to either, `error` (a text): the program's own
//! failure, an `infra_error` of that item and no other.
//!
//! There are [`processes`](ExternalSettings::processes) of it, each with one request at a time, of at most
//! [`batch_size`](ExternalSettings::batch_size) items: those that wait; a lone item does not wait for others. A process
//! that ends, answers nonsense, or takes too long is killed with its process group and started again. The items of that
//! request are asked once more, each alone, so that one of them that kills the program costs the others
//! nothing; then they are failures. At the start, and after a replacement, an empty request shows that the
//! program answers at all.

mod child;
mod crew;
mod error;
#[cfg(test)]
mod tests;
mod wire;

pub use crew::{External, ExternalSettings};
pub use error::ExternalError;
pub(super) use wire::{Asked, Executables, Judged, Prepared};
