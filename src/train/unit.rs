//! One unit of the chain as training holds it: flat buffers of master weights, gradients and optimizer state.
//!
//! Tensors are cut out of the flat buffers at multiples of 256 bytes, in the order of their roles, so that each
//! treatment (decay or not, cast or not) is one contiguous range.

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use crate::experiment::{Model, Optimizer};
use crate::model::{ParameterSpec, Role, WeightSource, unit_parameters};
use crate::torch::{self, AdamW};

/// Tensors start at multiples of so many elements: 256 bytes in f32.
const ALIGNMENT: i64 = 64;

/// Where a parameter lies in its unit's flat buffers.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The parameter.
    pub spec: ParameterSpec,
    /// First element.
    pub offset: i64,
}

/// Where every parameter of a unit lies.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Parameters in order.
    pub slots: Vec<Slot>,
    /// Elements of the matrices, which come first and are cast.
    pub matrices_end: i64,
    /// Elements of matrices and router, which decay.
    pub decayed_end: i64,
    /// Elements of the whole buffer.
    pub len: i64,
}

impl Layout {
    /// The layout of unit `index`.
    pub fn new(model: &Model, index: usize) -> Self {
        let mut layout = Self { slots: Vec::new(), matrices_end: 0, decayed_end: 0, len: 0 };
        for spec in unit_parameters(model, index) {
            let offset = layout.len;
            layout.len += (spec.numel() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            match spec.role {
                Role::Matrix => (layout.matrices_end, layout.decayed_end) = (layout.len, layout.len),
                Role::Router => layout.decayed_end = layout.len,
                Role::Vector => {}
            }
            layout.slots.push(Slot { spec, offset });
        }
        layout
    }

    fn cut(&self, flat: &Tensor, slot: &Slot) -> Tensor {
        flat.narrow(0, slot.offset, slot.spec.numel()).view(slot.spec.shape.as_slice())
    }
}

/// Weights, gradients and optimizer state of one unit.
#[derive(Debug)]
pub struct Unit {
    /// Where the parameters lie in the buffers below.
    pub layout: Layout,
    /// Master weights, f32 `[len]`.
    pub master: Tensor,
    /// Gradients, f32 `[len]`.
    pub gradient: Tensor,
    /// First moments, f32 `[len]`.
    pub exp_avg: Tensor,
    /// Second moments, f32 `[len]`.
    pub exp_avg_sq: Tensor,
    /// The matrices in the compute kind, where that is not f32: `[matrices_end]`.
    compute: Option<Tensor>,
}

impl Unit {
    /// Unit `index` with weights from `source` and empty optimizer state.
    pub fn new(
        model: &Model,
        index: usize,
        source: &mut dyn WeightSource,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        let layout = Layout::new(model, index);
        let zeros = || Tensor::zeros([layout.len], (Kind::Float, device));
        let master = zeros();
        for slot in &layout.slots {
            let name = &slot.spec.name;
            let tensor = source.load(name).with_context(|| format!("reading the weights {name}"))?;
            anyhow::ensure!(
                tensor.size() == slot.spec.shape,
                "{name} has shape {:?}, but [model] says {:?}; make [model] match the weights of model.init_from",
                tensor.size(),
                slot.spec.shape
            );
            layout.cut(&master, slot).copy_(&tensor);
        }
        let compute = (kind != Kind::Float).then(|| master.narrow(0, 0, layout.matrices_end).to_kind(kind));
        let (gradient, exp_avg, exp_avg_sq) = (zeros(), zeros(), zeros());
        Ok(Self { layout, master, gradient, exp_avg, exp_avg_sq, compute })
    }

    /// The tensors that the forward and backward passes take, in the order of the unit's parameters.
    pub fn tensors(&self) -> Vec<Tensor> {
        let source = |slot: &Slot| match (&self.compute, slot.spec.role) {
            (Some(compute), Role::Matrix) => self.layout.cut(compute, slot),
            _ => self.layout.cut(&self.master, slot),
        };
        self.layout.slots.iter().map(source).collect()
    }

    /// Views of the gradients, which the backward pass adds to.
    pub fn gradients(&self) -> Vec<Tensor> {
        self.views(&self.gradient).map(|(_, view)| view).collect()
    }

    /// Each parameter with its view of a flat buffer of this unit.
    pub fn views<'a>(&'a self, flat: &'a Tensor) -> impl Iterator<Item = (&'a ParameterSpec, Tensor)> {
        self.layout.slots.iter().map(|slot| (&slot.spec, self.layout.cut(flat, slot)))
    }

    /// One AdamW step; the gradients are divided by `grad_scale` and then cleared.
    pub fn step(
        &mut self,
        optimizer: &Optimizer,
        lr: f64,
        step: &Tensor,
        grad_scale: Option<&Tensor>,
    ) -> Result<()> {
        let Layout { decayed_end, len, .. } = self.layout;
        for (start, end, weight_decay) in [(0, decayed_end, optimizer.weight_decay), (decayed_end, len, 0.0)]
        {
            if start == end {
                continue;
            }
            let part = |flat: &Tensor| flat.narrow(0, start, end - start);
            let hyper = AdamW { lr, betas: optimizer.betas, weight_decay, eps: optimizer.eps };
            torch::fused_adamw(
                &mut part(&self.master),
                &mut part(&self.gradient),
                &mut part(&self.exp_avg),
                &mut part(&self.exp_avg_sq),
                step,
                hyper,
                grad_scale,
            )?;
        }
        self.refresh();
        let _ = self.gradient.zero_();
        Ok(())
    }

    /// Casts the master weights again, after they changed.
    pub fn refresh(&mut self) {
        if let Some(compute) = &mut self.compute {
            compute.copy_(&self.master.narrow(0, 0, self.layout.matrices_end));
        }
    }
}
