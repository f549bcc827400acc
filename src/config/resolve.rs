//! What a setting comes to on this machine.

use super::languages::Languages;
use super::problem::{Origin, Problem};
use super::settings::{Limits, Settings};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a Python is looked for. `PATH` is not: a version manager's shim there depends on the directory it
/// is started in.
const DIRECTORIES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

impl Settings {
    /// The languages, no time of theirs longer than `limits.max_timeout`.
    pub fn languages(&self) -> Languages {
        let mut languages = self.languages.clone();
        for language in languages.0.values_mut() {
            language.compile_timeout = language.compile_timeout.min(self.limits.max_timeout);
            language.timeout = language.timeout.min(self.limits.max_timeout);
        }
        languages
    }

    /// The number of workers, at least one.
    pub fn num_workers(&self) -> usize {
        match self.worker.num_workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count as usize,
        }
    }

    /// The Python that runs predictions: the one configured, else the first in the usual directories.
    ///
    /// # Errors
    ///
    /// The one configured is not an executable file, or there is none.
    pub fn interpreter(&self) -> Result<PathBuf, Problem> {
        find_interpreter(&self.python.interpreter, &DIRECTORIES.map(Path::new))
    }

    /// Whether a prediction ends before the broker takes its delivery back. It concerns a service only.
    ///
    /// # Errors
    ///
    /// `limits.max_prediction_time` is more than half of `rabbitmq.consumer_timeout_seconds`.
    pub fn held_long_enough(&self) -> Result<(), Problem> {
        let (seconds, limit) = (self.limits.max_prediction_time, self.rabbitmq.consumer_timeout_seconds);
        if seconds <= limit / 2.0 {
            return Ok(());
        }
        let other = "rabbitmq.consumer_timeout_seconds";
        Err(Problem {
            path: "limits.max_prediction_time".into(),
            value: Some(seconds.to_string()),
            origin: Origin::Default,
            rule: format!(
                "must be at most half of {other}, which is {limit}: by then the broker takes a delivery back"
            )
            .into(),
            hint: Some(format!(
                "{}, or a longer consumer_timeout at the broker (or its policy for evalmill.work.*), said in {other}",
                limit / 2.0
            )),
        })
    }

    /// Where boxes are made.
    pub fn scratch_dir(&self) -> PathBuf {
        choose_scratch(&self.worker.scratch_dir, std::env::var_os("EXEC_TMP_DIR"))
    }

    /// The age at which a worker process is replaced, `None` for never.
    pub fn max_worker_age(&self) -> Option<Duration> {
        (self.worker.max_age_seconds > 0.0).then(|| seconds(self.worker.max_age_seconds))
    }

    /// The cap on predictions written and not yet finished, `None` for no cap.
    pub fn max_execute_at_once(&self) -> Option<usize> {
        usize::try_from(self.execution.max_execute_at_once).ok().filter(|cap| *cap > 0)
    }

    /// The cap on predictions started each second, `None` for no cap.
    pub fn max_starts_per_second(&self) -> Option<f64> {
        Some(self.execution.max_starts_per_second).filter(|cap| *cap > 0.0)
    }
}

impl Limits {
    /// The time for a command that names no timeout.
    pub fn default_timeout(&self) -> Duration {
        seconds(self.default_timeout)
    }

    /// The most time a command may ask for.
    pub fn max_timeout(&self) -> Duration {
        seconds(self.max_timeout)
    }

    /// The time for all commands of a prediction together.
    pub fn max_prediction_time(&self) -> Duration {
        seconds(self.max_prediction_time)
    }
}

/// A number of seconds; what no duration can hold (no loaded setting) is cut to the nearest that can.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

fn choose_scratch(configured: &str, variable: Option<OsString>) -> PathBuf {
    if !configured.is_empty() {
        return configured.into();
    }
    variable.filter(|dir| !dir.is_empty()).map_or_else(std::env::temp_dir, PathBuf::from)
}

fn find_interpreter(configured: &str, directories: &[&Path]) -> Result<PathBuf, Problem> {
    let problem = |rule: String, hint: &str| Problem {
        path: "python.interpreter".into(),
        value: Some(super::layers::quote(configured)),
        origin: Origin::Default,
        rule: rule.into(),
        hint: Some(hint.into()),
    };
    if configured.is_empty() {
        let mut candidates = directories.iter().map(|directory| directory.join("python3"));
        return candidates.find(|path| is_executable(path)).ok_or_else(|| {
            let places: Vec<_> = directories.iter().map(|dir| dir.display().to_string()).collect();
            let rule = format!("no executable python3 in {}", places.join(", "));
            problem(rule, "install Python 3, or set the absolute path of one")
        });
    }
    let path = PathBuf::from(configured);
    if path.is_absolute() && is_executable(&path) {
        return Ok(path);
    }
    let rule = "must be the absolute path of an executable file".to_owned();
    Err(problem(rule, "\"/usr/bin/python3\", or \"\" to have it found"))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn file(dir: &Path, name: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_executable_python_is_found() {
        let (empty, plain, good, later) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        file(plain.path(), "python3", 0o644);
        let wanted = file(good.path(), "python3", 0o755);
        file(later.path(), "python3", 0o755);
        let found = find_interpreter("", &[empty.path(), plain.path(), good.path(), later.path()]);
        assert_eq!(found, Ok(wanted));
        let problem = find_interpreter("", &[empty.path(), plain.path()]).unwrap_err();
        assert!(problem.rule.starts_with("no executable python3 in /"), "{problem}");
    }

    #[test]
    fn a_configured_python_must_be_executable() {
        let dir = tempfile::tempdir().unwrap();
        let good = file(dir.path(), "py", 0o755);
        let plain = file(dir.path(), "plain", 0o644);
        assert_eq!(find_interpreter(good.to_str().unwrap(), &[]), Ok(good));
        for bad in [plain.to_str().unwrap(), dir.path().to_str().unwrap(), "/nowhere/python3", "python3"] {
            let problem = find_interpreter(bad, &[]).unwrap_err();
            assert_eq!(&*problem.rule, "must be the absolute path of an executable file", "{bad}");
        }
    }

    #[rstest]
    #[case("/scratch", Some("/other"), "/scratch")]
    #[case("", Some("/other"), "/other")]
    fn scratch_is_chosen(#[case] configured: &str, #[case] variable: Option<&str>, #[case] chosen: &str) {
        assert_eq!(choose_scratch(configured, variable.map(OsString::from)), Path::new(chosen));
        assert_eq!(choose_scratch("", Some(OsString::new())), std::env::temp_dir());
    }

    #[test]
    fn numbers_are_resolved() {
        let mut settings = Settings::default();
        assert!(settings.num_workers() >= 1);
        assert_eq!(settings.max_execute_at_once(), None);
        assert_eq!(settings.max_starts_per_second(), None);
        assert_eq!(settings.max_worker_age(), Some(Duration::from_secs(3600)));
        assert_eq!(settings.limits.default_timeout(), Duration::from_secs(10));
        settings.worker.num_workers = 3;
        settings.worker.max_age_seconds = 0.0;
        settings.execution.max_execute_at_once = 5;
        settings.limits.max_timeout = f64::NAN;
        assert_eq!(settings.num_workers(), 3);
        assert_eq!(settings.max_worker_age(), None);
        assert_eq!(settings.max_execute_at_once(), Some(5));
        assert_eq!(settings.limits.max_timeout(), Duration::ZERO);
    }
}
