//! Who prepares and judges a prediction, by name: built in, or a program of the operator's.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::to_raw_value;

use super::Decoded;
use super::external::{Asked, Executables, External, ExternalError, Judged, Prepared};
use super::prepare::Judge;
use crate::model::ExecutionResult;
use crate::processors::{self, Judgement, Processor, Registry, UnknownProcessor, Unusable};

/// All processors.
#[derive(Debug, Clone, Default)]
pub struct Processors {
    builtin: Registry,
    programs: BTreeMap<String, Program>,
}

/// A program of the operator's, and what is left to a built-in processor.
#[derive(Clone)]
pub struct Program {
    /// The program.
    pub external: External,
    /// Prepares instead of the program.
    pub preprocessor: Option<Arc<dyn Processor>>,
    /// Judges instead of the program.
    pub postprocessor: Option<Arc<dyn Processor>>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("external", &self.external).finish_non_exhaustive()
    }
}

/// One of them.
pub(super) enum Who<'a> {
    Builtin(&'a Arc<dyn Processor>),
    Program(&'a Program),
}

impl From<Registry> for Processors {
    fn from(builtin: Registry) -> Self {
        Self { builtin, programs: BTreeMap::new() }
    }
}

impl Processors {
    /// Adds a program under its own name, before a built-in processor of that name.
    pub fn add(&mut self, program: Program) {
        self.programs.insert(program.external.name().to_owned(), program);
    }

    /// Whether there is a processor of this name.
    ///
    /// # Errors
    /// There is none; the error lists the known ones.
    pub fn knows(&self, name: &str) -> Result<(), UnknownProcessor> {
        self.get(name).map(drop)
    }

    pub(super) fn get(&self, name: &str) -> Result<Who<'_>, UnknownProcessor> {
        if let Some(program) = self.programs.get(name) {
            return Ok(Who::Program(program));
        }
        self.builtin.get(name).map(Who::Builtin).map_err(|unknown| {
            let programs = self.programs.keys().map(String::as_str);
            UnknownProcessor {
                known: programs.fold(unknown.known, |known, name| known + ", " + name),
                ..unknown
            }
        })
    }
}

/// What a program's preprocessing came to.
pub(super) type Preprocessed = Result<processors::Prepared, Unusable>;

impl Program {
    /// Who judges what it has prepared.
    pub(super) fn judge(&self) -> Judge {
        self.postprocessor.clone().map_or_else(|| Judge::Program(self.clone()), Judge::Processor)
    }

    /// Asks the program what is to be run.
    pub(super) async fn preprocess(&self, decoded: &Decoded) -> Result<Preprocessed, ExternalError> {
        let answer = self.ask(&Asked::Preprocess { prediction: &decoded.payload }).await?;
        Ok(match self.read(&answer)? {
            Prepared::Run(Executables(executables)) => {
                Ok(processors::Prepared::Run(executables.into_iter().map(Into::into).collect()))
            }
            Prepared::Filtered { detail, output } => Ok(processors::Prepared::Filtered { detail, output }),
            Prepared::Invalid(reason) => Err(Unusable(reason)),
            Prepared::Error(reason) => return Err(self.failed(reason)),
        })
    }

    /// Asks the program what follows.
    pub(super) async fn postprocess(
        &self,
        decoded: &Decoded,
        results: &[ExecutionResult],
    ) -> Result<Judgement, ExternalError> {
        let answer = self.ask(&Asked::Postprocess { prediction: &decoded.payload, results }).await?;
        match self.read(&answer)? {
            Judged::Judged { passed, detail, output } => Ok(Judgement { passed, detail, output }),
            Judged::Error(reason) => Err(self.failed(reason)),
        }
    }

    async fn ask(&self, asked: &Asked<'_>) -> Result<Box<serde_json::value::RawValue>, ExternalError> {
        let item = to_raw_value(asked).map_err(|error| self.failed(error.to_string()))?;
        self.external.ask(item).await
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        answer: &serde_json::value::RawValue,
    ) -> Result<T, ExternalError> {
        let mut text = serde_json::Deserializer::from_str(answer.get());
        serde_path_to_error::deserialize(&mut text).map_err(|error| ExternalError::Answer {
            name: self.external.name().to_owned(),
            answer: answer.get().chars().take(80).collect(),
            reason: format!("{}: {}", error.path(), error.inner()),
        })
    }

    fn failed(&self, reason: String) -> ExternalError {
        ExternalError::Failed { name: self.external.name().to_owned(), reason }
    }
}
