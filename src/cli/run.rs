//! `evalmill run`: JSONL in, JSONL out.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::args::RunArgs;
use super::exit::Failure;
use super::progress::Progress;
use super::signals::Signals;
use super::table;
use crate::api::{Engine, EngineOptions};
use crate::config::{Override, Settings, Sources, load};
use crate::metrics::Summary;
use crate::model::{Line, Verdict, read_line};
use crate::pipeline::Framing;
use crate::service::{self, Flow, FlowEnd, FlowError, Settled};
use crate::telemetry::{ProgressKind, say, start_logging};
use crate::transport::{
    DoneIds, JsonlSink, JsonlSource, OutputError, OutputMode, Prepared, TransportError, prepare_output,
    stdout_is_input,
};

/// Runs every prediction of the inputs.
///
/// # Errors
/// See the exit codes.
pub(super) fn run(file: Option<PathBuf>, args: &RunArgs) -> Result<(), Failure> {
    let mut sources = Sources::from_process(file);
    sources.overrides = overrides(args);
    let loaded = load(&sources)?;
    super::processors_are_known(&loaded)?;
    let settings = loaded.settings;
    let telemetry = &settings.telemetry;
    start_logging(&telemetry.log, telemetry.log_format).map_err(Failure::Usage)?;
    let runtime = runtime(settings.num_workers())
        .map_err(|error| Failure::Io(format!("no runtime can be started: {error}")))?;
    let result = runtime.block_on(run_async(&settings, args));
    // A read of standard input cannot be interrupted: nobody waits for it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// How long a thread for what blocks may have nothing to do: it stays.
const KEEP_ALIVE: Duration = Duration::from_secs(366 * 86_400);

/// One thread serves about 4,000 executions a second, and takes less from the programs than several
/// that wake each other: one for every 16 workers.
///
/// One more is for what blocks, and stays: where the machine has no thread left, such work waits its turn on it.
pub(super) fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let threads = workers.div_ceil(16);
    made(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(threads).thread_keep_alive(KEEP_ALIVE).enable_all().build()?;
        drop(runtime.spawn_blocking(|| ()));
        Ok(runtime)
    })
}

/// What is made, or why not: where it gets no thread, a runtime panics.
fn made<T>(make: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make));
    std::panic::set_hook(hook);
    made.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map_or("there is no thread for it", String::as_str);
        Err(std::io::Error::other(said.to_owned()))
    })
}

/// Flags are settings, too.
fn overrides(args: &RunArgs) -> Vec<Override> {
    let path = |path: &PathBuf| path.display().to_string();
    let flags = [
        ("worker.num_workers", args.workers.map(|workers| workers.to_string()), "--workers"),
        ("limits.default_timeout", args.timeout.map(|timeout| timeout.get().to_string()), "--timeout"),
        ("debug.dir", args.debug_dir.as_ref().map(path), "--debug-dir"),
        ("debug.error_dir", args.error_dir.as_ref().map(path), "--error-dir"),
        ("processors.humaneval.problems", args.problems.as_ref().map(path), "--problems"),
    ];
    flags.into_iter().filter_map(|(path, value, flag)| Some(Override::new(path, value?, flag))).collect()
}

async fn run_async(settings: &Settings, args: &RunArgs) -> Result<(), Failure> {
    let started = Instant::now();
    check_summary(args)?;
    let mut source = JsonlSource::open(&args.inputs, (settings.pipeline.max_line_mb as usize) << 20)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let framing = match &args.preprocessor {
        Some(preprocessor) => Framing::Payload {
            preprocessor: preprocessor.clone(),
            id_field: args.id_field.clone().unwrap_or_else(|| "id".to_owned()),
        },
        None => Framing::Message,
    };
    let engine = Engine::start(settings, EngineOptions::new(framing)).await?;
    let result = with_engine(settings, args, &engine, &mut source, started).await;
    engine.shutdown().await;
    result
}

