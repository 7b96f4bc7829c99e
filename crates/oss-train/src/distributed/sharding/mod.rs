//! A model split into slices, one per rank: the layout ([`Layout`]), all-gather of units ([`Gatherer`]), reduce-scatter
//! of gradients ([`Reducer`]), and sharded weights for inference ([`Shards`]).

mod gather;
mod layout;
mod reduce;
mod shards;

pub use gather::{Gatherer, Local};
pub use layout::{Layout, Piece, Slot};
pub use reduce::Reducer;
pub use shards::{Shards, fill};
