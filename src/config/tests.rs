//! Loading and rendering, from sources to settings and back.

use super::keys::{LANGUAGE_KEYS, LANGUAGES, VARIABLES};
use super::*;
use rstest::rstest;
use std::collections::BTreeSet;
use std::io::Write;
use tempfile::NamedTempFile;

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn of_file(text: &str) -> Result<Loaded, Problems> {
    let file = file(text);
    load(&Sources { file: Some(file.path().into()), ..Sources::default() })
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of_environment(pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load(&Sources { environment: variables(pairs), ..Sources::default() })
}

#[test]
fn no_sources_give_the_defaults() {
    assert_eq!(load(&Sources::default()), Ok(Loaded::default()));
}

#[test]
fn the_default_file_says_what_the_structs_say() {
    let loaded = of_file(DEFAULT_TOML).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    let set: BTreeSet<_> = loaded
        .origins
        .iter()
        .filter(|(_, from)| **from != Origin::Default)
        .map(|(path, _)| path.as_str())
        .collect();
    let known = Loaded::default().origins;
    let known: BTreeSet<_> = known.keys().map(String::as_str).collect();
    assert_eq!(set, known, "the default file sets every key");
}

#[test]
fn the_production_file_is_sound_and_demands_everything() {
    let loaded = of_file(include_str!("../../config/production.toml")).unwrap();
    assert_eq!(loaded.settings.sandbox.require, TierChoice::Full);
    assert_eq!(loaded.settings.rabbitmq.topology, TopologyMode::Check);
}

#[test]
fn every_key_of_the_default_file_has_a_comment_and_its_range() {
    let (mut comment, mut section) = (String::new(), "");
    for line in DEFAULT_TOML.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some((name, _)) = line.split_once(" = ") {
            // What a key of a language means is said once.
            let said = !comment.is_empty() || section.starts_with(LANGUAGES);
            assert!(said, "{name} has no comment");
            let key = keys::find(&format!("{section}.{name}")).unwrap();
            if let keys::Kind::Whole(min, max) = key.kind {
                assert!(comment.contains(&format!("{min} to {max}")), "{name}: {comment}");
            }
            comment.clear();
        } else {
            section = line.trim_matches(['[', ']']);
            comment.clear();
        }
    }
}

