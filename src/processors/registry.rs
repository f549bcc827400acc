//! Processors by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::{
    ByCase, ExecutableProcessor, FunctionTests, Gsm8k, HumanEval, Mbpp, MultiLanguage, Pair, ProblemsError,
    Processor, PythonCoverage, PythonTests, StdioTests,
};
use crate::config::Languages;

/// What the built-in processors are told.
#[derive(Debug, Clone, Default)]
pub struct ProcessorSettings {
    /// `humaneval`: the problems that samples with only `task_id` and `completion` are joined to.
    pub humaneval_problems: Option<PathBuf>,
    /// How programs are built and run, where a row says in which language its program is.
    pub languages: Languages,
}

/// The known processors.
#[derive(Clone, Default)]
pub struct Registry {
    by_name: BTreeMap<String, Arc<dyn Processor>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

/// There is no processor of this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("preprocessor {name:?} is unknown; known are: {known}")]
pub struct UnknownProcessor {
    /// The name asked for.
    pub name: String,
    /// The known names.
    pub known: String,
}

impl Registry {
    /// The built-in processors.
    ///
    /// # Errors
    /// The problems file cannot be read or holds something else.
    pub fn builtin(settings: &ProcessorSettings) -> Result<Self, ProblemsError> {
        let mut registry = Self::default();
        let languages = &settings.languages;
        registry.add("executable", Arc::new(ExecutableProcessor));
        registry.add("function_tests", Arc::new(Pair(FunctionTests, ByCase)));
        registry.add("gsm8k", Arc::new(Pair(Gsm8k, ByCase)));
        registry.add("humaneval", Arc::new(HumanEval::new(settings.humaneval_problems.as_deref())?));
        registry.add("mbpp", Arc::new(Pair(Mbpp, ByCase)));
        registry.add("multi_language", Arc::new(Pair(MultiLanguage::new(languages.clone()), ByCase)));
        registry.add("python_coverage", Arc::new(Pair(PythonCoverage, ByCase)));
        registry.add("python_tests", Arc::new(Pair(PythonTests, ByCase)));
        registry.add("stdio_tests", Arc::new(Pair(StdioTests::new(languages.clone()), ByCase)));
        Ok(registry)
    }

    /// Adds or replaces one.
    pub fn add(&mut self, name: &str, processor: Arc<dyn Processor>) {
        self.by_name.insert(name.to_owned(), processor);
    }

    /// The processor of this name.
    ///
    /// # Errors
    /// There is none; the error lists the known ones.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Processor>, UnknownProcessor> {
        self.by_name.get(name).ok_or_else(|| UnknownProcessor {
            name: name.chars().take(80).collect(),
            known: self.by_name.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let registry = Registry::builtin(&ProcessorSettings::default()).unwrap();
        assert!(registry.get("humaneval").is_ok());
        let Err(error) = registry.get("humanevil") else { panic!("it is unknown") };
        let error = error.to_string();
        assert!(
            error.starts_with("preprocessor \"humanevil\" is unknown; known are: executable, "),
            "{error}"
        );
        assert!(registry.by_name.keys().all(|name| error.contains(name)), "{error}");
    }
}
