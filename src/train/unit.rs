//! One unit of the chain as a rank holds it in training: its slice of weights, gradients and optimizer state.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::optimizer::{Keeping, Part, Region, Step, product_kind, shortened};
use super::trainer::compute_kind;
use crate::checkpoint::{Checkpoint, Entry};
use crate::distributed::{Group, Layout, Local, Piece, fill};
use crate::experiment::{Experiment, OptimizerKind, StatePrecision, StoredWeights, Update};
use crate::model::{Role, WeightSource};

/// A rank's slice of one unit: flat buffers of whole blocks; on one rank, the whole unit.
#[derive(Debug)]
pub struct Unit {
    /// Where the parameters lie in the buffers below.
    pub layout: Layout,
    /// The matrices, `layout.matrices_of_shard()` elements.
    pub matrices: Region,
    /// Everything else, f32, `layout.rest_of_shard()` elements.
    pub rest: Region,
    /// Gradients of both, one after the other, f32. Another unit's may lie in the same memory.
    pub gradient: Tensor,
    /// The matrices in the compute kind, where they are not kept in it, the unit is whole and wants them so; a slice is cast on
    /// its way to the others instead.
    compute: Option<Tensor>,
    /// What the two regions hold.
    parts: [Vec<Part>; 2],
    /// Elements of each parameter, f64, on the device.
    counts: Tensor,
    /// Which slice this is.
    shard: usize,
    /// What steps the matrices.
    optimizer: OptimizerKind,
}

/// How units are held.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// Kind of the matrix products.
    pub kind: Kind,
    /// Numbers in which matrices are kept.
    pub weights: StoredWeights,
    /// What steps the matrices of blocks.
    pub optimizer: OptimizerKind,
    /// Numbers in which the matrices' moments are kept.
    pub state: StatePrecision,
    /// When weights are updated.
    pub update: Update,
    /// Whether the moments stay in host memory.
    pub offload_moments: bool,
}

impl Holding {
    /// Everything f32, with matrix products in `kind`.
    pub fn wide(kind: Kind) -> Self {
        let (weights, state) = (StoredWeights::F32, StatePrecision::F32);
        let (optimizer, update) = (OptimizerKind::Adamw, Update::Step);
        Self { kind, weights, optimizer, state, update, offload_moments: false }
    }

    /// As the experiment says.
    pub fn of(experiment: &Experiment) -> Self {
        let Experiment { optimizer, train, sharding, .. } = experiment;
        Self {
            kind: compute_kind(train.precision),
            weights: train.weights,
            optimizer: optimizer.kind,
            state: optimizer.state,
            update: optimizer.update,
            offload_moments: sharding.offload_optimizer,
        }
    }

    fn matrix_kind(&self) -> Kind {
        match self.weights {
            StoredWeights::F32 => Kind::Float,
            StoredWeights::Bf16 => Kind::BFloat16,
        }
    }
}

impl Unit {
    /// Slice `shard` of a unit with weights from `source` and empty optimizer state, on the device of `gradient`, which is
    /// flat and as long as the slice. With `casts`, the unit's passes take matrices as they are kept.
    pub fn new(
        layout: Layout,
        shard: usize,
        source: &mut dyn WeightSource,
        holding: Holding,
        gradient: Tensor,
        casts: bool,
    ) -> Result<Self> {
        let (device, offload_moments) = (gradient.device(), holding.offload_moments);
        let (num_matrices, num_rest) = (layout.matrices_of_shard(), layout.rest_of_shard());
        let kept = holding.matrix_kind();
        let optimizer =
            if layout.matrices_of_blocks() > 0 { holding.optimizer } else { OptimizerKind::Adamw };
        let keeping = Keeping { weights: kept, optimizer, state: holding.state, offload_moments };
        let matrices = Region::zeros(num_matrices, keeping, device);
        let (adamw, state) = (OptimizerKind::Adamw, StatePrecision::F32);
        let keeping = Keeping { weights: Kind::Float, optimizer: adamw, state, offload_moments };
        let rest = Region::zeros(num_rest, keeping, device);
        fill(&layout, shard, source, |offset, len| match offset - num_matrices {
            offset_in_rest @ 0.. => rest.weights.narrow(0, offset_in_rest, len),
            _ => matrices.weights.narrow(0, offset, len),
        })?;
        let is_whole = num_matrices == layout.matrices;
        let compute =
            (holding.kind != kept && is_whole && !casts).then(|| matrices.weights.to_kind(holding.kind));
        let parts = parts(&layout, shard);
        let counts: Vec<f64> = layout.slots.iter().map(|slot| slot.spec.numel() as f64).collect();
        let counts = Tensor::from_slice(&counts).to_device(device);
        Ok(Self { layout, matrices, rest, gradient, compute, parts, counts, shard, optimizer })
    }

