//! Detects secrets in files by their form.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::redact::{REDACTED, redact};

/// Tokens of well-known services, in full.
const TOKENS: &str = concat!(
    r"\b(?:hf_[A-Za-z0-9]{16,}",               // Hugging Face
    r"|gh[pousr]_[A-Za-z0-9]{30,}",            // GitHub
    r"|github_pat_[A-Za-z0-9_]{30,}",          //
    r"|glpat-[A-Za-z0-9_-]{16,}",              // GitLab
    r"|sk-[A-Za-z0-9_-]{20,}",                 // OpenAI and others
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}",             // AWS
    r"|AIza[0-9A-Za-z_-]{35}",                 // Google
    r"|xox[abprs]-[A-Za-z0-9-]{10,}",          // Slack
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}", // JSON web tokens
    r")"
);

/// An assignment to a name that suggests a secret, with a value of a certain length.
const ASSIGNMENTS: &str = concat!(
    r"(?i)((?:password|passwd|secret|token|api_?key|access_?key|secret_?key|credentials?)[\x22']?\s*[:=]\s*)",
    r"(?:\x22[^\x22\n]{8,}\x22|'[^'\n]{8,}'|[^\s\x22',;]{8,})",
);

/// The body of a private key; in a diff, its lines begin with a sign.
const PRIVATE_KEYS: &str =
    r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|\z)";

static PATTERNS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    [PRIVATE_KEYS, ASSIGNMENTS, TOKENS].map(|pattern| Regex::new(pattern).expect("a test compiles them all"))
});

/// Returns `text` with the values of likely secrets replaced, including those known to [`redact`]. Line breaks are
/// kept.
pub(super) fn without_secrets(text: &str) -> String {
    let [keys, assignments, tokens] = &*PATTERNS;
    let text = redact(text);
    let text =
        keys.replace_all(&text, |found: &Captures<'_>| format!("{}\n{REDACTED}\n{}", &found[1], &found[2]));
    let text = assignments.replace_all(&text, |found: &Captures<'_>| {
        let value = &found[0][found[1].len()..];
        let quote =
            value.chars().next().filter(|c| matches!(c, '"' | '\'')).map_or(String::new(), String::from);
        format!("{}{quote}{REDACTED}{quote}", &found[1])
    });
    tokens.replace_all(&text, REDACTED).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_and_line_breaks_kept() {
        for (text, expected) in [
            ("+token = \"abcdefgh12345\"", "+token = \"[redacted]\""),
            ("-  'api_key': 'abcdefgh12345',", "-  'api_key': '[redacted]',"),
            ("export AWS_SECRET_ACCESS_KEY=abcd/efgh+1234", "export AWS_SECRET_ACCESS_KEY=[redacted]"),
            ("see hf_abcdefghijklmnopqrst for it", "see [redacted] for it"),
            ("AKIAABCDEFGHIJKLMNOP", "[redacted]"),
            ("https://me:word@host.example/x", "https://[redacted]@host.example/x"),
            (
                "+-----BEGIN RSA PRIVATE KEY-----\n+MIIEow\n+abc\n+-----END RSA PRIVATE KEY-----\n+after",
                "+-----BEGIN RSA PRIVATE KEY-----\n[redacted]\n-----END RSA PRIVATE KEY-----\n+after",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMII", "-----BEGIN PRIVATE KEY-----\n[redacted]\n"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn ordinary_code_is_unchanged() {
        for text in [
            "+max_tokens = 1234567890",
            "+tokenizer = \"o200k_harmony\"",
            "let end_of_text = tokenizer.end_of_text();",
            "password: x",
            "task-id sk-short",
            "lr = 3e-4",
        ] {
            assert_eq!(without_secrets(text), text);
        }
    }
}
