//! The reference's configuration.

use crate::config::{Override, Problems, Settings, Sources, load};

/// How predictions are executed: the reference's `ExecutionConfig`, with its names and defaults.
///
/// Everything else is a setting of its own: [`settings`](Self::settings) gives what to change further.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionConfig {
    /// Worker processes, and so predictions that run at a time; 0: one for each core.
    pub num_workers: u32,
    /// Tasks after which a worker process is replaced; `None`: never.
    pub max_tasks_per_process: Option<u64>,
    /// Predictions whose files are written at a time. It is no rate; workers usually bind first.
    pub write_rate_limit: u32,
    /// Without effect: predictions are handed over one by one, which costs nothing here.
    pub chunk_size: u32,
    /// Without effect for closures, which are called in this process; external processors have
    /// `processors.NAME.batch_size`.
    pub batch_size: u32,
    /// No progress is shown. (A library call shows none; it is for callers that pass it on.)
    pub disable_tqdm: bool,
    /// Seconds for a command that names no timeout.
    pub default_timeout: f64,
    /// Most predictions that are written and not yet finished; -1: no cap.
    pub max_execute_at_once: i64,
    /// Without effect: the executor is one process; external processors have `processors.NAME.processes`.
    pub num_executors: u32,
    /// Results between two lines of progress.
    pub log_freq: u64,
    /// Without effect: nothing is collected before it goes on.
    pub buffer_size: u32,
    /// Without effect: writing is a part of each prediction, and so of its progress.
    pub display_write_progress: bool,
    /// Without effect, as `display_write_progress`.
    pub write_log_freq: u64,
}

impl ExecutionConfig {
    /// The reference's defaults, with so many workers.
    #[must_use]
    pub fn new(num_workers: u32) -> Self {
        Self {
            num_workers,
            max_tasks_per_process: None,
            write_rate_limit: 768,
            chunk_size: 1,
            batch_size: 1,
            disable_tqdm: false,
            default_timeout: 10.0,
            max_execute_at_once: -1,
            num_executors: 4,
            log_freq: 1000,
            buffer_size: 100,
            display_write_progress: false,
            write_log_freq: 100_000,
        }
    }

    /// Whether processing is batched.
    #[must_use]
    pub fn batched(&self) -> bool {
        self.batch_size > 1
    }

    /// The settings that it means. A `default_timeout` above the most that a prediction may ask for raises that.
    ///
    /// # Errors
    /// A value is out of its range: all of those, with the rule. (The reference replaces them in silence.)
    pub fn settings(&self) -> Result<Settings, Problems> {
        let given = |path, value: String, field: &str| {
            Override::new(path, value, &format!("ExecutionConfig.{field}"))
        };
        let tasks = self.max_tasks_per_process.map_or("0".to_owned(), |most| match most {
            // 0 is never there, and no number of tasks here.
            0 => "-1".to_owned(),
            most => most.to_string(),
        });
        let timeout = self.default_timeout.to_string();
        let mut overrides = vec![
            given("worker.num_workers", self.num_workers.to_string(), "num_workers"),
            given("worker.max_tasks_per_process", tasks, "max_tasks_per_process"),
            given("execution.write_rate_limit", self.write_rate_limit.to_string(), "write_rate_limit"),
            given(
                "execution.max_execute_at_once",
                self.max_execute_at_once.to_string(),
                "max_execute_at_once",
            ),
            given("limits.default_timeout", timeout.clone(), "default_timeout"),
        ];
        let defaults = Settings::default().limits;
        for (path, most) in [
            ("limits.max_timeout", defaults.max_timeout),
            ("limits.max_prediction_time", defaults.max_prediction_time),
        ] {
            if self.default_timeout > most {
                overrides.push(given(path, timeout.clone(), "default_timeout"));
            }
        }
        Ok(load(&Sources { overrides, ..Sources::default() })?.settings)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_settings_that_it_means() {
        let config = ExecutionConfig {
            max_tasks_per_process: Some(7),
            default_timeout: 700.0,
            max_execute_at_once: 5,
            ..ExecutionConfig::new(3)
        };
        let settings = config.settings().unwrap();
        assert_eq!((settings.worker.num_workers, settings.worker.max_tasks_per_process), (3, 7));
        assert_eq!((settings.limits.default_timeout, settings.limits.max_timeout), (700.0, 700.0));
        assert_eq!(settings.max_execute_at_once(), Some(5));
        let defaults = ExecutionConfig::new(1).settings().unwrap();
        assert_eq!((defaults.worker.max_tasks_per_process, defaults.execution.write_rate_limit), (0, 768));
    }

    #[rstest]
    #[case(ExecutionConfig { num_workers: 5000, ..ExecutionConfig::new(1) }, "worker.num_workers = 5000 (from flag ExecutionConfig.num_workers): must be a whole number from 0 to 1024")]
    #[case(ExecutionConfig { default_timeout: f64::NAN, ..ExecutionConfig::new(1) }, "must be a finite number")]
    #[case(ExecutionConfig { default_timeout: -1.0, ..ExecutionConfig::new(1) }, "(from flag ExecutionConfig.default_timeout)")]
    #[case(ExecutionConfig { max_execute_at_once: 0, ..ExecutionConfig::new(1) }, "must be -1 or a whole number from 1")]
    #[case(ExecutionConfig { max_tasks_per_process: Some(0), ..ExecutionConfig::new(1) }, "worker.max_tasks_per_process")]
    #[case(ExecutionConfig { write_rate_limit: 0, ..ExecutionConfig::new(1) }, "execution.write_rate_limit")]
    fn what_is_out_of_range_is_refused(#[case] config: ExecutionConfig, #[case] says: &str) {
        let problems = config.settings().unwrap_err().to_string();
        assert!(problems.contains(says), "{problems}");
    }
}
