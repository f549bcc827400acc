//! The settings as structs. Their `Default` is what `config/default.toml` says.

use super::languages::Languages;
use super::redact::redact;
use super::types::{Echo, LogFormat, Secret, SecretUrl, TierChoice, TopologyMode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A section: its fields, and the default of each beside it.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default.into(),)* }
            }
        }
    };
}

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The worker processes.
    pub worker: Worker,
    /// How much runs at once.
    pub execution: Execution,
    /// What one prediction may use.
    pub limits: Limits,
    /// The Python that runs predictions.
    pub python: Python,
    /// The walls of a box.
    pub sandbox: Sandbox,
    /// From lines to results.
    pub pipeline: Pipeline,
    /// Settings of single processors.
    pub processors: Processors,
    /// How programs are built and run.
    pub languages: Languages,
    /// The environment variables of boxes.
    pub environment: Environment,
    /// The broker.
    pub rabbitmq: RabbitMq,
    /// Logs, metrics and health.
    pub telemetry: Telemetry,
    /// Things kept for looking into later.
    pub debug: Debugging,
}

section! {
    /// The worker processes.
    Worker {
        /// How many; 0 is one for each core. [`Settings::num_workers`] resolves it.
        num_workers: u32 = 0u32,
        /// Tasks after which a worker process is replaced; 0 is never.
        max_tasks_per_process: u64 = 1000u64,
        /// Seconds after which a worker process is replaced; 0 is never.
        max_age_seconds: f64 = 3600.0,
        /// Resident mebibytes after which a worker process is replaced; 0 is never.
        max_memory_mb: u64 = 512u64,
        /// The program started as a worker; empty is this program.
        executable: String = "",
        /// Where boxes are made; empty is `$EXEC_TMP_DIR`, else the system's temporary directory.
        scratch_dir: String = "",
    }
}

section! {
    /// How much runs at once.
    Execution {
        /// Concurrent writes into boxes.
        write_rate_limit: u32 = 768u32,
        /// Predictions written and not yet finished; -1 is no cap.
        max_execute_at_once: i64 = -1i64,
        /// Predictions started each second; 0 is no cap.
        max_starts_per_second: f64 = 0.0,
    }
}

section! {
    /// What one prediction may use: the defaults, and the most it may ask for.
    Limits {
        /// Seconds for a command that names no timeout.
        default_timeout: f64 = 10.0,
        /// The most seconds a command may ask for.
        max_timeout: f64 = 600.0,
        /// Seconds for all commands of a prediction together.
        max_prediction_time: f64 = 300.0,
        /// Commands in a prediction.
        max_commands: u32 = 1000u32,
        /// Executables in a prediction.
        max_executables: u32 = 1000u32,
        /// Times a command may be repeated.
        max_num_times: u32 = 1000u32,
        /// Mebibytes of memory for a prediction that names none.
        memory_mb: u64 = 2048u64,
        /// The most mebibytes of memory a prediction may ask for.
        max_memory_mb: u64 = 16384u64,
        /// Processes and threads for a prediction that names no number.
        processes: u32 = 64u32,
        /// The most processes and threads a prediction may ask for.
        max_processes: u32 = 1024u32,
        /// Mebibytes of output read from a command that names no number.
        output_mb: u64 = 16u64,
        /// The most mebibytes of output a prediction may ask for.
        max_output_mb: u64 = 64u64,
        /// Kibibytes of each output stream carried in a result.
        carried_output_kb: u64 = 1024u64,
        /// Mebibytes of the largest file, for a prediction that names no number.
        file_mb: u64 = 256u64,
        /// The most mebibytes of a file a prediction may ask for.
        max_file_mb: u64 = 4096u64,
        /// Open files of a process, for a prediction that names no number.
        open_files: u32 = 256u32,
        /// The most open files a prediction may ask for.
        max_open_files: u32 = 65536u32,
        /// Mebibytes of one file brought back from a box.
        tracked_file_mb: u64 = 16u64,
        /// Mebibytes of all files brought back from a box.
        tracked_total_mb: u64 = 64u64,
    }
}

section! {
    /// The Python that runs predictions.
    Python {
        /// Its absolute path; empty is found. [`Settings::interpreter`] resolves it.
        interpreter: String = "",
        /// `PYTHONHASHSEED`: `random` or a number.
        hash_seed: String = "0",
    }
}

