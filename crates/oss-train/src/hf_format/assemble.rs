//! Assembles any range of a parameter from the stored tensors, with no more in memory than that range and one expert.

use std::ops::Range;

use anyhow::{Context, Result};
use half::bf16;
use tch::{Device, Kind, Tensor};

use super::{
    layout::{Recipe, Stored},
    mxfp4::{BLOCK_BYTES, BLOCK_VALUES, Packed},
    shards::Shards,
};
use crate::tensor_file::kind_of;
use oss_torch::OwnedTensor;

/// Elements `range` of the flattened parameter with the given shape: 1-D, on the CPU, in the stored dtype, or bf16 if
/// it is stored as MXFP4.
pub(super) fn read(shards: &Shards, shape: &[i64], recipe: &Recipe, range: Range<i64>) -> Result<Tensor> {
    match recipe {
        Recipe::Plain(stored) => shards.read(&stored.name, range),
        Recipe::Rows(stored, rows) => {
            let first = rows.start * stored.shape[1..].iter().product::<i64>();
            shards.read(&stored.name, first + range.start..first + range.end)
        }
        Recipe::Swapped(stored) => swapped(shards, Experts::new(shape), stored, range),
        Recipe::Mxfp4 { blocks, scales } => mxfp4(shards, Experts::new(shape), blocks, scales, range),
    }
}

/// The dimensions of a parameter `[E, in, out]`.
#[derive(Clone, Copy)]
struct Experts {
    in_width: i64,
    out_width: i64,
}

/// The part of a range that lies in one expert: at least one element.
struct Part {
    expert: i64,
    /// Elements of the expert's flattened matrix `[in, out]`.
    elements: Range<i64>,
    /// Their offset in the range.
    offset: i64,
}

impl Experts {
    fn new(shape: &[i64]) -> Self {
        Self { in_width: shape[1], out_width: shape[2] }
    }

    /// Splits a range, which must not be empty, by expert.
    fn parts(self, range: Range<i64>) -> impl Iterator<Item = Part> {
        let size = self.in_width * self.out_width;
        (range.start / size..(range.end - 1) / size + 1).map(move |expert| {
            let origin = expert * size;
            let (start, end) = (range.start.max(origin), range.end.min(origin + size));
            Part { expert, elements: start - origin..end - origin, offset: start - range.start }
        })
    }

    /// The rows of `[in, out]` that contain the elements.
    fn rows(self, elements: &Range<i64>) -> Range<i64> {
        elements.start / self.out_width..(elements.end - 1) / self.out_width + 1
    }
}

/// Elements of a parameter that is stored transposed, as `[E, out, in]`.
fn swapped(shards: &Shards, experts: Experts, stored: &Stored, range: Range<i64>) -> Result<Tensor> {
    let Experts { in_width, out_width } = experts;
    let size = in_width * out_width;
    let kind = shards.info(&stored.name).and_then(|info| kind_of(info.dtype));
    let kind = kind.with_context(|| format!("{} is not stored", stored.name))?;
    let out = Tensor::empty([range.end - range.start], (kind, Device::Cpu));
    if range.is_empty() {
        return Ok(out);
    }
    for Part { expert, elements, offset } in experts.parts(range) {
        let matrix = shards.read(&stored.name, expert * size..(expert + 1) * size)?;
        let rows = experts.rows(&elements);
        let matrix = matrix.view([out_width, in_width]).narrow(1, rows.start, rows.end - rows.start);
        let length = elements.end - elements.start;
        let wanted =
            matrix.transpose(0, 1).flatten(0, -1).narrow(0, elements.start - rows.start * out_width, length);
        out.narrow(0, offset, length).copy_(&wanted);
    }
    Ok(out)
}

/// Elements of a parameter that is stored as MXFP4 blocks, `[E, out, in]`.
fn mxfp4(
    shards: &Shards,
    experts: Experts,
    blocks: &Stored,
    scales: &Stored,
    range: Range<i64>,
) -> Result<Tensor> {
    let Experts { in_width, out_width } = experts;
    let width = in_width / BLOCK_VALUES;
    let mut out = OwnedTensor::empty(&[range.end - range.start], Kind::BFloat16);
    if range.is_empty() {
        return Ok(out.into_tensor());
    }
    let values = out.slice_mut::<bf16>();
    for Part { expert, elements, offset } in experts.parts(range) {
        let one = |stored: &Stored, size: i64| shards.read(&stored.name, expert * size..(expert + 1) * size);
        let packed = Packed {
            blocks: OwnedTensor::new(one(blocks, out_width * width * BLOCK_BYTES)?),
            scales: OwnedTensor::new(one(scales, out_width * width)?),
            out_width: out_width as usize,
        };
        let rows = experts.rows(&elements);
        let groups = rows.start / BLOCK_VALUES..(rows.end - 1) / BLOCK_VALUES + 1;
        let first = groups.start * BLOCK_VALUES * out_width;
        let held = (groups.end - groups.start) * BLOCK_VALUES * out_width;
        let groups = groups.start as usize..groups.end as usize;
        let length = (elements.end - elements.start) as usize;
        let values = &mut values[offset as usize..][..length];
        let dequantized = if held as usize == length {
            packed.dequantize(groups, values)
        } else {
            let mut whole_groups = vec![bf16::ZERO; held as usize];
            let done = packed.dequantize(groups, &mut whole_groups);
            values.copy_from_slice(&whole_groups[(elements.start - first) as usize..][..length]);
            done
        };
        dequantized.with_context(|| format!("expert {expert}"))?;
    }
    Ok(out.into_tensor())
}
