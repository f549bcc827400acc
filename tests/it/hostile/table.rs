//! The table of the hostile suite, and the rows that are made of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Who;

pub(super) const TIERS: [&str; 4] = ["full", "namespaces", "process", "none"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) case: Vec<Case>,
}

/// One line of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) number: u32,
    /// The file without its ending; a variant of one program has its own.
    pub(super) name: String,
    /// What it tries, for people.
    pub(super) tries: String,
    /// The program, where it is not `<number>_<name>.py`; empty: there is none.
    pub(super) file: Option<String>,
    /// The command, where it is not `python3 main.py`.
    #[serde(default)]
    pub(super) commands: Vec<Vec<String>>,
    /// The solution of a HumanEval task, instead of a program.
    #[serde(default)]
    pub(super) humaneval: bool,
    #[serde(default)]
    pub(super) limits: BTreeMap<String, f64>,
    /// Paths of files beside the program.
    #[serde(default)]
    pub(super) paths: Vec<String>,
    /// Files to read back.
    #[serde(default)]
    pub(super) tracked: Vec<String>,
    /// Mebibytes of standard input.
    #[serde(default)]
    pub(super) stdin_mb: usize,
    /// What is expected of standard output, which no program may find.
    pub(super) expected_stdout: Option<String>,
    #[serde(default = "once")]
    pub(super) times: u32,
    /// Only these.
    pub(super) max_cpu: Option<f64>,
    pub(super) max_seconds: Option<f64>,
    /// Whether `<number>_<name>_next.py` runs as the next task.
    #[serde(default)]
    pub(super) next: bool,
    /// Whether it is for x86-64 only.
    #[serde(default)]
    pub(super) x86_64: bool,
    // What is expected: of all tiers, and where one differs, of it.
    #[serde(default)]
    pub(super) all: Expected,
    #[serde(default)]
    pub(super) full: Expected,
    /// Of `full`, too.
    #[serde(default)]
    pub(super) namespaces: Expected,
    #[serde(default)]
    pub(super) namespaces_user: Expected,
    #[serde(default)]
    pub(super) process: Expected,
    #[serde(default)]
    pub(super) process_user: Expected,
    #[serde(default)]
    pub(super) none: Expected,
    #[serde(default)]
    pub(super) none_user: Expected,
}

fn once() -> u32 {
    1
}

/// What is expected; alternatives are separated by ` or `.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    /// `passed` where it is missing.
    pub(super) verdict: Option<String>,
    /// The termination; `exited` where it is missing.
    pub(super) ends: Option<String>,
    /// Standard output of the last command, without white space around it.
    pub(super) out: Option<String>,
    pub(super) out_bytes: Option<usize>,
    /// Standard output of the next task.
    pub(super) next: Option<String>,
    /// What was read back.
    pub(super) tracked: Option<String>,
    /// Why the tier does not contain it.
    pub(super) limit: Option<String>,
}

impl Expected {
    pub(super) fn or(self, other: &Self) -> Self {
        let other = other.clone();
        Self {
            verdict: self.verdict.or(other.verdict),
            ends: self.ends.or(other.ends),
            out: self.out.or(other.out),
            out_bytes: self.out_bytes.or(other.out_bytes),
            next: self.next.or(other.next),
            tracked: self.tracked.or(other.tracked),
            limit: self.limit.or(other.limit),
        }
    }
}

impl Case {
    pub(super) fn id(&self) -> String {
        format!("{:02}_{}", self.number, self.name)
    }

    pub(super) fn expected(&self, tier: &str, who: Who) -> Expected {
        let layers: &[&Expected] = match (tier, who) {
            ("full", Who::Root) => &[&self.full, &self.namespaces],
            ("full", Who::User) => &[&self.full, &self.namespaces_user, &self.namespaces],
            ("namespaces", Who::Root) => &[&self.namespaces],
            ("namespaces", Who::User) => &[&self.namespaces_user, &self.namespaces],
            ("process", Who::Root) => &[&self.process],
            ("process", Who::User) => &[&self.process_user, &self.process],
            (_, Who::Root) => &[&self.none],
            (_, Who::User) => &[&self.none_user, &self.none],
        };
        layers.iter().fold(Expected::default(), |done, next| done.or(next)).or(&self.all)
    }

    pub(super) fn file(&self) -> Option<PathBuf> {
        match self.file.as_deref() {
            Some("") => None,
            Some(file) => Some(dir().join(file)),
            None => Some(dir().join(format!("{}.py", self.id()))),
        }
    }

    pub(super) fn row(&self, host: &Value) -> Value {
        let source = self.file().map(|file| read(&file));
        if self.humaneval {
            return json!({"id": self.id(), "preprocessor": "humaneval", "prediction": {
                "prompt": "# double(x) is twice x.\n", "completion": source, "entry_point": "double",
                "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 6\n",
            }});
        }
        let mut files = json!({"trial.py": read(&dir().join("trial.py")), "host.json": host.to_string()});
        if let Some(source) = source {
            files["main.py"] = source.into();
        }
        for path in &self.paths {
            files[path.replace("{long}", &"x".repeat(5000)).replace("{nul}", "\0")] = "x".into();
        }
        let mut commands = self.commands.clone();
        if commands.is_empty() {
            commands.push(vec!["python3".to_owned(), "main.py".to_owned()]);
        }
        let stdin = "x".repeat(self.stdin_mb << 20);
        let commands: Vec<_> = commands
            .iter()
            .map(|command| json!({"command": command, "stdin": stdin, "num_times": self.times}))
            .collect();
        let mut limits = json!(self.limits);
        limits.as_object_mut().unwrap().values_mut().for_each(whole);
        let stop = self.expected_stdout.as_ref().map(|text| json!({"stdout_differs": text}));
        json!({"id": self.id(), "limits": limits, "prediction": {
            "files": files, "commands": commands, "tracked_files": self.tracked,
            "early_stop": stop.unwrap_or(json!({})),
        }})
    }
}

/// A number without a fraction becomes an integer.
fn whole(value: &mut Value) {
    if let Some(number) = value.as_f64().filter(|number| number.fract() == 0.0) {
        *value = json!(number as u64);
    }
}

pub(super) fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile")
}

pub(super) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) fn table() -> Vec<Case> {
    let text = read(&dir().join("expectations.toml"));
    let source = config::File::from_str(&text, config::FileFormat::Toml);
    let table = config::Config::builder().add_source(source).build().unwrap();
    table.try_deserialize::<Table>().unwrap().case
}
