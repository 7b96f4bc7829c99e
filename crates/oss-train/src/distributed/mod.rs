//! Many ranks: who they are, how they talk, and how they share a model.
//!
//! A *rank* is one process with one device. All ranks of a run form a [`World`]; small messages pass through its store,
//! tensors through the groups of its [`Mesh`]. The model's units are cut into flat slices, one a rank ([`Layout`]),
//! gathered just before they are needed ([`Gatherer`]), and their gradients are summed slice by slice ([`Reducer`]).
//! One rank alone is the same code with nothing to exchange.

mod launch;
mod mesh;
mod rank_env;
mod sharding;
mod world;

pub use launch::{
    ExitReason, Failure, GracePeriod, Launch, Outcome, STOP, TIED, exit_with_parent, is_launched, supervise,
};
pub use mesh::{Group, Mesh, Pending};
pub use rank_env::{RankEnv, RankEnvError};
pub use sharding::{Gatherer, Layout, Local, Piece, Reducer, Shards, Slot, fill};
pub use world::{Fingerprint, World, WorldError};
