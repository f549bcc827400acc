//! The integration tests: the program as a person uses it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod cgroup;
mod clients;
mod doctor;
mod examples;
mod faults;
mod hostile;
mod humaneval;
mod layers;
mod process;
mod rabbit;
mod sandbox;
mod support;
mod tiers;
mod verdicts;
mod wire;