    /// Both regions and what lies in them.
    fn regions(&self) -> [(&Region, &[Part]); 2] {
        let [of_matrices, of_rest] = &self.parts;
        [(&self.matrices, of_matrices), (&self.rest, of_rest)]
    }

    /// Reads the moments from `checkpoint`, by the names that [`Self::entries`] gives them.
    pub fn load_moments(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        for (region, parts) in self.regions() {
            for (part, stored) in
                parts.iter().flat_map(|part| region.state().into_iter().map(move |s| (part, s)))
            {
                let held = part.range_by(stored.per);
                let number = held.end - held.start;
                let read = checkpoint.read(&stored.name(&part.name), held)?;
                stored.tensor.narrow(0, part.offset / stored.per, number).copy_(&read);
            }
        }
        Ok(())
    }

    /// What a checkpoint keeps of this slice.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (region, parts) in self.regions() {
            for part in parts {
                let spec = &self.layout.slots[part.slot].spec;
                let mut keep = |name: String, shape: Vec<i64>, flat: &Tensor, per: i64| {
                    let range = part.range_by(per);
                    let tensor = flat.narrow(0, part.offset / per, range.end - range.start);
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

    /// The slice that the forward and backward passes gather, or use as it is where it is the whole.
    pub fn local(&self) -> Local {
        let matrices = self.compute.as_ref().unwrap_or(&self.matrices.weights).shallow_clone();
        Local { matrices, rest: self.rest.weights.shallow_clone() }
    }

    /// One step by [`Self::gradient`], which is used up, of the ranks of `row`, who share the unit. `lrs` are the learning rates
    /// of AdamW's parameters where they differ.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn step(&mut self, step: &Step, lrs: Option<&Tensor>, row: &Group) -> Result<()> {
        let [gradient, gradient_of_rest] = self.gradients();
        let [of_matrices, of_rest] = &self.parts;
        match self.optimizer {
            OptimizerKind::Adamw => self.matrices.step(&gradient, of_matrices, step, lrs)?,
            OptimizerKind::Muon => {
                let kind = product_kind(gradient.device());
                let whole = Tensor::empty([self.layout.matrices], (kind, gradient.device()));
                let slice = gradient.size()[0];
                let own = whole.narrow(0, slice * self.shard as i64, slice);
                self.matrices.average(&gradient, of_matrices, step, &own)?;
                row.all_gather(&whole, "the momentum of a block")?.wait()?;
                for part in of_matrices {
                    self.matrices.step_along(part, &self.layout.slots[part.slot].stack_in(&whole), step);
                }
            }
        }
        self.rest.step(&gradient_of_rest, of_rest, step, lrs)?;
        if let Some(compute) = &mut self.compute {
            compute.copy_(&self.matrices.weights);
        }
        Ok(())
    }

    /// The same with the step of each parameter shortened where its gradient is a surprise, as the ranks of `row`, who share
    /// the unit, find together.
    pub fn step_clipped(&mut self, step: &Step, row: &Group) -> Result<()> {
        let sums = self.counts.zeros_like();
        for ((region, parts), gradient) in self.regions().into_iter().zip(self.gradients()) {
            region.add_surprise(&gradient, parts, step, &sums);
        }
        row.all_reduce(&sums, "the update norms of a unit")?.wait()?;
        self.step(step, Some(&shortened(step, &sums, &self.counts)), row)
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

/// What lies in the two regions of a slice.
fn parts(layout: &Layout, shard: usize) -> [Vec<Part>; 2] {
    let num_matrices = layout.matrices_of_shard();
    let part = |Piece { slot, range, offset }: Piece| {
        let spec = &layout.slots[slot].spec;
        Part {
            name: spec.name.clone(),
            slot,
            offset: if spec.role().is_matrix() { offset } else { offset - num_matrices },
            len: range.end - range.start,
            first: range.start,
            decays: spec.role() != Role::Vector,
        }
    };
    let is_matrix = |part: &Part| layout.slots[part.slot].spec.role().is_matrix();
    let (matrices, rest) = layout.pieces(shard).into_iter().map(part).partition(is_matrix);
    [matrices, rest]
}
