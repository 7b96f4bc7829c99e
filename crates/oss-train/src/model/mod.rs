//! The gpt-oss architecture as a chain of units: embedding, blocks, head.
//!
//! Every unit has a forward and a hand-written backward pass. Both take the weights as arguments and save only
//! activations, so that the caller decides when weights are in memory. Tests compare with libtorch's autograd.
//!
//! B batch, T time, N = B*T tokens, D hidden, H query heads, K key/value heads, C head dim, E experts, A active
//! experts, F expert width, V vocabulary.

mod attention;
mod block;
mod chain;
mod cross_entropy;
mod experts;
mod head;
mod init;
mod int8;
mod linear;
mod norm;
mod parameters;
mod precision;
mod rope;
mod router;
mod sdpa;
mod weights;

pub use block::{Activations, Block, Saved, Weights as BlockWeights, feed_forward};
pub use chain::{Chain, Sequences, casts_on_read, embed, project_queries};
pub use cross_entropy::{LossScratch, logits_chunk_bytes};
pub use head::{Gradients as HeadGradients, Weights as HeadWeights, logits, loss_and_gradient, losses};
pub use init::{Initial, fill_normal};
pub use int8::in_int8;
pub use parameters::{
    BlockParameter, EMBEDDING_UNIT, Init, Parameter, ParameterSpec, Role, block_unit, head_unit, num_units,
    parameters, unit_parameters, vocab_size,
};
pub use precision::{compute_kind, matmul_kind, storage_kind};
pub use rope::{Rotation, inverse_frequencies};
pub use router::{ExpertLoad, Routing};
pub use weights::{WeightSource, Weights, check_range};

use linear::Linear;
use precision::{wide, wide_kind};
