//! One thin file per stage: prepare, train, evaluate, sample, export. Each takes its inputs, does its work with the
//! layers below, and returns its outputs. Stages do not depend on each other.

pub mod evaluate;
pub mod export;
pub mod prepare;
pub mod sample;
pub mod train;
mod weights;

use weights::load_weights;
