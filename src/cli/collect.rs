//! `evalmill collect`: results over RabbitMQ, JSONL out.

use std::fs::File;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::client::{block_on, settings};
use super::client_args::CollectArgs;
use super::exit::Failure;
use super::progress::Progress;
use super::signals::Signals;
use crate::api::{self, CollectEnd, CollectError, Collecting, Ledger, Taken, Until, read_ids};
use crate::config::Settings;
use crate::service::FlowError;
use crate::service::run_key;
use crate::telemetry::{ProgressKind, say};
use crate::transport::rabbitmq::TapSettings;
use crate::transport::{JsonlSink, OutputError, Prepared, TransportError, prepare_output, stdout_is_input};

/// Characters of a run that every key has room for.
const MAX_RUN: usize = 200;
/// Missing ids that are named.
const NAMED: usize = 5;

/// Writes the results that the service publishes.
///
/// # Errors
/// See the exit codes.
pub(super) fn collect(file: Option<PathBuf>, args: &CollectArgs) -> Result<(), Failure> {
    let source = source(args).map_err(Failure::Usage)?;
    let settings = settings(file, Vec::new())?;
    block_on(collect_async(&settings, args, source))
}

async fn collect_async(settings: &Settings, args: &CollectArgs, source: TapSettings) -> Result<(), Failure> {
    let ids = match &args.ids {
        Some(file) => {
            let field = args.id_field.as_deref().unwrap_or("id");
            let limit = (settings.pipeline.max_line_mb as usize) << 20;
            let read = read_ids(file.clone(), field, limit).await;
            Some(read.map_err(|error| Failure::Usage(format!("--ids: {error}")))?)
        }
        None => None,
    };
    let wanted = ids.as_ref().map(|ids| ids.len() as u64).or(args.count.map(std::num::NonZeroU64::get));
    let mut ledger = Ledger::new(ids);
    let (mut sink, file) = open_output(args, &mut ledger)?;
    let kept = ledger.count();
    if kept > 0 {
        say(&format!("evalmill: {kept} kept from {}\n", args.output.display()));
    }
    let until = Until { count: args.count.map(std::num::NonZeroU64::get), idle: args.idle.map(Into::into) };
    let (stop, forced) = (CancellationToken::new(), CancellationToken::new());
    let signals = Signals::listen(stop.clone(), forced)?;
    let kind = if args.no_progress { ProgressKind::Off } else { ProgressKind::Auto };
    let mut progress = Progress::new(kind, wanted, u64::from(settings.telemetry.log_freq));
    let mut observe = |ledger: &Ledger, event: Collecting<'_>| match event {
        Collecting::Listening(queue) => say(&format!("evalmill: collecting from {queue}\n")),
        Collecting::Took(Taken::Result(verdict)) => {
            progress.tick(*verdict);
            let left = ledger.missing().map(|missing| missing.len() as u64);
            progress.set_read(left.zip(wanted).map_or(ledger.count(), |(left, all)| all - left));
        }
        Collecting::Lost { kept: true } => say("evalmill: the link is lost; results wait in the queue\n"),
        Collecting::Lost { kept: false } => say(
            "evalmill: the link is lost, and its queue with what it held: results that were published and not \
             written are not seen any more; --queue NAME keeps them\n",
        ),
        Collecting::Took(_) => {}
    };
    let end = if until.complete(&ledger) {
        Ok(CollectEnd::Complete)
    } else {
        let out = (&mut sink, file.filter(|_| args.queue.is_some()));
        api::collect(settings, source, out, &mut ledger, until, stop, &mut observe).await
    };
    progress.finish();
    let signal = signals.stop().await;
    say(&table(&ledger));
    match (end?, signal) {
        (CollectEnd::Stopped, Some((name, number))) => {
            Err(Failure::Signal(format!("{name}: what came is written; --resume goes on"), number))
        }
        _ => complete(&ledger, until),
    }
}

/// What to read, from what was asked for.
fn source(args: &CollectArgs) -> Result<TapSettings, String> {
    if let Some(queue) = &args.queue {
        // The work queues are among them: reading those would take predictions from the service.
        if queue.is_empty() || queue.starts_with("evalmill.") || queue.starts_with("amq.") {
            return Err(format!(
                "--queue {queue:?} is no name for a queue of yours: one that does not begin with `evalmill.` or `amq.`"
            ));
        }
        if queue.len() > 255 {
            return Err(format!("--queue: the name has {} bytes, and AMQP takes at most 255", queue.len()));
        }
    }
    let keys = match &args.run {
        None => ["result.#", "parked.#"].map(str::to_owned).into(),
        Some(run) => {
            let key = run_key(run);
            if key.len() > MAX_RUN {
                return Err(format!(
                    "--run has {} characters: at most {MAX_RUN} can be told apart",
                    key.len()
                ));
            }
            vec![format!("result.{key}.#"), format!("parked.{key}.#")]
        }
    };
    Ok(TapSettings { queue: args.queue.clone(), keys })
}

