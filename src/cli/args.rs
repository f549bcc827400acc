//! What can be given on the command line. The comments here are the help.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use super::client_args::{CLIENT_EXIT_CODES, CollectArgs, ParkingCommand, PublishArgs};
use crate::config::TierChoice;
use crate::model::Seconds;
use crate::transport::OutputMode;

const EXIT_CODES: &str = "\
Exit codes:
    0  every line got its result
    1  internal error, or a result is `infra_error`
    2  usage
   69  unavailable: the interpreter or the workers
   74  the output cannot be written
   77  permission denied
   78  configuration
  130  ended by SIGINT
  143  ended by SIGTERM";

const SERVE_EXIT_CODES: &str = "\
Exit codes:
    0  told to stop, and everything that ran was finished
    1  internal error
   69  unavailable: the interpreter, the workers, or the address for health and metrics
   78  configuration
  130  a second SIGINT, or the time to drain was over: what ran was given up
  143  the same with SIGTERM";

const HEALTHCHECK_EXIT_CODES: &str = "\
Exit codes:
    0  ready
    1  not ready; the reasons are on standard error
    2  usage: there is no address to ask
   69  no answer within 3 seconds
   78  configuration";

const DOCTOR_EXIT_CODES: &str = "\
Exit codes:
    0  everything that the tier in force promises holds as far as it could be shown, and the tier is enough
    1  something does not hold, or the tier that is asked for or required is not reached
    2  usage, or doctor cannot run: the interpreter, the workers
   74  standard output cannot be written
   78  configuration";

const REPORT_EXIT_CODES: &str = "\
Exit codes:
    0  the report is printed
    1  a line is no result; nothing is printed
    2  usage, or an input that cannot be opened
   74  standard output cannot be written
   78  configuration";

/// Runs model-generated code and says what came of it.
#[derive(Debug, Parser)]
#[command(name = "evalmill", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// Configuration file (TOML).
    #[arg(long, global = true, env = "EVALMILL_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Judge the predictions of JSONL files, and write results as JSONL.
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Print the exchanges, queues and bindings that the service needs.
    #[command(after_help = CLIENT_EXIT_CODES)]
    Topology {
        /// Declare them at the broker, or check that they are there, as `rabbitmq.topology` says.
        #[arg(long)]
        apply: bool,
    },
    /// Send the predictions of JSONL files to the service, over RabbitMQ.
    #[command(after_help = CLIENT_EXIT_CODES)]
    Publish(Box<PublishArgs>),
    /// Write the results that the service publishes as JSONL.
    ///
    /// A queue of its own is bound to the results. What is published while there is no such queue is not
    /// seen: start `collect` before `publish`, or give `--queue NAME`, which stays at the broker when
    /// `collect` ends, and takes results from then on.
    #[command(after_help = CLIENT_EXIT_CODES)]
    Collect(Box<CollectArgs>),
    /// Say what results came to: verdicts, pass@k with its intervals, times; by run, and by task.
    ///
    /// Results with the same `result_id` count once. `infra_error` and `filtered` are in no pass@k, `invalid`
    /// is a sample that does not pass. Messages among the results that are none are counted and left out.
    #[command(after_help = REPORT_EXIT_CODES)]
    Report(ReportArgs),
    /// Look at the predictions that were put aside, or send them to the service again.
    #[command(after_help = CLIENT_EXIT_CODES)]
    Parking {
        /// What to do with them.
        #[command(subcommand)]
        what: ParkingCommand,
    },
    /// Judge what comes in over RabbitMQ, and publish results, until told to stop.
    #[command(after_help = SERVE_EXIT_CODES)]
    Serve(ServeArgs),
    /// Measure how fast messages move between a broker and the service.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Ask a running service whether it is ready.
    #[command(after_help = HEALTHCHECK_EXIT_CODES)]
    Healthcheck {
        /// What to ask, in place of `/readyz` at `telemetry.listen`: http:// only.
        #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
        url: Option<String>,
    },
    /// Try every layer of the isolation on this host, and say what holds and what is missing.
    ///
    /// It attempts, it does not inspect: small programs run as predictions do, and try to get out and to use
    /// too much. The same is tried outside of a box; what fails there, too, is `not shown` and not `ok`.
    #[command(after_help = DOCTOR_EXIT_CODES)]
    Doctor(DoctorArgs),
    /// Read the configuration, say what is wrong with it, and print it as it is in force.
    CheckConfig {
        /// Say for each value where it comes from.
        #[arg(long)]
        show_origin: bool,
    },
    /// Print the JSON Schema of a message.
    Schema {
        /// The message.
        message: Message,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Predictions with immediate results through `rabbitmq.url`, against a bare loop: needs a vhost of
    /// its own, whose queues are used up.
    Broker {
        /// Messages of each measurement.
        #[arg(long, default_value_t = 50_000, value_name = "N")]
        count: usize,
        /// Bytes of each message.
        #[arg(long, default_value_t = 1_500, value_name = "N")]
        bytes: usize,
    },
}

