//! Experiment files in other formats: none can be read, but the error says which one it is.

use std::path::Path;

/// The format of a file that is not TOML, by its extension or its text; `None` if it looks like TOML.
pub(super) fn format(path: &Path, text: &str) -> Option<&'static str> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => return Some("YAML"),
        Some("json" | "jsonc" | "json5") => return Some("JSON"),
        _ => {}
    }
    let first = text.lines().map(str::trim_end).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let is_mapping = |line: &str| {
        let key = line.split_once(':').filter(|(_, value)| value.is_empty() || value.starts_with(' '));
        key.is_some_and(|(key, _)| {
            !key.is_empty() && key.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
        })
    };
    match first {
        _ if first.starts_with('{') => Some("JSON"),
        "---" => Some("YAML"),
        _ if is_mapping(first) => Some("YAML"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_name_or_text() {
        for (path, text, expected) in [
            ("a.yaml", "", Some("YAML")),
            ("a.json", "{}", Some("JSON")),
            ("a.toml", "# mine\n\ntrain:\n  steps: 3\n", Some("YAML")),
            ("a.toml", "steps: 3", Some("YAML")),
            ("a.toml", "---\ntrain:", Some("YAML")),
            ("a.toml", "{\"train\": {}}", Some("JSON")),
            ("a.toml", "[train]\nsteps: 3", None),
            ("a.toml", "steps = 3\nname = \"a: b\" x", None),
        ] {
            assert_eq!(format(Path::new(path), text), expected, "{path}: {text}");
        }
    }
}
