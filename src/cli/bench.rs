//! `evalmill bench broker`: how fast messages move here.

use std::path::PathBuf;

use super::exit::Failure;
use super::run::runtime;
use crate::api::bench_broker;
use crate::config::{Sources, load};

/// Measures, and prints a table.
///
/// # Errors
/// See the exit codes.
pub(super) fn broker(file: Option<PathBuf>, count: usize, bytes: usize) -> Result<(), Failure> {
    let settings = load(&Sources::from_process(file))?.settings;
    let runtime = runtime(settings.num_workers())
        .map_err(|error| Failure::Io(format!("no runtime can be started: {error}")))?;
    let bench = runtime.block_on(bench_broker(&settings, count, bytes))?;
    let [(own, own_p99), (median, p99)] = [bench.overhead, bench.latency];
    let table = format!(
        "{count} messages of {bytes} bytes\n\
         bare consume, publish, confirm, ack    {:>8.0}/s\n\
         immediate results through the service  {:>8.0}/s  {:.2} of that\n\
         at half that rate, arrival to confirm  {:>8.1} ms median, {:.1} ms p99\n\
         at half that rate, publish to result   {:>8.1} ms median, {:.1} ms p99\n",
        bench.bare_per_s,
        bench.service_per_s,
        bench.service_per_s / bench.bare_per_s,
        own * 1e3,
        own_p99 * 1e3,
        median * 1e3,
        p99 * 1e3,
    );
    super::print(table.as_bytes())
        .map_err(|error| Failure::Io(format!("standard output cannot be written: {error}")))
}
