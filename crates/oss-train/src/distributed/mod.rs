//! Distributed training: ranks, how they communicate, and how they shard a model.
//!
//! A *rank* is one process with one device. All ranks of a run form a [`World`]; control messages pass through its
//! store, tensors through the groups of its [`Mesh`]. The model's units are split into flat slices, one per rank
//! ([`Layout`]), which are all-gathered just before they are needed ([`Gatherer`]); gradients are reduce-scattered
//! ([`Reducer`]). A single rank runs the same code, with no communication.

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
