//! `code_trees` against CPython: over golden files, HumanEval, and mutations of both.

mod fuzz;
mod golden;
mod limits;
mod mutate;
mod oracle;
mod python;
