//! One unit of the chain as a rank holds it in training: its slice of master weights, gradients and optimizer state.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::Entry;
use crate::distributed::{Layout, Local, fill};
use crate::experiment::Optimizer;
use crate::model::WeightSource;
use crate::torch::{self, AdamW};

/// A rank's slice of one unit: flat buffers of `layout.len_of_shard()` elements; on one rank, the whole unit.
#[derive(Debug)]
pub struct Unit {
    /// Where the parameters lie in the buffers below.
    pub layout: Layout,
    /// Which slice this is.
    shard: usize,
    /// Master weights, f32.
    pub master: Tensor,
    /// Gradients, f32.
    pub gradient: Tensor,
    /// First moments, f32, perhaps on the host.
    exp_avg: Tensor,
    /// Second moments, f32, perhaps on the host.
    exp_avg_sq: Tensor,
    /// The matrices in the compute kind, where that is not f32 and the unit is whole; a slice is cast on its way to the
    /// others instead.
    compute: Option<Tensor>,
}

/// Where a unit's tensors live.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    /// Of weights and gradients.
    pub device: Device,
    /// Whether the moments stay in host memory.
    pub offload_moments: bool,
}

impl Unit {
    /// Slice `shard` of a unit with weights from `source` and empty optimizer state, for matrix products in `kind`.
    pub fn new(
        layout: Layout,
        shard: usize,
        source: &mut dyn WeightSource,
        home: Home,
        kind: Kind,
    ) -> Result<Self> {
        let len = layout.len_of_shard();
        let zeros = || Tensor::zeros([len], (Kind::Float, home.device));
        let moment = || match home.device {
            Device::Cuda(_) if home.offload_moments => {
                Tensor::zeros([len], (Kind::Float, Device::Cpu)).pin_memory(home.device)
            }
            _ => zeros(),
        };
        let master = zeros();
        fill(&layout, shard, source, |offset, len| master.narrow(0, offset, len))?;
        let is_whole = layout.matrices_of_shard() == layout.matrices;
        let compute =
            (kind != Kind::Float && is_whole).then(|| master.narrow(0, 0, layout.matrices).to_kind(kind));
        let (gradient, exp_avg, exp_avg_sq) = (zeros(), moment(), moment());
        Ok(Self { layout, shard, master, gradient, exp_avg, exp_avg_sq, compute })
    }

    /// Reads the moments from `source`, by the names that [`Self::entries`] gives them.
    pub fn load_moments(&mut self, source: &mut dyn WeightSource) -> Result<()> {
        for (what, flat) in [("exp_avg", &self.exp_avg), ("exp_avg_sq", &self.exp_avg_sq)] {
            for piece in self.layout.pieces(self.shard) {
                let len = piece.range.end - piece.range.start;
                let name = state_name(what, &self.layout.slots[piece.slot].spec.name);
                flat.narrow(0, piece.offset, len).copy_(&source.read(&name, piece.range)?);
            }
        }
        Ok(())
    }

    /// What a checkpoint keeps of this slice.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for piece in self.layout.pieces(self.shard) {
            let spec = &self.layout.slots[piece.slot].spec;
            let len = piece.range.end - piece.range.start;
            let mut keep = |name: String, flat: &Tensor| {
                let tensor = flat.narrow(0, piece.offset, len);
                entries.push(Entry { name, shape: spec.shape.clone(), range: piece.range.clone(), tensor });
            };
            keep(spec.name.clone(), &self.master);
            keep(state_name("exp_avg", &spec.name), &self.exp_avg);
            keep(state_name("exp_avg_sq", &spec.name), &self.exp_avg_sq);
        }
        entries
    }

    /// The slice that the forward and backward passes gather, or use as it is where it is the whole.
    pub fn local(&self) -> Local {
        let (matrices, rest) = (self.layout.matrices_of_shard(), self.layout.rest_of_shard());
        let cast = self.compute.as_ref().map(Tensor::shallow_clone);
        Local {
            matrices: cast.unwrap_or_else(|| self.master.narrow(0, 0, matrices)),
            rest: self.master.narrow(0, matrices, rest),
        }
    }

    /// One AdamW step; the gradients are divided by `grad_scale` on the way.
    pub fn step(
        &mut self,
        optimizer: &Optimizer,
        lr: f64,
        step: &Tensor,
        grad_scale: Option<&Tensor>,
    ) -> Result<()> {
        let device = self.master.device();
        // Moments that live on the host visit the device for the step; others are there already.
        let (exp_avg, exp_avg_sq) = (self.exp_avg.to_device(device), self.exp_avg_sq.to_device(device));
        let (decayed, len) = (self.layout.decayed_of_shard(self.shard), self.layout.len_of_shard());
        for (start, end, weight_decay) in [(0, decayed, optimizer.weight_decay), (decayed, len, 0.0)] {
            if start == end {
                continue;
            }
            let part = |flat: &Tensor| flat.narrow(0, start, end - start);
            let hyper = AdamW { lr, betas: optimizer.betas, weight_decay, eps: optimizer.eps };
            torch::fused_adamw(
                &mut part(&self.master),
                &mut part(&self.gradient),
                &mut part(&exp_avg),
                &mut part(&exp_avg_sq),
                step,
                hyper,
                grad_scale,
            )?;
        }
        for (home, visited) in [(&mut self.exp_avg, exp_avg), (&mut self.exp_avg_sq, exp_avg_sq)] {
            if home.device() != device {
                home.copy_(&visited);
            }
        }
        if let Some(compute) = &mut self.compute {
            compute.copy_(&self.master.narrow(0, 0, self.layout.matrices));
        }
        Ok(())
    }
}

/// Name of a parameter's optimizer state in a checkpoint.
fn state_name(what: &str, parameter: &str) -> String {
    format!("optimizer.{what}/{parameter}")
}
