//! What is in an output file already, and what becomes of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use serde::Deserialize;
use thiserror::Error;

use crate::model::{NoticeSchema, ResultSchema, Verdict};

/// What to do with an output file that holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputMode {
    /// Refuse it.
    #[default]
    New,
    /// Remove what it holds.
    Force,
    /// Keep its results, and do the rest.
    Resume,
}

/// An output file that cannot be used.
#[derive(Debug, Error)]
pub enum OutputError {
    /// It holds something.
    #[error(
        "{0} exists and is not empty: give --resume to do only what is missing in it, or --force to overwrite it"
    )]
    Exists(String),
    /// It is an input, too.
    #[error("{0} is both an input and the output")]
    IsInput(String),
    /// It is a directory.
    #[error("{0} is a directory: the output is a file")]
    IsDirectory(String),
    /// It cannot be read back.
    #[error("{0} is no regular file: there is nothing to resume in it")]
    NotRegular(String),
    /// It holds something else than results.
    #[error(
        "{name}:{line} is no result ({reason}): this file was not written by `evalmill run` or `collect`, or was changed"
    )]
    NotAResult {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Another run writes to it.
    #[error("{0} is being written by another run: wait for its end, or give another output")]
    InUse(String),
    /// It cannot be opened, read or written.
    #[error("cannot use {name} as output: {source}")]
    Io {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// An output that is ready.
#[derive(Debug, Default)]
pub struct Prepared {
    /// A regular file, open for appending and locked for as long as it is; `None`: it is no such file.
    pub file: Option<File>,
    /// What was found in it.
    pub resumed: Resumed,
}

/// What was found in the output.
#[derive(Debug, Default)]
pub struct Resumed {
    /// What has its result, by result id.
    pub done: DoneIds,
    /// How many results were kept.
    pub kept: u64,
}

/// Result ids with how often each of them occurs, by their hashes. A result id stands for an id and a
/// body: of two lines with one id, each is told from the other.
#[derive(Debug, Default)]
pub struct DoneIds(HashMap<u128, u32>);

impl DoneIds {
    fn hash(id: &str) -> u128 {
        let mut half = [0; 16];
        half.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
        u128::from_le_bytes(half)
    }

    fn insert(&mut self, id: &str) {
        *self.0.entry(Self::hash(id)).or_default() += 1;
    }

    /// Takes one occurrence out; whether there was one.
    pub fn take(&mut self, id: &str) -> bool {
        let hash = Self::hash(id);
        let Some(count) = self.0.get_mut(&hash) else { return false };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&hash);
        }
        true
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Makes an output file ready for appending: creates it, or does with what it holds what `mode` says.
///
/// `Resume` drops a torn last line and the results whose verdict is `infra_error`, and shows each line
/// that stays to `kept`.
///
/// # Errors
/// The file cannot be used; it is as it was then.
pub fn prepare_output(
    path: &Path,
    mode: OutputMode,
    inputs: &[PathBuf],
    kept: impl FnMut(&[u8]),
) -> Result<Prepared, OutputError> {
    let name = || path.display().to_string();
    let fail = |source| OutputError::Io { name: name(), source };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(OutputError::IsDirectory(name())),
        Ok(found) if !found.is_file() => {
            // Not opened: the reader of a FIFO would see it end.
            access(path, Access::WRITE_OK).map_err(|error| fail(error.into()))?;
            return match mode {
                OutputMode::Resume => Err(OutputError::NotRegular(name())),
                OutputMode::New | OutputMode::Force => Ok(Prepared::default()),
            };
        }
        Ok(found) => {
            if inputs.iter().any(|input| is_same(input, &found)) {
                return Err(OutputError::IsInput(name()));
            }
            if mode == OutputMode::New && found.len() > 0 {
                return Err(OutputError::Exists(name()));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).read(mode == OutputMode::Resume);
    let file = options.open(path).map_err(fail)?;
    let locked = lock(&file).map_err(fail)?;
    let (ours, named) = (file.metadata().map_err(fail)?, fs::metadata(path).map_err(fail)?);
    // Another run that resumes may have put a new file in its place.
    if !locked || (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
        return Err(OutputError::InUse(name()));
    }
    match mode {
        // Another run may have come and gone since it was looked at.
        OutputMode::New if ours.len() > 0 => Err(OutputError::Exists(name())),
        OutputMode::New => Ok(Prepared { file: Some(file), resumed: Resumed::default() }),
        OutputMode::Force => {
            file.set_len(0).map_err(fail)?;
            Ok(Prepared { file: Some(file), resumed: Resumed::default() })
        }
        OutputMode::Resume => {
            let scan = Scan::of(&file, &name(), kept)?;
            let file = scan.apply(file, path).map_err(fail)?;
            Ok(Prepared { file: Some(file), resumed: scan.resumed })
        }
    }
}

/// Locks the file; whether that could be done. The lock ends with the descriptor, however the process
/// ends.
fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => match error.raw_os_error() {
            // A file system without locks: better unguarded than unusable.
            Some(libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP) => Ok(true),
            _ => Err(error),
        },
    }
}

/// Whether standard output is a file that is read, too.
#[must_use]
pub fn stdout_is_input(inputs: &[PathBuf]) -> bool {
    let output = io::stdout().as_fd().try_clone_to_owned().and_then(|stdout| File::from(stdout).metadata());
    output.is_ok_and(|output| output.is_file() && inputs.iter().any(|input| is_same(input, &output)))
}

fn is_same(input: &Path, output: &fs::Metadata) -> bool {
    let input = if input == Path::new("-") {
        io::stdin().as_fd().try_clone_to_owned().and_then(|descriptor| File::from(descriptor).metadata())
    } else {
        fs::metadata(input)
    };
    // An input that cannot be found is reported by whoever opens it.
    input.is_ok_and(|input| (input.dev(), input.ino()) == (output.dev(), output.ino()))
}

#[derive(Deserialize)]
struct Head<'a> {
    schema: Schema,
    #[serde(borrow)]
    result_id: Cow<'a, str>,
    verdict: Option<Verdict>,
}

