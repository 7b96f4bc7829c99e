//! Many ranks: where one of them stands among the others, and the launcher that starts them.

mod launch;
mod placement;
mod slurm;

pub use launch::{Launch, tie_to_parent};
pub use placement::{Placement, PlacementError};
