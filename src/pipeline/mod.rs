//! One prediction from its bytes to the bytes of its result.
//!
//! [`decode()`] → preprocess → execute → postprocess → encode, each timed; a [`Case`](crate::processors::Case) may have
//! something more executed to judge by. Whatever comes in, one result comes out: what cannot be decoded is `invalid`, what fails here is `infra_error`.

mod decode;
pub mod external;
mod gate;
mod keep;
mod limits;
mod oracle;
mod prepare;
mod process;
mod processors;
mod report;

pub use decode::{Decoded, Framing, Incoming, Undecodable, decode, id_of};
pub use gate::{Gate, Turn};
pub use keep::Keep;
pub use limits::LimitSettings;
pub use process::{Pipeline, PipelineSettings, Processed, Walls};
pub use processors::{Processors, Program};
