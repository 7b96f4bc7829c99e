//! MXFP4, the format of the expert weights in the released models: 4-bit floats in blocks of 32 with a shared
//! power-of-two scale.

use std::ops::Range;

use anyhow::{Result, bail};
use half::bf16;
use rayon::prelude::*;

use oss_config::error::UserError;
use oss_torch::OwnedTensor;

/// Values per block.
pub(super) const BLOCK_VALUES: i64 = 32;
/// Bytes per block. The low nibble of a byte comes first.
pub(super) const BLOCK_BYTES: i64 = 16;

/// The values of the sixteen codes. The last eight are the negatives of the first eight.
const CODES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
/// Blocks in a cache line.
const LINE_GROUPS: usize = 4;
/// Outputs whose blocks fit in the L1 cache together.
const TILE_OUTPUTS: usize = 64;
/// The scale byte that encodes NaN.
const NAN_SCALE: u8 = 255;

/// One expert's matrix as stored, on the CPU.
pub(super) struct Packed {
    /// u8 `[out, in/32, 16]`.
    pub blocks: OwnedTensor,
    /// u8 `[out, in/32]`.
    pub scales: OwnedTensor,
    pub out_width: usize,
}

impl Packed {
    /// Dequantizes the rows of the block range `groups` (32 rows each) of the matrix `[in, out]` into `dense`.
    ///
    /// A value is that of its code times 2^(scale - 127). bf16 represents it exactly, except for the last two scales,
    /// where it may overflow to infinity. Fails on a NaN scale.
    ///
    /// # Panics
    /// If `dense` does not have the size of those rows.
    pub(super) fn dequantize(&self, groups: Range<usize>, dense: &mut [bf16]) -> Result<()> {
        let (blocks, scales) = (self.blocks.slice::<u8>(), self.scales.slice::<u8>());
        let out_width = self.out_width;
        let width = scales.len() / out_width;
        assert_eq!(dense.len(), groups.len() * BLOCK_VALUES as usize * out_width);
        if scales.contains(&NAN_SCALE) {
            bail!(UserError::failed("a block has a NaN scale").hint("download the weights again"));
        }
        let table = table();
        // A thread fills whole rows of the result, 32 per group. From each output it takes as many blocks as fill a
        // cache line, one tile of outputs at a time, so that no cache line is fetched twice.
        let stripe = LINE_GROUPS * BLOCK_VALUES as usize * out_width;
        dense.par_chunks_mut(stripe).enumerate().for_each(|(line, stripe)| {
            for tile in (0..out_width).step_by(TILE_OUTPUTS) {
                let outputs = tile..(tile + TILE_OUTPUTS).min(out_width);
                for (i, rows) in stripe.chunks_mut(BLOCK_VALUES as usize * out_width).enumerate() {
                    for output in outputs.clone() {
                        let block = output * width + groups.start + line * LINE_GROUPS + i;
                        let values = &table[scales[block] as usize];
                        let bytes = &blocks[block * BLOCK_BYTES as usize..][..BLOCK_BYTES as usize];
                        for (pair, byte) in bytes.iter().enumerate() {
                            rows[2 * pair * out_width + output] = values[(byte & 0xf) as usize];
                            rows[(2 * pair + 1) * out_width + output] = values[(byte >> 4) as usize];
                        }
                    }
                }
            }
        });
        Ok(())
    }
}

/// The value of each code with each scale.
fn table() -> Vec<[bf16; 16]> {
    let row = |scale: i32| CODES.map(|code| bf16::from_f64(f64::from(code) * 2f64.powi(scale - 127)));
    (0..256).map(row).collect()
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    fn owned(bytes: &[u8]) -> OwnedTensor {
        OwnedTensor::new(Tensor::from_slice(bytes))
    }

    #[test]
    fn dequantizes_codes_and_scales_to_the_right_places() {
        // Two outputs of one block each: all codes in order with scale 2^1, and ones (code 2) with scale 2^-127.
        let ascending: Vec<u8> = (0..16).map(|i| (((2 * i + 1) % 16) << 4) | ((2 * i) % 16)).collect();
        let packed = Packed {
            blocks: owned(&[ascending, vec![0x22; 16]].concat()),
            scales: owned(&[128, 0]),
            out_width: 2,
        };
        let mut dense = vec![bf16::ZERO; 64];
        packed.dequantize(0..1, &mut dense).unwrap();
        for (i, code) in CODES.iter().cycle().take(32).enumerate() {
            assert_eq!(dense[2 * i].to_f64(), f64::from(*code) * 2.0);
            assert_eq!(dense[2 * i + 1].to_f64(), 2f64.powi(-127));
        }
    }

    #[test]
    fn a_range_of_groups_matches_those_rows_of_the_whole() {
        let (out_width, groups) = (70, 9);
        let byte = |i: i64| (i * 37 % 251) as u8;
        let blocks: Vec<u8> = (0..out_width * groups * BLOCK_BYTES).map(byte).collect();
        let scales: Vec<u8> = (0..out_width * groups).map(|i| 100 + byte(i) / 8).collect();
        let packed = Packed { blocks: owned(&blocks), scales: owned(&scales), out_width: out_width as usize };
        let rows = |groups: Range<usize>| {
            let mut dense = vec![bf16::ZERO; groups.len() * (BLOCK_VALUES * out_width) as usize];
            packed.dequantize(groups, &mut dense).unwrap();
            dense
        };
        let (all, group) = (rows(0..9), (BLOCK_VALUES * out_width) as usize);
        for groups in [0..1, 3..4, 2..7, 5..9, 4..4] {
            assert_eq!(rows(groups.clone()), all[groups.start * group..groups.end * group], "{groups:?}");
        }
    }

    #[test]
    fn a_nan_scale_is_refused() {
        let packed = Packed { blocks: owned(&[0; 16]), scales: owned(&[NAN_SCALE]), out_width: 1 };
        let error = packed.dequantize(0..1, &mut [bf16::ZERO; 32]).unwrap_err();
        assert!(error.to_string().contains("NaN"));
    }
}
