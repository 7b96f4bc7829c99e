//! Training: the loop over steps ([`train`]), a single step ([`Trainer::step`]), and the forward and backward pass
//! within it ([`forward_backward`]).

mod batch;
mod calibration;
mod checkpoint_saver;
mod device;
mod dry_run;
mod forward_backward;
mod hparams;
mod metrics_logger;
mod prefetch;
mod progress;
mod resume;
mod sharded_model;
mod train_step;
mod training_loop;
mod unit_shard;

#[cfg(test)]
mod gradcheck;

pub use batch::{GlobalBatch, StagedBatch};
pub use calibration::calibrate;
pub use device::{configure_torch, device};
pub use dry_run::{DryRun, dry_run};
pub use forward_backward::{MicroBatch, PassOptions, PassResult, forward_backward};
pub use progress::{Best, Due, Progress};
pub use sharded_model::ShardedModel;
pub use train_step::{Flags, StepReport, Trainer};
pub use training_loop::{HeldOut, Inputs, Outcome, train};
pub use unit_shard::UnitShard;
