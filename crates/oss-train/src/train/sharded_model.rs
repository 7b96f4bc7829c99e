//! All units of the chain in training, and their ways between the ranks.

use std::cell::RefCell;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::unit_shard::UnitShard;
use crate::distributed::{Gatherer, Layout, Mesh, Reducer};
use crate::model::{LossScratch, Parameter, ParameterSpec, WeightSource, Weights, casts_on_read, num_units};
use crate::optimizer::{Step, StorageConfig, sum_of_squares};
use oss_config::{Model, Update};

/// The units in the chain's order, each with this rank's slice.
#[derive(Debug)]
pub struct ShardedModel<'a> {
    mesh: &'a Mesh,
    units: Vec<UnitShard>,
    gatherer: RefCell<Gatherer>,
    reducer: Reducer,
    loss_scratch: LossScratch,
    /// Kind of the matrix products.
    kind: Kind,
    /// The head's matrix in that kind, for those who walk the chain outside of training and where it is kept in another.
    head_matrix: RefCell<Option<Tensor>>,
    updating: Option<Updating>,
}

/// An optimizer step that is taken unit by unit in the backward pass.
#[derive(Debug)]
struct Updating {
    step: Step,
    /// The unit whose gradient is on its way between the ranks.
    in_flight: Option<usize>,
    /// Squares of this rank's slices of the gradients so far, f64.
    squares: Tensor,
}

impl<'a> ShardedModel<'a> {
    /// This rank's slices of the weights of `source`, with empty optimizer state.
    ///
    /// # Errors
    /// Weights that are damaged or of another shape.
    pub fn load(
        model: &Model,
        source: &mut dyn WeightSource,
        mesh: &'a Mesh,
        storage: &StorageConfig,
    ) -> Result<Self> {
        let layouts: Vec<Layout> =
            (0..num_units(model)).map(|unit| Layout::new(model, unit, mesh.shards)).collect();
        let gradients = gradients(&layouts, mesh, storage.update);
        let units = layouts
            .iter()
            .zip(gradients)
            .enumerate()
            .map(|(index, (layout, gradient))| {
                let casts = casts_on_read(model, index, storage.kind, mesh.device());
                UnitShard::new(layout.clone(), mesh.shard, source, storage, gradient, casts)
            })
            .collect::<Result<_>>()?;
        let reducer = Reducer::new(&layouts, mesh.device());
        let gatherer = RefCell::new(Gatherer::new(layouts, storage.kind, mesh.device()));
        Ok(Self {
            mesh,
            units,
            gatherer,
            reducer,
            loss_scratch: LossScratch::default(),
            kind: storage.kind,
            head_matrix: RefCell::new(None),
            updating: None,
        })
    }

