//! A rank's slice of one unit in training: weights, gradients and optimizer state.

use anyhow::{Result, bail};
use oss_config::error::UserError;
use tch::{Kind, Tensor};

use crate::checkpoint::{Checkpoint, Entry};
use crate::distributed::{Group, Layout, Local, Piece, fill};
use crate::model::{Role, WeightSource};
use crate::optimizer::{ParamGroup, ParamSlice, Region, Step, StorageConfig, UnitStep, clipped_lrs};

/// A rank's slice of one unit, as flat buffers of whole blocks. Unsharded, it is the whole unit.
#[derive(Debug)]
pub struct UnitShard {
    /// Maps parameters to offsets in the buffers below.
    pub layout: Layout,
    /// The matrices, `layout.matrices_of_shard()` elements.
    pub matrices: Region,
    /// Everything else, f32, `layout.rest_of_shard()` elements.
    pub rest: Region,
    /// Gradients of both regions, concatenated, f32. May share memory with another unit's.
    pub gradient: Tensor,
    /// The matrices cast to the compute dtype, if they are stored in another one, the unit is whole, and its passes
    /// need the cast. Slices are cast when gathered instead.
    compute: Option<Tensor>,
    /// The parameters that each region contains.
    params: [Vec<ParamSlice>; 2],
    /// Number of elements of each parameter, f64, on the device.
    counts: Tensor,
    /// The index of this slice.
    shard: usize,
}

impl UnitShard {
    /// Loads slice `shard` of a unit from `source`, with zeroed optimizer state, on the device of `gradient`, a flat
    /// tensor of the slice's length. With `casts`, the unit's passes read matrices in their storage dtype and cast them
    /// as needed.
    pub fn new(
        layout: Layout,
        shard: usize,
        source: &mut dyn WeightSource,
        storage: &StorageConfig,
        gradient: Tensor,
        casts: bool,
    ) -> Result<Self> {
        let device = gradient.device();
        let (num_matrices, num_rest) = (layout.matrices_of_shard(), layout.rest_of_shard());
        let matrices = Region::zeros(num_matrices, ParamGroup::of_matrices(&layout), storage, device);
        let rest = Region::zeros(num_rest, ParamGroup::Rest, storage, device);
        fill(&layout, shard, source, |offset, len| match offset - num_matrices {
            offset_in_rest @ 0.. => rest.weights.narrow(0, offset_in_rest, len),
            _ => matrices.weights.narrow(0, offset, len),
        })?;
        let params = params(&layout, shard);
        for (region, params) in [&matrices, &rest].into_iter().zip(&params) {
            check_finite(&region.weights, params)?;
        }
        let is_whole = num_matrices == layout.matrices;
        let is_cast = storage.kind != matrices.weights.kind() && is_whole && !casts;
        let compute = is_cast.then(|| matrices.weights.to_kind(storage.kind));
        let counts: Vec<f64> = layout.slots.iter().map(|slot| slot.spec.numel() as f64).collect();
        let counts = Tensor::from_slice(&counts).to_device(device);
        Ok(Self { layout, matrices, rest, gradient, compute, params, counts, shard })
    }

    /// Both regions, each with the parameters that it contains.
    fn regions(&self) -> [(&Region, &[ParamSlice]); 2] {
        let [of_matrices, of_rest] = &self.params;
        [(&self.matrices, of_matrices), (&self.rest, of_rest)]
    }

    /// Loads the moments from `checkpoint`, under the names that [`Self::entries`] uses.
    pub fn load_moments(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        for (region, params) in self.regions() {
            for (param, stored) in
                params.iter().flat_map(|param| region.state().into_iter().map(move |s| (param, s)))
            {
                let held = param.range_by(stored.per);
                let number = held.end - held.start;
                let read = checkpoint.read(&stored.name(&param.name), held)?;
                stored.tensor.narrow(0, param.offset / stored.per, number).copy_(&read);
            }
        }
        Ok(())
    }

