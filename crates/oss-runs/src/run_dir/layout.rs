//! Paths of a run's files. No other module hard-codes these names.
//!
//! ```text
//! runs/
//!   .prepared/<key>/          tokens, shared by all runs with the same data, tokenizer and split
//!   .reproduced/<name>/<id>/  runs repeated for comparison; they share the tokens
//!   <name>/<run id>/
//!     manifest.json           what the run is and what happened to it
//!     manifest.previous.json  the previous version, in case the manifest is damaged
//!     experiment.toml         the resolved experiment: running it again gives the same run
//!     metrics.jsonl           one line per logged step
//!     tensorboard/            the same, for TensorBoard
//!     environment/            diffs of the working tree against its commit
//!     logs/rank-0.log         one file per rank
//!     checkpoints/            step-<step>/, one directory each
//!     evaluation.json         validation loss of the last checkpoint
//!     samples/                generated texts, during training (step-<step>.json) and at the end (final.json)
//!     export/                 the exported model
//!     report.html             the report
//!     .lock                   held while the run is being written
//!   <name>/.<run id>.removed-*/  a run being deleted, or left half-deleted by a dead process
//!   <name>/sweep/             the trials of a sweep
//! ```

use oss_config::error::{UserError, user_errors};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One run's directory. It need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

/// A run directory cannot be created or written.
#[derive(Debug)]
pub struct CreateError {
    path: PathBuf,
    source: io::Error,
}

impl From<CreateError> for UserError {
    fn from(error: CreateError) -> Self {
        let CreateError { path, source } = error;
        Self::failed(format!("cannot write to {}", path.display()))
            .hint("choose another directory with --runs-dir, or make this one writable")
            .because(source)
    }
}

user_errors!(CreateError);

impl RunDir {
    /// The run at `root`, which is `runs/<name>/<run id>`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The run's ID: the name of the directory.
    pub fn id(&self) -> String {
        self.root.file_name().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The experiment's name: the name of the parent directory.
    pub fn name(&self) -> String {
        let folder = self.root.parent().and_then(Path::file_name);
        folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The directory of all runs that contains this one, whose prepared data it uses.
    ///
    /// # Errors
    /// If the working directory no longer exists.
    pub fn runs(&self) -> io::Result<RunsDir> {
        let root = std::path::absolute(&self.root)?;
        Ok(RunsDir::new(root.ancestors().nth(2).unwrap_or(&root)))
    }

    /// What the run is and what happened to it. A directory with this file is a run.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    /// The previous version of the manifest, in case it is damaged.
    pub fn previous_manifest(&self) -> PathBuf {
        self.root.join("manifest.previous.json")
    }

    /// The resolved experiment.
    pub fn experiment_toml(&self) -> PathBuf {
        self.root.join("experiment.toml")
    }

    /// One JSON line per logged step.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// The diff of the working tree against its commit, by digest.
    pub fn diff(&self, digest: &str) -> PathBuf {
        self.root.join("environment").join(format!("{digest}.diff"))
    }

    /// The logs of all ranks.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The log of one rank.
    pub fn log(&self, rank: usize) -> PathBuf {
        self.logs().join(format!("rank-{rank}.log"))
    }

    /// The directory of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Checkpoints that are about to be replaced because training was restarted.
    pub fn replaced_checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints.replaced")
    }

    /// The directory of the samples.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// The samples generated after `step` steps of training.
    pub fn samples_at(&self, step: u64) -> PathBuf {
        self.samples().join(format!("step-{step:08}.json"))
    }

    /// All files named by [`Self::samples_at`], in step order; none if the directory cannot be read.
    pub fn step_samples(&self) -> Vec<(u64, PathBuf)> {
        let entries = fs::read_dir(self.samples()).into_iter().flatten().filter_map(Result::ok);
        let mut found: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let step = name.to_str()?.strip_prefix("step-")?.strip_suffix(".json")?.parse().ok()?;
                Some((step, entry.path()))
            })
            .collect();
        found.sort();
        found
    }

    /// The samples of the finished model.
    pub fn final_samples(&self) -> PathBuf {
        self.samples().join("final.json")
    }

    /// The validation loss of the last checkpoint.
    pub fn evaluation(&self) -> PathBuf {
        self.root.join("evaluation.json")
    }

    /// The exported model.
    pub fn export(&self) -> PathBuf {
        self.root.join("export")
    }

    /// The report on this run.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The file locked by [`RunDir::lock_for_writing`].
    pub fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// Whether a run was started here.
    pub fn exists(&self) -> bool {
        self.manifest().is_file()
    }

    /// Creates the directory and the subdirectories of every run, and verifies that files can be written there.
    ///
    /// # Errors
    /// If a directory cannot be created or written; the error names it.
    pub fn create(&self) -> Result<(), CreateError> {
        for dir in [self.root.clone(), self.tensorboard(), self.logs(), self.checkpoints(), self.samples()] {
            fs::create_dir_all(&dir)
                .and_then(|()| tempfile::tempfile_in(&dir).map(drop))
                .map_err(|source| CreateError { path: dir, source })?;
        }
        Ok(())
    }
}

/// Name of the directory of runs repeated for comparison.
const REPRODUCED: &str = ".reproduced";

