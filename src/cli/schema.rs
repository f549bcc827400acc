//! `evalmill schema`.

use std::io;

use schemars::Schema;
use schemars::generate::SchemaSettings;

use super::args::Message;
use crate::model::{Prediction, ResultMessage, TimingsMessage};

/// Prints the JSON Schema of a message.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_schema(message: Message) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(&schema(message))?;
    text.push(b'\n');
    super::print(&text)
}

/// The schema that every message of ours keeps to, or that a message to us has to.
#[must_use]
pub fn schema(message: Message) -> Schema {
    let settings = SchemaSettings::draft2020_12();
    let (mut schema, id) = match message {
        Message::Prediction => {
            (settings.into_generator().into_root_schema_for::<Prediction>(), "prediction.v1")
        }
        Message::Result => {
            (settings.for_serialize().into_generator().into_root_schema_for::<ResultMessage>(), "result.v1")
        }
        Message::Timings => {
            (settings.for_serialize().into_generator().into_root_schema_for::<TimingsMessage>(), "timings.v1")
        }
    };
    schema.insert("$id".into(), format!("urn:evalmill:{id}").into());
    schema
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_has_an_id_a_title_and_descriptions() {
        for &message in Message::value_variants() {
            let schema = schema(message);
            for key in ["$id", "$schema", "title", "description", "properties"] {
                assert!(schema.get(key).is_some(), "{message:?} {key}");
            }
        }
    }

    #[test]
    fn required_fields() {
        let required = |message| schema(message).get("required").cloned().unwrap();
        assert_eq!(required(Message::Prediction), serde_json::json!(["prediction"]));
        assert!(required(Message::Result).as_array().unwrap().contains(&"verdict".into()));
    }
}
