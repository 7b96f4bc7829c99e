//! Where a unit's weights come from, and where a whole model's do.

use std::ops::Range;

use anyhow::{Result, ensure};
use oss_config::error::UserError;
use tch::{Device, Tensor};

use super::{Parameter, ParameterSpec};

/// The weights of the chain, a unit at a time.
///
/// A unit's tensors come in the order of [`super::unit_parameters`]: matrices in the compute kind (the embedding's
/// perhaps in f32), the router's matrix and vectors in f32. Whoever holds them sharded gathers in `unit` and may release when
/// the result is dropped.
pub trait Weights {
    /// Tensors of unit `index`.
    fn unit(&self, index: usize) -> Result<Vec<Tensor>>;

    /// The device that they are on.
    fn device(&self) -> Device;
}

/// The parameters of a whole model in storage: a checkpoint, a Hugging Face directory, or an initialisation.
///
/// Only [`WeightSource::load`] makes a whole tensor. Where the others are derived from it, as for a source that holds its
/// tensors in memory anyway, they cost as much; sources in storage read no more than they are asked for.
pub trait WeightSource {
    /// A parameter, whole, on the CPU, in whatever float kind it is stored.
    ///
    /// # Errors
    /// A parameter that is not there; storage that is damaged or cannot be read.
    fn load(&mut self, parameter: Parameter) -> Result<Tensor>;

    /// Flattened elements `range` of a parameter: 1-D, on the CPU, in the stored kind; bit for bit those of the whole.
    ///
    /// # Errors
    /// As for the whole, and a range that leaves the tensor.
    fn read(&mut self, parameter: Parameter, range: Range<i64>) -> Result<Tensor> {
        let whole = self.load(parameter)?;
        check_range(parameter, &whole.size(), &range)?;
        Ok(whole.flatten(0, -1).narrow(0, range.start, range.end - range.start))
    }

    /// The shape of a parameter.
    ///
    /// # Errors
    /// A parameter that is not there.
    fn shape(&mut self, parameter: Parameter) -> Result<Vec<i64>> {
        Ok(self.load(parameter)?.size())
    }

    /// Refuses a parameter that is stored in another shape than `[model]` gives it.
    fn check_shape(&mut self, spec: &ParameterSpec) -> Result<()> {
        let found = self.shape(spec.parameter)?;
        ensure!(
            found == spec.shape,
            UserError::failed(format!(
                "{} has shape {found:?}, but [model] says {:?}",
                spec.name, spec.shape
            ))
            .hint("make [model] match the weights")
        );
        Ok(())
    }
}

/// Refuses a range of flattened elements that a tensor of `shape` does not have.
pub fn check_range(parameter: Parameter, shape: &[i64], range: &Range<i64>) -> Result<()> {
    let numel: i64 = shape.iter().product();
    ensure!(
        0 <= range.start && range.start <= range.end && range.end <= numel,
        UserError::failed(format!(
            "elements {range:?} of {} were asked for, which has shape {shape:?}",
            parameter.name()
        ))
        .hint(format!("ask for no more than {numel}"))
    );
    Ok(())
}