/// What `serve` is told.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// How many run at the same time [worker.num_workers].
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
}

/// What `doctor` is told.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// For people or for machines.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: DoctorFormat,
    /// The tier to examine, in place of `sandbox.tier`.
    #[arg(long, value_name = "TIER")]
    pub tier: Option<DoctorTier>,
}

/// A tier to examine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DoctorTier {
    /// The strongest that works here.
    Auto,
    /// With limits of the tree by the kernel.
    Full,
    /// Kernel namespaces.
    Namespaces,
    /// A restricted process.
    Process,
    /// No wall.
    None,
}

impl From<DoctorTier> for TierChoice {
    fn from(tier: DoctorTier) -> Self {
        match tier {
            DoctorTier::Auto => Self::Auto,
            DoctorTier::Full => Self::Full,
            DoctorTier::Namespaces => Self::Namespaces,
            DoctorTier::Process => Self::Process,
            DoctorTier::None => Self::None,
        }
    }
}

/// How `doctor` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// A table.
    Text,
    /// One JSON object.
    Json,
}

/// A message with a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Message {
    /// What comes in.
    Prediction,
    /// What goes out.
    Result,
    /// The periodic timings, and the summary of a run.
    Timings,
}

/// What `report` is told.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// For people, for machines, or for a page.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
    /// The ks of pass@k; without it 1, 10 and 100, as far as a task has so many samples.
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pub k: Vec<NonZeroU64>,
    /// A row for each task, too.
    #[arg(long)]
    pub per_task: bool,
    /// Leave out lines that are no results, and count them, in place of ending at the first one.
    #[arg(long)]
    pub skip_bad: bool,
    /// How often tasks are drawn for the intervals of pass@k (95 %, percentile bootstrap over tasks); 0: none.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub bootstrap: u32,
    /// Where its random numbers begin: the same seed gives the same intervals.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Show no progress.
    #[arg(long)]
    pub no_progress: bool,
    /// Results as `run` and `collect` write them, plain or `.gz`; `-` is standard input.
    #[arg(value_name = "RESULTS", default_value = "-", value_hint = ValueHint::FilePath)]
    pub inputs: Vec<PathBuf>,
}

/// How `report` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Tables.
    #[value(alias = "table")]
    Text,
    /// One JSON object.
    Json,
    /// One row for all results, one for each run, and with `--per-task` one for each task.
    Csv,
    /// Markdown.
    #[value(alias = "markdown")]
    Md,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Each line is the payload of this preprocessor, and not a whole prediction message.
    #[arg(long, value_name = "NAME")]
    pub preprocessor: Option<String>,
    /// Problems that samples with only `task_id` and `completion` are joined to (JSONL, `.gz`).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub problems: Option<PathBuf>,
    /// Take the id from this field of the payload, instead of `id`.
    #[arg(long, value_name = "FIELD", requires = "preprocessor")]
    pub id_field: Option<String>,
    /// Where results go; `-` is standard output.
    #[arg(short, long, value_name = "OUT", default_value = "-", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Write the summary to this file (JSON).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub summary: Option<PathBuf>,
    /// How many predictions run at the same time.
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// Wall limit of commands that have none, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Seconds>,
    /// Keep every file that was written or read back, as `predN.M/` (prediction, executable) in this directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub debug_dir: Option<PathBuf>,
    /// Receives errors.jsonl: predictions that could not be run for reasons of ours.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub error_dir: Option<PathBuf>,
    /// Write each result as soon as it is there, not in the order of the input.
    #[arg(long)]
    pub unordered: bool,
    /// Keep the results that the output holds, and do only what is missing.
    ///
    /// A torn last line and results that are `infra_error` are removed, and done again.
    #[arg(long, conflicts_with = "force", requires = "output")]
    pub resume: bool,
    /// Overwrite the output.
    #[arg(long)]
    pub force: bool,
    /// Show no progress.
    #[arg(long)]
    pub no_progress: bool,
    /// JSONL files, plain or `.gz`; `-` is standard input.
    #[arg(value_name = "INPUT", default_value = "-", value_hint = ValueHint::FilePath)]
    pub inputs: Vec<PathBuf>,
}

