//! `evalmill publish`: JSONL in, predictions to the service over RabbitMQ.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::client::{block_on, settings};
use super::client_args::PublishArgs;
use super::exit::Failure;
use super::signals::Signals;
use crate::api::{self, Checkpoint, CheckpointError, PublishError, PublishEvent, PublishOptions, Published};
use crate::config::{Override, Settings};
use crate::pipeline::Framing;
use crate::telemetry::{Meter, ProgressKind, say};
use crate::transport::JsonlSource;

/// Lines that are no predictions, of which each is told; the rest is counted.
const TOLD: u64 = 100;

/// Publishes every line of the inputs.
///
/// # Errors
/// See the exit codes.
pub(super) fn publish(file: Option<PathBuf>, args: &PublishArgs) -> Result<(), Failure> {
    // One name: a comma would make it a list.
    if args.class.contains(',') {
        return Err(Failure::Usage(format!("--class {:?} is no name of a class: give one", args.class)));
    }
    let mut overrides = vec![Override::new("rabbitmq.classes", &args.class, "--class")];
    overrides.extend(args.window.map(|window| Override::new("rabbitmq.confirm_window", window, "--window")));
    let settings = settings(file, overrides)?;
    block_on(publish_async(&settings, args))
}

async fn publish_async(settings: &Settings, args: &PublishArgs) -> Result<(), Failure> {
    let framing = match &args.preprocessor {
        Some(preprocessor) => Framing::Payload {
            preprocessor: preprocessor.clone(),
            id_field: args.id_field.clone().unwrap_or_else(|| "id".to_owned()),
        },
        None => Framing::Message,
    };
    let mut source = JsonlSource::open(&args.inputs, (settings.pipeline.max_line_mb as usize) << 20)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let mut checkpoint = checkpoint(args).await?;
    let options =
        PublishOptions { class: args.class.clone(), run: args.run.clone(), framing, rate: args.rate };
    let (draining, forced) = (CancellationToken::new(), CancellationToken::new());
    let signals = Signals::listen(draining.clone(), forced.clone())?;
    let kind = if args.no_progress { ProgressKind::Off } else { ProgressKind::Auto };
    let log_freq = u64::from(settings.telemetry.log_freq);
    let mut meter = Meter::new(kind, "published", source.bytes_total(), log_freq);
    let (read, started, mut told) = (source.progress(), Instant::now(), 0);
    let mut observe = |event: PublishEvent<'_>| match event {
        PublishEvent::Confirmed => meter.tick(read.load(Ordering::Relaxed)),
        PublishEvent::Unreadable { origin, reason } => {
            told += 1;
            match told {
                ..=TOLD => say(&format!("evalmill: {origin} is not published: {reason}\n")),
                _ if told == TOLD + 1 => say("evalmill: more such lines are only counted\n"),
                _ => {}
            }
        }
    };
    let tokens = (draining, forced);
    let end = api::publish(settings, &options, &mut source, &mut checkpoint, tokens, &mut observe).await;
    meter.finish();
    let signal = signals.stop().await;
    let published = end?;
    say(&format!("evalmill: {}\n", summary(&published, started.elapsed())));
    if let (Some((name, number)), true) = (signal, published.stopped || published.unconfirmed > 0) {
        let rest = match &args.progress_file {
            Some(file) => format!("the same command with --progress-file {} goes on", file.display()),
            None => "without --progress-file, another run begins anew".to_owned(),
        };
        return Err(Failure::Signal(format!("{name}: {rest}"), number));
    }
    // An input that is followed remembers lines that earlier runs refused.
    match published.unreadable.max(checkpoint.unreadable()) {
        0 => Ok(()),
        count => Err(Failure::Incomplete(format!(
            "{count} lines are no predictions or could not be read, and were not published"
        ))),
    }
}

async fn checkpoint(args: &PublishArgs) -> Result<Checkpoint, Failure> {
    let Some(file) = args.progress_file.clone() else { return Ok(Checkpoint::default()) };
    let (inputs, class) = (args.inputs.clone(), args.class.clone());
    let (run, preprocessor) = (args.run.clone(), args.preprocessor.clone());
    let load = move || Checkpoint::load(&file, &inputs, &class, run.as_deref(), preprocessor.as_deref());
    let loaded = tokio::task::spawn_blocking(load).await;
    let loaded = loaded.map_err(|error| Failure::Io(format!("the progress file: {error}")))?;
    loaded.map_err(|error| PublishError::from(error).into())
}

fn summary(published: &Published, elapsed: Duration) -> String {
    let mut text = format!("{} published in {:.1} s", published.confirmed, elapsed.as_secs_f64());
    for (count, what) in [
        (published.skipped, "confirmed earlier"),
        (published.unreadable, "no predictions"),
        (published.unconfirmed, "sent but not confirmed"),
        (published.refused, "refused for a while by the broker"),
        (published.losses, "times connected again"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Broker(error) => error.into(),
            PublishError::Input(error) => Self::Io(error.to_string()),
            PublishError::Progress(CheckpointError::Io { ref source, .. })
                if source.kind() != std::io::ErrorKind::NotFound =>
            {
                Self::Io(error.to_string())
            }
            PublishError::Progress(error) => Self::Usage(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_there_is() {
        let published = Published { confirmed: 3, skipped: 1, losses: 2, ..Published::default() };
        let text = summary(&published, Duration::from_millis(1500));
        assert_eq!(text, "3 published in 1.5 s, 1 confirmed earlier, 2 times connected again");
    }
}
