//! The integration tests: the program as a person uses it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod cgroup;
mod clients;
mod code_trees;
mod dice;
mod doctor;
mod endurance;
mod examples;
mod external;
mod faults;
mod hostile;
mod humaneval;
mod layers;
mod network;
mod process;
mod processors;
mod python_tests;
mod rabbit;
mod report;
mod sandbox;
mod shortages;
mod support;
mod tiers;
mod utilities;
mod verdicts;
mod wire;
