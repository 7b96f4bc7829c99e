//! A model cut into slices, one a rank: where everything lies ([`Layout`]), how a unit is made whole ([`Gatherer`]),
//! how its gradients are summed ([`Reducer`]), and weights without training ([`Shards`]).

mod gather;
mod layout;
mod reduce;
mod shards;

pub use gather::{Gatherer, Local};
pub use layout::{Layout, Piece, Slot};
pub use reduce::Reducer;
pub use shards::{Shards, fill};