impl RunArgs {
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

/// The output file; `None` for `-`, which is standard output.
pub(super) fn output_file(output: &Path) -> Option<&Path> {
    (output != Path::new("-")).then_some(output)
}

/// What `--resume` and `--force` mean; clap refuses both together.
pub(super) fn output_mode(resume: bool, force: bool) -> OutputMode {
    match (resume, force) {
        (true, _) => OutputMode::Resume,
        (false, true) => OutputMode::Force,
        (false, false) => OutputMode::New,
    }
}

pub(super) fn seconds(text: &str) -> Result<Seconds, String> {
    let number = text.parse().map_err(|_| "it is no number of seconds".to_owned())?;
    Seconds::new(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_are_in_the_help() {
        let mut command = Cli::command();
        command.build();
        let run = command.find_subcommand_mut("run").unwrap().render_help().to_string();
        for help in [run, command.render_help().to_string()] {
            assert!(help.contains("  130  ended by SIGINT"), "{help}");
        }
    }

    #[test]
    fn defaults_of_run() {
        let Command::Run(run) = Cli::try_parse_from(["evalmill", "run"]).unwrap().command else { panic!() };
        assert_eq!(run.inputs, [Path::new("-")]);
        assert_eq!((run.output_file(), run.output_mode()), (None, OutputMode::New));
    }

    #[rstest]
    #[case("run a.jsonl b.gz -o out --resume --timeout 2.5 --workers 3", true)]
    #[case("run --config c.toml --force -o out", true)]
    #[case("check-config --show-origin", true)]
    #[case("healthcheck", true)]
    #[case("doctor --format json --tier none", true)]
    #[case("doctor --format xml", false)]
    #[case("healthcheck --url http://127.0.0.1:9464/readyz", true)]
    #[case("schema result", true)]
    #[case("completions zsh", true)]
    #[case("topology --apply", true)]
    #[case("publish --class gpu --run r --window 9 --rate 2.5 --progress-file p a.jsonl -", true)]
    #[case("publish --preprocessor humaneval --id-field task_id", true)]
    #[case("publish --id-field task_id", false)]
    #[case("publish --rate 0", false)]
    #[case("publish --window 0", false)]
    #[case("collect --count 3 -o out --queue mine --run r", true)]
    #[case("collect --ids ids --idle 5 --resume -o out", true)]
    #[case("collect", false)]
    #[case("collect --count 0", false)]
    #[case("collect --ids a --count 3", false)]
    #[case("collect --id-field x --idle 3", false)]
    #[case("report", true)]
    #[case("report a.jsonl b.gz --k 1,10 --k 100 --per-task --format md --skip-bad", true)]
    #[case("report --k 0", false)]
    #[case("report --k 1,,2", false)]
    #[case("report --format xml", false)]
    #[case("report --bootstrap 1000001", false)]
    #[case("parking list --limit 3 --json", true)]
    #[case("parking requeue --id a --id b", true)]
    #[case("parking requeue --all", true)]
    #[case("parking requeue", false)]
    #[case("parking requeue --all --id a", false)]
    #[case("", false)]
    #[case("schema other", false)]
    #[case("run --resume --force -o out", false)]
    #[case("run --timeout 0", false)]
    #[case("run --timeout nan", false)]
    #[case("run --workers 0", false)]
    #[case("run --resume", false)]
    fn accepted_or_not(#[case] line: &str, #[case] accepted: bool) {
        let words = std::iter::once("evalmill").chain(line.split_whitespace());
        let parsed = Cli::try_parse_from(words);
        assert_eq!(parsed.is_ok(), accepted, "{parsed:?}");
        if let Err(error) = parsed {
            assert_eq!(error.exit_code(), 2);
        }
    }
}