#[test]
fn the_table_of_keys_and_the_structs_agree() {
    fn leaves(at: &str, value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value.as_object() {
            // Languages are named as one likes.
            Some(table) if at == LANGUAGES => {
                for language in table.values() {
                    let keys: BTreeSet<_> = language.as_object().unwrap().keys().collect();
                    assert_eq!(keys.len(), LANGUAGE_KEYS.len());
                    assert!(LANGUAGE_KEYS.iter().all(|key| keys.contains(&key.path.to_owned())));
                }
            }
            Some(table) if at != VARIABLES => {
                for (name, value) in table {
                    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    leaves(&path, value, found);
                }
            }
            _ => {
                found.insert(at.to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    leaves("", &serde_json::to_value(Settings::default()).unwrap(), &mut found);
    assert_eq!(found, key_paths().map(str::to_owned).collect());
}

#[rstest]
#[case("[worker]\nnum_workers = \"many\"", r#"worker.num_workers = "many" (from FILE): must be a whole number from 0 to 1024. Try: 0 for one for each core"#)]
#[case(
    "[worker]\nnum_workers = \"4\"",
    r#"worker.num_workers = "4" (from FILE): must be a whole number from 0 to 1024"#
)]
#[case(
    "worker.num_workers = 1025",
    "worker.num_workers = 1025 (from FILE): must be a whole number from 0 to 1024"
)]
#[case("worker.num_workers = -1", "must be a whole number from 0 to 1024")]
#[case("worker.num_workers = 1.0", "must be a whole number from 0 to 1024")]
#[case("worker.max_age_seconds = nan", "must be a finite number from 0 to")]
#[case("worker.max_age_seconds = inf", "must be a finite number from 0 to")]
#[case("worker.executable = \"bin/x\"", "must be empty or an absolute path")]
#[case("worker.executable = \"/a\\u0000b\"", "must be empty or an absolute path")]
#[case("execution.write_rate_limit = 0", "must be a whole number from 1 to")]
#[case("execution.max_execute_at_once = 0", "must be -1 or a whole number from 1 to")]
#[case("limits.default_timeout = 0", "must be a finite number from 0.01 to 86400")]
#[case("limits.default_timeout = true", "must be a finite number from 0.01 to 86400")]
#[case(
    "limits = { default_timeout = 601, max_prediction_time = 700 }",
    "limits.default_timeout = 601 (from FILE): must be at most limits.max_timeout, which is 600"
)]
#[case(
    "limits.max_timeout = 5",
    "limits.max_timeout = 5 (from FILE): must be at least limits.default_timeout, which is 10"
)]
#[case("limits.max_prediction_time = 5", "must be at least limits.default_timeout, which is 10")]
#[case("limits.memory_mb = 20000", "must be at most limits.max_memory_mb, which is 16384")]
#[case("limits.processes = 2000", "must be at most limits.max_processes, which is 1024")]
#[case("limits.output_mb = 65", "must be a whole number from 1 to 64")]
#[case("limits.file_mb = 5000", "must be at most limits.max_file_mb, which is 4096")]
#[case("limits.open_files = 65537", "must be at most limits.max_open_files, which is 65536")]
#[case("limits.tracked_file_mb = 65", "must be at most limits.tracked_total_mb, which is 64")]
#[case("pipeline.max_line_mb = 257", "must be a whole number from 1 to 128")]
#[case("python.interpreter = \"python3\"", "must be empty or an absolute path. Try: \"/usr/bin/python3\"")]
#[case("python.hash_seed = 0", "must be \"random\" or a whole number from 0 to 4294967295, as text")]
#[case("python.hash_seed = \"4294967296\"", "must be \"random\" or a whole number")]
#[case("python.hash_seed = \"+1\"", "must be \"random\" or a whole number")]
#[case("sandbox.tier = \"strong\"", r#"must be one of "auto", "full", "namespaces", "process", "none""#)]
#[case(
    "sandbox.require = \"some\"",
    r#"must be one of "auto", "full", "namespaces", "process", "none". Try: "auto""#
)]
#[case(
    "sandbox = { tier = \"process\", require = \"full\" }",
    "must be \"auto\" or at least as strong as sandbox.require, which is \"full\""
)]
#[case("pipeline.default_preprocessor = \"\"", "must be a name of lower-case letters")]
#[case("pipeline.echo_prediction = \"some\"", "must be \"all\", \"none\" or a list of field names")]
#[case("pipeline.echo_prediction = [1]", "pipeline.echo_prediction = [1] (from FILE): must be \"all\"")]
#[case("processors.humaneval.problems = 1", "must be text")]
#[case("environment.pass = [\"A=B\"]", "must be a list of names of environment variables")]
#[case("environment.pass = \"LANG\"", "must be a list of names of environment variables")]
#[case("environment.set.A = 1", "environment.set.A = 1 (from FILE): must be text. Try: A = \"value\"")]
#[case("environment.set.\"A.B\" = \"x\"", "must have a name of letters, digits and underscores")]
#[case("environment.set = 3", "environment.set = 3 (from FILE): must be a table")]
#[case("telemetry.log = \"a=b=c\"", "must be an env-filter directive")]
#[case("telemetry.log_format = \"xml\"", "must be one of \"text\", \"json\"")]
#[case(
    "telemetry.listen = \"localhost\"",
    "must be empty or an IP address and a port. Try: \"127.0.0.1:9464\""
)]
#[case("telemetry.listen = \"127.0.0.1\"", "must be empty or an IP address and a port")]
#[case("telemetry.listen = \"127.0.0.1:65536\"", "must be empty or an IP address and a port")]
#[case("telemetry.log_freq = 0", "must be a whole number from 1 to")]
#[case("languages = 3", "languages = 3 (from FILE): must be a table. Try: a table [languages]")]
#[case("languages.rust = 3", "languages.rust = 3 (from FILE): must be a table")]
#[case("languages.python.fil = \"a\"", "is not a known setting: a language has a name of lower-case")]
#[case("languages.Rust.file = \"a\"", "is not a known setting: a language has a name of lower-case")]
#[case("languages.python.run = \"python3 main.py\"", "must be a list of texts. Try: [\"./main\"]")]
#[case(
    "languages.python.run = []",
    "languages.python.run (from FILE): must be set: the program that runs it"
)]
#[case("languages.python.file = \"../a\"", "must be a relative path without \"..\"")]
#[case(
    "languages.rust.run = [\"./main\"]",
    "languages.rust.file (from FILE): must be set: the file that a program of this language"
)]
#[case("languages.rust = { file = \"main.rs\" }", "languages.rust.run (from FILE): must be set")]
#[case(
    "languages.c.aliases = [\"Python\"]",
    "languages.python.aliases (from default): must not name \"python\", which means c already"
)]
#[case("languages.c.timeout = -1", "must be a finite number from 0 to 86400")]
#[case("worker = 3", "worker = 3 (from FILE): must be a table. Try: a table [worker]")]
#[case(
    "worker.num_worker = 3",
    "worker.num_worker = 3 (from FILE): is not a known setting. Try: worker.num_workers"
)]
#[case("[wroker]\nnum_workers = 3", "wroker (from FILE): is not a known setting. Try: worker")]
#[case("\"worker.num_workers\" = 3", "is not a known setting")]
#[case("[worker.num_workers]\na = 3", "worker.num_workers (from FILE): must be a whole number")]
#[case("= 3", "FILE: is not valid TOML: TOML parse error at line 1")]
#[case("environment.set.DB_PASSWORD = 7", "environment.set.DB_PASSWORD = *** (from FILE)")]
fn a_broken_rule_is_said(#[case] text: &str, #[case] said: &str) {
    let file = file(text);
    let problems = load(&Sources { file: Some(file.path().into()), ..Sources::default() });
    let problems = problems.expect_err(text);
    assert_eq!(problems.0.len(), 1, "{problems}");
    let printed = problems.0[0].to_string().replace(&format!("file {}", file.path().display()), "FILE");
    assert!(printed.contains(said), "{printed}");
}

