//! From a prediction to what is run, and from what came of it to a judgement.
//!
//! A [`Processor`] is a pair of pure functions over model values; it runs nothing. One file each,
//! found by name in the [`Registry`].

mod compare;
mod executable;
mod fields;
mod function_tests;
mod gsm8k;
mod humaneval;
mod mbpp;
mod multi_language;
mod outcome;
mod program;
mod python;
mod python_coverage;
mod python_tests;
mod registry;
mod stdio_tests;
mod traits;

pub use compare::{Comparator, Difference, Tolerance};
pub use executable::ExecutableProcessor;
pub use function_tests::FunctionTests;
pub use gsm8k::Gsm8k;
pub use humaneval::{HumanEval, ProblemsError};
pub use mbpp::Mbpp;
pub use multi_language::MultiLanguage;
pub use python_coverage::PythonCoverage;
pub use python_tests::PythonTests;
pub use registry::{ProcessorSettings, Registry, UnknownProcessor};
pub use stdio_tests::StdioTests;
pub use traits::{
    ByCase, Case, EarlyStopFn, Hooks, Judgement, Pair, Postprocessor, Prepared, Preprocessor, Processor,
    StdoutFn, Task, Undecided, Unusable,
};
