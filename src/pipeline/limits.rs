//! The limits in force for one prediction.

use std::time::Duration;

use crate::model::{Executable, PredictionLimits};
use crate::worker::protocol::RunLimits;

/// Defaults and maxima, from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct LimitSettings {
    /// What is in force where a prediction says nothing.
    pub defaults: RunLimits,
    /// What a prediction may ask for.
    pub maxima: RunLimits,
    /// Execution time of one prediction, over all its commands.
    pub max_prediction_time: Duration,
    /// Commands of one executable.
    pub max_commands: usize,
    /// Executables of one prediction.
    pub max_executables: usize,
    /// Runs of one command.
    pub max_num_times: u32,
}

const MIB: u64 = 1 << 20;

impl LimitSettings {
    /// The limits for one prediction.
    ///
    /// # Errors
    /// It asks for more than the configuration allows; the text names the field.
    pub fn for_prediction(&self, asked: &PredictionLimits) -> Result<RunLimits, String> {
        let mut limits = self.defaults;
        if let Some(timeout) = asked.timeout {
            limits.wall = self.timeout("limits.timeout", timeout.into())?;
        }
        if let Some(cpu_time) = asked.cpu_time {
            limits.cpu = self.timeout("limits.cpu_time", cpu_time.into())?;
        }
        let sizes = [
            ("limits.memory_mb", asked.memory_mb, MIB, &mut limits.memory_bytes, self.maxima.memory_bytes),
            ("limits.output_mb", asked.output_mb, MIB, &mut limits.output_bytes, self.maxima.output_bytes),
            ("limits.file_mb", asked.file_mb, MIB, &mut limits.file_bytes, self.maxima.file_bytes),
            ("limits.open_files", asked.open_files, 1, &mut limits.open_files, self.maxima.open_files),
        ];
        for (name, asked, unit, limit, maximum) in sizes {
            if let Some(asked) = asked {
                *limit = within(name, asked, maximum / unit)?.saturating_mul(unit);
            }
        }
        if let Some(processes) = asked.processes {
            let most = u64::from(self.maxima.processes);
            let processes = within("limits.processes", u64::from(processes), most)?;
            limits.processes = u32::try_from(processes).unwrap_or(u32::MAX);
        }
        Ok(limits)
    }

    /// Whether an executable stays within the configuration's counts and times.
    ///
    /// # Errors
    /// It does not; the text names the field.
    pub fn check(&self, executable: &Executable) -> Result<(), String> {
        let count = executable.commands.len();
        if count > self.max_commands {
            return Err(format!(
                "commands: {count} of them; limits.max_commands allows {}",
                self.max_commands
            ));
        }
        for (index, command) in executable.commands.iter().enumerate() {
            if let Some(timeout) = command.timeout {
                self.timeout(&format!("commands[{index}].timeout"), timeout.into())?;
            }
            if command.num_times > self.max_num_times {
                let times = command.num_times;
                return Err(format!(
                    "commands[{index}].num_times is {times}; limits.max_num_times allows {}",
                    self.max_num_times
                ));
            }
        }
        Ok(())
    }

    fn timeout(&self, name: &str, asked: Duration) -> Result<Duration, String> {
        if asked > self.maxima.wall {
            return Err(format!(
                "{name} is {} s; limits.max_timeout allows {} s",
                asked.as_secs_f64(),
                self.maxima.wall.as_secs_f64()
            ));
        }
        Ok(asked)
    }
}

fn within(name: &str, asked: u64, most: u64) -> Result<u64, String> {
    if asked == 0 || asked > most {
        return Err(format!("{name} is {asked}; the configuration allows 1 to {most}"));
    }
    Ok(asked)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Command, Seconds};

    pub(crate) fn settings() -> LimitSettings {
        let defaults = RunLimits {
            wall: Duration::from_secs(10),
            cpu: Duration::ZERO,
            memory_bytes: 2048 * MIB,
            output_bytes: 16 * MIB,
            processes: 64,
            file_bytes: 256 * MIB,
            open_files: 256,
        };
        let maxima = RunLimits { wall: Duration::from_secs(600), memory_bytes: 4096 * MIB, ..defaults };
        LimitSettings {
            defaults,
            maxima,
            max_prediction_time: Duration::from_secs(300),
            max_commands: 2,
            max_executables: 2,
            max_num_times: 5,
        }
    }

    #[test]
    fn asked_limits_hold_within_the_maxima() {
        let asked = PredictionLimits {
            timeout: Some(Seconds::new(2.0).unwrap()),
            cpu_time: Some(Seconds::new(3.0).unwrap()),
            memory_mb: Some(4096),
            ..PredictionLimits::default()
        };
        let limits = settings().for_prediction(&asked).unwrap();
        assert_eq!((limits.wall, limits.cpu), (Duration::from_secs(2), Duration::from_secs(3)));
        assert_eq!(limits.memory_bytes, 4096 * MIB);
    }

    #[test]
    fn more_than_allowed_is_refused_by_name() {
        let timeout = Some(Seconds::new(601.0).unwrap());
        let error = settings().for_prediction(&PredictionLimits { timeout, ..PredictionLimits::default() });
        assert_eq!(error.unwrap_err(), "limits.timeout is 601 s; limits.max_timeout allows 600 s");
        let cpu_time = Some(Seconds::new(601.0).unwrap());
        let error = settings().for_prediction(&PredictionLimits { cpu_time, ..PredictionLimits::default() });
        assert_eq!(error.unwrap_err(), "limits.cpu_time is 601 s; limits.max_timeout allows 600 s");
        let asked = PredictionLimits { memory_mb: Some(5000), ..PredictionLimits::default() };
        let error = settings().for_prediction(&asked).unwrap_err();
        assert_eq!(error, "limits.memory_mb is 5000; the configuration allows 1 to 4096");
        let command = Command { num_times: 6, ..Command::new(["x"]) };
        let executable = Executable::new(std::collections::BTreeMap::new(), vec![command]);
        assert!(settings().check(&executable).unwrap_err().contains("num_times is 6"));
    }
}
