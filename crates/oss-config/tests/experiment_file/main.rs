//! The experiment file through the public API: layers, provenance and errors.

mod errors;
mod familiar;
mod layers;
mod round_trip;
mod sweeps;
mod typos;

use std::{fs, path::PathBuf};

use oss_config::{ExperimentErrors, Overrides, Resolved, load};
use tempfile::TempDir;

/// A directory with experiment files, loaded without environment variables.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(TempDir::new().expect("a temporary folder"));
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for the file");
        fs::write(path, text).expect("the file is written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().expect("the folder exists").join(name)
    }

    fn load(&self, name: &str, set: &[&str]) -> Result<Resolved, ExperimentErrors> {
        let set = set.iter().map(|argument| (*argument).to_owned()).collect();
        load(&self.path(name), &Overrides { set, ..Overrides::default() })
    }

    fn unset(&self, name: &str, unset: &[&str], set: &[&str]) -> Result<Resolved, ExperimentErrors> {
        let owned = |arguments: &[&str]| arguments.iter().map(|argument| (*argument).to_owned()).collect();
        load(&self.path(name), &Overrides { set: owned(set), unset: owned(unset), environment: false })
    }

    /// Removes this directory's changing path from `text`.
    fn plain(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path("").display()).replace("//", "/"), "")
    }
}

/// The problems of one file, rendered without color.
fn rendered(text: &str, set: &[&str]) -> String {
    let folder = Folder::new(&[("experiment.toml", text)]);
    let errors = folder.load("experiment.toml", set).expect_err("the file is wrong");
    folder.plain(&errors.render(false, 110))
}

/// `line:column: message; fix` of each problem of one file.
fn listed(text: &str, set: &[&str]) -> Vec<String> {
    let folder = Folder::new(&[("experiment.toml", text)]);
    let errors = folder.load("experiment.toml", set).expect_err("the file is wrong");
    errors.problems().iter().map(|problem| folder.plain(&problem.to_string())).collect()
}
