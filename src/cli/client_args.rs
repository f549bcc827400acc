//! Arguments of the commands that talk to the broker. The comments here are the help.

use std::num::{NonZeroU16, NonZeroU64};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};

use super::args::{output_file, output_mode, seconds};
use crate::model::Seconds;
use crate::transport::OutputMode;

pub(super) const CLIENT_EXIT_CODES: &str = "\
Exit codes:
    0  all of it is done
    1  done as far as it goes: lines that are no predictions, results that are missing or parked
    2  usage
   69  the broker cannot be reached
   74  a file cannot be read or written
   77  permission denied, by the system or by the broker
   78  configuration, or what is at the broker does not go with it
  130  ended by SIGINT
  143  ended by SIGTERM";

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The class of input, which has its own queue.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub class: String,
    /// The run of predictions that name none.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Each line is the payload of this preprocessor, and not a whole prediction message.
    #[arg(long, value_name = "NAME")]
    pub preprocessor: Option<String>,
    /// Take the id from this field of the payload, instead of `id`.
    #[arg(long, value_name = "FIELD", requires = "preprocessor")]
    pub id_field: Option<String>,
    /// Predictions sent each second, at most.
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Predictions sent and not yet confirmed [rabbitmq.confirm_window].
    #[arg(long, value_name = "N")]
    pub window: Option<NonZeroU16>,
    /// Remember here how far each input is confirmed; a second run with the same file goes on from there.
    ///
    /// Standard input has to be the same text again.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub progress_file: Option<PathBuf>,
    /// Show no progress.
    #[arg(long)]
    pub no_progress: bool,
    /// JSONL files, plain or `.gz`; `-` is standard input.
    #[arg(value_name = "INPUT", default_value = "-", value_hint = ValueHint::FilePath)]
    pub inputs: Vec<PathBuf>,
}

/// Arguments of `collect`.
#[derive(Debug, Args)]
#[group(id = "end", required = true, multiple = true, args = ["ids", "count", "idle"])]
pub struct CollectArgs {
    /// Where results go; `-` is standard output.
    #[arg(short, long, value_name = "OUT", default_value = "-", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// End when each of these has a result or is parked: one id a line, or JSONL with an `id`.
    ///
    /// The file that was published will do; a row without an id has the one that `publish` gives it.
    #[arg(long, value_name = "FILE", conflicts_with = "count", value_hint = ValueHint::FilePath)]
    pub ids: Option<PathBuf>,
    /// The field of the rows of `--ids` that holds the id, instead of `id`.
    #[arg(long, value_name = "FIELD", requires = "ids")]
    pub id_field: Option<String>,
    /// End after so many different results and parked predictions.
    #[arg(long, value_name = "N")]
    pub count: Option<NonZeroU64>,
    /// End when nothing came for so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub idle: Option<Seconds>,
    /// Results of this run only.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// A durable queue of this name, made where there is none: what is published while `collect` is away
    /// waits in it. Delete it when nobody needs it any more. Use one for each run.
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// Keep the results that the output holds.
    #[arg(long, conflicts_with = "force", requires = "output")]
    pub resume: bool,
    /// Overwrite the output.
    #[arg(long)]
    pub force: bool,
    /// Show no progress.
    #[arg(long)]
    pub no_progress: bool,
}

impl CollectArgs {
    /// The output file; `None` is standard output.
    #[must_use]
    pub fn output_file(&self) -> Option<&Path> {
        output_file(&self.output)
    }

    /// What to do with an output that holds something.
    #[must_use]
    pub fn output_mode(&self) -> OutputMode {
        output_mode(self.resume, self.force)
    }
}

/// What to do with parked predictions.
#[derive(Debug, Subcommand)]
pub enum ParkingCommand {
    /// Show them; they stay where they are.
    List {
        /// Show so many, the oldest first.
        #[arg(long, value_name = "N", default_value = "100")]
        limit: NonZeroU64,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Send them to their class's queue again, as if they were new.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["ids", "all"]))]
    Requeue {
        /// The prediction with this id; can be given several times.
        #[arg(long = "id", value_name = "ID")]
        ids: Vec<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("it is no rate: a number from 0.001 to 1000000, in predictions a second".to_owned()),
    }
}