#[test]
fn a_syntax_error_shows_nothing_of_the_file() {
    let problems = of_file("[environment.set]\nTOKEN = \"hunter2\n").unwrap_err().to_string();
    assert!(problems.contains("line 2") && !problems.contains("hunter2"), "{problems}");
}

#[test]
fn all_problems_are_told_at_once() {
    let file = file("nonsense = 1\n[worker]\nnum_workers = \"many\"\n[limits]\nmemory_mb = 20000\n");
    let sources = Sources {
        file: Some(file.path().into()),
        environment: variables(&[
            ("EVALMILL__WORKER__NUM_WORKERS", "lots"),
            ("EVALMILL__WORKR__X", "1"),
            ("EVALMILL_CONFIG", "/not/read"),
            ("HOME", "/"),
        ]),
        overrides: vec![Override::new("telemetry.log_format", "xml", "--log-format")],
    };
    let problems = load(&sources).unwrap_err();
    let paths: Vec<_> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
    let expected = [
        "nonsense",
        "worker.num_workers",
        "worker.num_workers",
        "workr.x",
        "telemetry.log_format",
        "limits.memory_mb",
    ];
    assert_eq!(paths, expected, "{problems}");
    let printed = problems.to_string();
    assert!(printed.starts_with("6 problems in the settings:\n  nonsense = 1"), "{printed}");
    let said = "worker.num_workers = \"lots\" (from environment EVALMILL__WORKER__NUM_WORKERS): must be";
    assert!(printed.contains(said), "{printed}");
    assert!(printed.contains("(from flag --log-format)"), "{printed}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_beside_others() {
    let mut sources = Sources {
        environment: variables(&[("EVALMILL_CONFIG", "/nowhere/x.toml"), ("EVALMILL__A__B", "1")]),
        ..Sources::default()
    };
    let problems = load(&sources).unwrap_err();
    assert_eq!(problems.0.len(), 2, "{problems}");
    assert!(problems.to_string().contains("environment EVALMILL_CONFIG: /nowhere/x.toml cannot be read"));
    sources.file = Some("/nowhere/y.toml".into());
    assert!(load(&sources).unwrap_err().to_string().contains("/nowhere/y.toml cannot be read"));
}

#[test]
fn later_sources_win() {
    let file = file("[worker]\nnum_workers = 1\nmax_memory_mb = 1\nmax_tasks_per_process = 1\n");
    let sources = Sources {
        environment: variables(&[
            ("EVALMILL__WORKER__NUM_WORKERS", "2"),
            ("EVALMILL__WORKER__MAX_MEMORY_MB", "2"),
            ("EVALMILL_CONFIG", file.path().to_str().unwrap()),
        ]),
        overrides: vec![
            Override::new("worker.num_workers", 3, "--workers"),
            Override::new("worker.num_workers", 4, "--workers"),
        ],
        ..Sources::default()
    };
    let loaded = load(&sources).unwrap();
    let worker = &loaded.settings.worker;
    assert_eq!((worker.num_workers, worker.max_memory_mb, worker.max_tasks_per_process), (4, 2, 1));
    assert_eq!(loaded.origins["worker.num_workers"], Origin::Flag("--workers".into()));
    let variable = Origin::Environment("EVALMILL__WORKER__MAX_MEMORY_MB".into());
    assert_eq!(loaded.origins["worker.max_memory_mb"], variable);
    assert_eq!(loaded.origins["worker.max_tasks_per_process"], Origin::File(file.path().into()));
    assert_eq!(loaded.origins["worker.max_age_seconds"], Origin::Default);
}

#[test]
fn texts_of_the_environment_become_the_type_of_their_key() {
    let loaded = of_environment(&[
        ("EVALMILL__LIMITS__DEFAULT_TIMEOUT", "2"),
        ("EVALMILL__EXECUTION__MAX_EXECUTE_AT_ONCE", "-1"),
        ("EVALMILL__PYTHON__HASH_SEED", "007"),
        ("EVALMILL__ENVIRONMENT__PASS", "LANG, LC_ALL"),
        ("EVALMILL__ENVIRONMENT__SET__Db__PASSWORD", "007"),
        ("EVALMILL__PIPELINE__ECHO_PREDICTION", "id,task"),
        ("EVALMILL__PROCESSORS__HUMANEVAL__PROBLEMS", "true"),
    ]);
    let settings = loaded.unwrap().settings;
    assert_eq!(settings.limits.default_timeout, 2.0);
    assert_eq!(settings.python.hash_seed, "007");
    assert_eq!(settings.environment.pass, ["LANG", "LC_ALL"]);
    assert_eq!(settings.environment.set["Db__PASSWORD"], "007");
    assert_eq!(settings.pipeline.echo_prediction, Echo::Fields(vec!["id".into(), "task".into()]));
    assert_eq!(settings.processors.humaneval.problems, "true");
    assert!(!format!("{settings:?}").contains("007\"}"), "{settings:?}");
}

#[test]
fn a_language_keeps_what_is_not_said_anew() {
    let loaded = of_file(
        "[languages.python]\ntimeout = 2\n[languages.rust]\nfile = \"main.rs\"\nrun = [\"./main\"]\n",
    );
    let languages = loaded.unwrap().settings.languages;
    let (python, shipped) = (&languages["python"], &Languages::default()["python"]);
    assert_eq!((python.timeout, &python.run), (2.0, &shipped.run));
    assert_eq!(languages.keys().collect::<Vec<_>>(), ["bash", "c", "cpp", "javascript", "python", "rust"]);
    assert_eq!((languages["rust"].compile.len(), languages["rust"].compile_timeout), (0, 60.0));
    let one = of_environment(&[("EVALMILL__LANGUAGES__CPP__COMPILE", "clang++, -o,main,main.cpp")]);
    assert_eq!(one.unwrap().settings.languages["cpp"].compile, ["clang++", "-o", "main", "main.cpp"]);
}

#[test]
fn two_variables_for_one_key_are_refused() {
    let problems =
        of_environment(&[("EVALMILL__WORKER__NUM_WORKERS", "1"), ("EVALMILL__worker__num_workers", "2")]);
    let said = "is also set from environment EVALMILL__WORKER__NUM_WORKERS";
    assert!(problems.unwrap_err().to_string().contains(said));
}

#[rstest]
#[case("nan")]
#[case("inf")]
#[case("")]
#[case("ten")]
fn a_text_that_is_no_number_is_refused(#[case] text: &str) {
    let problems = of_environment(&[("EVALMILL__LIMITS__MAX_TIMEOUT", text)]).unwrap_err();
    assert!(problems.to_string().contains("must be a finite number"), "{problems}");
}

#[rstest]
#[case("")]
#[case(
    "limits.default_timeout = 0.1\nworker.num_workers = 4\npipeline.echo_prediction = [\"id\", \"a\\\"b\"]"
)]
#[case("telemetry.listen = \"\"")]
#[case("telemetry.listen = \"[::]:0\"")]
#[case("pipeline.echo_prediction = \"none\"\nenvironment.pass = [\"A\"]\nsandbox.tier = \"none\"")]
#[case(
    "languages.python.timeout = 2\nlanguages.rust = { file = \"a.rs\", compile = [\"rustc\"], run = [\"./a\"] }"
)]
#[case("environment.set = { A = \"x # \\\"\\n\\u007f\\\\\", b = \"\" }")]
fn what_is_rendered_loads_again(#[case] text: &str, #[values(false, true)] show_origin: bool) {
    let loaded = of_file(text).unwrap();
    let rendered = render(&loaded, show_origin);
    assert_eq!(of_file(&rendered).expect(&rendered).settings, loaded.settings);
}

