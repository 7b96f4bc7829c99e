//! One field of a JSON object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use oss_config::error::UserError;

/// The text in the field `field` of the JSON object `json`. A dot descends into nested objects (`"meta.text"`), unless
/// a key with the dot in its name exists.
///
/// `NaN`, `Infinity` and `-Infinity`, which are not JSON but which Python's `json.dumps` writes, are accepted in other
/// fields.
///
/// # Errors
/// If it is not an object, lacks the field, or has a value other than a string there; `place` starts the message.
pub fn text_of(json: &str, field: &str, place: &str) -> Result<String, UserError> {
    let found = parse(json, field).or_else(|error| match without_non_finite(json) {
        Some(finite) if error.is_syntax() => parse(&finite, field).map(|found| match found {
            Found::Other("a number") => Found::Other("NaN, infinite or another number"),
            found => found,
        }),
        _ => Err(error),
    });
    let (problem, hint) = match found {
        Ok(Found::Text(text)) => return Ok(text),
        Ok(Found::Other(kind)) => {
            (format!("the field `{field}` is {kind}, not a string"), "fix the row or set dataset.text_field")
        }
        Ok(Found::Missing(names)) => (
            format!(
                "no field `{field}` (found: {})",
                if names.is_empty() { "none".into() } else { names.join(", ") }
            ),
            "set dataset.text_field to the one with the text",
        ),
        Err(error) if error.is_data() => {
            ("this is not a JSON object".into(), "write one object per row, such as {\"text\": \"...\"}")
        }
        Err(error) => {
            // The location of serde_json counts from the start of the object.
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            let at = match error.line() {
                1 => format!("column {}", error.column()),
                line => format!("line {line} of the object, column {}", error.column()),
            };
            (format!("invalid JSON at {at} ({reason})"), "fix or remove the row")
        }
    };
    Err(UserError::failed(format!("{place}: {problem}")).hint(hint))
}

fn parse(json: &str, field: &str) -> Result<Found, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let found = FieldOf(field).deserialize(&mut parser)?;
    parser.end()?;
    Ok(found)
}

/// `json` with finite numbers of the same length in place of `NaN` and `Infinity` outside of strings; `None` if there
/// are none.
fn without_non_finite(json: &str) -> Option<String> {
    const NON_FINITE: [(&str, &str); 2] = [("NaN", "0.0"), ("Infinity", "0.000000")];
    let mut finite = json.to_owned();
    let (mut in_string, mut at) = (false, 0);
    let bytes = json.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' if !in_string => {
                let word = NON_FINITE.iter().find(|(word, _)| bytes[at..].starts_with(word.as_bytes()));
                if let Some((word, number)) = word {
                    finite.replace_range(at..at + word.len(), number);
                }
            }
            _ => {}
        }
        at += 1;
    }
    (finite != json).then_some(finite)
}

enum Found {
    Text(String),
    /// A value that is not a string: its kind.
    Other(&'static str),
    /// The names that are there instead.
    Missing(Vec<String>),
}

impl Found {
    fn of(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            Value::Null => Self::Other("null"),
            Value::Bool(_) => Self::Other("true or false"),
            Value::Number(_) => Self::Other("a number"),
            Value::Array(_) => Self::Other("a list"),
            Value::Object(_) => Self::Other("an object"),
        }
    }

    /// What `field` means inside `value`, which is the field `outer`.
    fn inside(value: Value, outer: &str, field: &str) -> Self {
        let Value::Object(mut fields) = value else { return Self::Missing(vec![outer.to_owned()]) };
        if let Some(value) = fields.remove(field) {
            return Self::of(value);
        }
        let nested = field.split_once('.').and_then(|(name, rest)| Some((name, rest, fields.remove(name)?)));
        match nested {
            Some((name, rest, value)) => Self::inside(value, &format!("{outer}.{name}"), rest),
            None => Self::Missing(fields.keys().map(|name| format!("{outer}.{name}")).collect()),
        }
    }
}

/// Extracts one field from an object without building the others.
struct FieldOf<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for FieldOf<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Found;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let outer = self.0.split_once('.');
        let (mut found, mut nested) = (None, None);
        let mut names = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                found = Some(Found::of(map.next_value()?));
                continue;
            }
            match outer {
                Some((first, rest)) if name == first => {
                    nested = Some(Found::inside(map.next_value()?, first, rest));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            names.push(name);
        }
        Ok(found.or(nested).unwrap_or(Found::Missing(names)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str, field: &str) -> Result<String, String> {
        text_of(json, field, "row").map_err(|error| error.to_string())
    }

    #[test]
    fn other_fields_may_be_nan_or_infinite() {
        for json in [
            r#"{"score": NaN, "text": "NaN \" Infinity", "x": [-Infinity, {"y": Infinity}]}"#,
            r#"{"text": "NaN \" Infinity", "score": NaN}"#,
            r#"{"score": 1, "text": "NaN \" Infinity"}"#,
        ] {
            assert_eq!(text(json, "text").unwrap(), "NaN \" Infinity", "{json}");
        }
        assert!(text(r#"{"text": NaN}"#, "text").unwrap_err().contains("is NaN, infinite"));
        assert!(text(r#"{"text": -Infinity}"#, "text").unwrap_err().contains("is NaN, infinite"));
        assert!(text(r#"{"text": 3, "x": 0}"#, "text").unwrap_err().contains("is a number"));
        // The column is that of the mistake, not of the NaN.
        assert!(text(r#"{"x": NaN, "text": oops}"#, "text").unwrap_err().contains("column 20"));
        for json in [r#"{"x": NaNa, "text": ""}"#, r#"{"x": nan, "text": ""}"#, "{\"x\": Infinit"] {
            assert!(text(json, "text").unwrap_err().contains("invalid JSON"), "{json}");
        }
    }

    #[test]
    fn a_dot_descends_unless_a_key_has_it_in_its_name() {
        assert_eq!(text(r#"{"a": {"b": "in"}, "c": 1}"#, "a.b").unwrap(), "in");
        assert_eq!(text(r#"{"a": {"b": "in"}, "a.b": "out"}"#, "a.b").unwrap(), "out");
        assert_eq!(text(r#"{"a.b": "out", "a": {"b": "in"}}"#, "a.b").unwrap(), "out");
        assert_eq!(text(r#"{"a": {"b": {"c": "deep"}}}"#, "a.b.c").unwrap(), "deep");
        assert_eq!(text(r#"{"a": {"b.c": "deep"}}"#, "a.b.c").unwrap(), "deep");
        assert_eq!(
            text(r#"{"a": {"x": 1, "y": 2}}"#, "a.b").unwrap_err(),
            "row: no field `a.b` (found: a.x, a.y)"
        );
        assert_eq!(text(r#"{"a": 3}"#, "a.b").unwrap_err(), "row: no field `a.b` (found: a)");
        assert!(text(r#"{"a": {"b": null}}"#, "a.b").unwrap_err().contains("`a.b` is null"));
        assert_eq!(text(r#"{"": {"": "x"}}"#, ".").unwrap(), "x");
    }
}
