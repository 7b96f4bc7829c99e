//! Many ranks: who they are, how they talk, and how they share a model.
//!
//! A *rank* is one process with one device. All ranks of a run form a [`World`]; small messages pass through its store,
//! tensors through the groups of its [`Mesh`]. The model's units are cut into flat slices, one a rank ([`Layout`]),
//! gathered just before they are needed ([`Gatherer`]), and their gradients are summed slice by slice ([`Reducer`]). One
//! rank alone is the same code with nothing to exchange.

mod gather;
mod group;
mod launch;
mod layout;
mod mesh;
mod outcome;
mod placement;
mod reduce;
mod shards;
mod slurm;
mod supervise;
mod tail;
mod world;

pub use gather::{Gatherer, Local};
pub use group::{Group, Pending};
pub use launch::{Launch, is_launched, tie_to_launcher};
pub use layout::{Layout, Piece, Slot};
pub use mesh::Mesh;
pub use outcome::{Failure, How, Outcome};
pub use placement::{Placement, PlacementError};
pub use reduce::Reducer;
pub use shards::{Shards, fill};
pub use supervise::{Patience, supervise};
pub use world::{Fingerprint, World, WorldError};
