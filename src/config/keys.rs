//! The one table of keys: path, what its value must be, and what to try instead.

/// What the value of a key must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A whole number in this range.
    Whole(i64, i64),
    /// -1, or a whole number from 1 to this.
    Cap(i64),
    /// A finite number in this range.
    Number(f64, f64),
    /// Any text.
    Text,
    /// Empty, or an absolute path.
    AbsolutePath,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `random`, or a whole number of 32 bits, as text.
    HashSeed,
    /// A lower-case name.
    Name,
    /// An env-filter directive.
    Directive,
    /// Empty, or an address and a port.
    Listen,
    /// `all`, `none` or a list of field names.
    Echo,
    /// A list of names of environment variables.
    VariableNames,
    /// A table from names of environment variables to text.
    Variables,
    /// A list of one or more lower-case names.
    Names,
    /// `true` or `false`.
    Switch,
    /// A list of absolute paths.
    AbsolutePaths,
    /// A list of texts.
    Texts,
    /// The name of a file in a box.
    BoxFile,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Its dotted path.
    pub(super) path: &'static str,
    /// What its value must be.
    pub(super) kind: Kind,
    /// A value, or several, that would do.
    pub(super) hint: &'static str,
}

const fn key(path: &'static str, kind: Kind, hint: &'static str) -> Key {
    Key { path, kind, hint }
}

const DAY: f64 = 86_400.0;
const YEAR: f64 = 366.0 * DAY;
const TEBIBYTE_IN_MB: i64 = 1 << 20;

