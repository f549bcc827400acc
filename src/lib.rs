//! evalmill runs model-generated code and says what came of it.
pub mod api;
pub mod cli;
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

/// First call of `main`: becomes the launcher when this process was started as one.
pub fn init() {}
