//! How programs are built and run, by language: those that ship with it, and what a configuration adds.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value as Json};

/// How programs of one language are built and run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Language {
    /// Further names that mean it, in any case.
    pub aliases: Vec<String>,
    /// The file that a program is written to.
    pub file: String,
    /// What builds it, once for each program; empty: nothing does.
    pub compile: Vec<String>,
    /// What runs it.
    pub run: Vec<String>,
    /// Seconds that building may take.
    pub compile_timeout: f64,
    /// Seconds that a run may take; 0: as the prediction says.
    pub timeout: f64,
}

impl Default for Language {
    fn default() -> Self {
        let (aliases, compile, run) = (Vec::new(), Vec::new(), Vec::new());
        Self { aliases, file: String::new(), compile, run, compile_timeout: 60.0, timeout: 0.0 }
    }
}

impl Language {
    /// The programs that it needs on the machine: what builds and what runs, unless that was built.
    pub fn tools(&self) -> impl Iterator<Item = &str> {
        let of_the_box = |tool: &str| tool.contains('/') && !tool.starts_with('/');
        let first = [self.compile.first(), self.run.first()];
        first.into_iter().flatten().map(String::as_str).filter(move |tool| !of_the_box(tool))
    }
}

/// Languages by name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Languages(pub BTreeMap<String, Language>);

impl Deref for Languages {
    type Target = BTreeMap<String, Language>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Default for Languages {
    /// Those that ship with it.
    fn default() -> Self {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let language = |aliases: &[&str], file: &str, compile: &[&str], run: &[&str]| Language {
            aliases: texts(aliases),
            file: file.to_owned(),
            compile: texts(compile),
            run: texts(run),
            ..Language::default()
        };
        let c = ["gcc", "-std=gnu17", "-O2", "-o", "main", "main.c", "-lm"];
        let cpp = ["g++", "-std=gnu++17", "-O2", "-o", "main", "main.cpp"];
        let shipped = [
            ("bash", language(&["sh"], "main.sh", &[], &["bash", "main.sh"])),
            ("c", language(&[], "main.c", &c, &["./main"])),
            ("cpp", language(&["c++", "cc", "cxx"], "main.cpp", &cpp, &["./main"])),
            ("javascript", language(&["js", "node"], "main.js", &[], &["node", "main.js"])),
            ("python", language(&["py", "python3"], "main.py", &[], &["python3", "main.py"])),
        ];
        Self(shipped.into_iter().map(|(name, language)| (name.to_owned(), language)).collect())
    }
}

impl<'de> Deserialize<'de> for Languages {
    /// What is given goes over what ships with it, key by key.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = BTreeMap::<String, Map<String, Json>>::deserialize(deserializer)?;
        let Self(mut all) = Self::default();
        for (name, keys) in given {
            let known = all.get(&name).cloned().unwrap_or_default();
            let mut merged = serde_json::to_value(known).map_err(serde::de::Error::custom)?;
            for (key, value) in keys {
                merged[key] = value;
            }
            all.insert(name, serde_json::from_value(merged).map_err(serde::de::Error::custom)?);
        }
        Ok(Self(all))
    }
}

impl Languages {
    /// The language of this name or alias, in any case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(&str, &Language)> {
        let name = name.to_lowercase();
        let named = |(own, language): &(&String, &Language)| {
            **own == name || language.aliases.iter().any(|alias| alias.to_lowercase() == name)
        };
        self.0.iter().find(named).map(|(own, language)| (own.as_str(), language))
    }

    /// What is wrong between the keys of languages: path, rule, what to try.
    pub(super) fn faults(&self) -> Vec<(String, String, String)> {
        let mut faults = Vec::new();
        let mut seen = BTreeMap::new();
        for (name, language) in &self.0 {
            let at = |key: &str| format!("languages.{name}.{key}");
            if language.file.is_empty() {
                let rule = "must be set: the file that a program of this language is written to";
                faults.push((at("file"), rule.to_owned(), format!("\"main.{name}\"")));
            }
            if language.run.first().is_none_or(String::is_empty) {
                let rule = "must be set: the program that runs it, and its arguments";
                faults.push((at("run"), rule.to_owned(), "[\"./main\"]".to_owned()));
            }
            for alias in std::iter::once(name).chain(&language.aliases) {
                if let Some(other) = seen.insert(alias.to_lowercase(), name) {
                    let rule = format!("must not name {alias:?}, which means {other} already");
                    faults.push((at("aliases"), rule, "another alias".to_owned()));
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_alias_in_any_case() {
        let languages = Languages::default();
        for (name, found) in [("Python", "python"), ("py", "python"), ("C++", "cpp"), ("JS", "javascript")] {
            assert_eq!(languages.find(name).unwrap().0, found);
        }
        assert!(languages.find("cobol").is_none());
    }

    #[test]
    fn what_was_built_is_no_tool() {
        let tools = |name: &str| Languages::default()[name].tools().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!((tools("cpp"), tools("python")), (vec!["g++".to_owned()], vec!["python3".to_owned()]));
    }
}
