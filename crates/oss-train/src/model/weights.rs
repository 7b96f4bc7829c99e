//! Where the weights of a unit, or of a whole model, come from.

use std::ops::Range;

use anyhow::{Result, ensure};
use oss_config::error::UserError;
use tch::{Device, Tensor};

use super::{Parameter, ParameterSpec};

/// The weights of the chain, one unit at a time.
///
/// A unit's tensors are in the order of [`super::unit_parameters`]: matrices in the compute dtype (the embedding
/// possibly in f32), the router's matrix and vectors in f32. Sharded implementations gather in `unit` and may release
/// the memory when the result is dropped.
pub trait Weights {
    /// The tensors of unit `index`.
    fn unit(&self, index: usize) -> Result<Vec<Tensor>>;

    /// The device they are on.
    fn device(&self) -> Device;
}

/// The parameters of a whole model: in a checkpoint or a Hugging Face directory, or freshly initialized.
///
/// Only [`WeightSource::load`] needs to produce a whole tensor. The default implementations of the other methods call
/// it and cost as much, which suits sources whose tensors are in memory anyway; sources on disk read no more than is
/// requested.
pub trait WeightSource {
    /// A whole parameter on the CPU, in the floating-point dtype it is stored in.
    ///
    /// # Errors
    /// If the parameter is missing, or if storage is damaged or cannot be read.
    fn load(&mut self, parameter: Parameter) -> Result<Tensor>;

    /// Elements `range` of the flattened parameter: 1-D, on the CPU, in the stored dtype, bit-identical to those of
    /// [`WeightSource::load`].
    ///
    /// # Errors
    /// As for [`WeightSource::load`], and if the range is out of bounds.
    fn read(&mut self, parameter: Parameter, range: Range<i64>) -> Result<Tensor> {
        let whole = self.load(parameter)?;
        check_range(parameter, &whole.size(), &range)?;
        Ok(whole.flatten(0, -1).narrow(0, range.start, range.end - range.start))
    }

    /// The shape of a parameter.
    ///
    /// # Errors
    /// If the parameter is missing.
    fn shape(&mut self, parameter: Parameter) -> Result<Vec<i64>> {
        Ok(self.load(parameter)?.size())
    }

    /// Fails if the parameter is stored in a shape other than that given by `[model]`.
    fn check_shape(&mut self, spec: &ParameterSpec) -> Result<()> {
        let found = self.shape(spec.parameter)?;
        ensure!(
            found == spec.shape,
            UserError::failed(format!(
                "{} has shape {found:?}, but [model] says {:?}",
                spec.name, spec.shape
            ))
            .hint("change [model] to match the weights")
        );
        Ok(())
    }
}

/// Fails if `range` is out of bounds for the flattened elements of a tensor of `shape`.
pub fn check_range(parameter: Parameter, shape: &[i64], range: &Range<i64>) -> Result<()> {
    let numel: i64 = shape.iter().product();
    ensure!(
        0 <= range.start && range.start <= range.end && range.end <= numel,
        UserError::failed(format!(
            "cannot read elements {range:?} of {}, which has shape {shape:?}",
            parameter.name()
        ))
        .hint(format!("the tensor has {numel} elements"))
    );
    Ok(())
}
