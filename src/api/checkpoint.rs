//! How far inputs are confirmed, in a file that survives the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A progress file that cannot be used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// It cannot be read or written.
    #[error("cannot use {file} as progress file: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{file} is no progress file of `evalmill publish` ({reason}): give another, or remove it")]
    Foreign {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is about something else.
    #[error(
        "{file} tells how far {was} is published, and this is {is}: give the same again, or another progress file"
    )]
    Other {
        /// The file.
        file: String,
        /// What it is about.
        was: String,
        /// What was asked for.
        is: String,
    },
    /// One input twice.
    #[error("{0} is named twice: with a progress file, name each input once")]
    Twice(String),
}

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    class: String,
    run: Option<String>,
    preprocessor: Option<String>,
    inputs: BTreeMap<String, Lines>,
}

/// How far one input is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    /// Every line up to this one is confirmed, or is no prediction.
    lines: u64,
    /// So many of them are no predictions.
    unreadable: u64,
}

#[derive(Debug)]
struct Open {
    line: u64,
    settled: bool,
    unreadable: bool,
}

/// Follows lines from being read to being confirmed. Without a file it only follows.
#[derive(Debug, Default)]
pub struct Checkpoint {
    file: Option<PathBuf>,
    saved: Saved,
    /// From names in origins to names in the file.
    names: HashMap<String, String>,
    open: HashMap<String, VecDeque<Open>>,
}

impl Checkpoint {
    /// Reads `file`, where it is there, and makes sure that it can be written. Blocks.
    ///
    /// # Errors
    /// It cannot be used, or is about another class, run or preprocessor.
    pub fn load(
        file: &Path,
        inputs: &[PathBuf],
        class: &str,
        run: Option<&str>,
        preprocessor: Option<&str>,
    ) -> Result<Self, CheckpointError> {
        let name = || file.display().to_string();
        let mut names = HashMap::new();
        for input in inputs {
            let (origin, place) = if input == Path::new("-") {
                ("stdin".to_owned(), "stdin".to_owned())
            } else {
                let whole = input.canonicalize().unwrap_or_else(|_| input.clone());
                (input.display().to_string(), whole.display().to_string())
            };
            if names.values().any(|known| *known == place) {
                return Err(CheckpointError::Twice(origin));
            }
            names.insert(origin, place);
        }
        let (class, run, preprocessor) =
            (class.to_owned(), run.map(str::to_owned), preprocessor.map(str::to_owned));
        let saved = match std::fs::read(file) {
            Ok(text) => {
                let saved: Saved = serde_json::from_slice(&text)
                    .map_err(|error| CheckpointError::Foreign { file: name(), reason: error.to_string() })?;
                let (was, is) = (
                    about(&saved.class, saved.run.as_deref(), saved.preprocessor.as_deref()),
                    about(&class, run.as_deref(), preprocessor.as_deref()),
                );
                if was != is {
                    return Err(CheckpointError::Other { file: name(), was, is });
                }
                saved
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Saved { class, run, preprocessor, inputs: BTreeMap::new() }
            }
            Err(source) => return Err(CheckpointError::Io { file: name(), source }),
        };
        let checkpoint = Self { file: Some(file.to_owned()), saved, names, open: HashMap::new() };
        checkpoint.snapshot().map_or(Ok(()), |snapshot| snapshot.write())?;
        Ok(checkpoint)
    }

    /// Whether a line was confirmed, or found to be no prediction, before. Else it is followed from now on.
    pub fn begin(&mut self, origin: &str) -> bool {
        let Some((name, line)) = self.place(origin) else { return false };
        if line <= self.saved.inputs.get(&name).map_or(0, |input| input.lines) {
            return true;
        }
        self.open.entry(name).or_default().push_back(Open { line, settled: false, unreadable: false });
        false
    }

