//! Many ranks: where one of them stands among the others, and the launcher that starts them.

mod launch;
mod outcome;
mod placement;
mod slurm;
mod supervise;
mod tail;

pub use launch::{Launch, tie_to_launcher};
pub use outcome::{Failure, How, Outcome};
pub use placement::{Placement, PlacementError};
pub use supervise::{Patience, supervise};
