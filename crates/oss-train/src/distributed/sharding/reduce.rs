//! Reduce-scatters the gradients of whole units: sums them over the ranks and leaves each rank its slice.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::layout::Layout;
use crate::distributed::mesh::{Mesh, Pending};
use crate::model::Parameter;

/// Sums gradients while the computation continues with the next unit, in two alternating f32 buffers.
#[derive(Debug)]
pub struct Reducer {
    /// Elements of the largest unit.
    most: i64,
    device: Device,
    buffers: [Option<Buffer>; 2],
    /// The buffer that the current unit's backward pass accumulates into.
    in_use: usize,
    replicating: Vec<Pending>,
}

#[derive(Debug)]
struct Buffer {
    whole: Tensor,
    leaving: Vec<Pending>,
    /// The destination of the sum: a slice of a unit's gradient, and the unit's index.
    slice: Option<(Tensor, usize)>,
}

impl Reducer {
    /// Creates a reducer for units with these layouts.
    pub fn new(layouts: &[Layout], device: Device) -> Self {
        let most = layouts.iter().map(|layout| layout.matrices + layout.rest).max().unwrap_or(0);
        Self { most, device, buffers: [None, None], in_use: 0, replicating: Vec::new() }
    }

    /// Where the backward pass of a unit adds its gradients: a view of each parameter's, all zero but that of the
    /// matrix `replaced`, which the pass overwrites. `slice` is the rank's part of the unit's gradient, f32, flat.
    ///
    /// # Errors
    /// If the last reduction in the same buffer failed because another rank is gone.
    pub fn begin(
        &mut self,
        mesh: &Mesh,
        layout: &Layout,
        slice: &Tensor,
        replaced: Option<Parameter>,
    ) -> Result<Vec<Tensor>> {
        if mesh.shards == 1 {
            clear(layout, slice, replaced);
            return Ok(cut(layout, slice));
        }
        self.in_use = 1 - self.in_use;
        self.reduce_slice(mesh, self.in_use)?;
        let (most, options) = (self.most, (Kind::Float, self.device));
        let buffer = self.buffers[self.in_use].get_or_insert_with(|| Buffer {
            whole: Tensor::empty([most], options),
            leaving: Vec::new(),
            slice: None,
        });
        let whole = buffer.whole.narrow(0, 0, layout.matrices + layout.rest);
        clear(layout, &whole, replaced);
        Ok(cut(layout, &whole))
    }

    /// Starts the reduction of a unit's gradient, which is now complete on this rank. The sum over the ranks is in
    /// `slice` after [`Self::finish`].
    ///
    /// # Errors
    /// If another rank is gone.
    pub fn end(&mut self, mesh: &Mesh, layout: &Layout, slice: &Tensor, unit: usize) -> Result<()> {
        if mesh.shards == 1 {
            return self.replicate(mesh, slice, unit);
        }
        tracing::trace!(unit, "reduction begins");
        let Some(buffer) = &mut self.buffers[self.in_use] else { unreachable!("`begin` came before") };
        let (matrices, rest) = (layout.matrices, layout.rest);
        let (own_matrices, own_rest) = (layout.matrices_of_shard(), layout.rest_of_shard());
        for (whole, own, what) in [
            (buffer.whole.narrow(0, 0, matrices), slice.narrow(0, 0, own_matrices), "matrices"),
            (buffer.whole.narrow(0, matrices, rest), slice.narrow(0, own_matrices, own_rest), "vectors"),
        ] {
            if own.numel() > 0 {
                let of = format_args!("the gradients of unit {unit}'s {what}");
                buffer.leaving.push(mesh.reduce.reduce_scatter(&own, &whole, of)?);
            }
        }
        buffer.slice = Some((slice.shallow_clone(), unit));
        Ok(())
    }

    /// Waits for all reductions.
    ///
    /// # Errors
    /// If another rank is gone.
    pub fn finish(&mut self, mesh: &Mesh) -> Result<()> {
        // In the order in which they were started, which is the same on every rank.
        self.reduce_slice(mesh, 1 - self.in_use)?;
        self.reduce_slice(mesh, self.in_use)?;
        self.replicating.drain(..).try_for_each(Pending::wait)
    }

    /// Waits for the sum over a row of the mesh, and starts the sum over the column.
    fn reduce_slice(&mut self, mesh: &Mesh, which: usize) -> Result<()> {
        let Some(buffer) = &mut self.buffers[which] else { return Ok(()) };
        for pending in buffer.leaving.drain(..) {
            pending.wait()?;
        }
        match buffer.slice.take() {
            Some((slice, unit)) => {
                tracing::trace!(unit, "reduced");
                self.replicate(mesh, &slice, unit)
            }
            None => Ok(()),
        }
    }

    fn replicate(&mut self, mesh: &Mesh, slice: &Tensor, unit: usize) -> Result<()> {
        if mesh.replicas > 1 {
            let of = format_args!("the gradients of unit {unit} over the replicas");
            self.replicating.push(mesh.replicate.all_reduce(slice, of)?);
        }
        Ok(())
    }
}

/// Zeroes a unit's gradients, except those of the matrix `replaced`.
fn clear(layout: &Layout, whole: &Tensor, replaced: Option<Parameter>) {
    let kept = replaced.map(|parameter| &layout.slots[parameter.index()]);
    let (start, end) = kept.map_or((0, 0), |slot| (slot.offset, slot.offset + slot.spec.numel()));
    let _ = whole.narrow(0, 0, start).zero_();
    let _ = whole.narrow(0, end, whole.size()[0] - end).zero_();
}

fn cut(layout: &Layout, whole: &Tensor) -> Vec<Tensor> {
    layout.cut(&whole.narrow(0, 0, layout.matrices), &whole.narrow(0, layout.matrices, layout.rest))
}
