//! A model's weights for evaluation and decoding, sharded over the ranks.

use std::cell::RefCell;

use anyhow::{Result, bail, ensure};
use tch::{Device, Kind, Tensor};

use super::gather::{Gatherer, Local};
use super::layout::{Layout, Piece};
use crate::distributed::mesh::Mesh;
use crate::model::{
    Parameter, Role, WeightSource, Weights, compute_kind, in_int8, num_units, unit_parameters,
};
use oss_config::Model;
use oss_config::error::UserError;

/// Weights of which each rank holds a slice and that are gathered unit by unit; a single rank holds them whole.
#[derive(Debug)]
pub struct Shards<'a> {
    mesh: &'a Mesh,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// The tensors of every unit, ready for use: a decoder needs them for every token.
    Whole(Vec<Vec<Tensor>>),
    Slices {
        units: Vec<Local>,
        gatherer: RefCell<Gatherer>,
    },
}

impl<'a> Shards<'a> {
    /// Reads this rank's slice of every parameter of `model` from `source`, matrices in `kind`.
    ///
    /// # Errors
    /// If weights are damaged or have a different shape.
    pub fn load(model: &Model, source: &mut dyn WeightSource, mesh: &'a Mesh, kind: Kind) -> Result<Self> {
        let layouts: Vec<Layout> =
            (0..num_units(model)).map(|unit| Layout::new(model, unit, mesh.shards)).collect();
        let read = |layout: &Layout| {
            let matrices = Tensor::zeros([layout.matrices_of_shard()], (kind, mesh.device()));
            let rest_kind = compute_kind(Role::Vector, kind);
            let rest = Tensor::zeros([layout.rest_of_shard()], (rest_kind, mesh.device()));
            fill(layout, mesh.shard, source, |offset, len| match offset - layout.matrices_of_shard() {
                offset_in_rest @ 0.. => rest.narrow(0, offset_in_rest, len),
                _ => matrices.narrow(0, offset, len),
            })?;
            Ok(Local { matrices, rest })
        };
        let units: Vec<Local> = layouts.iter().map(read).collect::<Result<_>>()?;
        let held = if mesh.shards == 1 {
            let cut = |(layout, Local { matrices, rest }): (&Layout, &Local)| layout.cut(matrices, rest);
            Held::Whole(layouts.iter().zip(&units).map(cut).collect())
        } else {
            Held::Slices { units, gatherer: RefCell::new(Gatherer::new(layouts, kind, mesh.device())) }
        };
        Ok(Self { mesh, held })
    }

    /// The same with the matrices of blocks and head in 8 bits ([`in_int8`]), unit by unit. The embedding, of which a
    /// token reads a row, stays as it is.
    ///
    /// # Errors
    /// If the weights are on a GPU or sharded.
    pub fn in_int8(self, model: &Model) -> Result<Self> {
        let Self { mesh, held } = self;
        let Held::Whole(units) = held else {
            bail!(UserError::failed("int8 weights cannot be sharded").hint("use one rank (--ranks 1)"));
        };
        ensure!(
            mesh.device() == Device::Cpu,
            UserError::failed("int8 weights are supported only on the CPU")
                .hint("omit --weights, or train with train.device = \"cpu\"")
        );
        let of_unit = |(index, tensors): (usize, Vec<Tensor>)| -> Vec<Tensor> {
            let specs = unit_parameters(model, index);
            let packed = specs.iter().zip(tensors).map(|(spec, tensor)| match spec.parameter {
                Parameter::Embedding => tensor,
                parameter => in_int8(parameter.role(), tensor),
            });
            packed.collect()
        };
        Ok(Self { mesh, held: Held::Whole(units.into_iter().enumerate().map(of_unit).collect()) })
    }
}

impl Weights for Shards<'_> {
    fn unit(&self, index: usize) -> Result<Vec<Tensor>> {
        let (units, mut gatherer) = match &self.held {
            Held::Whole(units) => return Ok(units[index].iter().map(Tensor::shallow_clone).collect()),
            Held::Slices { units, gatherer } => (units, gatherer.borrow_mut()),
        };
        let local = |unit: usize| {
            let Local { matrices, rest } = &units[unit];
            Local { matrices: matrices.shallow_clone(), rest: rest.shallow_clone() }
        };
        let tensors = gatherer.take(self.mesh, index, || local(index))?;
        // The chain is walked in order, and starts over after the last unit.
        let next = (index + 1) % units.len();
        gatherer.prefetch(self.mesh, next, || local(next))?;
        Ok(tensors)
    }

    fn device(&self) -> Device {
        self.mesh.device()
    }
}

/// Reads a shard's pieces of a unit's parameters into `place(offset in the shard's flat buffer, elements)`.
///
/// # Errors
/// If weights are damaged or have a different shape.
pub fn fill(
    layout: &Layout,
    shard: usize,
    source: &mut dyn WeightSource,
    place: impl Fn(i64, i64) -> Tensor,
) -> Result<()> {
    for slot in &layout.slots {
        source.check_shape(&slot.spec)?;
    }
    for Piece { slot, range, offset } in layout.pieces(shard) {
        let len = range.end - range.start;
        let tensor = source.read(layout.slots[slot].spec.parameter, range)?;
        place(offset, len).copy_(&tensor);
    }
    Ok(())
}
