//! One prediction from its bytes to the bytes of its result.
//!
//! [`decode()`] → preprocess → execute → postprocess → encode, each timed; a [`Case`](crate::processors::Case) may have
//! something more executed to judge by. Whatever comes in, one result comes out: what cannot be decoded is `invalid`, what fails here is `infra_error`.

mod decode;
mod gate;
mod keep;
mod limits;
mod prepare;
mod process;
mod report;

pub use decode::{Decoded, Framing, Incoming, Undecodable, decode, id_of};
pub use gate::{Gate, Turn};
pub use keep::Keep;
pub use limits::LimitSettings;
pub use process::{Pipeline, PipelineSettings, Processed};
