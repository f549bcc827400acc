//! `multi_language`: a program and its tests in any configured language, as MultiPL-E publishes them.
//!
//! ```json
//! {"name": "HumanEval_23_strlen", "language": "js",
//!  "prompt": "//Return length of given string\nfunction strlen(string){\n",
//!  "completion": "  return string.length;\n}\nconsole.log(1)",
//!  "tests": "const assert = require('node:assert');\n…test();", "stop_tokens": ["\nconsole.log"]}
//! ```
//!
//! The file is prompt, completion (up to the first stop token) and tests; it passes where it builds and ends with
//! exit code 0. Where the language allows it, a witness stands behind the tests (see [`witness`]): a program that
//! ends early, with exit code 0 or not, has not passed.
//!
//! | language | a program that ends before its tests do |
//! |---|---|
//! | `python`, `javascript`, `bash` | fails: the last line reads a nonce and writes it back |
//! | `c`, `cpp` | fails, where the tests end with the last line of `main`, a lone `}`, and nowhere `return`; else it passes with exit code 0 |
//! | any other | passes with exit code 0, as published |
//!
//! A program that reads the nonce and writes it back on purpose is not excluded.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::fields::{required, seconds, text, texts, value, wrong};
use super::outcome::broken;
use super::program::Toolchain;
use super::{Case, Judgement, Prepared, Preprocessor, Undecided, Unusable};
use crate::config::Languages;
use crate::model::ExecutionResult;

/// The processor for programs with tests of their own.
#[derive(Debug, Clone, Default)]
pub struct MultiLanguage {
    languages: Languages,
}

impl MultiLanguage {
    /// For programs in these languages.
    #[must_use]
    pub fn new(languages: Languages) -> Self {
        Self { languages }
    }
}

/// Reads the nonce from descriptor 3 and writes it back, at the end of a file.
const PYTHON: &str = "\nimport os as _evalmill; _evalmill.write(3, _evalmill.read(3, 256))\n";
const JAVASCRIPT: &str = "\n;{ const b = Buffer.alloc(256), f = process.getBuiltinModule ? process.getBuiltinModule('fs') : require('fs'); \
     f.writeSync(3, b, 0, f.readSync(3, b)); }\n";
const BASH: &str = "\nIFS= builtin read -r -u 3 _evalmill || :; builtin printf %s \"$_evalmill\" >&3\n";
/// The same in `main`. Descriptor 3 is a socket, and these two names no program is likely to have.
const C: &str = "{ char b[256]; long n = evalmill_get(3, b, sizeof b, 0, 0, 0); \
     if (n > 0) evalmill_put(3, b, (unsigned long)n, 0, 0, 0); }\n";
const C_GET: &str =
    "long evalmill_get(int, void *, unsigned long, int, void *, void *) __asm__(\"recvfrom\");\n";
const C_PUT: &str =
    "long evalmill_put(int, const void *, unsigned long, int, const void *, unsigned) __asm__(\"sendto\");\n";

/// What shows that tests ran to their end.
#[derive(Debug)]
struct Witness {
    /// What stands at the beginning of the file: the tests may begin inside of a function.
    head: String,
    /// The tests, with the witness at their end.
    tests: String,
}

/// The witness of a language; `None`: there is none for these tests.
fn witness(language: &str, tests: &str) -> Option<Witness> {
    let appended = |last: &str| Some(Witness { head: String::new(), tests: format!("{tests}{last}") });
    let in_main = |linkage: &str| {
        let (body, rest) = tests.trim_end().rsplit_once('\n')?;
        let head = format!("{linkage} {C_GET}{linkage} {C_PUT}#line 1\n");
        (rest == "}" && !tests.contains("return"))
            .then(|| Witness { head, tests: format!("{body}\n{C}}}\n") })
    };
    match language {
        "python" => appended(PYTHON),
        "javascript" => appended(JAVASCRIPT),
        "bash" => appended(BASH),
        "c" => in_main("extern"),
        "cpp" => in_main("extern \"C\""),
        _ => None,
    }
}

/// A completion up to the first of these.
fn stopped<'a>(completion: &'a str, stop_tokens: &[String]) -> &'a str {
    let ends =
        stop_tokens.iter().filter(|token| !token.is_empty()).filter_map(|token| completion.find(token));
    &completion[..ends.min().unwrap_or(completion.len())]
}

