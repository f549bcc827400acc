//! `evalmill serve`: RabbitMQ in, RabbitMQ out.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::args::ServeArgs;
use super::client;
use super::exit::Failure;
use super::run::runtime;
use super::signals::Signals;
use crate::api::serve as serve_settings;
use crate::config::{Override, Problems};
use crate::service::FlowEnd;

/// Serves until it is told to stop.
///
/// # Errors
/// See the exit codes.
pub(super) fn serve(file: Option<PathBuf>, args: &ServeArgs) -> Result<(), Failure> {
    let workers = args.workers.map(|workers| workers.to_string());
    let workers = workers.map(|value| Override::new("worker.num_workers", value, "--workers"));
    let loaded = client::loaded(file, workers.into_iter().collect())?;
    loaded.held_long_enough().map_err(|problem| Problems(vec![problem]))?;
    super::processors_are_known(&loaded)?;
    let settings = loaded.settings;
    let runtime = runtime(settings.num_workers())
        .map_err(|error| Failure::Io(format!("no runtime can be started: {error}")))?;
    // A task of its own, so that everything is done on the runtime's threads: the flow and what it
    // waits for wake each other for each message.
    let service = TaskTracker::new().spawn_on(
        async move {
            let (draining, forced) = (CancellationToken::new(), CancellationToken::new());
            let signals = Signals::listen(draining.clone(), forced.clone())?;
            let end = serve_settings(&settings, draining, forced).await;
            let signal = signals.stop().await;
            Ok::<_, Failure>((end?, signal))
        },
        runtime.handle(),
    );
    let end =
        runtime.block_on(service).map_err(|error| Failure::Io(format!("a defect of evalmill: {error}")))?;
    runtime.shutdown_timeout(Duration::from_millis(100));
    match end? {
        (FlowEnd::Forced, Some((name, number))) => {
            let what = format!("{name}: what still ran was given up; the broker hands it over again");
            Err(Failure::Signal(what, number))
        }
        _ => Ok(()),
    }
}
