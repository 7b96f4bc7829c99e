//! Products with int8 matrices, as in decoding: one byte is read per weight.
//!
//! Shapes: b rows. A matrix row consists of its codes, one byte each, followed by the four bytes of its f32 scale.

use half::bf16;
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

use super::Scalar;
use super::partition::Rows;
use super::skinny_gemm::{LANES, MIN_ELEMENTS, columns_of, horizontal_sum};
use oss_torch::{SCALE_BYTES, Slices, fetch_ahead, has_int8_gemm, int8_gemm, parallel_each, shares};

/// Most rows for which widening the matrix once per row beats a floating-point matrix product.
pub const FEW: i64 = 16;

/// Prefetch distance in bytes.
const PREFETCH_DISTANCE: usize = 4096;

/// `into [b, out] = x [b, in] @ matrix^T`, with `matrix` i8 `[out, in + 4]`, plus `bias` (f32 `[out]`), summed in f32;
/// `x` is f32 or bf16, and `into` is f32 or of the kind of `x`.
///
/// # Panics
/// Panics if `into` shares memory with another tensor.
pub fn int8_product(into: &mut Tensor, x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) {
    let x = x.to_kind(Kind::Float).contiguous();
    if into.is_contiguous() && has_int8_gemm() {
        return int8_gemm(into, &x, matrix, bias);
    }
    if into.is_contiguous() && into.kind() == Kind::Float {
        return widened_product(into, &x, matrix, bias);
    }
    let mut sums = Tensor::empty([x.size()[0], matrix.size()[0]], (Kind::Float, Device::Cpu));
    widened_product(&mut sums, &x, matrix, bias);
    into.copy_(&sums);
}

/// The same for f32 only, all contiguous.
fn widened_product(into: &mut Tensor, x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) {
    let (width, out) = (x.size()[1] as usize, matrix.size()[0] as usize);
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let (x, matrix, y) = (slices.of::<f32>(x), slices.of::<i8>(matrix), slices.of_mut::<f32>(into));
    match bias.map(|bias| slices.of::<f32>(bias)) {
        Some(bias) => y.chunks_exact_mut(out).for_each(|row| row.copy_from_slice(bias)),
        None => y.fill(0.0),
    }
    let parts = shares(out, MIN_ELEMENTS.div_ceil(width.max(1)));
    let bytes_of_row = width + SCALE_BYTES;
    let tasks: Vec<_> = parts.iter().cloned().zip(columns_of(y, out, &parts)).collect();
    parallel_each(tasks, |(share, mut y)| {
        dots(x, &matrix[share.start * bytes_of_row..share.end * bytes_of_row], &mut y);
    });
}

/// The scale at the end of a row.
#[inline(always)]
fn scale_of(bytes: &[i8]) -> f32 {
    f32::from_le_bytes([bytes[0] as u8, bytes[1] as u8, bytes[2] as u8, bytes[3] as u8])
}

/// Adds to each row of `y` the dot products of `x`'s row with all rows of the matrix.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn dots(x: &[f32], matrix: &[i8], y: &mut [&mut [f32]]) {
    let width = x.len() / y.len();
    let whole = width / LANES * LANES;
    for (index, row) in matrix.chunks_exact(width + SCALE_BYTES).enumerate() {
        let (codes, scale) = row.split_at(width);
        let scale = scale_of(scale);
        for (x, y) in x.chunks_exact(width).zip(&mut *y) {
            let mut lanes = [0.0; LANES];
            for (x, codes) in x[..whole].chunks_exact(LANES).zip(codes[..whole].chunks_exact(LANES)) {
                fetch_ahead(codes, PREFETCH_DISTANCE);
                for lane in 0..LANES {
                    lanes[lane] += x[lane] * f32::from(codes[lane]);
                }
            }
            for i in whole..width {
                lanes[i - whole] += x[i] * f32::from(codes[i]);
            }
            y[index] += scale * horizontal_sum(lanes);
        }
    }
}

/// Writes the codes of `numbers` followed by their scale: the largest magnitude becomes 127.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn encode<T: Scalar>(numbers: &[T], row: &mut [i8]) {
    let largest = numbers.iter().fold(0.0f32, |largest, x| largest.max(x.wide().abs()));
    // For an all-zero row, any scale will do.
    let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    let (codes, bytes) = row.split_at_mut(numbers.len());
    for (code, x) in codes.iter_mut().zip(numbers) {
        *code = (x.wide() / scale).round_ties_even() as i8;
    }
    for (byte, of_scale) in bytes.iter_mut().zip(scale.to_le_bytes()) {
        *byte = of_scale as i8;
    }
}

/// Quantizes `matrix [out, in]`, contiguous, f32 or bf16, to 8 bits: i8 `[out, in + 4]`.
pub fn to_int8(matrix: &Tensor) -> Tensor {
    let (out, width) = (matrix.size()[0], matrix.size()[1] as usize);
    let mut packed = Tensor::empty([out, (width + SCALE_BYTES) as i64], (Kind::Int8, Device::Cpu));
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let codes = slices.of_mut(&mut packed);
    match matrix.kind() {
        Kind::BFloat16 => encode_rows(slices.of::<bf16>(matrix), width, codes),
        _ => encode_rows(slices.of::<f32>(matrix), width, codes),
    }
    packed
}

fn encode_rows<T: Scalar>(matrix: &[T], width: usize, packed: &mut [i8]) {
    let rows = Rows::new(matrix.len() / width, width);
    let tasks = rows.cut(matrix, width).zip(rows.cut_mut(packed, width + SCALE_BYTES)).collect();
    parallel_each(tasks, |(matrix, packed)| {
        for (numbers, row) in matrix.chunks_exact(width).zip(packed.chunks_exact_mut(width + SCALE_BYTES)) {
            encode(numbers, row);
        }
    });
}

/// Dequantizes `matrix` (i8 `[out, in + 4]`, contiguous): f32 `[out, in]`.
pub fn from_int8(matrix: &Tensor) -> Tensor {
    let (out, bytes_of_row) = (matrix.size()[0], matrix.size()[1] as usize);
    let width = bytes_of_row - SCALE_BYTES;
    let mut wide = Tensor::empty([out, width as i64], (Kind::Float, Device::Cpu));
    let rows = Rows::new(out as usize, width);
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let tasks = rows.cut(slices.of::<i8>(matrix), bytes_of_row);
    let tasks = tasks.zip(rows.cut_mut(slices.of_mut::<f32>(&mut wide), width)).collect();
    parallel_each(tasks, |(matrix, wide)| {
        for (row, wide) in matrix.chunks_exact(bytes_of_row).zip(wide.chunks_exact_mut(width)) {
            decode(row, wide);
        }
    });
    wide
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn decode(row: &[i8], wide: &mut [f32]) {
    let (codes, scale) = row.split_at(wide.len());
    let scale = scale_of(scale);
    for (wide, code) in wide.iter_mut().zip(codes) {
        *wide = f32::from(*code) * scale;
    }
}