fn open_output(args: &CollectArgs, ledger: &mut Ledger) -> Result<(JsonlSink, Option<File>), Failure> {
    let failed = |error: TransportError| Failure::Flow(FlowError::Transport(error));
    let inputs: Vec<PathBuf> = args.ids.iter().cloned().collect();
    let Some(path) = args.output_file() else {
        if args.resume {
            return Err(Failure::Usage("--resume needs a file to resume: give -o OUT".to_owned()));
        }
        if stdout_is_input(&inputs) {
            return Err(Failure::Output(OutputError::IsInput("standard output".to_owned())));
        }
        return Ok((JsonlSink::stdout().map_err(failed)?, None));
    };
    let Prepared { file, .. } = prepare_output(path, args.output_mode(), &inputs, |line| {
        ledger.take(line);
    })?;
    let second = file.as_ref().map(File::try_clone).transpose().map_err(|error| io(path, &error))?;
    let sink = match file {
        Some(file) => JsonlSink::over(path, file),
        None => JsonlSink::file(path, true),
    };
    Ok((sink.map_err(failed)?, second))
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Io(format!("cannot use {}: {error}", path.display()))
}

fn table(ledger: &Ledger) -> String {
    let mut text = format!("{} results and parked predictions\n\n", ledger.count());
    let verdicts = ledger.verdicts().iter().map(|(verdict, count)| (verdict.as_str(), *count));
    let others = [
        ("parked", ledger.parked()),
        ("missing", ledger.missing().map_or(0, |missing| missing.len() as u64)),
        ("came again", ledger.again()),
        ("of others", ledger.of_others()),
    ];
    for (name, count) in verdicts.chain(others).filter(|(_, count)| *count > 0) {
        text += &format!("{name:<16} {count:>10}\n");
    }
    text
}

/// Whether everything that was waited for has its result.
fn complete(ledger: &Ledger, until: Until) -> Result<(), Failure> {
    let mut trouble = Vec::new();
    if let Some(missing) = ledger.missing().filter(|missing| !missing.is_empty()) {
        let mut some: Vec<_> = missing.iter().map(String::as_str).collect();
        some.sort_unstable();
        let more = if some.len() > NAMED { ", …" } else { "" };
        some.truncate(NAMED);
        trouble.push(format!("{} ids have no result ({}{more})", missing.len(), some.join(", ")));
    }
    if let Some(count) = until.count.filter(|&count| ledger.count() < count) {
        trouble.push(format!("{} of {count} results came", ledger.count()));
    }
    if ledger.parked() > 0 {
        let parked = ledger.parked();
        trouble.push(format!("{parked} predictions are parked: `evalmill parking list` says why"));
    }
    if trouble.is_empty() { Ok(()) } else { Err(Failure::Incomplete(trouble.join("; "))) }
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Broker(error) => error.into(),
            CollectError::Output(error) => Self::Flow(FlowError::Transport(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use rstest::rstest;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[rstest]
    #[case("", Ok((None, "result.# parked.#")))]
    #[case("--run a.b --queue mine", Ok((Some("mine"), "result.a_b.# parked.a_b.#")))]
    #[case("--queue evalmill.work.default", Err("no name for a queue of yours"))]
    #[case("--queue amq.x", Err("amq."))]
    fn what_to_read(#[case] words: &str, #[case] expected: Result<(Option<&str>, &str), &str>) {
        let words = "evalmill collect --count 1".split(' ').chain(words.split_whitespace());
        let Command::Collect(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        match (source(&args), expected) {
            (Ok(found), Ok((queue, keys))) => {
                assert_eq!((found.queue.as_deref(), found.keys.join(" ").as_str()), (queue, keys));
            }
            (Err(error), Err(says)) => assert!(error.contains(says), "{error}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn what_is_said_at_the_end() {
        let mut ledger = Ledger::new(Some(["a", "b", "c"].map(str::to_owned).into()));
        ledger.take(br#"{"schema":"result.v1","result_id":"1","id":"a","verdict":"passed"}"#);
        ledger.take(br#"{"schema":"notice.parked","result_id":"2","id":"b"}"#);
        insta::assert_snapshot!(table(&ledger), @r"
        2 results and parked predictions

        passed                    1
        parked                    1
        missing                   1
        ");
        let error = complete(&ledger, Until::default()).unwrap_err();
        assert_eq!(error.code(), 1);
        let text = error.to_string();
        assert!(
            text.contains("1 ids have no result (c)") && text.contains("1 predictions are parked"),
            "{text}"
        );
    }
}
