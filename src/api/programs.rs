//! The operator's own programs, as the settings say.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::EngineError;
use crate::config::{self, Settings};
use crate::pipeline::external::{External, ExternalSettings};
use crate::pipeline::{Processors, Program};
use crate::processors::Registry;

/// These processors, and every program of the settings, started.
pub(super) async fn start(
    settings: &Settings,
    registry: Registry,
    tracker: &TaskTracker,
    closing: &CancellationToken,
) -> Result<Processors, EngineError> {
    // One configuration is for programs with processors of their own and for those without.
    let known: Vec<_> = Registry::BUILTIN.into_iter().chain(registry.names()).collect();
    settings.processors_are_known(&known).map_err(|problem| config::Problems(vec![problem]))?;
    let instead = |name: &str| match name {
        "" => Ok(None),
        name => registry.get(name).cloned().map(Some),
    };
    let mut processors = Processors::from(registry.clone());
    for (name, own) in settings.programs() {
        let (preprocessor, postprocessor) = (instead(&own.preprocessor)?, instead(&own.postprocessor)?);
        let external = ExternalSettings {
            max_answer_bytes: usize::try_from(settings.pipeline.max_line_mb << 20).unwrap_or(usize::MAX),
            ..external(name, own)
        };
        let external = External::start(external, tracker, closing.clone()).await?;
        processors.add(Program { external, preprocessor, postprocessor });
    }
    Ok(processors)
}

fn external(name: &str, settings: &config::Processor) -> ExternalSettings {
    ExternalSettings {
        name: name.to_owned(),
        command: settings.command.clone(),
        processes: settings.processes as usize,
        batch_size: settings.batch_size as usize,
        max_tasks_per_process: (settings.max_tasks_per_process > 0).then_some(settings.max_tasks_per_process),
        timeout: Duration::from_secs_f64(settings.timeout),
        max_answer_bytes: 0,
    }
}