    /// The checkpoint entries of this slice.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (region, params) in self.regions() {
            for param in params {
                let spec = &self.layout.slots[param.slot].spec;
                let mut keep = |name: String, shape: Vec<i64>, flat: &Tensor, per: i64| {
                    let range = param.range_by(per);
                    let tensor = flat.narrow(0, param.offset / per, range.end - range.start);
                    entries.push(Entry { name, shape, range, tensor });
                };
                keep(spec.name.clone(), spec.shape.clone(), &region.weights, 1);
                for stored in region.state() {
                    let shape = match stored.per {
                        1 => spec.shape.clone(),
                        per => vec![(spec.numel() + per - 1) / per],
                    };
                    keep(stored.name(&spec.name), shape, stored.tensor, stored.per);
                }
            }
        }
        entries
    }

    /// The local input of a gather; if the slice is the whole unit, the forward and backward passes use it directly.
    pub fn local(&self) -> Local {
        let matrices = self.compute.as_ref().unwrap_or(&self.matrices.weights).shallow_clone();
        Local { matrices, rest: self.rest.weights.shallow_clone() }
    }

    /// Applies one optimizer step using [`Self::gradient`], which is consumed. The ranks of `row` share the unit. `lrs`
    /// are per-parameter learning rates, if they differ.
    ///
    /// # Errors
    /// Fails if another rank has exited.
    pub fn step(&mut self, step: &Step, lrs: Option<&Tensor>, row: &Group) -> Result<()> {
        let [of_matrices, of_rest] = self.gradients();
        let [matrices, rest] = &self.params;
        let unit = UnitStep { step, lrs, layout: &self.layout, shard: self.shard, row };
        self.matrices.step(&of_matrices, matrices, unit)?;
        self.rest.step(&of_rest, rest, unit)?;
        if let Some(compute) = &mut self.compute {
            compute.copy_(&self.matrices.weights);
        }
        Ok(())
    }

    /// As [`Self::step`], with each parameter's update clipped by its root mean square over the ranks of `row`, which
    /// share the unit.
    ///
    /// # Errors
    /// Fails if another rank has exited.
    pub fn step_clipped(&mut self, step: &Step, row: &Group) -> Result<()> {
        let sums = self.counts.zeros_like();
        for ((region, params), gradient) in self.regions().into_iter().zip(self.gradients()) {
            region.add_rms_ratios(&gradient, params, step, &sums);
        }
        row.all_reduce(&sums, "the update norms of a unit")?.wait()?;
        self.step(step, Some(&clipped_lrs(step, &sums, &self.counts)), row)
    }

    /// The gradients of both regions.
    pub fn gradients(&self) -> [Tensor; 2] {
        let (matrices, rest) = (self.layout.matrices_of_shard(), self.layout.rest_of_shard());
        [self.gradient.narrow(0, 0, matrices), self.gradient.narrow(0, matrices, rest)]
    }

    /// The weights of both regions.
    pub fn weights(&self) -> [Tensor; 2] {
        [self.matrices.weights.shallow_clone(), self.rest.weights.shallow_clone()]
    }
}

/// The parameters in the two regions of a slice.
/// Fails if the weights of a region are not finite: training would skip or stop at every step.
fn check_finite(weights: &Tensor, params: &[ParamSlice]) -> Result<()> {
    for param in params {
        let weights = weights.narrow(0, param.offset, param.len);
        // A sum is finite only if every term is; in f64, finite weights cannot overflow it.
        if weights.sum(Kind::Double).double_value(&[]).is_finite() {
            continue;
        }
        let bad = weights.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
        bail!(
            UserError::failed(format!(
                "the weights to start from are damaged: {bad} of {} values of {} are NaN or infinite",
                param.len, param.name
            ))
            .hint("start from other weights: another model.init_from, or an earlier checkpoint")
        );
    }
    Ok(())
}

fn params(layout: &Layout, shard: usize) -> [Vec<ParamSlice>; 2] {
    let num_matrices = layout.matrices_of_shard();
    let param = |Piece { slot, range, offset }: Piece| {
        let spec = &layout.slots[slot].spec;
        ParamSlice {
            name: spec.name.clone(),
            slot,
            offset: if spec.role().is_matrix() { offset } else { offset - num_matrices },
            len: range.end - range.start,
            first: range.start,
            decays: spec.role() != Role::Vector,
        }
    };
    let is_matrix = |param: &ParamSlice| layout.slots[param.slot].spec.role().is_matrix();
    let (matrices, rest) = layout.pieces(shard).into_iter().map(param).partition(is_matrix);
    [matrices, rest]
}
