//! Contents of files on the wire.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of a file: a JSON string where they are UTF-8, `{"base64": "…"}` where they are not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileContent(pub Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Wire<'a> {
    Text(Cow<'a, str>),
    Encoded { base64: Cow<'a, str> },
}

#[derive(Serialize)]
struct Encoded {
    base64: String,
}

impl From<&str> for FileContent {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for FileContent {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl Serialize for FileContent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: BASE64.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FileContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)
            .map_err(|_| de::Error::custom("a file's content is a string or {\"base64\": \"…\"}"))?;
        match wire {
            Wire::Text(text) => Ok(Self(text.into_owned().into_bytes())),
            Wire::Encoded { base64 } => BASE64
                .decode(base64.as_bytes())
                .map(Self)
                .map_err(|error| de::Error::custom(format!("a file's base64 content: {error}"))),
        }
    }
}

impl JsonSchema for FileContent {
    fn schema_name() -> Cow<'static, str> {
        "FileContent".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Text, or base64 where the bytes are not UTF-8.",
            "anyOf": [
                {"type": "string"},
                {"type": "object", "required": ["base64"], "properties": {"base64": {"type": "string", "contentEncoding": "base64"}}},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let content = FileContent(bytes);
            let json = serde_json::to_string(&content).unwrap();
            prop_assert_eq!(serde_json::from_str::<FileContent>(&json).unwrap(), content);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["1", "null", "{}", "[]", r#"{"base64": "*"}"#] {
            assert!(serde_json::from_str::<FileContent>(bad).is_err(), "{bad}");
        }
    }
}
