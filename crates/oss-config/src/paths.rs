//! Paths in an experiment are relative to the directory of the file that names them.

use std::{
    env,
    path::{Component, Path, PathBuf},
};

use super::TOKENIZERS;
use super::document::{Data, Node, Table};
use super::url::is_url;

/// Makes the paths of a layer absolute; `base` is absolute.
pub(super) fn resolve(root: &mut Table, base: &Path) {
    if let Some(dataset) = table(root, "dataset") {
        origin(dataset, base);
        if let Some(validation) = table(dataset, "validation") {
            origin(validation, base);
        }
        if let Some(Data::List(sources)) = dataset.get_mut("source").map(|node| &mut node.data) {
            for source in sources {
                if let Data::Table(source) = &mut source.data {
                    origin(source, base);
                }
            }
        }
        let is_folder = |name: &str| !TOKENIZERS.contains(&name) && base.join(name).is_dir();
        text(dataset, "tokenizer", base, |name| {
            !is_url(name) && (name.ends_with(".json") || looks_like_a_path(name, base) || is_folder(name))
        });
    }
    if let Some(model) = table(root, "model") {
        text(model, "init_from", base, |name| looks_like_a_path(name, base));
    }
}

/// Whether `init_from` or `tokenizer` names a local path: it starts like one, is deeper than a Hub ID (`owner/name`,
/// perhaps with `@revision`), or looks like a Hub ID but exists.
fn looks_like_a_path(name: &str, base: &Path) -> bool {
    if is_url(name) {
        return false;
    }
    let starts_like_one = name.starts_with(['/', '~']) || name.starts_with("./") || name.starts_with("../");
    let id = name.split('@').next().unwrap_or(name);
    let slashes = id.matches('/').count();
    starts_like_one || slashes > 1 || (slashes == 1 && base.join(name).exists())
}

/// `path` (or a glob pattern) relative to `base`: absolute, without `.` and leading `..`; `~` is the home directory.
pub(super) fn absolute(path: &str, base: &Path) -> String {
    let home = path.strip_prefix("~/").and_then(|rest| Some(env::home_dir()?.join(rest)));
    let path = home.unwrap_or_else(|| PathBuf::from(path));
    let mut full = if path.is_absolute() { PathBuf::new() } else { base.to_owned() };
    let mut climbing = !path.is_absolute();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // `base` has no symbolic links, so its parent is what `..` means; beyond that, only the system can tell.
            Component::ParentDir if climbing => {
                full.pop();
            }
            other => {
                climbing = false;
                full.push(other);
            }
        }
    }
    full.to_string_lossy().into_owned()
}

fn table<'a>(parent: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    match &mut parent.get_mut(name)?.data {
        Data::Table(table) => Some(table),
        _ => None,
    }
}

fn origin(table: &mut Table, base: &Path) {
    if let Some(Data::List(files)) = table.get_mut("files").map(|node| &mut node.data) {
        for Node { data, .. } in files {
            if let Data::Text(file) = data
                && !file.is_empty()
                && !is_url(file)
            {
                *file = absolute(file, base);
            }
        }
    }
}

fn text(table: &mut Table, key: &str, base: &Path, is_path: impl Fn(&str) -> bool) {
    if let Some(Data::Text(name)) = table.get_mut(key).map(|node| &mut node.data)
        && is_path(name)
    {
        *name = absolute(name, base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_from_the_folder_of_the_file() {
        let base = Path::new("/home/me/experiments");
        assert_eq!(absolute("a/*.txt", base), "/home/me/experiments/a/*.txt");
        assert_eq!(absolute("./a.txt", base), "/home/me/experiments/a.txt");
        assert_eq!(absolute("../../data/a.txt", base), "/home/data/a.txt");
        assert_eq!(absolute("link/../a.txt", base), "/home/me/experiments/link/../a.txt");
        assert_eq!(absolute("/data/a.txt", base), "/data/a.txt");
    }

    #[test]
    fn a_tokenizer_may_be_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("own/llama")).unwrap();
        std::fs::create_dir(dir.path().join("bytes")).unwrap();
        let resolved = |name: &str| {
            let file = dir.path().join("e.toml");
            std::fs::write(&file, format!("dataset = {{ builtin = \"stories\", tokenizer = \"{name}\" }}"))
                .unwrap();
            let loaded = crate::load(&file, &crate::Overrides::default()).unwrap();
            loaded.experiment.dataset.tokenizer
        };
        let base = dir.path().canonicalize().unwrap();
        for (name, path) in [("own", "own"), ("own/llama", "own/llama"), ("./x", "x"), ("t.json", "t.json")] {
            assert_eq!(resolved(name).path(), Some(base.join(path)), "{name}");
        }
        assert_eq!(resolved("bytes").path(), None);
        assert_eq!(resolved("o/n").hub(), Some(("o/n", "main")));
        assert_eq!(resolved("o/n@refs/pr/1").hub(), Some(("o/n", "refs/pr/1")));
    }

    #[test]
    fn hub_ids_and_run_names_are_not_paths() {
        let base = Path::new("/nowhere");
        for id in ["openai/gpt-oss-20b", "openai/gpt-oss-20b@refs/pr/1", "last", "3f2a"] {
            assert!(!looks_like_a_path(id, base), "{id}");
        }
        for path in ["./m", "../m", "/m", "~/m", "runs/quickstart/3f2a"] {
            assert!(looks_like_a_path(path, base), "{path}");
        }
    }
}
