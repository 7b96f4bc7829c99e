//! Every path of a run, its manifest and its locks.
//!
//! * [`RunDir`] and [`RunsDir`]: where everything lies (`layout`), and what the user's RUN means (`resolve`).
//! * [`Manifest`]: what the run is and what happened to it, so that `resume` and `reproduce` need nothing else.
//! * [`RunStatus`]: how it stands, in the word that every command says.
//! * [`WriteLock`]: one writer a run; readers need none.
//! * [`write_atomic`]: a file is either as it was or as it should be, whatever happens in between.
//! * `marks`: labels and notes that a run was given afterwards.
//! * `remove`: a run goes whole, or is left as what no one takes for a run.
//! * [`redact`]: nothing that is kept or shown carries a secret.

mod atomic;
mod environment;
mod git;
mod layout;
mod lock;
mod manifest;
mod marks;
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
pub use manifest::{Exit, FORMAT, Manifest, ManifestError, Segment, StageRecord, StageState};
pub use output_file::OutputFile;
pub use redact::{protect, redact};
pub use remove::RemoveError;
pub use resolve::ResolveError;
pub use stage::Stage;
pub use status::RunStatus;
pub use sweep_dir::SweepDir;