async fn with_engine(
    settings: &Settings,
    args: &RunArgs,
    engine: &Engine,
    source: &mut JsonlSource,
    started: Instant,
) -> Result<(), Failure> {
    if let Some(name) = &args.preprocessor {
        engine.knows(name).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    let mut summary = Summary::new(engine.instance());
    let (mut sink, done) = open_output(args, &mut summary)?;
    say(&format!("evalmill: {}\n", engine.notice()));
    let (draining, forced) = (CancellationToken::new(), CancellationToken::new());
    let signals = Signals::listen(draining.clone(), forced.clone())?;
    let kind = if args.no_progress { ProgressKind::Off } else { ProgressKind::Auto };
    let mut progress = Progress::new(kind, source.bytes_total(), u64::from(settings.telemetry.log_freq));
    let read = source.progress();
    let done = Mutex::new(done);
    let flow = Flow {
        pipeline: engine.pipeline(),
        settings: settings.flow(!args.unordered),
        tracker: engine.tracker(),
        draining,
        forced,
        done_already: Arc::new(Mutex::new(move |id: &str| {
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take(id)
        })),
        observe: &mut |Settled { processed: done, .. }| {
            summary.add_parts(done.verdict, done.task.as_deref(), done.run.as_deref(), &done.timings);
            progress.tick(done.verdict);
            progress.set_read(read.load(Ordering::Relaxed));
        },
    };
    let end = service::run(flow, source, &mut sink).await;
    progress.finish();
    let signal = signals.stop().await;
    for (reason, count) in engine.stats().recycled {
        for _ in 0..count {
            summary.add_recycled(reason);
        }
    }
    let report = summary.report(started.elapsed());
    say(&table::render(&report));
    if let Some(path) = &args.summary {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        std::fs::write(path, text + "\n")
            .map_err(|error| Failure::Io(format!("cannot write {}: {error}", path.display())))?;
    }
    let end = end?;
    match (signal, end) {
        (Some((name, number)), FlowEnd::Drained) => {
            let what = format!("{name}: what ran was finished, the rest was not started; --resume goes on");
            Err(Failure::Signal(what, number))
        }
        (Some((name, number)), FlowEnd::Forced) => {
            Err(Failure::Signal(format!("{name} twice: what ran was given up; --resume goes on"), number))
        }
        _ if summary.count(Verdict::InfraError) > 0 => {
            Err(Failure::Infra(summary.count(Verdict::InfraError)))
        }
        _ => Ok(()),
    }
}

/// Every file that is read.
fn read_files(args: &RunArgs) -> Vec<PathBuf> {
    args.inputs.iter().chain(&args.problems).cloned().collect()
}

/// The summary must be a file of its own that can be written: said before anything is run.
fn check_summary(args: &RunArgs) -> Result<(), Failure> {
    let Some(summary) = &args.summary else { return Ok(()) };
    let mut others = read_files(args);
    others.extend(args.output_file().map(PathBuf::from));
    let same_name = args.output_file().is_some_and(|output| output == summary.as_path());
    if same_name {
        return Err(Failure::Usage(format!("{} is both the output and the summary", summary.display())));
    }
    // Force empties nothing that matters: an earlier summary is replaced in the end anyway.
    prepare_output(summary, OutputMode::Force, &others, |_| {})?;
    Ok(())
}

fn open_output(args: &RunArgs, summary: &mut Summary) -> Result<(JsonlSink, DoneIds), Failure> {
    let flow = |error: TransportError| Failure::Flow(FlowError::Transport(error));
    let Some(path) = args.output_file() else {
        if args.resume {
            return Err(Failure::Usage("--resume needs a file to resume: give -o OUT".to_owned()));
        }
        if stdout_is_input(&args.inputs) {
            return Err(Failure::Output(OutputError::IsInput("standard output".to_owned())));
        }
        return Ok((JsonlSink::stdout().map_err(flow)?, DoneIds::default()));
    };
    let Prepared { file, resumed } = prepare_output(path, args.output_mode(), &read_files(args), |line| {
        if let Ok(Line::Result(kept)) = read_line(line) {
            let timings = kept.timings.unwrap_or_default();
            summary.add_parts(kept.verdict, kept.task.as_deref(), kept.run.as_deref(), &timings);
        }
    })?;
    if resumed.kept > 0 {
        tracing::info!(results = resumed.kept, "kept from the output");
    }
    let sink = match file {
        Some(file) => JsonlSink::over(path, file),
        None => JsonlSink::file(path, true),
    };
    Ok((sink.map_err(flow)?, resumed.done))
}