/// The directory of all runs: `runs/`, or the argument of `--runs-dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunsDir {
    root: PathBuf,
}

impl RunsDir {
    /// The runs under `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The run `id` of the experiment `name`.
    pub fn run(&self, name: &str, id: &str) -> RunDir {
        RunDir::new(self.root.join(name).join(id))
    }

    /// The run that `--new` starts: `<id>`, or `<id>-2`, `<id>-3`... if the previous ones exist.
    pub fn new_run(&self, name: &str, id: &str) -> RunDir {
        let mut run = self.run(name, id);
        let mut copy = 2;
        while run.root().exists() {
            run = self.run(name, &format!("{id}-{copy}"));
            copy += 1;
        }
        run
    }

    /// Tokens prepared under `key`, shared between runs.
    pub fn prepared(&self, key: &str) -> PathBuf {
        self.all_prepared().join(key)
    }

    /// The directory of all prepared data.
    pub fn all_prepared(&self) -> PathBuf {
        let shared = match self.root.parent() {
            Some(runs) if self.root.ends_with(REPRODUCED) => runs,
            _ => &self.root,
        };
        shared.join(".prepared")
    }

    /// Where runs of this directory are repeated; no command treats those as ordinary runs.
    pub fn reproductions(&self) -> Self {
        Self::new(self.root.join(REPRODUCED))
    }

    /// The tokenizer with this digest, trained on the text of the runs that share it.
    pub fn trained_tokenizer(&self, digest: &str) -> PathBuf {
        self.prepared(&format!("tokenizer-{digest}"))
    }

    /// The directories of the experiments.
    pub(super) fn names(&self) -> io::Result<Vec<PathBuf>> {
        folders(&self.root)
    }

    /// Directories created for runs that never wrote a manifest.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn unstarted(&self) -> io::Result<Vec<RunDir>> {
        let mut unstarted = Vec::new();
        for name in self.names()? {
            let runs = folders(&name)?.into_iter().map(RunDir::new);
            unstarted.extend(runs.filter(|run| !run.exists() && run.lock().is_file()));
        }
        unstarted.sort_by(|a, b| a.root.cmp(&b.root));
        Ok(unstarted)
    }

    /// Every run, ordered by path.
    ///
    /// # Errors
    /// If a directory cannot be read. A missing `runs/` is not an error: there are no runs.
    pub fn list(&self) -> io::Result<Vec<RunDir>> {
        let mut runs = Vec::new();
        for name in self.names()? {
            runs.extend(folders(&name)?.into_iter().map(RunDir::new).filter(RunDir::exists));
        }
        runs.sort_by(|a, b| a.root.cmp(&b.root));
        Ok(runs)
    }
}

/// The directories in `dir` that are not hidden; none if `dir` does not exist.
fn folders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') && entry.path().is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;

    #[test]
    fn all_files_are_under_the_run() {
        let run = RunsDir::new("runs").run("tiny", "0123456789");
        assert_eq!(run.root(), Path::new("runs/tiny/0123456789"));
        assert_eq!(run.id(), "0123456789");
        assert_eq!(run.log(3), Path::new("runs/tiny/0123456789/logs/rank-3.log"));
        for path in [
            run.manifest(),
            run.experiment_toml(),
            run.metrics(),
            run.tensorboard(),
            run.checkpoints(),
            run.samples(),
            run.export(),
            run.report(),
            run.lock(),
        ] {
            assert!(path.starts_with(run.root()), "{}", path.display());
        }
    }

    #[test]
    fn a_folder_without_a_manifest_is_not_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        assert!(runs.list().unwrap().is_empty());
        let run = runs.run("tiny", "aa");
        run.create().unwrap();
        runs.run("tiny", "bb").create().unwrap();
        fs::create_dir_all(runs.prepared("cc")).unwrap();
        fs::write(run.manifest(), "{}").unwrap();
        assert_eq!(runs.list().unwrap(), [run]);
    }

    #[test]
    fn reproductions_share_tokens_but_are_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let again = runs.reproductions();
        assert_eq!(again.prepared("k"), runs.prepared("k"));
        let run = again.run("tiny", "aa");
        run.create().unwrap();
        fs::write(run.manifest(), "{}").unwrap();
        assert_eq!(again.list().unwrap(), [run]);
        assert!(runs.list().unwrap().is_empty());
    }

    #[test]
    fn a_missing_runs_directory_has_no_runs() {
        assert!(RunsDir::new("/nowhere/runs").list().unwrap().is_empty());
    }

    #[test]
    fn a_new_run_takes_the_next_free_id() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        for id in ["aa", "aa-2", "aa-3"] {
            let run = runs.new_run("tiny", "aa");
            assert_eq!(run.id(), id);
            run.create().unwrap();
        }
    }

    #[test]
    fn an_unwritable_place_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tiny"), "a file, not a folder").unwrap();
        let error = RunsDir::new(dir.path()).run("tiny", "aa").create().unwrap_err();
        let report = ErrorReport::of(error);
        assert!(
            report.message.contains("tiny/aa") && report.hints[0].starts_with("choose another directory"),
            "{report}"
        );
    }
}
