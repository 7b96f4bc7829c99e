//! All-gathers whole units from the ranks' slices, one unit ahead of the computation.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::layout::Layout;
use crate::distributed::mesh::{Mesh, Pending};

/// A rank's slices of one unit, flat. A slice of another dtype is cast to the one in which it is gathered.
#[derive(Debug)]
pub struct Local {
    /// The slice of the matrices.
    pub matrices: Tensor,
    /// The slice of everything else.
    pub rest: Tensor,
}

/// Gathers units into two alternating buffers: while the computation reads one, the next unit arrives in the other.
///
/// On a GPU a collective starts after everything queued earlier on the current stream, and thus after the last reader
/// of its buffer; [`Pending::wait`] blocks the stream, not the host.
#[derive(Debug)]
pub struct Gatherer {
    layouts: Vec<Layout>,
    kind: Kind,
    device: Device,
    buffers: [Option<Buffer>; 2],
    /// The buffer that was handed out last; the next unit is gathered into the other.
    in_use: usize,
}

#[derive(Debug)]
struct Buffer {
    matrices: Tensor,
    rest: Tensor,
    /// The unit that it holds or that is being gathered; `None` if its content is stale.
    unit: Option<usize>,
    arriving: Vec<Pending>,
}

impl Gatherer {
    /// Creates a gatherer for units with these layouts; matrices are gathered in `kind`.
    pub fn new(layouts: Vec<Layout>, kind: Kind, device: Device) -> Self {
        Self { layouts, kind, device, buffers: [None, None], in_use: 1 }
    }

    /// Starts gathering a unit, unless it is already gathered or in flight.
    ///
    /// # Errors
    /// If another rank is gone.
    pub fn prefetch(&mut self, mesh: &Mesh, unit: usize, local: impl FnOnce() -> Local) -> Result<()> {
        if mesh.shards == 1 || self.holding(unit).is_some() {
            return Ok(());
        }
        tracing::trace!(unit, "gather begins");
        let place = 1 - self.in_use;
        let layout = &self.layouts[unit];
        let (matrices, rest) = (layout.matrices, layout.rest);
        let buffer = self.buffers[place].get_or_insert_with(|| {
            let most = |of: fn(&Layout) -> i64| self.layouts.iter().map(of).max().unwrap_or(0);
            Buffer {
                matrices: Tensor::empty([most(|layout| layout.matrices)], (self.kind, self.device)),
                rest: Tensor::empty([most(|layout| layout.rest)], (Kind::Float, self.device)),
                unit: None,
                arriving: Vec::new(),
            }
        });
        // A unit may have been prefetched and never taken.
        buffer.unit = None;
        for pending in buffer.arriving.drain(..) {
            pending.wait()?;
        }
        let local = local();
        for (whole, own, what) in [
            (buffer.matrices.narrow(0, 0, matrices), local.matrices, "matrices"),
            (buffer.rest.narrow(0, 0, rest), local.rest, "vectors"),
        ] {
            let slice = whole.size()[0] / mesh.shards as i64;
            if slice == 0 {
                continue;
            }
            let mut place_of_own = whole.narrow(0, slice * mesh.shard as i64, slice);
            place_of_own.copy_(&own);
            let of = format_args!("the {what} of unit {unit}");
            buffer.arriving.push(mesh.gather.all_gather(&whole, of)?);
        }
        buffer.unit = Some(unit);
        Ok(())
    }

    /// Returns the tensors of a unit, which stay valid until the unit after the next is prefetched.
    ///
    /// # Errors
    /// If another rank is gone.
    pub fn take(&mut self, mesh: &Mesh, unit: usize, local: impl FnOnce() -> Local) -> Result<Vec<Tensor>> {
        if mesh.shards == 1 {
            let Local { matrices, rest } = local();
            return Ok(self.layouts[unit].cut(&matrices, &rest));
        }
        self.prefetch(mesh, unit, local)?;
        let place = self.holding(unit).unwrap_or_else(|| unreachable!("it was prefetched above"));
        self.in_use = place;
        let Some(buffer) = &mut self.buffers[place] else { unreachable!("it holds the unit") };
        for pending in buffer.arriving.drain(..) {
            pending.wait()?;
        }
        tracing::trace!(unit, "gathered");
        Ok(self.layouts[unit].cut(&buffer.matrices, &buffer.rest))
    }

    /// Discards what was gathered, because the weights have changed.
    ///
    /// # Errors
    /// If a gather was still in flight and another rank is gone.
    pub fn invalidate(&mut self) -> Result<()> {
        for buffer in self.buffers.iter_mut().flatten() {
            buffer.unit = None;
            for pending in buffer.arriving.drain(..) {
                pending.wait()?;
            }
        }
        Ok(())
    }

    fn holding(&self, unit: usize) -> Option<usize> {
        self.buffers.iter().position(|buffer| buffer.as_ref().is_some_and(|buffer| buffer.unit == Some(unit)))
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        // A prefetched unit that was never taken may still be arriving. If waiting fails, the cause has been reported.
        for pending in self.buffers.iter_mut().flatten().flat_map(|buffer| buffer.arriving.drain(..)) {
            let _ = pending.wait();
        }
    }
}