#[test]
fn origins_are_rendered_and_secrets_are_not() {
    let loaded = load(&Sources {
        environment: variables(&[
            ("EVALMILL__ENVIRONMENT__SET__API_TOKEN", "hunter2"),
            ("EVALMILL__RABBITMQ__PASSWORD", "hunter2"),
            ("EVALMILL__RABBITMQ__PASSWORD_FILE", "/run/secrets/pw"),
        ]),
        overrides: vec![Override::new("worker.num_workers", 4, "--workers")],
        ..Sources::default()
    });
    let loaded = loaded.unwrap();
    assert_eq!(loaded.settings.rabbitmq.password.reveal(), "hunter2");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let rendered = render(&loaded, true);
    for line in [
        "num_workers = 4  # flag --workers",
        "log = \"info\"  # default",
        "password = \"***\"  # environment EVALMILL__RABBITMQ__PASSWORD",
        "password_file = \"/run/secrets/pw\"  # environment EVALMILL__RABBITMQ__PASSWORD_FILE",
        "API_TOKEN = \"***\"  # environment EVALMILL__ENVIRONMENT__SET__API_TOKEN",
    ] {
        assert!(rendered.lines().any(|rendered| rendered == line), "{rendered}");
    }
    assert!(!rendered.contains("hunter2"));
}

#[test]
fn sources_print_no_values() {
    let sources = Sources {
        environment: variables(&[("EVALMILL__X__TOKEN", "hunter2")]),
        overrides: vec![Override::new("x.password", "hunter3", "--password")],
        ..Sources::default()
    };
    let printed = format!("{sources:?}");
    assert!(!printed.contains("hunter"), "{printed}");
}
