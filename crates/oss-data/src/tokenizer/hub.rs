//! Tokenizers of models on the Hub, from the cache shared with other clients.

use std::path::PathBuf;

use anyhow::Result;

use super::TokenizerError;
use crate::sources::Watch;
use crate::sources::hub::{Hub, HubConfig, HubError, Pinned, Repository};

/// The file that defines the tokenizer.
const TOKENIZER: &str = "tokenizer.json";

/// Files that may name its end-of-text token.
const BESIDE: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// Downloads the files of a tokenizer that are not in the cache yet. If all are, sends no request.
///
/// # Errors
/// Those of [`Pinned::fetch`]; there is no `tokenizer.json`.
pub(super) fn download(model: &Pinned, watch: Watch<'_>) -> Result<()> {
    let snapshot = model.snapshot();
    if [TOKENIZER, BESIDE[0]].iter().all(|file| snapshot.join(file).exists()) {
        return Ok(());
    }
    let listed = model.list(watch)?;
    let repo = model.repository().name();
    if !listed.iter().any(|file| file == TOKENIZER) {
        return Err(TokenizerError::NotInRepository { repo: repo.into() }.into());
    }
    // Last, so that a tokenizer in the cache has what belongs to it.
    let files = BESIDE.into_iter().chain([TOKENIZER]);
    for file in files.filter(|&file| listed.iter().any(|name| name == file)) {
        model.fetch(file, watch)?;
    }
    Ok(())
}

/// The `tokenizer.json` of a model in the cache. Sends no request.
///
/// # Errors
/// The revision is not a commit, or the file is not in the cache.
pub(super) fn downloaded(repo: &str, revision: &str) -> Result<PathBuf, TokenizerError> {
    find(repo, revision, HubConfig::from_env())
        .ok()
        .flatten()
        .ok_or_else(|| TokenizerError::NotDownloaded { repo: repo.into(), revision: revision.into() })
}

fn find(repo: &str, revision: &str, config: HubConfig) -> Result<Option<PathBuf>, HubError> {
    let repository = Repository::model(repo, revision)?;
    let path = Hub::new(config)?.snapshot(&repository).map(|snapshot| snapshot.join(TOKENIZER));
    Ok(path.filter(|path| path.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_commit_is_found_in_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let config = || HubConfig { cache: cache.path().into(), offline: true, ..HubConfig::from_env() };
        assert_eq!(find("o/n", COMMIT, config()).unwrap(), None);
        let snapshot = cache.path().join("models--o--n/snapshots").join(COMMIT);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(snapshot.join(TOKENIZER), "{}").unwrap();
        assert_eq!(find("o/n", COMMIT, config()).unwrap(), Some(snapshot.join(TOKENIZER)));
        // A branch has to be pinned first.
        assert_eq!(find("o/n", "main", config()).unwrap(), None);
    }
}
