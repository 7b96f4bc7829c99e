//! The paths of a run, its manifest and its locks.
//!
//! * [`RunDir`] and [`RunsDir`]: paths (`layout`), and the meaning of a RUN argument (`resolve`).
//! * [`Manifest`]: what the run is and what happened to it; `resume` and `reproduce` need nothing else.
//! * [`RunStatus`]: the run's status, in the same word for every command.
//! * [`WriteLock`]: one writer per run; readers need no lock.
//! * [`write_atomic`]: a file is either unchanged or complete, whatever happens in between.
//! * `labels`: labels and notes added to a run later.
//! * `remove`: a run is deleted completely, or left as something that is not a run.
//! * [`redact`]: secrets are removed from everything that is stored or shown.

mod atomic;
mod environment;
mod git;
mod labels;
mod layout;
mod lock;
mod manifest;
mod output_file;
mod redact;
mod remove;
mod resolve;
mod secrets;
mod stage;
mod status;
mod sweep_dir;

pub use atomic::{free_bytes, is_unfinished, write_atomic, write_json};
pub use environment::{Environment, Host, Nvidia};
pub use git::GitState;
pub use layout::{CreateError, RunDir, RunsDir};
pub use lock::{Holder, LockError, WriteLock};
pub use manifest::{
    Exit, FORMAT, Manifest, ManifestError, SKIPPED_STEPS, Segment, StageRecord, StageState, TARGET_STEPS,
};
pub use output_file::OutputFile;
pub use redact::{protect, redact};
pub use remove::RemoveError;
pub use resolve::ResolveError;
pub use stage::Stage;
pub use status::RunStatus;
pub use sweep_dir::SweepDir;