section! {
    /// The walls of a box.
    Sandbox {
        /// The tier to use.
        tier: TierChoice = TierChoice::Auto,
        /// The weakest tier to start with; `auto` is `process` for `run` and the library, `namespaces` for `serve`.
        require: TierChoice = TierChoice::Auto,
        /// Files and directories shown read-only in boxes, beside the system's and the interpreter's.
        binds: Vec<String> = Vec::<String>::new(),
        /// Whether boxes have the host's network.
        network: bool = false,
        /// Mebibytes that all files of a box may hold together.
        disk_mb: u64 = 256u64,
        /// Files and directories that a box may hold.
        disk_inodes: u64 = 10_000u64,
    }
}

section! {
    /// From lines to results.
    Pipeline {
        /// The preprocessor of a prediction that names none.
        default_preprocessor: String = "executable",
        /// Predictions taken in and not yet settled.
        max_unsettled: u32 = 1024u32,
        /// Mebibytes of predictions taken in and not yet settled.
        max_unsettled_mb: u32 = 256u32,
        /// Mebibytes of the longest line taken in.
        max_line_mb: u32 = 128u32,
        /// Which fields of a prediction its result repeats.
        echo_prediction: Echo = Echo::All,
    }
}

/// Settings of single processors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Processors {
    /// The HumanEval processor.
    pub humaneval: HumanEval,
}

section! {
    /// The HumanEval processor.
    HumanEval {
        /// The file of problems; empty is none.
        problems: String = "",
    }
}

/// The environment variables of boxes.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Environment {
    /// Names of the service's variables let through into boxes.
    pub pass: Vec<String>,
    /// Variables set in boxes.
    pub set: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: BTreeMap<_, _> = self.set.iter().map(|(name, value)| (name, redact(name, value))).collect();
        f.debug_struct("Environment").field("pass", &self.pass).field("set", &set).finish()
    }
}

section! {
    /// The broker that `serve` works with.
    RabbitMq {
        /// Where it is, with user and password; empty is `url_file`.
        url: SecretUrl = "",
        /// A file that holds the URL, read again before each connection; empty is none.
        url_file: String = "",
        /// Who we are there, in place of the URL's user; empty is `user_file`.
        user: String = "",
        /// A file that holds the user, read again before each connection; empty is none.
        user_file: String = "",
        /// The password, in place of the URL's; empty is `password_file`.
        password: Secret = "",
        /// A file that holds the password, read again before each connection; empty is none.
        password_file: String = "",
        /// The certificates that a broker's must be signed by one of; empty is what the machine trusts.
        tls_ca_file: String = "",
        /// Our certificate; empty is none.
        tls_certificate_file: String = "",
        /// Its key.
        tls_key_file: String = "",
        /// Seconds between two heartbeats.
        heartbeat: u16 = 10u16,
        /// The classes of input that are consumed, each from its queue.
        classes: Vec<String> = ["default".to_owned()],
        /// Deliveries taken and not yet settled; 0 is 4 for each worker and 64.
        prefetch: u16 = 0u16,
        /// Whether exchanges and queues are declared, or only checked.
        topology: TopologyMode = TopologyMode::Declare,
        /// Deliveries of one message before the broker parks it.
        delivery_limit: u32 = 20u32,
        /// Seconds after which the broker takes a delivery back that is not settled, as it is set there.
        consumer_timeout_seconds: f64 = 1800.0,
        /// Attempts at a prediction that fails for reasons of ours, before it is parked.
        max_attempts: u32 = 3u32,
        /// Seconds before such an attempt.
        retry_seconds: f64 = 30.0,
        /// Mebibytes that a work queue holds before it refuses more.
        max_queue_mb: u64 = 10240u64,
        /// Mebibytes of the longest message taken in or sent.
        max_message_mb: u32 = 16u32,
        /// Messages published and not yet confirmed.
        confirm_window: u16 = 512u16,
        /// Milliseconds that a result waits for others to go with it, and an acknowledgement four times as
        /// long; 0 is none.
        linger_ms: u32 = 10u32,
        /// Seconds that what runs gets when the service is told to stop.
        drain_seconds: f64 = 60.0,
    }
}

section! {
    /// Logs, metrics and health.
    Telemetry {
        /// What is logged: an env-filter directive.
        log: String = "info",
        /// How it is written.
        log_format: LogFormat = LogFormat::Text,
        /// Results between two progress lines.
        log_freq: u32 = 1000u32,
        /// Seconds between two messages with timings.
        window_seconds: f64 = 60.0,
        /// Where the service answers for its health and metrics over HTTP; empty is nowhere.
        listen: String = "127.0.0.1:9464",
    }
}

section! {
    /// Things kept for looking into later.
    Debugging {
        /// Where everything that ran is kept; empty is nowhere.
        dir: String = "",
        /// Where what went wrong is kept; empty is nowhere.
        error_dir: String = "",
    }
}