impl Preprocessor for MultiLanguage {
    fn preprocess(&self, payload: &Value) -> Result<Prepared, Unusable> {
        let toolchain = Toolchain::named(&self.languages, "language", required(payload, "language")?)?;
        if let Some(many) = value(payload, "completions") {
            return Err(wrong("completions", many, "absent: a row holds one, as a string in completion"));
        }
        let prompt = text(payload, "prompt")?.unwrap_or_default();
        let completion = stopped(required(payload, "completion")?, &texts(payload, "stop_tokens")?);
        let tests = required(payload, "tests")?;
        if tests.trim().is_empty() {
            return Err(Unusable("tests is empty: there must be something to run".to_owned()));
        }
        let witnessed = witness(toolchain.name(), tests);
        let (head, tests) =
            witnessed.as_ref().map_or(("", tests), |witness| (witness.head.as_str(), witness.tests.as_str()));
        let mut executable = toolchain.executable(&format!("{head}{prompt}{completion}\n{tests}"))?;
        executable.commands.push(toolchain.run(seconds(payload, "timeout")?));
        executable.witness = witnessed.is_some();
        let case = ProgramCase { toolchain, witness: executable.witness };
        Ok(Prepared::Case(vec![executable.into()], Arc::new(case)))
    }

    fn task(&self, payload: &Value) -> Option<String> {
        ["task_id", "name"].iter().find_map(|field| payload.get(field)?.as_str()).map(str::to_owned)
    }
}

struct ProgramCase {
    toolchain: Toolchain,
    witness: bool,
}

impl Case for ProgramCase {
    fn judge(&self, executions: &[ExecutionResult], _: &[ExecutionResult]) -> Result<Judgement, Undecided> {
        let Some(execution) = executions.first() else { return Ok(Judgement::default()) };
        self.toolchain.missing(execution)?;
        let ran = execution.command_results.get(self.toolchain.builds());
        let witnessed = ran.and_then(|command| command.witnessed);
        let detail = match (ran.and_then(broken), ran) {
            (Some((reason, detail)), _) => Some(detail.unwrap_or(reason)),
            (None, None) => {
                Some(self.toolchain.not_built(execution).unwrap_or_else(|| "it was not run".to_owned()))
            }
            (None, Some(_)) if self.witness && witnessed != Some(true) => {
                Some("exit code 0, but the tests did not run to their end".to_owned())
            }
            (None, Some(_)) => None,
        };
        let mut output = Map::new();
        output.insert("language".to_owned(), json!(self.toolchain.name()));
        if self.witness {
            output.insert("tests_completed".to_owned(), json!(witnessed == Some(true)));
        }
        Ok(Judgement { passed: detail.is_none(), detail, output })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(json!({}), "language is missing: it must be a string")]
    #[case(json!({"language": "cobol"}), "language is \"cobol\": it must be one of")]
    #[case(json!({"language": "py", "completions": ["a"]}), "completions is a list of 1: it must be absent")]
    #[case(json!({"language": "py"}), "completion is missing")]
    #[case(json!({"language": "py", "completion": ""}), "tests is missing")]
    #[case(json!({"language": "py", "completion": "", "tests": " \n"}), "tests is empty")]
    #[case(json!({"language": "py", "completion": "", "tests": []}), "tests is a list of 0")]
    #[case(json!({"language": "py", "completion": "", "tests": "x", "stop_tokens": "a"}), "stop_tokens is \"a\"")]
    #[case(json!({"language": "py", "completion": "", "tests": "x", "stop_tokens": [1]}), "stop_tokens[0] is 1")]
    fn unusable(#[case] payload: Value, #[case] says: &str) {
        let error = MultiLanguage::default().preprocess(&payload).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[rstest]
    #[case("a\ndef b", &["\ndef", "\n#"], "a")]
    #[case("a\n# c\ndef b", &["\ndef", "\n#"], "a")]
    #[case("abc", &[], "abc")]
    #[case("abc", &["", "x"], "abc")]
    #[case("é\n}", &["\n}"], "é")]
    fn stop_tokens(#[case] completion: &str, #[case] tokens: &[&str], #[case] kept: &str) {
        let tokens: Vec<_> = tokens.iter().map(|token| (*token).to_owned()).collect();
        assert_eq!(stopped(completion, &tokens), kept);
    }

    #[rstest]
    #[case("int main() {\n  assert(f() == 1);\n}\n", true)]
    #[case("int main() {\n  return 0;\n}\n", false)]
    #[case("int main() {\n}\n// the end }\n", false)]
    #[case("int main() {}\n", false)]
    #[case("  }\n", false)]
    fn where_main_has_a_witness(#[case] tests: &str, #[case] has_one: bool) {
        assert_eq!(witness("cpp", tests).is_some(), has_one);
    }
}
