//! The units of a model in training, and their collectives.

use std::cell::RefCell;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::unit_shard::UnitShard;
use crate::distributed::{Gatherer, Layout, Mesh, Reducer};
use crate::model::{LossScratch, Parameter, ParameterSpec, WeightSource, Weights, casts_on_read, num_units};
use crate::optimizer::{Step, StorageConfig, sum_of_squares};
use oss_config::{Model, Update};

/// The units in chain order, each with this rank's slice.
#[derive(Debug)]
pub struct ShardedModel<'a> {
    mesh: &'a Mesh,
    units: Vec<UnitShard>,
    gatherer: RefCell<Gatherer>,
    reducer: Reducer,
    loss_scratch: LossScratch,
    /// Dtype of the matrix products.
    kind: Kind,
    /// The head's matrix cast to `kind`, for walking the chain outside of training if it is stored in another dtype.
    head_matrix: RefCell<Option<Tensor>>,
    updating: Option<Updating>,
}

/// An optimizer step applied unit by unit during the backward pass.
#[derive(Debug)]
struct Updating {
    step: Step,
    /// The unit whose gradient is being reduced.
    in_flight: Option<usize>,
    /// Sum of the squares of this rank's gradient slices so far, f64.
    squares: Tensor,
}

impl<'a> ShardedModel<'a> {
    /// Loads this rank's slices of the weights from `source`, with zeroed optimizer state.
    ///
    /// # Errors
    /// Fails if the weights are corrupted or have the wrong shape.
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

    /// The ranks that the units are sharded over.
    pub fn mesh(&self) -> &'a Mesh {
        self.mesh
    }

    /// This rank's slices.
    pub fn units(&self) -> &[UnitShard] {
        &self.units
    }

    /// This rank's slices, mutably. Invalidates the units gathered from them.
    ///
    /// # Errors
    /// Fails if a gather was still in flight and another rank has exited.
    pub fn units_mut(&mut self) -> Result<&mut [UnitShard]> {
        self.gatherer.get_mut().invalidate()?;
        self.head_matrix.take();
        Ok(&mut self.units)
    }

    /// Starts gathering a unit ahead of [`Self::weights`].
    ///
    /// # Errors
    /// Fails if another rank has exited.
    pub fn prefetch(&self, index: usize) -> Result<()> {
        self.gatherer.borrow_mut().prefetch(self.mesh, index, || self.units[index].local())
    }

    /// The tensors that a unit's forward and backward use in training, in parameter order. They stay valid until the
    /// unit after the next is prefetched.
    ///
    /// # Errors
    /// Fails if another rank has exited.
    pub fn weights(&self, index: usize) -> Result<Vec<Tensor>> {
        self.gatherer.borrow_mut().take(self.mesh, index, || self.units[index].local())
    }

    /// Buffers that a unit's backward pass accumulates its gradients into: one view per parameter. All are zero except
    /// the matrix `replaced`, which the pass must overwrite.
    ///
    /// # Errors
    /// Fails if another rank has exited.
    pub fn begin_gradients(&mut self, index: usize, replaced: Option<Parameter>) -> Result<Vec<Tensor>> {
        // Training needs this memory.
        self.head_matrix.take();
        let UnitShard { layout, gradient, .. } = &self.units[index];
        self.reducer.begin(self.mesh, layout, gradient, replaced)
    }

    /// Until [`Self::finish_gradients`], each unit applies `step` as soon as its gradient is complete.
    pub fn update_in_backward(&mut self, step: Step) {
        let squares = Tensor::zeros([], (Kind::Double, self.mesh.device()));
        self.updating = Some(Updating { step, in_flight: None, squares });
    }

    /// Whether gradients are consumed in the backward pass, so that the loss must be checked before it.
    pub fn is_updated_in_backward(&self) -> bool {
        self.updating.is_some()
    }

    /// Marks a unit's gradients as complete on this rank and starts reducing them.
    ///
    /// # Errors
    /// Fails if another rank has exited.
    pub fn end_gradients(&mut self, index: usize) -> Result<()> {
        // The previous reduction overlapped with this unit's computation.
        self.take_step()?;
        let UnitShard { layout, gradient, .. } = &self.units[index];
        self.reducer.end(self.mesh, layout, gradient, index)?;
        let Some(updating) = &mut self.updating else { return Ok(()) };
        updating.in_flight = Some(index);
        if self.mesh.ranks() == 1 { self.take_step() } else { Ok(()) }
    }

    /// Applies the step of the unit whose gradient was in flight.
    fn take_step(&mut self) -> Result<()> {
        let Some(updating) = &mut self.updating else { return Ok(()) };
        let Some(index) = updating.in_flight.take() else { return Ok(()) };
        self.reducer.finish(self.mesh)?;
        let unit = &mut self.units[index];
        let _ = updating.squares.g_add_(&sum_of_squares(&unit.gradient));
        unit.step_clipped(&updating.step, &self.mesh.reduce)
    }

    /// Waits until the gradients of all units are reduced. If they were consumed in the backward pass, returns the sum
    /// of their squares over this rank's slices.
    ///
    /// # Errors
    /// Fails if another rank has exited.
    pub fn finish_gradients(&mut self) -> Result<Option<Tensor>> {
        self.take_step()?;
        self.reducer.finish(self.mesh)?;
        let Some(Updating { squares, .. }) = self.updating.take() else { return Ok(None) };
        self.gatherer.get_mut().invalidate()?;
        Ok(Some(squares))
    }

    /// Scratch memory that the head's backward pass reuses in every step.
    pub fn loss_scratch(&mut self) -> &mut LossScratch {
        &mut self.loss_scratch
    }

    /// Each parameter with its view into the flat tensors (matrices and rest) that `regions` returns for its unit, such
    /// as the gradients. Requires whole units.
    ///
    /// # Panics
    /// Panics if the units are sharded.
    pub fn views(
        &self,
        regions: fn(&UnitShard) -> [Tensor; 2],
    ) -> impl Iterator<Item = (&ParameterSpec, Tensor)> {
        assert_eq!(self.mesh.shards, 1, "a sharded unit has no whole parameters");
        self.units.iter().flat_map(move |unit| {
            let [matrices, rest] = regions(unit);
            let views = unit.layout.cut(&matrices, &rest);
            unit.layout.slots.iter().map(|slot| &slot.spec).zip(views)
        })
    }
}

/// Allocates the gradient buffers: one per unit, or, if gradients are consumed in the backward pass, one shared by all
/// units. Multiple ranks alternate between two, so that one can be in flight.
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
        // The next unit is needed next; after the last one, the walk starts over.
        self.prefetch((index + 1) % self.units.len())?;
        Ok(tensors)
    }

    fn device(&self) -> Device {
        self.mesh.device()
    }
}