/// What `run` writes, and what `collect` writes, too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Schema {
    Result(ResultSchema),
    Parked(NoticeSchema),
}

#[derive(Debug, Default)]
struct Scan {
    resumed: Resumed,
    /// Bytes that stay, in order; neighbours are merged.
    stay: Vec<Range<u64>>,
    length: u64,
}

impl Scan {
    fn of(file: &File, name: &str, mut kept: impl FnMut(&[u8])) -> Result<Self, OutputError> {
        let mut scan = Self::default();
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let count = reader
                .read_until(b'\n', &mut line)
                .map_err(|source| OutputError::Io { name: name.to_owned(), source })?;
            let start = scan.length;
            scan.length += count as u64;
            let Some((b'\n', body)) = line.split_last() else { break };
            if body.trim_ascii().is_empty() {
                continue;
            }
            let foreign =
                |reason: String| OutputError::NotAResult { name: name.to_owned(), line: number, reason };
            let head: Head<'_> = serde_json::from_slice(body).map_err(|error| foreign(error.to_string()))?;
            if matches!(head.schema, Schema::Result(_)) && head.verdict.is_none() {
                return Err(foreign("missing field `verdict`".to_owned()));
            }
            if head.verdict == Some(Verdict::InfraError) {
                continue;
            }
            scan.resumed.done.insert(&head.result_id);
            scan.resumed.kept += 1;
            kept(body);
            match scan.stay.last_mut() {
                Some(last) if last.end == start => last.end = scan.length,
                _ => scan.stay.push(start..scan.length),
            }
        }
        Ok(scan)
    }

    fn apply(&self, file: File, path: &Path) -> io::Result<File> {
        match &self.stay[..] {
            [] => file.set_len(0)?,
            [all] if all.start == 0 && all.end == self.length => {}
            [head] if head.start == 0 => file.set_len(head.end)?,
            _ => return self.rewrite(&file, path),
        }
        Ok(file)
    }

    /// Copies what stays to a new file, which takes the old one's place once it is on disk.
    fn rewrite(&self, mut file: &File, path: &Path) -> io::Result<File> {
        // A symbolic link stays one.
        let path = path.canonicalize()?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut copy =
            tempfile::Builder::new().prefix(".evalmill-resume-").append(true).tempfile_in(directory)?;
        // Nobody else knows it yet.
        lock(copy.as_file())?;
        for range in &self.stay {
            file.seek(SeekFrom::Start(range.start))?;
            let expected = range.end - range.start;
            if io::copy(&mut file.take(expected), &mut copy)? != expected {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        copy.flush()?;
        copy.as_file().set_permissions(file.metadata()?.permissions())?;
        copy.as_file().sync_all()?;
        let copy = copy.persist(&path)?;
        File::open(directory)?.sync_all()?;
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    fn result(id: &str, verdict: &str) -> String {
        format!(r#"{{"schema":"result.v1","result_id":"{id}","verdict":"{verdict}","more":1}}"#) + "\n"
    }

    fn prepare(path: &Path, mode: OutputMode) -> Result<Prepared, OutputError> {
        prepare_output(path, mode, &[], |_| {})
    }

    #[rstest]
    #[case::empty(&[], "", 0)]
    #[case::whole(&["a+", "b+"], "", 2)]
    #[case::torn(&["a+", "b+"], "{\"schema\":\"resu", 2)]
    #[case::only_torn(&[], "{\"sch", 0)]
    #[case::all_infra(&["a-", "b-"], "x", 0)]
    #[case::infra_at_the_end(&["a+", "b-"], "", 1)]
    #[case::infra_at_the_start(&["a-", "b+"], "", 1)]
    #[case::infra_between(&["a+", "b-", "c+", "c-", "d+"], "torn", 3)]
    fn resume(#[case] lines: &[&str], #[case] torn: &str, #[case] kept: u64) {
        let dir = TempDir::new().unwrap();
        let real = dir.path().join("real");
        let path = dir.path().join("link");
        symlink(&real, &path).unwrap();
        let line = |text: &&str| {
            let (id, mark) = text.split_at(1);
            result(id, if mark == "+" { "failed" } else { "infra_error" })
        };
        let text: String = lines.iter().map(line).collect();
        fs::write(&real, text + torn).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        let mut seen = String::new();
        let Prepared { file, mut resumed } = prepare_output(&path, OutputMode::Resume, &[], |line| {
            seen += str::from_utf8(line).unwrap();
            seen.push('\n');
        })
        .unwrap();
        let expected: String = lines.iter().filter(|text| text.ends_with('+')).map(line).collect();
        assert_eq!(fs::read_to_string(&real).unwrap(), expected);
        assert_eq!(seen, expected);
        assert_eq!(resumed.kept, kept);
        for text in lines.iter().filter(|text| text.ends_with('+')) {
            assert!(resumed.done.take(&text[..1]));
        }
        assert!(resumed.done.is_empty());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
        let error = prepare(&real, OutputMode::Resume).unwrap_err();
        assert!(matches!(error, OutputError::InUse(_)), "{error}");
        file.unwrap().write_all(b"more\n").unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), expected + "more\n");
    }

    #[rstest]
    #[case(OutputMode::New)]
    #[case(OutputMode::Force)]
    #[case(OutputMode::Resume)]
    fn two_runs_never_share_an_output(#[case] mode: OutputMode) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("out");
        let mut first = prepare(&path, OutputMode::New).unwrap();
        let error = prepare(&path, mode).unwrap_err().to_string();
        assert!(error.contains("another run"), "{error}");
        first.file.take().unwrap().write_all(result("a", "passed").as_bytes()).unwrap();
        assert_eq!(prepare(&path, mode).is_ok(), mode != OutputMode::New);
    }

    #[test]
    fn notices_are_kept() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("out");
        let text = "{\"schema\":\"notice.parked\",\"result_id\":\"a\",\"id\":\"x\"}\n";
        fs::write(&path, text).unwrap();
        assert_eq!(prepare(&path, OutputMode::Resume).unwrap().resumed.kept, 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::write(&path, text.replace("notice.parked", "result.v1")).unwrap();
        let error = prepare(&path, OutputMode::Resume).unwrap_err().to_string();
        assert!(error.contains("out:1 is no result (missing field `verdict`)"), "{error}");
    }

    #[test]
    fn ids_are_counted() {
        let mut done = DoneIds::default();
        done.insert("a");
        done.insert("a");
        assert!(!done.take("b"));
        assert!(done.take("a") && done.take("a") && !done.take("a"));
    }

    #[rstest]
    #[case::missing(None, OutputMode::New, Some(""))]
    #[case::empty(Some(""), OutputMode::New, Some(""))]
    #[case::full(Some("x\n"), OutputMode::New, None)]
    #[case::forced(Some("x\n"), OutputMode::Force, Some(""))]
    #[case::foreign(Some("{}\n"), OutputMode::Resume, None)]
    #[case::nothing_to_resume(None, OutputMode::Resume, Some(""))]
    fn modes(#[case] before: Option<&str>, #[case] mode: OutputMode, #[case] after: Option<&str>) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("out");
        if let Some(before) = before {
            fs::write(&path, before).unwrap();
        }
        assert_eq!(prepare(&path, mode).is_ok(), after.is_some());
        assert_eq!(fs::read_to_string(&path).unwrap(), after.or(before).unwrap());
    }

    #[test]
    fn errors_name_what_to_do() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, result("a", "passed") + "{\"id\":\"b\"}\n").unwrap();
        let error = prepare(&path, OutputMode::New).unwrap_err().to_string();
        assert!(error.contains("--resume") && error.contains("--force"), "{error}");
        let error = prepare(&path, OutputMode::Resume).unwrap_err().to_string();
        assert!(error.contains("out:2 is no result (missing field `schema`"), "{error}");
        let error = prepare(dir.path(), OutputMode::Force).unwrap_err();
        assert!(matches!(error, OutputError::IsDirectory(_)));
        let error = prepare(&dir.path().join("no/out"), OutputMode::New).unwrap_err();
        assert!(matches!(error, OutputError::Io { .. }));
        assert!(prepare(Path::new("/dev/null"), OutputMode::New).is_ok());
        assert!(matches!(
            prepare(Path::new("/dev/null"), OutputMode::Resume),
            Err(OutputError::NotRegular(_))
        ));
    }

    #[test]
    fn an_input_is_no_output() {
        let dir = TempDir::new().unwrap();
        let (input, link) = (dir.path().join("in"), dir.path().join("link"));
        fs::write(&input, "x\n").unwrap();
        fs::hard_link(&input, &link).unwrap();
        let error =
            prepare_output(&link, OutputMode::Force, std::slice::from_ref(&input), |_| {}).unwrap_err();
        assert!(matches!(error, OutputError::IsInput(_)));
        assert_eq!(fs::read_to_string(&input).unwrap(), "x\n");
    }
}
