//! Where everything of a run lies. No other file spells these names.
//!
//! ```text
//! runs/
//!   .prepared/<key>/          tokens shared by every run whose data, tokenizer and split are the same
//!   .reproduced/<name>/<id>/  runs that were run again to compare them; they share the tokens
//!   <name>/<run id>/
//!     manifest.json           what the run is and what happened to it
//!     manifest.previous.json  the one before it, for the day that it is damaged
//!     experiment.toml         resolved: running it again gives the same run
//!     metrics.jsonl           one line a logged step
//!     tensorboard/            the same, for TensorBoard
//!     environment/            what a start's working tree differed in from its commit
//!     logs/rank-0.log         one file a rank
//!     checkpoints/            step-<step>/, one folder each
//!     evaluation.json         validation loss of the last checkpoint
//!     samples/                texts that the model wrote, in training (step-<step>.json) and at the end (final.json)
//!     export/                 the model handed on
//!     report.html             what people read afterwards
//!     .lock                   held while somebody writes
//!   <name>/.<run id>.removed-*/  a run that is being deleted, or was when its process died
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

/// A run directory cannot be made or written.
#[derive(Debug)]
pub struct CreateError {
    path: PathBuf,
    source: io::Error,
}

impl From<CreateError> for UserError {
    fn from(error: CreateError) -> Self {
        let CreateError { path, source } = error;
        Self::failed(format!("cannot write to {}", path.display()))
            .hint("give another place with --runs-dir, or free it")
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

    /// The run's id, from the directory's name.
    pub fn id(&self) -> String {
        self.root.file_name().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The experiment's name, from the folder above.
    pub fn name(&self) -> String {
        let folder = self.root.parent().and_then(Path::file_name);
        folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The directory of all runs that this one is in, whose prepared data it uses.
    ///
    /// # Errors
    /// The working directory is gone.
    pub fn runs(&self) -> io::Result<RunsDir> {
        let root = std::path::absolute(&self.root)?;
        Ok(RunsDir::new(root.ancestors().nth(2).unwrap_or(&root)))
    }

    /// What the run is and what happened to it; a directory with this file is a run.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    /// The manifest before the last change, kept against damage.
    pub fn previous_manifest(&self) -> PathBuf {
        self.root.join("manifest.previous.json")
    }

    /// The resolved experiment.
    pub fn experiment_toml(&self) -> PathBuf {
        self.root.join("experiment.toml")
    }

    /// One JSON line a logged step.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// What a working tree differed in from its commit, by digest.
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

    /// The folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Checkpoints that a training started over is about to replace.
    pub fn replaced_checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints.replaced")
    }

    /// The folder of the texts that the model wrote.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// What the model wrote after `step` steps of training.
    pub fn samples_at(&self, step: u64) -> PathBuf {
        self.samples().join(format!("step-{step:08}.json"))
    }

    /// Every file that [`Self::samples_at`] names, in the order of the steps; none where the folder cannot be read.
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

    /// What the finished model wrote.
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

    /// The report about this run.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The file whose lock [`RunDir::lock_for_writing`] takes.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// Whether a run was started here.
    pub fn exists(&self) -> bool {
        self.manifest().is_file()
    }

    /// Makes the directory and the folders that every run has, and proves that files can be written there.
    ///
    /// # Errors
    /// A folder cannot be made or takes no files; the error names it.
    pub fn create(&self) -> Result<(), CreateError> {
        for dir in [self.root.clone(), self.tensorboard(), self.logs(), self.checkpoints(), self.samples()] {
            fs::create_dir_all(&dir)
                .and_then(|()| tempfile::tempfile_in(&dir).map(drop))
                .map_err(|source| CreateError { path: dir, source })?;
        }
        Ok(())
    }
}

/// Name of the folder of runs that were run again.
const REPRODUCED: &str = ".reproduced";

/// The directory of all runs, `runs/` unless `--runs-dir` names another.
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

    /// The run that `--new` starts: `<id>`, or `<id>-2`, `<id>-3`... when those before it exist.
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

    /// The folder of everything that is prepared.
    pub fn all_prepared(&self) -> PathBuf {
        let shared = match self.root.parent() {
            Some(runs) if self.root.ends_with(REPRODUCED) => runs,
            _ => &self.root,
        };
        shared.join(".prepared")
    }

    /// Where runs of this directory are run again: no command takes those for runs of their own.
    pub fn reproductions(&self) -> Self {
        Self::new(self.root.join(REPRODUCED))
    }

    /// The tokenizer of this digest, learnt from the text of the runs that share it.
    pub fn learnt_tokenizer(&self, digest: &str) -> PathBuf {
        self.prepared(&format!("tokenizer-{digest}"))
    }

    /// The folders of the experiments' names.
    pub(super) fn names(&self) -> io::Result<Vec<PathBuf>> {
        folders(&self.root)
    }

    /// Directories that were made for a run which never came to write its manifest.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn unstarted(&self) -> io::Result<Vec<RunDir>> {
        let mut unstarted = Vec::new();
        for name in self.names()? {
            let runs = folders(&name)?.into_iter().map(RunDir::new);
            unstarted.extend(runs.filter(|run| !run.exists() && run.lock().is_file()));
        }
        unstarted.sort_by(|a, b| a.root.cmp(&b.root));
        Ok(unstarted)
    }

    /// Every run, in the order of their paths.
    ///
    /// # Errors
    /// A folder cannot be read. A missing `runs/` is no error: there are no runs.
    pub fn list(&self) -> io::Result<Vec<RunDir>> {
        let mut runs = Vec::new();
        for name in self.names()? {
            runs.extend(folders(&name)?.into_iter().map(RunDir::new).filter(RunDir::exists));
        }
        runs.sort_by(|a, b| a.root.cmp(&b.root));
        Ok(runs)
    }
}

/// The folders in `dir` that are not hidden; none if `dir` does not exist.
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
    fn everything_lies_under_the_run() {
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
    fn a_folder_without_a_manifest_is_no_run() {
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
    fn reproductions_share_tokens_and_are_no_runs() {
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
    fn a_place_that_takes_no_files_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tiny"), "a file, not a folder").unwrap();
        let error = RunsDir::new(dir.path()).run("tiny", "aa").create().unwrap_err();
        let report = ErrorReport::of(error);
        assert!(
            report.message.contains("tiny/aa") && report.hints[0].starts_with("give another place"),
            "{report}"
        );
    }
}
