//! All units of the chain in training, and their ways between the ranks.

use std::cell::RefCell;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::unit::{Home, Unit};
use crate::distributed::{Gatherer, Layout, Mesh, Reducer};
use crate::experiment::Model;
use crate::model::{LossScratch, ParameterSpec, WeightSource, Weights, num_units};

/// The units in the chain's order, each with this rank's slice.
#[derive(Debug)]
pub struct Units<'a> {
    mesh: &'a Mesh,
    units: Vec<Unit>,
    gatherer: RefCell<Gatherer>,
    reducer: Reducer,
    loss_scratch: LossScratch,
}

impl<'a> Units<'a> {
    /// This rank's slices of the weights of `source`, with empty optimizer state, for matrix products in `kind`.
    ///
    /// # Errors
    /// Weights that are damaged or of another shape.
    pub fn load(
        model: &Model,
        source: &mut dyn WeightSource,
        mesh: &'a Mesh,
        kind: Kind,
        offload_moments: bool,
    ) -> Result<Self> {
        let home = Home { device: mesh.device(), offload_moments };
        let layouts: Vec<Layout> =
            (0..num_units(model)).map(|unit| Layout::new(model, unit, mesh.shards)).collect();
        let units = layouts
            .iter()
            .map(|layout| Unit::new(layout.clone(), mesh.shard, source, home, kind))
            .collect::<Result<_>>()?;
        let reducer = Reducer::new(&layouts, home.device);
        let gatherer = RefCell::new(Gatherer::new(layouts, kind, home.device));
        Ok(Self { mesh, units, gatherer, reducer, loss_scratch: LossScratch::default() })
    }

    /// The ranks that share the units.
    pub fn mesh(&self) -> &'a Mesh {
        self.mesh
    }

    /// This rank's slices.
    pub fn slices(&self) -> &[Unit] {
        &self.units
    }

    /// This rank's slices, to be changed: what was gathered of them is forgotten.
    ///
    /// # Errors
    /// Something was still arriving, and another rank is gone.
    pub fn slices_mut(&mut self) -> Result<&mut [Unit]> {
        self.gatherer.get_mut().invalidate()?;
        Ok(&mut self.units)
    }

    /// Starts gathering a unit, so that it is there when [`Self::weights`] is called.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn expect(&self, index: usize) -> Result<()> {
        self.gatherer.borrow_mut().expect(self.mesh, index, || self.units[index].local())
    }

    /// The tensors that a unit's passes take, in the order of its parameters. They stay valid until the unit after the
    /// next is expected.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn weights(&self, index: usize) -> Result<Vec<Tensor>> {
        self.gatherer.borrow_mut().take(self.mesh, index, || self.units[index].local())
    }

    /// Where a unit's backward pass adds its gradients: one view a parameter, all zero.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn begin_gradients(&mut self, index: usize) -> Result<Vec<Tensor>> {
        let Unit { layout, gradient, .. } = &self.units[index];
        self.reducer.begin(self.mesh, layout, gradient)
    }

    /// A unit's gradients are complete on this rank: their sum over the ranks is under way.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn end_gradients(&mut self, index: usize) -> Result<()> {
        let Unit { layout, gradient, .. } = &self.units[index];
        self.reducer.end(self.mesh, layout, gradient, index)
    }

    /// Waits until the gradients of all units are summed.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn finish_gradients(&mut self) -> Result<()> {
        self.reducer.finish(self.mesh)
    }

    /// Memory that the head's backward pass uses in every step.
    pub fn loss_scratch(&mut self) -> &mut LossScratch {
        &mut self.loss_scratch
    }

    /// Each parameter with its view of a flat buffer, such as the gradients, where this rank holds whole units.
    ///
    /// # Panics
    /// On one rank of several that share the units.
    pub fn views(&self, flat: fn(&Unit) -> &Tensor) -> impl Iterator<Item = (&ParameterSpec, Tensor)> {
        assert_eq!(self.mesh.shards, 1, "a slice has no whole parameters");
        self.units.iter().flat_map(move |unit| {
            let (layout, flat) = (&unit.layout, flat(unit));
            let views = layout
                .cut(&flat.narrow(0, 0, layout.matrices), &flat.narrow(0, layout.matrices, layout.rest));
            layout.slots.iter().map(|slot| &slot.spec).zip(views)
        })
    }
}

impl Weights for Units<'_> {
    fn unit(&self, index: usize) -> Result<Vec<Tensor>> {
        let tensors = self.weights(index)?;
        // Whoever walks the chain comes to the next unit next, and begins again after the last.
        self.expect((index + 1) % self.units.len())?;
        Ok(tensors)
    }

    fn device(&self) -> Device {
        self.mesh.device()
    }
}
