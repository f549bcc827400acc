//! From a prediction to what is run, and from what came of it to a judgement.
//!
//! A [`Processor`] is a pair of pure functions over model values; it runs nothing. One file each,
//! found by name in the [`Registry`].

mod compare;
mod executable;
mod humaneval;
mod mbpp;
mod python;
mod python_coverage;
mod python_tests;
mod registry;
mod traits;

pub use compare::{Comparator, Difference, Tolerance};
pub use executable::ExecutableProcessor;
pub use humaneval::{HumanEval, ProblemsError};
pub use mbpp::Mbpp;
pub use python_coverage::PythonCoverage;
pub use python_tests::PythonTests;
pub use registry::{ProcessorSettings, Registry, UnknownProcessor};
pub use traits::{
    ByCase, Case, EarlyStopFn, Hooks, Judgement, Pair, Postprocessor, Prepared, Preprocessor, Processor,
    StdoutFn, Task, Undecided, Unusable,
};
