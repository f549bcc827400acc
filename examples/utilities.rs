//! The utilities: a function over many values in parallel with log lines, a time limit, and what people
//! read.

use std::path::Path;
use std::time::Duration;

use evalmill::api::{ParallelOptions, run_in_parallel};
use evalmill::config::LogFormat;
use evalmill::telemetry::configure_logging;
use evalmill::util::{get_pred_dir, seconds_to_human, sizeof_fmt, timeout_decorator};
use tracing::level_filters::LevelFilter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    configure_logging(LevelFilter::INFO, LogFormat::Text);
    // A second call changes nothing.
    configure_logging(LevelFilter::OFF, LogFormat::Json);

    let options = ParallelOptions {
        num_workers: 2,
        desc: Some("squares".to_owned()),
        max_tasks_per_process: Some(3),
        disable_tqdm: true,
        log_freq: 4,
        ..ParallelOptions::default()
    };
    let squares = run_in_parallel(|x: u64| x * x, (0..10).collect(), &options)?;
    println!("squares of {} numbers, the last one {}", squares.len(), squares[9]);

    let dir = get_pred_dir(3, Path::new(""));
    println!("{} took {} and {}", dir.display(), seconds_to_human(3661.25), sizeof_fmt(1536.0, "B"));

    let limited = timeout_decorator(Duration::from_secs(60), |text: &str| text.len());
    println!("in time: {}", limited("quick").is_ok());
    Ok(())
}
