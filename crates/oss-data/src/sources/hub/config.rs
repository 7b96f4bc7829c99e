//! Address, credentials and cache of the Hub: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and related variables.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A secret; it is displayed as `<hidden>` and used only in request headers.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token without surrounding whitespace; `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// The secret itself.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("<hidden>")
    }
}

/// How to access the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Address of the Hub, without a trailing slash.
    pub endpoint: String,
    /// Sent to the endpoint, and to no other host.
    pub token: Option<Token>,
    /// Cache directory (`HF_HOME/hub`), in the layout shared by Hugging Face clients.
    pub cache: PathBuf,
    /// Use only the cache.
    pub offline: bool,
    /// Number of retries after transient failures (429, 5xx, broken connections). A download that makes progress
    /// restarts the count.
    pub retries: u32,
    /// Delay before the first retry; it doubles with each retry.
    pub backoff: Duration,
    /// Timeout for a response of the Hub.
    pub timeout: Duration,
}

impl HubConfig {
    /// Reads the configuration from the environment.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// Reads the configuration from the variables that `get` returns: `HF_ENDPOINT`, `HF_TOKEN` (or a token file:
    /// `HF_TOKEN_PATH`, else `HF_HOME/token`), `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, and `XDG_CACHE_HOME` and
    /// `HOME` for the default of `HF_HOME`.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let folder = |name: &str| get(name).map(PathBuf::from);
        let home = folder("HF_HOME").unwrap_or_else(|| {
            let user = || folder("HOME").unwrap_or_else(std::env::temp_dir).join(".cache");
            folder("XDG_CACHE_HOME").unwrap_or_else(user).join("huggingface")
        });
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let stored_token = || std::fs::read_to_string(token_file).ok();
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            token: get("HF_TOKEN").or_else(stored_token).as_deref().and_then(Token::new),
            cache: folder("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            offline: get("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            retries: 5,
            backoff: Duration::from_secs(1),
            timeout: Duration::from_secs(60),
        }
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> HubConfig {
        HubConfig::from_variables(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn variables_are_honored() {
        let config = of(&[
            ("HF_ENDPOINT", "http://127.0.0.1:9/"),
            ("HF_TOKEN", " secret\n"),
            ("HF_HOME", "/data/hf"),
            ("HF_HUB_OFFLINE", "1"),
        ]);
        assert_eq!(config.endpoint, "http://127.0.0.1:9");
        assert_eq!(config.cache, PathBuf::from("/data/hf/hub"));
        assert_eq!(config.token, Token::new("secret"));
        assert!(config.offline);
        let config = of(&[("HOME", "/home/ann")]);
        assert_eq!(config.cache, PathBuf::from("/home/ann/.cache/huggingface/hub"));
        assert_eq!(config.endpoint, "https://huggingface.co");
        assert!(config.token.is_none() && !config.offline);
        assert_eq!(of(&[("HF_HUB_CACHE", "/big")]).cache, PathBuf::from("/big"));
    }

    #[test]
    fn a_token_file_is_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        let config = of(&[("HF_HOME", home.path().to_str().unwrap())]);
        assert_eq!(config.token, Token::new("from-file"));
    }

    #[test]
    fn a_token_is_never_shown() {
        let config = of(&[("HF_TOKEN", "canary-2b7e")]);
        assert!(!format!("{config:?}").contains("canary"));
    }
}
