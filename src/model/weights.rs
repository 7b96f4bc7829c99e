//! Where a unit's weights come from, and where a whole model's do.

use anyhow::Result;
use tch::Tensor;

/// The weights of the chain, a unit at a time.
///
/// A unit's tensors come in the order of [`super::unit_parameters`]: matrices in the compute kind, the router's matrix
/// and vectors in f32. Whoever holds them sharded gathers in `unit` and may release when the result is dropped.
pub trait Weights {
    /// Tensors of unit `index`.
    fn unit(&self, index: usize) -> Result<Vec<Tensor>>;
}

/// Named tensors of a whole model in storage: a checkpoint, a Hugging Face directory, or an initialisation.
pub trait WeightSource {
    /// The tensor of that Hugging Face name, whole, on the CPU, in whatever float kind it is stored.
    fn load(&mut self, name: &str) -> Result<Tensor>;
}

/// Weights held whole in memory, as inference wants them.
#[derive(Debug)]
pub struct Resident {
    units: Vec<Vec<Tensor>>,
}

impl Resident {
    /// Reads every parameter of `model` from `source` to `device`, matrices in `kind`.
    pub fn load(
        model: &crate::experiment::Model,
        source: &mut dyn WeightSource,
        device: tch::Device,
        kind: tch::Kind,
    ) -> Result<Self> {
        let mut units = Vec::new();
        for unit in 0..super::num_units(model) {
            let mut tensors = Vec::new();
            for spec in super::unit_parameters(model, unit) {
                let tensor = source.load(&spec.name)?;
                anyhow::ensure!(
                    tensor.size() == spec.shape,
                    "{}: shape {:?}, where the model has {:?}; check [model] against the weights",
                    spec.name,
                    tensor.size(),
                    spec.shape
                );
                tensors.push(tensor.to_device(device).to_kind(super::compute_kind(spec.role, kind)));
            }
            units.push(tensors);
        }
        Ok(Self { units })
    }
}

impl Weights for Resident {
    fn unit(&self, index: usize) -> Result<Vec<Tensor>> {
        Ok(self.units[index].iter().map(Tensor::shallow_clone).collect())
    }
}
