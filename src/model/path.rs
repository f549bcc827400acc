//! Names of files inside a box.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest path, in bytes: `PATH_MAX` less room for the box's own path.
const MAX_PATH_BYTES: usize = 3_072;
/// Longest component, in bytes (`NAME_MAX`).
const MAX_COMPONENT_BYTES: usize = 255;

/// A relative path that names something inside the box, whatever the box is.
///
/// Not empty, not absolute, without `..`, NUL or an empty last component; at most 3,072 bytes, 255 in
/// each component. `./a//b` is kept as `a/b`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoxPath(String);

/// Why a name is no path inside a box.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BoxPathError {
    /// Nothing is left of it.
    #[error("the file name {0:?} is empty")]
    Empty(String),
    /// It begins with `/`.
    #[error("the file name {0:?} is absolute: names are relative to the box")]
    Absolute(String),
    /// It has a `..` component.
    #[error("the file name {0:?} contains `..`: names stay inside the box")]
    Parent(String),
    /// It has a NUL byte.
    #[error("the file name {0:?} contains a NUL byte")]
    Nul(String),
    /// It ends with `/`.
    #[error("the file name {0:?} ends with `/`: it names a directory, not a file")]
    Directory(String),
    /// It is too long.
    #[error(
        "the file name {start:?}… has {bytes} bytes: at most {MAX_PATH_BYTES} are allowed, {MAX_COMPONENT_BYTES} in each component"
    )]
    TooLong {
        /// Its first characters.
        start: String,
        /// Its length.
        bytes: usize,
    },
}

impl BoxPath {
    /// Checks and normalises `name`.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn new(name: &str) -> Result<Self, BoxPathError> {
        let shown = || name.chars().take(80).collect::<String>();
        if name.len() > MAX_PATH_BYTES {
            return Err(BoxPathError::TooLong { start: shown(), bytes: name.len() });
        }
        if name.contains('\0') {
            return Err(BoxPathError::Nul(shown()));
        }
        if name.starts_with('/') {
            return Err(BoxPathError::Absolute(shown()));
        }
        let mut parts = Vec::new();
        for part in name.split('/') {
            match part {
                "" | "." => {}
                ".." => return Err(BoxPathError::Parent(shown())),
                part if part.len() > MAX_COMPONENT_BYTES => {
                    return Err(BoxPathError::TooLong { start: shown(), bytes: part.len() });
                }
                part => parts.push(part),
            }
        }
        if parts.is_empty() {
            return Err(BoxPathError::Empty(shown()));
        }
        if name.ends_with('/') || name.ends_with("/.") {
            return Err(BoxPathError::Directory(shown()));
        }
        Ok(Self(parts.join("/")))
    }

    /// The normalised path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directories that lead to it, outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(end, _)| &self.0[..end])
    }
}

impl fmt::Display for BoxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BoxPath {
    type Error = BoxPathError;

    fn try_from(name: String) -> Result<Self, BoxPathError> {
        Self::new(&name)
    }
}

impl From<BoxPath> for String {
    fn from(path: BoxPath) -> Self {
        path.0
    }
}

impl JsonSchema for BoxPath {
    fn schema_name() -> Cow<'static, str> {
        "BoxPath".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Relative path inside the box: not absolute, no `..`, no NUL.",
            "minLength": 1,
            "maxLength": MAX_PATH_BYTES,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("main.py", "main.py")]
    #[case("./a//b/./c", "a/b/c")]
    #[case("...", "...")]
    #[case("a..b/.c", "a..b/.c")]
    #[case("été.txt", "été.txt")]
    fn accepted(#[case] name: &str, #[case] kept: &str) {
        assert_eq!(BoxPath::new(name).unwrap().as_str(), kept);
    }

    #[rstest]
    #[case("", "empty")]
    #[case("./.", "empty")]
    #[case("/etc/passwd", "absolute")]
    #[case("a/../../b", "`..`")]
    #[case("..", "`..`")]
    #[case("a\0b", "NUL")]
    #[case("a/", "directory")]
    #[case("a/.", "directory")]
    #[case(&"x".repeat(5000), "5000 bytes")]
    #[case(&"x".repeat(256), "256 bytes")]
    fn refused(#[case] name: &str, #[case] says: &str) {
        let error = BoxPath::new(name).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    proptest! {
        #[test]
        fn never_escapes(name in "[./a\\PC\0]{0,40}") {
            if let Ok(path) = BoxPath::new(&name) {
                prop_assert!(!path.as_str().starts_with('/'));
                prop_assert!(path.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(BoxPath::new(path.as_str()).unwrap(), path);
            }
        }
    }
}
