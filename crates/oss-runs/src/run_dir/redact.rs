//! Redacts secrets from text before it is stored or shown.

use std::borrow::Cow;
use std::sync::{LazyLock, PoisonError, RwLock};

/// Environment variables whose values never leave the process.
const SECRET_VARIABLES: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

/// The replacement for a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Known secrets: those of the environment, and those that [`protect`] added.
static SECRETS: LazyLock<RwLock<Vec<String>>> = LazyLock::new(|| {
    RwLock::new(
        SECRET_VARIABLES.iter().filter_map(|name| std::env::var(name).ok()).filter_map(secret).collect(),
    )
});

/// Adds a secret from another source, such as a token read from a file, to those that [`redact`] removes.
pub fn protect(value: &str) {
    let Some(value) = secret(value.to_owned()) else { return };
    let mut secrets = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    if !secrets.contains(&value) {
        secrets.push(value);
    }
}

/// Returns `text` without the values of `HF_TOKEN` and `HUGGING_FACE_HUB_TOKEN`, without anything passed to
/// [`protect`], and without the `user:password@` of URLs.
pub fn redact(text: &str) -> String {
    let secrets = SECRETS.read().unwrap_or_else(PoisonError::into_inner);
    let mut text = Cow::Borrowed(text);
    for secret in secrets.iter() {
        if text.contains(secret.as_str()) {
            text = Cow::Owned(text.replace(secret.as_str(), REDACTED));
        }
    }
    without_url_credentials(&text)
}

/// Whether a value is worth hiding. Very short values cannot be tokens, and would blank out innocent text.
fn secret(value: String) -> Option<String> {
    let value = value.trim();
    (value.len() >= 4).then(|| value.to_owned())
}

/// Replaces the user information in URLs: what is between `://` and `@`.
fn without_url_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme_end) = rest.find("://") {
        let (before, after) = rest.split_at(scheme_end + 3);
        out.push_str(before);
        let authority_end = after
            .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>') || c.is_whitespace())
            .unwrap_or(after.len());
        // The last `@`: a password may contain others.
        rest = match after[..authority_end].rfind('@') {
            Some(at) => {
                out.push_str(REDACTED);
                &after[at..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_url_credentials_are_redacted() {
        for (text, expected) in [
            (
                "get https://me:pa@ss@hub.example/a?b=c@d now",
                "get https://[redacted]@hub.example/a?b=c@d now",
            ),
            ("https://token@hub.example", "https://[redacted]@hub.example"),
            ("two http://a:b@c, ftp://d:e@f", "two http://[redacted]@c, ftp://[redacted]@f"),
            ("https://hub.example/user@revision", "https://hub.example/user@revision"),
            ("mail me@example.com", "mail me@example.com"),
            ("ends with ://", "ends with ://"),
            ("", ""),
        ] {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn protected_values_are_redacted_everywhere() {
        protect(" canary-5f2c \n");
        assert_eq!(redact("Bearer canary-5f2c: canary-5f2c"), "Bearer [redacted]: [redacted]");
        protect("a");
        assert_eq!(redact("a cat"), "a cat");
    }
}
