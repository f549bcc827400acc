//! A program in one of the configured languages: its file, what builds it, what runs it.

use std::collections::BTreeMap;

use super::compare::excerpt;
use super::{Undecided, Unusable};
use crate::config::{Language, Languages};
use crate::model::{BoxPath, Command, Executable, ExecutionResult, FileContent, Seconds, Termination};

/// A language by name.
#[derive(Debug, Clone)]
pub(super) struct Toolchain {
    name: String,
    language: Language,
}

impl Toolchain {
    /// The language that `field` names.
    pub(super) fn named(languages: &Languages, field: &str, name: &str) -> Result<Self, Unusable> {
        let found = languages.find(name).ok_or_else(|| {
            let known: Vec<_> = languages.keys().map(String::as_str).collect();
            let shown = excerpt(name, 60);
            Unusable(format!(
                "{field} is {shown:?}: it must be one of {}, or a section [languages.NAME] of the configuration",
                known.join(", ")
            ))
        })?;
        Ok(Self { name: found.0.to_owned(), language: found.1.clone() })
    }

    /// Its name in the configuration.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How many commands come before the first run.
    pub(super) fn builds(&self) -> usize {
        usize::from(!self.language.compile.is_empty())
    }

    /// The same, where nothing builds Python: its syntax is looked at, as of what is compiled.
    pub(super) fn looked_at(mut self) -> Self {
        if let (Some(python), "python", 0) = (self.language.run.first(), self.name.as_str(), self.builds()) {
            let compile = [python, "-m", "py_compile", &self.language.file].map(str::to_owned);
            self.language.compile = compile.into();
        }
        self
    }

    /// The program, built where it has to be, and nothing run yet.
    pub(super) fn executable(&self, source: &str) -> Result<Executable, Unusable> {
        let path = BoxPath::new(&self.language.file).map_err(|error| Unusable(error.to_string()))?;
        let files = BTreeMap::from([(path, FileContent::from(source))]);
        let mut commands = Vec::new();
        if self.builds() > 0 {
            let timeout = Seconds::new(self.language.compile_timeout).ok();
            commands.push(Command { build: true, timeout, ..Command::new(&self.language.compile) });
        }
        Ok(Executable::new(files, commands))
    }

    /// One run; without a time limit of its own, the language's is in force, or the prediction's.
    pub(super) fn run(&self, timeout: Option<Seconds>) -> Command {
        let timeout = timeout.or_else(|| Seconds::new(self.language.timeout).ok());
        Command { timeout, ..Command::new(&self.language.run) }
    }

    /// What kept it from being built, in a line.
    pub(super) fn not_built(&self, execution: &ExecutionResult) -> Option<String> {
        let failed = execution.command_results.iter().take(self.builds()).find(|build| build.had_error)?;
        let lines = || failed.stderr.lines().chain(failed.stdout.lines()).map(str::trim);
        let said = lines().find(|line| line.to_lowercase().contains("error"));
        let said = said.or_else(|| lines().find(|line| !line.is_empty()));
        let said = said.map_or_else(|| format!("it was {}", failed.termination), |line| excerpt(line, 300));
        Some(format!("it does not build: {said}"))
    }

    /// Whether what builds or runs programs is not on this machine.
    pub(super) fn missing(&self, execution: &ExecutionResult) -> Result<(), Undecided> {
        let results = execution.command_results.iter().enumerate();
        for (index, result) in results.filter(|(_, result)| result.termination == Termination::NotStarted) {
            let (key, argv) = match index < self.builds() {
                true => ("compile", &self.language.compile),
                false => ("run", &self.language.run),
            };
            // What was built is missing where building did not make it.
            let Some(tool) = argv.first().filter(|tool| self.language.tools().any(|own| own == *tool)) else {
                continue;
            };
            let (name, said) = (&self.name, result.detail.as_deref().unwrap_or("it is not there"));
            return Err(Undecided::Fault(format!(
                "language {name}: {tool} cannot be started in a box ({said}); install it, bind its directory (sandbox.binds), or set languages.{name}.{key}; `evalmill doctor` lists what is there"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CommandResult;

    fn not_started() -> ExecutionResult {
        let result = CommandResult::without_run(Termination::NotStarted);
        ExecutionResult { command_results: vec![result], ..ExecutionResult::default() }
    }

    #[test]
    fn an_unknown_language_lists_the_known_ones() {
        let error = Toolchain::named(&Languages::default(), "language", "cobol").unwrap_err().to_string();
        assert!(
            error.contains("language is \"cobol\": it must be one of bash, c, cpp, javascript"),
            "{error}"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let cpp = Toolchain::named(&Languages::default(), "language", "C++").unwrap();
        let error = cpp.missing(&not_started()).unwrap_err().to_string();
        assert!(error.starts_with("language cpp: g++ cannot be started"), "{error}");
        let mut built = not_started();
        built.command_results.insert(0, CommandResult::without_run(Termination::Exited));
        assert_eq!(cpp.missing(&built), Ok(()), "the program was built, and is not there");
    }
}
