//! MXFP4, the released models' form of expert weights: 4-bit floats in blocks of 32 that share one power of two.

use anyhow::{Result, bail};
use half::bf16;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::torch;

/// Values of a block.
pub(super) const BLOCK_VALUES: i64 = 32;
/// Bytes of a block; the low half of a byte is the even value.
pub(super) const BLOCK_BYTES: i64 = 16;

/// The values of the sixteen codes: the upper eight are the negatives of the lower.
const CODES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
/// Blocks in a cache line.
const LINE_GROUPS: usize = 4;
/// Outputs whose blocks stay in the first-level cache together.
const TILE_OUTPUTS: usize = 64;
/// The scale byte that stands for "not a number".
const NAN_SCALE: u8 = 255;

/// The bf16 tensor [E, in, out] of `blocks` [E, out, in/32, 16] and `scales` [E, out, in/32], both u8 on the CPU.
///
/// A value is its code times 2^(scale - 127). bf16 holds that exactly, but for the last two scales, where it can be
/// infinite. Fails on the scale that means NaN.
pub(super) fn dequantise(blocks: &Tensor, scales: &Tensor) -> Result<Tensor> {
    let (experts, out_width, groups) = scales.size3()?;
    let dense = Tensor::empty([experts, groups * BLOCK_VALUES, out_width], (Kind::BFloat16, Device::Cpu));
    let (out_width, groups) = (out_width as usize, groups as usize);
    let table = table();
    for expert in 0..experts {
        let (blocks, scales) = (blocks.get(expert).contiguous(), scales.get(expert).contiguous());
        let (blocks, scales) = (torch::bytes(&blocks), torch::bytes(&scales));
        if scales.contains(&NAN_SCALE) {
            bail!("expert {expert} has a block whose scale means NaN");
        }
        let mut dense = dense.get(expert);
        let dense_values: &mut [bf16] = bytemuck::cast_slice_mut(torch::bytes_mut(&mut dense));
        // A thread fills whole rows of the result: 32 a group. Of each output's blocks it takes as many as fill a
        // cache line, for a tile of outputs at a time, so that nothing is fetched twice.
        let stripe = LINE_GROUPS * BLOCK_VALUES as usize * out_width;
        dense_values.par_chunks_mut(stripe).enumerate().for_each(|(line, stripe)| {
            for tile in (0..out_width).step_by(TILE_OUTPUTS) {
                let outputs = tile..(tile + TILE_OUTPUTS).min(out_width);
                for (i, rows) in stripe.chunks_mut(BLOCK_VALUES as usize * out_width).enumerate() {
                    for output in outputs.clone() {
                        let block = output * groups + line * LINE_GROUPS + i;
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
    }
    Ok(dense)
}

/// The value of each code under each scale.
fn table() -> Vec<[bf16; 16]> {
    let row = |scale: i32| CODES.map(|code| bf16::from_f64(f64::from(code) * 2f64.powi(scale - 127)));
    (0..256).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_scales_and_axes() {
        // One expert, two outputs, one block each: all codes in order under 2^1, then all ones (code 2) under 2^-127.
        let ascending: Vec<u8> = (0..16).map(|i| (((2 * i + 1) % 16) << 4) | ((2 * i) % 16)).collect();
        let blocks =
            torch::tensor_from_bytes(&[ascending, vec![0x22; 16]].concat(), &[1, 2, 1, 16], Kind::Uint8);
        let scales = torch::tensor_from_bytes(&[128, 0], &[1, 2, 1], Kind::Uint8);
        let dense = dequantise(&blocks, &scales).unwrap();
        assert_eq!(dense.size(), [1, 32, 2]);
        for (i, code) in CODES.iter().cycle().take(32).enumerate() {
            assert_eq!(dense.double_value(&[0, i as i64, 0]), f64::from(*code) * 2.0);
            assert_eq!(dense.double_value(&[0, i as i64, 1]), 2f64.powi(-127));
        }
    }

    #[test]
    fn a_nan_scale_is_refused() {
        let blocks = Tensor::zeros([1, 1, 1, 16], (Kind::Uint8, Device::Cpu));
        let scales = Tensor::full([1, 1, 1], 255, (Kind::Uint8, Device::Cpu));
        assert!(dequantise(&blocks, &scales).unwrap_err().to_string().contains("NaN"));
    }
}