/// All keys, in the order of `config/default.toml`.
pub(super) const KEYS: &[Key] = &[
    key("worker.num_workers", Kind::Whole(0, 1024), "0 for one for each core"),
    key("worker.max_tasks_per_process", Kind::Whole(0, 1_000_000_000), "1000, or 0 for never"),
    key("worker.max_age_seconds", Kind::Number(0.0, YEAR), "3600, or 0 for never"),
    key("worker.max_memory_mb", Kind::Whole(0, TEBIBYTE_IN_MB), "512, or 0 for never"),
    key("worker.executable", Kind::AbsolutePath, "\"\" for this program"),
    key("worker.scratch_dir", Kind::AbsolutePath, "\"\" for $EXEC_TMP_DIR or the system's"),
    key("execution.write_rate_limit", Kind::Whole(1, 1_000_000), "768"),
    key("execution.max_execute_at_once", Kind::Cap(1_000_000), "-1 for no cap"),
    key("execution.max_starts_per_second", Kind::Number(0.0, 1e6), "0 for no cap"),
    key("limits.default_timeout", Kind::Number(0.01, DAY), "10"),
    key("limits.max_timeout", Kind::Number(0.01, DAY), "600"),
    key("limits.max_prediction_time", Kind::Number(0.01, 7.0 * DAY), "300"),
    key("limits.max_commands", Kind::Whole(1, 1_000_000), "1000"),
    key("limits.max_executables", Kind::Whole(1, 1_000_000), "1000"),
    key("limits.max_num_times", Kind::Whole(1, 1_000_000), "1000"),
    key("limits.memory_mb", Kind::Whole(16, TEBIBYTE_IN_MB), "2048"),
    key("limits.max_memory_mb", Kind::Whole(16, TEBIBYTE_IN_MB), "16384"),
    key("limits.processes", Kind::Whole(1, 4_194_304), "64"),
    key("limits.max_processes", Kind::Whole(1, 4_194_304), "1024"),
    key("limits.output_mb", Kind::Whole(1, 64), "16"),
    key("limits.max_output_mb", Kind::Whole(1, 64), "64"),
    key("limits.carried_output_kb", Kind::Whole(0, 1 << 20), "1024"),
    key("limits.file_mb", Kind::Whole(1, TEBIBYTE_IN_MB), "256"),
    key("limits.max_file_mb", Kind::Whole(1, TEBIBYTE_IN_MB), "4096"),
    key("limits.open_files", Kind::Whole(16, 1 << 20), "256"),
    key("limits.max_open_files", Kind::Whole(16, 1 << 20), "65536"),
    key("limits.tracked_file_mb", Kind::Whole(0, 128), "16"),
    key("limits.tracked_total_mb", Kind::Whole(0, 128), "64"),
    key("python.interpreter", Kind::AbsolutePath, "\"/usr/bin/python3\", or \"\" to have it found"),
    key("python.hash_seed", Kind::HashSeed, "\"0\" or \"random\", in quotes"),
    key("sandbox.tier", Kind::OneOf(&["auto", "full", "namespaces", "process", "none"]), "\"auto\""),
    key("sandbox.require", Kind::OneOf(&["auto", "full", "namespaces", "process", "none"]), "\"auto\""),
    key("sandbox.binds", Kind::AbsolutePaths, "[\"/opt/toolchain\"]"),
    key("sandbox.network", Kind::Switch, "false"),
    key("sandbox.disk_mb", Kind::Whole(1, TEBIBYTE_IN_MB), "256"),
    key("sandbox.disk_inodes", Kind::Whole(100, 1_000_000_000), "10000"),
    key("pipeline.default_preprocessor", Kind::Name, "\"executable\""),
    key("pipeline.max_unsettled", Kind::Whole(1, 1024), "1024"),
    key("pipeline.max_unsettled_mb", Kind::Whole(1, TEBIBYTE_IN_MB), "256"),
    key("pipeline.max_line_mb", Kind::Whole(1, 128), "128"),
    key("pipeline.echo_prediction", Kind::Echo, "\"all\", \"none\" or [\"id\"]"),
    key("processors.humaneval.problems", Kind::Text, "\"/data/HumanEval.jsonl\""),
    key("environment.pass", Kind::VariableNames, "[\"LANG\"]"),
    key("environment.set", Kind::Variables, "{ LANG = \"C.UTF-8\" }"),
    key("rabbitmq.url", Kind::Text, "\"amqp://user:password@host:5672/vhost\""),
    key("rabbitmq.url_file", Kind::Text, "\"/run/secrets/amqp_url\", or \"\" for none"),
    key("rabbitmq.user", Kind::Text, "\"evalmill\", or \"\" for the URL's"),
    key("rabbitmq.user_file", Kind::Text, "\"/run/secrets/amqp_user\", or \"\" for none"),
    key("rabbitmq.password", Kind::Text, "the password as text, or \"\" for the URL's"),
    key("rabbitmq.password_file", Kind::Text, "\"/run/secrets/amqp_password\", or \"\" for none"),
    key("rabbitmq.tls_ca_file", Kind::Text, "\"/etc/ssl/broker-ca.pem\", or \"\" for the machine's"),
    key("rabbitmq.tls_certificate_file", Kind::Text, "\"/etc/ssl/evalmill.pem\", or \"\" for none"),
    key("rabbitmq.tls_key_file", Kind::Text, "\"/etc/ssl/evalmill.key\", or \"\" for none"),
    key("rabbitmq.heartbeat", Kind::Whole(1, 600), "10"),
    key("rabbitmq.classes", Kind::Names, "[\"default\"]"),
    key("rabbitmq.prefetch", Kind::Whole(0, 65_535), "0 for 4 for each worker and 64"),
    key("rabbitmq.topology", Kind::OneOf(&["declare", "check"]), "\"declare\""),
    key("rabbitmq.delivery_limit", Kind::Whole(1, 1_000_000), "20"),
    key("rabbitmq.consumer_timeout_seconds", Kind::Number(60.0, 30.0 * DAY), "1800"),
    key("rabbitmq.max_attempts", Kind::Whole(1, 1000), "3"),
    key("rabbitmq.retry_seconds", Kind::Number(0.1, DAY), "30"),
    key("rabbitmq.max_queue_mb", Kind::Whole(1, TEBIBYTE_IN_MB), "10240"),
    key("rabbitmq.max_message_mb", Kind::Whole(1, 128), "16"),
    key("rabbitmq.confirm_window", Kind::Whole(1, 65_535), "512"),
    key("rabbitmq.linger_ms", Kind::Whole(0, 1000), "10"),
    key("rabbitmq.drain_seconds", Kind::Number(0.0, DAY), "60"),
    key("telemetry.log", Kind::Directive, "\"info\" or \"warn,evalmill=debug\""),
    key("telemetry.log_format", Kind::OneOf(&["text", "json"]), "\"text\""),
    key("telemetry.log_freq", Kind::Whole(1, 1_000_000_000), "1000"),
    key("telemetry.window_seconds", Kind::Number(0.1, DAY), "60"),
    key("telemetry.listen", Kind::Listen, "\"127.0.0.1:9464\", or \"\" for none"),
    key("debug.dir", Kind::Text, "\"\" for none"),
    key("debug.error_dir", Kind::Text, "\"\" for none"),
];

