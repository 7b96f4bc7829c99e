//! Optimizers: AdamW (arXiv:1711.05101), Muon, and their shared components.
//!
//! * [`UpdateRule`] is the interface of an optimizer: its state, its communication, its scratch memory and its step.
//!   Each optimizer has its own file in `rules`, where an experiment's optimizer kind is mapped to its rule.
//! * A [`Region`] is what a rule steps: flat buffers of weights and moments (`moments`), in the dtypes of a
//!   [`StorageConfig`].
//! * State stored in less than f32 is widened, stepped, and stochastically rounded (`stochastic`, `blockwise`).
//! * [`schedule`] gives the learning rate of each step, [`LossScale`] the scale of f16 gradients.

mod blockwise;
mod clip;
mod loss_scale;
mod moments;
mod region;
mod rules;
pub mod schedule;
mod step;
mod stochastic;
mod storage;
mod update_rule;

pub use clip::{clipped_lrs, sum_of_squares};
pub use loss_scale::LossScale;
pub use moments::{MomentSpec, StateTensor};
pub use region::{ParamSlice, Region};
pub use rules::update_rule;
pub use step::Step;
pub use storage::StorageConfig;
pub use update_rule::{ParamGroup, RegionShape, UnitStep, UpdateRule};
