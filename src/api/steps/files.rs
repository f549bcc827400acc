//! Executables' files on disk: written before, removed after.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};
use thiserror::Error;

use crate::model::{BoxPath, FileContent};

/// The files of one executable, and the directory that they go into.
#[derive(Debug, Clone, PartialEq)]
pub struct FilesToWrite {
    /// Where; it is made. See [`get_pred_dir`](crate::util::get_pred_dir).
    pub dir: PathBuf,
    /// What, by relative path.
    pub files: BTreeMap<BoxPath, FileContent>,
}

/// A file that could not be written or removed.
#[derive(Debug, Error)]
#[error("{}: {source}", .path.display())]
pub struct WritingFailure {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

fn failure(path: &Path) -> impl FnOnce(io::Error) -> WritingFailure {
    let path = path.to_owned();
    move |source| WritingFailure { path, source }
}

/// Writes the files of many executables, of `write_rate_limit` (at least one) at a time; the seconds that each took, in their order.
///
/// # Errors
/// One cannot be written. Then nothing that this call has written is left.
pub async fn write_executables(
    executables: &[FilesToWrite],
    write_rate_limit: usize,
) -> Result<Vec<f64>, WritingFailure> {
    let written = each(executables, write_rate_limit, write).await;
    if written.is_err() {
        // What was not there is no failure; of the rest, the first one tells enough.
        let _ = cleanup(executables, write_rate_limit).await;
    }
    written
}

/// Removes the directories of executables, `rate_limit` at a time; the seconds that each took, in their order.
///
/// # Errors
/// One cannot be removed.
pub async fn cleanup(executables: &[FilesToWrite], rate_limit: usize) -> Result<Vec<f64>, WritingFailure> {
    each(executables, rate_limit, remove).await
}

async fn each(
    executables: &[FilesToWrite],
    at_once: usize,
    work: fn(FilesToWrite) -> Result<f64, WritingFailure>,
) -> Result<Vec<f64>, WritingFailure> {
    let one = |executable: &FilesToWrite| {
        let (executable, dir) = (executable.clone(), executable.dir.clone());
        async move {
            tokio::task::spawn_blocking(move || work(executable))
                .await
                .unwrap_or_else(|error| Err(failure(&dir)(io::Error::other(error))))
        }
    };
    futures::stream::iter(executables.iter().map(one)).buffered(at_once.max(1)).try_collect().await
}

fn write(FilesToWrite { dir, files }: FilesToWrite) -> Result<f64, WritingFailure> {
    let started = std::time::Instant::now();
    fs::create_dir_all(&dir).map_err(failure(&dir))?;
    for (path, content) in &files {
        let path = dir.join(path.as_str());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failure(parent))?;
        }
        fs::write(&path, &content.0).map_err(failure(&path))?;
    }
    Ok(started.elapsed().as_secs_f64())
}

fn remove(FilesToWrite { dir, .. }: FilesToWrite) -> Result<f64, WritingFailure> {
    let started = std::time::Instant::now();
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure(&dir)(error)),
        _ => Ok(started.elapsed().as_secs_f64()),
    }
}

/// The files below `dir`, at most `most_bytes` of them together. Blocking.
pub(super) fn read_all(
    dir: &Path,
    most_bytes: u64,
) -> Result<BTreeMap<BoxPath, FileContent>, WritingFailure> {
    let (mut files, mut left, mut dirs) = (BTreeMap::new(), most_bytes, vec![dir.to_owned()]);
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at).map_err(failure(&at))? {
            let entry = entry.map_err(failure(&at))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failure(&at))?);
            if kind.is_dir() {
                dirs.push(path);
                continue;
            }
            let refused = |reason: String| failure(&path)(io::Error::other(reason));
            if !kind.is_file() {
                return Err(refused(
                    "it is neither a file nor a directory, and cannot go into a box".to_owned(),
                ));
            }
            let name = path.strip_prefix(dir).ok().and_then(Path::to_str);
            let name = name.ok_or_else(|| refused("its name is not UTF-8".to_owned()))?;
            let name = BoxPath::new(name).map_err(|error| refused(error.to_string()))?;
            let content = fs::read(&path).map_err(failure(&path))?;
            left = left.checked_sub(content.len() as u64).ok_or_else(|| {
                refused(format!("the files of {} are larger than {most_bytes} bytes together", dir.display()))
            })?;
            files.insert(name, FileContent(content));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executable(dir: &Path, files: &[(&str, &str)]) -> FilesToWrite {
        let file = |(name, text): &(&str, &str)| {
            (BoxPath::new(name).unwrap(), FileContent::from((*text).to_owned()))
        };
        FilesToWrite { dir: dir.to_owned(), files: files.iter().map(file).collect() }
    }

    #[tokio::test]
    async fn written_read_and_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..5)
            .map(|n| executable(&scratch.path().join(format!("pred{n}")), &[("a", "1"), ("b/c", "2")]))
            .collect();
        assert_eq!(write_executables(&all, 2).await.unwrap().len(), 5);
        assert_eq!(read_all(&all[4].dir, 2).unwrap(), all[4].files);
        let error = read_all(&all[4].dir, 1).unwrap_err().to_string();
        assert!(error.contains("larger than 1 bytes"), "{error}");
        assert_eq!(cleanup(&all, 2).await.unwrap().len(), 5);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        // Once more is no failure.
        cleanup(&all, 2).await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_names_the_file_and_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "x").unwrap();
        let all = [executable(&scratch.path().join("good"), &[("a", "1")]), executable(&file, &[("a", "1")])];
        let error = write_executables(&all, 1).await.unwrap_err();
        assert!(error.path.starts_with(&file), "{error}");
        assert!(!scratch.path().join("good").exists());
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", scratch.path().join("link")).unwrap();
        let error = read_all(scratch.path(), 100).unwrap_err().to_string();
        assert!(error.contains("neither a file nor a directory"), "{error}");
    }
}
