//! URLs where a path or a name on the Hub belongs.

/// What a URL stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Files of text.
    Text,
    /// A dataset on the Hub, by name.
    Dataset,
    /// A model or a tokenizer: a directory, or a model on the Hub by name.
    Model,
    /// An experiment file.
    Experiment,
}

/// Whether `text` is a URL, such as `s3://bucket/file`.
pub(super) fn is_url(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
    };
    text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// If `text` is a URL: what is wrong, and what to write instead.
pub fn url_problem(text: &str, wanted: Wanted) -> Option<(String, String)> {
    if !is_url(text) {
        return None;
    }
    let message = match wanted {
        Wanted::Text | Wanted::Experiment => format!("{text} is a URL, not a local file"),
        Wanted::Dataset => format!("{text} is a URL, not the name of a dataset on the Hub"),
        Wanted::Model => format!("{text} is a URL, not a directory or the name of a model on the Hub"),
    };
    Some((message, fix(text, wanted)))
}

fn fix(url: &str, wanted: Wanted) -> String {
    if let Some(named) = Named::of(url) {
        match (wanted, named.is_dataset) {
            (Wanted::Text, true) => {
                let Named { repo, revision, file, .. } = named;
                let revision =
                    revision.map(|revision| format!(", revision = {revision:?}")).unwrap_or_default();
                let file = file.unwrap_or_else(|| "...".to_owned());
                return format!("write hub = {{ repo = {repo:?}, files = [{file:?}]{revision} }}");
            }
            (Wanted::Dataset, true) => return format!("write {:?}", named.repo),
            (Wanted::Model, false) => {
                let revision = named.revision.map(|revision| format!("@{revision}")).unwrap_or_default();
                return format!("write \"{}{revision}\"", named.repo);
            }
            _ => {}
        }
    }
    let download = match url.split("://").next().unwrap_or_default() {
        "file" => return format!("write its path, {}", url.trim_start_matches("file://")),
        "s3" => format!("aws s3 cp {url} ."),
        "gs" => format!("gcloud storage cp {url} ."),
        "http" | "https" | "ftp" => format!("curl -LO {url}"),
        _ => return "copy it to this machine, and write its path".to_owned(),
    };
    match wanted {
        Wanted::Model => "download it to a directory, and write its path".to_owned(),
        Wanted::Dataset => "download its files, and name them in dataset.files".to_owned(),
        Wanted::Text | Wanted::Experiment => format!("download it with `{download}`, and write its path"),
    }
}

/// A repository on the Hub, as a URL names it.
struct Named {
    is_dataset: bool,
    repo: String,
    revision: Option<String>,
    file: Option<String>,
}

impl Named {
    /// `hf://datasets/owner/name@revision/file`, or the address of its page.
    fn of(url: &str) -> Option<Self> {
        let sites = ["https://huggingface.co/", "https://hf.co/", "http://huggingface.co/", "http://hf.co/"];
        let page = sites.iter().find_map(|site| url.strip_prefix(site));
        let rest = page.or_else(|| url.strip_prefix("hf://"))?;
        let (is_dataset, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let mut parts = rest.split('/').filter(|part| !part.is_empty());
        let (owner, name) = (parts.next()?, parts.next());
        let (name, mut revision) = match name.map(|name| name.split_once('@').unwrap_or((name, ""))) {
            Some((name, revision)) => (format!("{owner}/{name}"), revision),
            None => (owner.to_owned(), ""),
        };
        // huggingface.co/owner/name/blob/main/file
        if page.is_some() && parts.next().is_some() {
            revision = parts.next().unwrap_or_default();
        }
        let file = parts.collect::<Vec<_>>().join("/");
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let revision = some(revision).filter(|revision| revision != "main");
        Some(Self { is_dataset, repo: name, revision, file: some(&file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_names_and_paths() {
        for url in ["s3://b/x", "https://a.b/c", "hf://o/n", "file:///x"] {
            assert!(is_url(url), "{url}");
        }
        for text in ["owner/name", "/a://b", "a.txt", "C:/x", "://", "a b://c"] {
            assert!(!is_url(text), "{text}");
        }
    }

    #[test]
    fn each_url_gets_what_to_write_instead() {
        for (url, wanted, fix) in [
            ("s3://b/x.txt", Wanted::Text, "download it with `aws s3 cp s3://b/x.txt .`, and write its path"),
            (
                "https://a.b/c.toml",
                Wanted::Experiment,
                "download it with `curl -LO https://a.b/c.toml`, and write its path",
            ),
            ("file:///tmp/a.txt", Wanted::Text, "write its path, /tmp/a.txt"),
            ("abfs://c/x", Wanted::Text, "copy it to this machine, and write its path"),
            (
                "hf://datasets/roneneldan/TinyStories/a/x.txt",
                Wanted::Text,
                "write hub = { repo = \"roneneldan/TinyStories\", files = [\"a/x.txt\"] }",
            ),
            (
                "https://huggingface.co/datasets/o/n/resolve/v2/x.parquet",
                Wanted::Text,
                "write hub = { repo = \"o/n\", files = [\"x.parquet\"], revision = \"v2\" }",
            ),
            ("https://huggingface.co/datasets/o/n", Wanted::Dataset, "write \"o/n\""),
            (
                "https://huggingface.co/openai/gpt-oss-20b/tree/main",
                Wanted::Model,
                "write \"openai/gpt-oss-20b\"",
            ),
            ("hf://gpt2", Wanted::Model, "write \"gpt2\""),
            ("hf://o/n@v1", Wanted::Model, "write \"o/n@v1\""),
            ("s3://b/m", Wanted::Model, "download it to a directory, and write its path"),
        ] {
            assert_eq!(url_problem(url, wanted).unwrap().1, fix, "{url}");
        }
    }
}