/// The path of the one key whose entries have names of their own.
pub(super) const VARIABLES: &str = "environment.set";

/// The section that holds a section for each language.
pub(super) const LANGUAGES: &str = "languages";

/// The keys of each language, in the order of `config/default.toml`.
pub(super) const LANGUAGE_KEYS: &[Key] = &[
    key("aliases", Kind::Texts, "[\"py\"], or [] for none"),
    key("file", Kind::BoxFile, "\"main.rs\""),
    key("compile", Kind::Texts, "[\"rustc\", \"-O\", \"main.rs\"], or [] for nothing"),
    key("run", Kind::Texts, "[\"./main\"]"),
    key("compile_timeout", Kind::Number(0.01, DAY), "60"),
    key("timeout", Kind::Number(0.0, DAY), "0 for the prediction's"),
];

/// The key of this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path).or_else(|| {
        let (name, key) = below(path, LANGUAGES)?.split_once('.')?;
        LANGUAGE_KEYS.iter().find(|known| is_name(name) && known.path == key)
    })
}

/// A name of lower-case letters, digits and underscores.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Whether this path is a section: some key is below it.
pub(super) fn is_section(path: &str) -> bool {
    path.is_empty()
        || path == LANGUAGES
        || below(path, LANGUAGES).is_some_and(|name| !name.contains('.'))
        || KEYS.iter().any(|key| below(key.path, path).is_some())
}

/// What of `path` is below `section`.
pub(super) fn below<'a>(path: &'a str, section: &str) -> Option<&'a str> {
    path.strip_prefix(section)?.strip_prefix('.')
}

/// The sections, outermost parts first, each once.
fn sections() -> Vec<&'static str> {
    let mut found = Vec::new();
    for key in KEYS {
        for (at, _) in key.path.match_indices('.') {
            if !found.contains(&&key.path[..at]) {
                found.push(&key.path[..at]);
            }
        }
    }
    found
}

/// The known key or section most like an unknown one, when one is like it.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let name = unknown.rsplit('.').next().unwrap_or(unknown);
    let candidates = || KEYS.iter().map(|key| key.path).chain(sections());
    // A key put in the wrong section is the likeliest slip of all.
    if let Some(moved) = candidates().find(|path| last(path) == name) {
        return Some(moved);
    }
    candidates()
        .map(|path| (strsim::normalized_damerau_levenshtein(unknown, path), path))
        .filter(|(likeness, _)| *likeness > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("worker.num_worker", Some("worker.num_workers"))]
    #[case("wroker", Some("worker"))]
    #[case("limits.num_workers", Some("worker.num_workers"))]
    #[case("max_timeout", Some("limits.max_timeout"))]
    #[case("zebra.crossing", None)]
    fn the_nearest_key_is_offered(#[case] unknown: &str, #[case] nearest_key: Option<&str>) {
        assert_eq!(nearest(unknown), nearest_key);
    }
}
