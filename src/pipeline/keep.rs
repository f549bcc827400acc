//! What is kept on disk for people: every box's files, and what could not be run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::json;

use super::Decoded;
use crate::model::{Executable, ExecutionResult};
use crate::util::get_pred_dir;

/// The debug and the error directory.
#[derive(Debug, Default)]
pub struct Keep {
    debug_dir: Option<PathBuf>,
    errors: Option<Mutex<File>>,
}

impl Keep {
    /// Makes the directories, where they are asked for.
    ///
    /// # Errors
    /// One cannot be made or written.
    pub fn new(debug_dir: Option<PathBuf>, error_dir: Option<PathBuf>) -> io::Result<Self> {
        if let Some(dir) = &debug_dir {
            fs::create_dir_all(dir)?;
        }
        let errors = match error_dir {
            Some(dir) => {
                fs::create_dir_all(&dir)?;
                let file = OpenOptions::new().create(true).append(true).open(dir.join("errors.jsonl"))?;
                Some(Mutex::new(file))
            }
            None => None,
        };
        Ok(Self { debug_dir, errors })
    }

    /// Whether [`files`](Self::files) does anything.
    #[must_use]
    pub fn keeps_files(&self) -> bool {
        self.debug_dir.is_some()
    }

    /// Keeps inputs and tracked files of one executable in `pred<idx>.<sub>/`. Blocking.
    ///
    /// # Errors
    /// One cannot be written.
    pub fn files(
        &self,
        sequence: u64,
        sub: usize,
        executable: &Executable,
        result: &ExecutionResult,
    ) -> io::Result<()> {
        let Some(dir) = &self.debug_dir else { return Ok(()) };
        let dir = get_pred_dir(sequence, dir).with_extension(sub.to_string());
        let tracked =
            result.tracked_files.iter().filter_map(|(path, content)| Some((path, content.as_ref()?)));
        for (path, content) in executable.files.iter().chain(tracked) {
            let path = dir.join(path.as_str());
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, &content.0)?;
        }
        Ok(())
    }

    /// Adds a prediction that could not be run to `errors.jsonl`. Blocking.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn error(&self, decoded: &Decoded, reason: &str) -> io::Result<()> {
        let Some(errors) = &self.errors else { return Ok(()) };
        let row = json!({"id": decoded.id, "error": reason, "prediction": decoded.payload});
        let mut file = errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(format!("{row}\n").as_bytes())
    }
}