    /// A line is confirmed, or is no prediction.
    pub fn settle(&mut self, origin: &str, unreadable: bool) {
        let Some((name, line)) = self.place(origin) else { return };
        let Some(open) = self.open.get_mut(&name) else { return };
        if let Ok(at) = open.binary_search_by_key(&line, |open| open.line) {
            open[at].settled = true;
            open[at].unreadable = unreadable;
        }
        let input = self.saved.inputs.entry(name).or_default();
        while let Some(first) = open.pop_front_if(|first| first.settled) {
            input.lines = first.line;
            input.unreadable += u64::from(first.unreadable);
        }
    }

    /// Lines that were found to be no predictions, earlier runs included.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.saved.inputs.values().map(|input| input.unreadable).sum()
    }

    /// The file as it is to be now; `None` where there is no file.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let file = self.file.clone()?;
        let text = serde_json::to_vec(&self.saved).unwrap_or_default();
        Some(Snapshot { file, text })
    }

    fn place(&self, origin: &str) -> Option<(String, u64)> {
        let (name, line) = origin.rsplit_once(':')?;
        Some((self.names.get(name)?.clone(), line.parse().ok()?))
    }
}

fn about(class: &str, run: Option<&str>, preprocessor: Option<&str>) -> String {
    let or_none = |value: Option<&str>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"));
    format!("class {class:?}, run {}, preprocessor {}", or_none(run), or_none(preprocessor))
}

/// What is to stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    file: PathBuf,
    text: Vec<u8>,
}

impl Snapshot {
    /// Puts it in the place of what is there: a reader sees the one or the other. Blocks.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self) -> Result<(), CheckpointError> {
        let directory = match self.file.parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        };
        let write = || {
            let mut new = tempfile::Builder::new().prefix(".evalmill-progress-").tempfile_in(directory)?;
            new.write_all(&self.text)?;
            new.write_all(b"\n")?;
            new.as_file().sync_data()?;
            new.persist(&self.file)?;
            Ok(())
        };
        write().map_err(|source| CheckpointError::Io { file: self.file.display().to_string(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn load(file: &Path, inputs: &[PathBuf]) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::load(file, inputs, "default", None, None)
    }

    #[test]
    fn only_what_is_confirmed_without_a_gap_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let (file, input) = (dir.path().join("progress"), dir.path().join("in:1.jsonl"));
        std::fs::write(&input, "").unwrap();
        let origin = |line: u64| format!("{}:{line}", input.display());
        let mut first = load(&file, std::slice::from_ref(&input)).unwrap();
        // Line 2 is blank.
        assert!([1, 3, 4, 5].iter().all(|&line| !first.begin(&origin(line))));
        first.settle(&origin(3), true);
        first.settle(&origin(1), false);
        first.settle(&origin(5), true);
        assert_eq!(first.unreadable(), 1);
        first.snapshot().unwrap().write().unwrap();

        let mut second = load(&file, std::slice::from_ref(&input)).unwrap();
        assert_eq!([1, 2, 3, 4, 5].map(|line| second.begin(&origin(line))), [true, true, true, false, false]);
        second.settle(&origin(4), false);
        second.settle(&origin(5), true);
        assert_eq!(second.unreadable(), 2);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn without_a_file_nothing_was_done_before() {
        let mut checkpoint = Checkpoint::default();
        assert!(!checkpoint.begin("a:1"));
        checkpoint.settle("a:1", false);
        assert_eq!(checkpoint.snapshot(), None);
    }

    #[rstest]
    #[case("x", "no progress file")]
    #[case(r#"{"class":"gpu","run":null,"preprocessor":null,"inputs":{}}"#, "class \"gpu\"")]
    fn foreign_files_are_refused(#[case] text: &str, #[case] says: &str) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("progress");
        std::fs::write(&file, text).unwrap();
        let error = load(&file, &["-".into()]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn one_input_twice_cannot_be_followed() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in");
        std::fs::write(&input, "").unwrap();
        let error = load(&dir.path().join("p"), &[input.clone(), input]).unwrap_err();
        assert!(matches!(error, CheckpointError::Twice(_)));
        let error = load(&dir.path().join("no/p"), &["-".into()]).unwrap_err();
        assert!(matches!(error, CheckpointError::Io { .. }));
    }
}
