//! Optimizers: AdamW (arXiv:1711.05101), Muon, and what they share.
//!
//! * [`UpdateRule`] is what an optimizer is: what it keeps, communicates and needs, and its step. Each has a file of its own in
//!   `rules`, where the kind that an experiment names becomes one.
//! * A [`Region`] is what a rule steps: flat buffers of weights and moments (`moments`) in the precisions of a
//!   [`StorageConfig`].
//! * What is kept in fewer bits than f32 is widened, stepped, and rounded stochastically (`stochastic`, `blockwise`).
//! * [`schedule`] gives the learning rate of each step, [`LossScale`] the factor of f16's gradients.

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
