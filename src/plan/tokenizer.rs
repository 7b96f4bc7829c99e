//! The tokenizer of a model on the hub, pinned to a commit and downloaded.

use anyhow::{Context, Result};

use super::hub_pins::{Pins, pin_model};
use super::inputs::NetworkAccess;
use oss_config::{Hub, TokenizerChoice};
use oss_data::Tokenizer;
use oss_data::sources::Identity;
use oss_runs::run_dir::RunsDir;

/// The tokenizer with its revision on the hub replaced by the commit. Others are returned as they are, and so is one
/// whose commit is not known yet if `reach` is local: it cannot be loaded.
///
/// # Errors
/// The model does not exist or has no `tokenizer.json`, or the hub is unreachable.
pub fn located(
    choice: &TokenizerChoice,
    runs: &RunsDir,
    reach: NetworkAccess<'_>,
) -> Result<TokenizerChoice> {
    let Some((repo, revision)) = choice.hub() else { return Ok(choice.clone()) };
    let mut pins = Pins::open(runs);
    let files = vec!["tokenizer.json".to_owned()];
    let named = Hub { repo: format!("tokenizer {repo}"), revision: revision.to_owned(), files };
    let known = match pins.get(&named) {
        Some(Identity::Hub { commit, .. }) => Some(commit),
        _ => None,
    };
    let commit = match (known, reach) {
        (Some(commit), NetworkAccess::Local(_)) => commit,
        (None, NetworkAccess::Local(_)) => return Ok(choice.clone()),
        (known, NetworkAccess::Hub(watch)) => {
            let context = || format!("cannot load dataset.tokenizer = \"{repo}@{revision}\"");
            let revision = known.as_deref().unwrap_or(revision);
            let model = pin_model(repo, revision, "tokenizer.json", watch).with_context(context)?;
            Tokenizer::download(&model, watch).with_context(context)?;
            let (repo, commit, files) = (named.repo.clone(), model.commit().to_owned(), named.files.clone());
            pins.set(&named, Identity::Hub { repo, commit: commit.clone(), files });
            pins.save()?;
            commit
        }
    };
    Ok(TokenizerChoice::Named(format!("{repo}@{commit}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_data::sources::Watch;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_plan_uses_the_pinned_commit_of_a_tokenizer() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let local = |name: &str| {
            let choice = TokenizerChoice::Named(name.to_owned());
            located(&choice, &runs, NetworkAccess::Local(Watch::quiet())).unwrap()
        };
        let named = |name: &str| TokenizerChoice::Named(name.to_owned());
        for name in ["bytes", "/t/tokenizer.json", "/t", "o/n"] {
            assert_eq!(local(name), named(name));
        }
        let mut pins = Pins::open(&runs);
        let files = vec!["tokenizer.json".to_owned()];
        let hub = Hub { repo: "tokenizer o/n".into(), revision: "main".into(), files: files.clone() };
        pins.set(&hub, Identity::Hub { repo: hub.repo.clone(), commit: COMMIT.into(), files });
        pins.save().unwrap();
        let pinned = named(&format!("o/n@{COMMIT}"));
        assert_eq!(local("o/n"), pinned);
        assert_eq!(local(&format!("o/n@{COMMIT}")), pinned);
        assert_eq!(local("o/n@v2"), named("o/n@v2"));
    }
}
