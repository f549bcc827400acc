//! The settings that are a choice and not a number or a text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How strongly a box is walled in, weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// No wall: limits only.
    #[default]
    None,
    /// A separate, restricted process.
    Process,
    /// Kernel namespaces.
    Namespaces,
    /// Everything there is.
    Full,
}

impl Tier {
    /// The name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Process => "process",
            Self::Namespaces => "namespaces",
            Self::Full => "full",
        }
    }
}

/// The tier asked for: one of them, or what is fitting: the strongest that works here, or as the command needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierChoice {
    /// It is not said here.
    #[default]
    Auto,
    /// [`Tier::Full`].
    Full,
    /// [`Tier::Namespaces`].
    Namespaces,
    /// [`Tier::Process`].
    Process,
    /// [`Tier::None`].
    None,
}

impl TierChoice {
    /// The tier named, `None` for `auto`.
    pub fn tier(self) -> Option<Tier> {
        match self {
            Self::Auto => None,
            Self::Full => Some(Tier::Full),
            Self::Namespaces => Some(Tier::Namespaces),
            Self::Process => Some(Tier::Process),
            Self::None => Some(Tier::None),
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is done about exchanges and queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopologyMode {
    /// They are declared.
    #[default]
    Declare,
    /// They have to be there.
    Check,
}

/// A URL that may hold a password: printed without it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL as it is.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", super::redact("url", &self.0))
    }
}

/// A password: never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// What it is.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", super::redact("password", &self.0))
    }
}

/// Which fields of a prediction its result repeats: `"all"`, `"none"` or a list of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    /// All of them.
    #[default]
    All,
    /// None of them.
    None,
    /// These, where present.
    Fields(Vec<String>),
}

impl Echo {
    /// Whether the field of this name is repeated.
    pub fn includes(&self, field: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Fields(names) => names.iter().any(|name| name == field),
        }
    }
}

impl Serialize for Echo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::None => serializer.serialize_str("none"),
            Self::Fields(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Echo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "\"all\", \"none\" or a list of field names")]
        enum Form {
            Word(String),
            Fields(Vec<String>),
        }
        match Form::deserialize(deserializer)? {
            Form::Word(word) if word == "all" => Ok(Self::All),
            Form::Word(word) if word == "none" => Ok(Self::None),
            Form::Word(word) => Err(serde::de::Error::unknown_variant(&word, &["all", "none"])),
            Form::Fields(names) => Ok(Self::Fields(names)),
        }
    }
}