    /// The ranks that share the units.
    pub fn mesh(&self) -> &'a Mesh {
        self.mesh
    }

    /// This rank's slices.
    pub fn units(&self) -> &[UnitShard] {
        &self.units
    }

    /// This rank's slices, to be changed: what was gathered of them is forgotten.
    ///
    /// # Errors
    /// Something was still arriving, and another rank is gone.
    pub fn units_mut(&mut self) -> Result<&mut [UnitShard]> {
        self.gatherer.get_mut().invalidate()?;
        self.head_matrix.take();
        Ok(&mut self.units)
    }

    /// Starts gathering a unit, so that it is there when [`Self::weights`] is called.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn prefetch(&self, index: usize) -> Result<()> {
        self.gatherer.borrow_mut().prefetch(self.mesh, index, || self.units[index].local())
    }

    /// The tensors that a unit's passes take in training, in the order of its parameters. They stay valid until the unit
    /// after the next is prefetched.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn weights(&self, index: usize) -> Result<Vec<Tensor>> {
        self.gatherer.borrow_mut().take(self.mesh, index, || self.units[index].local())
    }

    /// Where a unit's backward pass adds its gradients: one view a parameter, all zero but that of the matrix `replaced`,
    /// which the pass has to overwrite.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn begin_gradients(&mut self, index: usize, replaced: Option<Parameter>) -> Result<Vec<Tensor>> {
        // Training needs the memory again.
        self.head_matrix.take();
        let UnitShard { layout, gradient, .. } = &self.units[index];
        self.reducer.begin(self.mesh, layout, gradient, replaced)
    }

    /// From now on each unit takes `step` as soon as its gradient is complete, until [`Self::finish_gradients`].
    pub fn update_in_backward(&mut self, step: Step) {
        let squares = Tensor::zeros([], (Kind::Double, self.mesh.device()));
        self.updating = Some(Updating { step, in_flight: None, squares });
    }

    /// Whether gradients are used up in the backward pass, so that the loss has to be looked at before.
    pub fn is_updated_in_backward(&self) -> bool {
        self.updating.is_some()
    }

    /// A unit's gradients are complete on this rank: their sum over the ranks is under way.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn end_gradients(&mut self, index: usize) -> Result<()> {
        // The sum before this one went on while this unit computed.
        self.take_step()?;
        let UnitShard { layout, gradient, .. } = &self.units[index];
        self.reducer.end(self.mesh, layout, gradient, index)?;
        let Some(updating) = &mut self.updating else { return Ok(()) };
        updating.in_flight = Some(index);
        if self.mesh.ranks() == 1 { self.take_step() } else { Ok(()) }
    }

    /// The step of the unit whose gradient was on its way.
    fn take_step(&mut self) -> Result<()> {
        let Some(updating) = &mut self.updating else { return Ok(()) };
        let Some(index) = updating.in_flight.take() else { return Ok(()) };
        self.reducer.finish(self.mesh)?;
        let unit = &mut self.units[index];
        let _ = updating.squares.g_add_(&sum_of_squares(&unit.gradient));
        unit.step_clipped(&updating.step, &self.mesh.reduce)
    }

    /// Waits until the gradients of all units are summed, and used where they are used in the backward pass: then the sum of
    /// their squares, over this rank's slices, is returned.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn finish_gradients(&mut self) -> Result<Option<Tensor>> {
        self.take_step()?;
        self.reducer.finish(self.mesh)?;
        let Some(Updating { squares, .. }) = self.updating.take() else { return Ok(None) };
        self.gatherer.get_mut().invalidate()?;
        Ok(Some(squares))
    }

    /// Memory that the head's backward pass uses in every step.
    pub fn loss_scratch(&mut self) -> &mut LossScratch {
        &mut self.loss_scratch
    }

    /// Each parameter with its view of what `regions` gives of its unit (matrices and rest, flat), such as the gradients,
    /// where this rank holds whole units.
    ///
    /// # Panics
    /// On one rank of several that share the units.
    pub fn views(
        &self,
        regions: fn(&UnitShard) -> [Tensor; 2],
    ) -> impl Iterator<Item = (&ParameterSpec, Tensor)> {
        assert_eq!(self.mesh.shards, 1, "a slice has no whole parameters");
        self.units.iter().flat_map(move |unit| {
            let [matrices, rest] = regions(unit);
            let views = unit.layout.cut(&matrices, &rest);
            unit.layout.slots.iter().map(|slot| &slot.spec).zip(views)
        })
    }
}

/// Memory for each unit's gradients: its own, or, where they are used up in the backward pass, one that all units share, or
/// two that take turns while sums are on their way between ranks.
fn gradients(layouts: &[Layout], mesh: &Mesh, update: Update) -> Vec<Tensor> {
    let zeros = |len: i64| Tensor::zeros([len], (Kind::Float, mesh.device()));
    let lengths = layouts.iter().map(Layout::len_of_shard);
    match update {
        Update::Step => lengths.map(zeros).collect(),
        Update::InBackward => {
            let most = lengths.clone().max().unwrap_or(0);
            let shared: Vec<Tensor> = (0..mesh.ranks().min(2)).map(|_| zeros(most)).collect();
            lengths.enumerate().map(|(unit, len)| shared[unit % shared.len()].narrow(0, 0, len)).collect()
        }
    }
}

impl Weights for ShardedModel<'_> {
    fn unit(&self, index: usize) -> Result<Vec<Tensor>> {
        let mut tensors = self.weights(index)?;
        if index + 1 == self.units.len() {
            let matrix = &mut tensors[Parameter::LmHead.index()];
            let mut cast = self.head_matrix.borrow_mut();
            if matrix.kind() != self.kind {
                *matrix = cast.get_or_insert_with(|| matrix.to_kind(self.kind)).shallow_clone();
            }
        }
        // Whoever walks the chain comes to the next unit next, and begins again after the last.
        self.prefetch((index + 1) % self.units.len())?;
        Ok(tensors)
    }

    fn device(&self) -> Device {
        self.mesh.device()
    }
}
