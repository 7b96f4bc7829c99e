//! c10d: the store through which processes rendezvous, and the groups that move tensors between them.

mod group;
mod handle;
mod store;

pub use group::{ProcessGroup, Transport, Work};
pub use store::Store;
