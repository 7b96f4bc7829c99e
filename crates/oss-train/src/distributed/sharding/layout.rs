//! The layout of a unit's parameters in flat buffers, and the part of them that a rank holds.
//!
//! Matrices come first, in their own region, because they are gathered in the precision of the matrix products; the
//! rest (router, norms, biases, sinks) stays f32. Each tensor and each slice starts at a multiple of 256 elements, and
//! each region is padded so that it can be split into equal slices. Slices therefore consist of whole blocks of 8-bit
//! optimizer state, and each tensor has the same blocks on any number of ranks.

use std::ops::Range;

use tch::Tensor;

use crate::model::{ParameterSpec, Role, unit_parameters};
use oss_config::Model;

/// Tensors and slices start at multiples of this many elements.
const ALIGNMENT: i64 = 256;

/// A parameter and its position in the flat buffer.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The parameter.
    pub spec: ParameterSpec,
    /// Offset of its first element in its region.
    pub offset: i64,
}

impl Slot {
    fn is_matrix(&self) -> bool {
        self.spec.role().is_matrix()
    }

    /// The parameter's matrices, `[N, in, out]` or `[N, out, in]`, as a view of its whole region.
    pub fn stack_in(&self, region: &Tensor) -> Tensor {
        let [.., rows, columns] = self.spec.shape[..] else { unreachable!("a matrix has two sides") };
        region.narrow(0, self.offset, self.spec.numel()).view([-1, rows, columns])
    }
}

/// The positions of a unit's parameters, for a given number of shards.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The parameters, in order.
    pub slots: Vec<Slot>,
    /// Elements of the matrices' region, including padding.
    pub matrices: i64,
    /// Elements of the region of everything else, including padding.
    pub rest: i64,
    /// Number of shards.
    shards: i64,
}

/// A part of a parameter that a shard holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the parameter in the unit.
    pub slot: usize,
    /// Range of the parameter's flattened elements.
    pub range: Range<i64>,
    /// Offset of its first element in the shard's flat buffer.
    pub offset: i64,
}

impl Layout {
    /// The layout of unit `index`, split into `shards` slices.
    pub fn new(model: &Model, index: usize, shards: usize) -> Self {
        let shards = shards as i64;
        let mut layout = Self { slots: Vec::new(), matrices: 0, rest: 0, shards };
        for spec in unit_parameters(model, index) {
            let region = if spec.role().is_matrix() { &mut layout.matrices } else { &mut layout.rest };
            let offset = *region;
            *region += round_up(spec.numel(), ALIGNMENT);
            layout.slots.push(Slot { spec, offset });
        }
        layout.matrices = round_up(layout.matrices, shards * ALIGNMENT);
        layout.rest = round_up(layout.rest, shards * ALIGNMENT);
        layout
    }

    /// Elements of matrices that Muon updates, including padding: those of blocks. In any one unit that is either all
    /// matrices or none.
    pub fn matrices_of_blocks(&self) -> i64 {
        let is_block = self.slots.iter().any(|slot| slot.spec.role() == Role::Matrix);
        if is_block { self.matrices } else { 0 }
    }

    /// Elements of a shard's slice of the matrices, which come first in its flat buffer.
    pub fn matrices_of_shard(&self) -> i64 {
        self.matrices / self.shards
    }

    /// Elements of a shard's slice of the rest, which follows the matrices.
    pub fn rest_of_shard(&self) -> i64 {
        self.rest / self.shards
    }

    /// Elements of a shard's flat buffer.
    pub fn len_of_shard(&self) -> i64 {
        self.matrices_of_shard() + self.rest_of_shard()
    }

    /// The pieces of parameters in a shard's flat buffer, in order.
    pub fn pieces(&self, shard: usize) -> Vec<Piece> {
        let piece = |(number, slot): (usize, &Slot)| {
            let (slice, base) = match slot.is_matrix() {
                true => (self.matrices_of_shard(), 0),
                false => (self.rest_of_shard(), self.matrices_of_shard()),
            };
            let first = slice * shard as i64;
            let start = slot.offset.max(first);
            let end = (slot.offset + slot.spec.numel()).min(first + slice);
            (start < end).then(|| Piece {
                slot: number,
                range: start - slot.offset..end - slot.offset,
                offset: base + start - first,
            })
        };
        self.slots.iter().enumerate().filter_map(piece).collect()
    }

    /// The parameters as views of whole regions, in order.
    pub fn cut(&self, matrices: &Tensor, rest: &Tensor) -> Vec<Tensor> {
        let view = |slot: &Slot| {
            let region = if slot.is_matrix() { matrices } else { rest };
            region.narrow(0, slot.offset, slot.spec.numel()).view(slot.spec.shape.as_slice())
        };
        self.slots.iter().map(view).collect()
    }
}

fn round_up(number: i64, multiple: i64) -> i64 {
    (number + multiple - 1) / multiple * multiple
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::num_units;
    use oss_config::Preset;

    fn model() -> Model {
        Model { vocab_size: Some(257), ..Preset::Tiny.model() }
    }

    proptest! {
        #[test]
        fn pieces_of_all_shards_cover_every_parameter_once(shards in 1usize..20, unit in 0usize..4) {
            let model = model();
            let unit = unit % num_units(&model);
            let layout = Layout::new(&model, unit, shards);
            let mut covered = vec![0; layout.slots.len()];
            for shard in 0..shards {
                for Piece { slot, range, offset } in layout.pieces(shard) {
                    prop_assert_eq!(range.start, covered[slot]);
                    prop_assert!(offset + (range.end - range.start) <= layout.len_of_shard());
                    prop_assert_eq!((offset % ALIGNMENT, range.start % ALIGNMENT), (0, 0));
                    covered[slot] = range.end;
                }
            }
            let sizes: Vec<i64> = layout.slots.iter().map(|slot| slot.spec.numel()).collect();
            prop_assert_eq!(covered, sizes);
        }
    }
}
