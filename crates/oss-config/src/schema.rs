//! The JSON Schema of the experiment file: for `oss-run schema`, for editors and for validation in this crate.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Experiment, Sweep};

/// The JSON Schema of the experiment file: every key with its description, bounds and default.
///
/// It uses draft 7, which TOML language servers (Taplo, Even Better TOML) support.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let sweep = generator.subschema_for::<Sweep>().to_value();
    let mut schema = generator.into_root_schema_for::<Experiment>().to_value();
    forget_null(&mut schema);
    forget_section_defaults(&mut schema);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let rest = std::mem::replace(properties, Map::from_iter([("extends".to_owned(), extends())]));
        properties.extend(rest);
        let about = "Many runs of this experiment that differ in a few values.";
        properties.insert("sweep".to_owned(), json!({ "description": about, "allOf": [sweep] }));
    }
    schema
}

/// `extends` names layers and is gone once they are merged, so it is not a field of [`Experiment`]; neither is
/// `[sweep]`, which defines many experiments.
fn extends() -> Value {
    json!({
        "description": "Experiment files to inherit from, relative to this file; later files override earlier ones.",
        "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
    })
}

/// TOML has no null: an optional value is an omitted key.
fn forget_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice != &json!({ "type": "null" }));
                if choices.len() == 1
                    && let Some(Value::Array(only)) = object.remove("anyOf")
                {
                    object.insert("allOf".into(), Value::Array(only));
                }
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            object.values_mut().for_each(forget_null);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_null),
        _ => {}
    }
}

/// Defaults are listed per key; the default of a whole section would only repeat them.
fn forget_section_defaults(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("default").is_some_and(Value::is_object) {
                object.remove("default");
            }
            object.values_mut().for_each(forget_section_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_section_defaults),
        _ => {}
    }
}
