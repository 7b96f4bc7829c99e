//! Products of a few rows with a matrix, as in decoding: each element of the matrix is read once, at memory bandwidth.
//! Packing it first would take longer than reading it once per row.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _MM_HINT_T0, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm_prefetch,
    _mm256_maskz_loadu_epi16, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32,
};
use std::mem::transmute;

use super::bf16::{LANES, TABLES, Target, Tile, VECTORS, mask_of};
use super::matrix::Matrix;
use super::product::Start;

/// Most rows of the left factor for [`dots`], and for [`mixtures`], which becomes compute-bound sooner.
const FEW_DOTS: usize = 16;
const FEW_MIXTURES: usize = 4;

/// Prefetch distance in bytes, further than the hardware prefetcher goes.
const PREFETCH_DISTANCE: usize = 8192;

/// The same for int8 codes, which are fewer bytes for as much arithmetic.
const AHEAD_OF_CODES: usize = 4096;

/// Prefetch distance in rows of the right factor, for when the next row is not the next in memory.
const ROWS_AHEAD: usize = 16;

/// Tiles per row whose sums are in registers.
const TILES: usize = 2;

/// Bytes per vector.
const VECTOR: usize = 64;

/// Kernel for products of a few rows.
pub enum FewRowsKernel {
    /// Uses [`dots`].
    Dots,
    /// Uses [`mixtures`].
    Mixtures,
}

/// The kernel that is faster than packing, if any, for this many contiguous rows.
pub fn kernel_for(rows: usize, matrix: Matrix) -> Option<FewRowsKernel> {
    match matrix.strides {
        [1, _] if rows <= FEW_DOTS => Some(FewRowsKernel::Dots),
        [_, 1] if rows <= FEW_MIXTURES => Some(FewRowsKernel::Mixtures),
        _ => None,
    }
}

/// Rows or columns of a factor at a fixed byte stride; each is contiguous.
#[derive(Clone, Copy)]
pub struct Lines {
    pub data: *const u8,
    pub stride: isize,
}

/// `into = start + rows @ columns` on this thread, `[m, n]`, from `m` rows and `n` columns of `k` elements, bf16 or
/// f32. Each element of the product is the dot product of a row and a column.
///
/// # Safety
/// The rows and columns exist, `into` has this size and overlaps nothing that is read, and [`super::bf16::is_best`]
/// holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn dots<const BF16: bool>(
    into: Target,
    (rows, columns): (Lines, Lines),
    (m, n, k): (usize, usize, usize),
    start: Start,
) {
    let bytes = k * if BF16 { 2 } else { 4 };
    let whole = bytes / VECTOR * VECTOR;
    // Counts half elements, so that one mask serves both kinds.
    let rest = mask_of((bytes - whole) / 2);
    for first_column in (0..n).step_by(LANES) {
        let width = LANES.min(n - first_column);
        for row in 0..m {
            let mut sums = [_mm512_setzero_ps(); LANES];
            for (column, sum) in sums.iter_mut().enumerate().take(width) {
                // SAFETY: within the rows and columns, as the mask stays within K; any 64 bytes are a vector of f32 or
                // bf16; a prefetched address may be anywhere.
                unsafe {
                    let left = rows.data.offset(row as isize * rows.stride);
                    let right = columns.data.offset((first_column + column) as isize * columns.stride);
                    for at in (0..whole).step_by(VECTOR) {
                        _mm_prefetch::<_MM_HINT_T0>(right.wrapping_add(at + PREFETCH_DISTANCE).cast());
                        let (left, right) = (left.add(at), right.add(at));
                        *sum = if BF16 {
                            let left = transmute::<__m512i, __m512bh>(_mm512_loadu_si512(left.cast()));
                            let right = transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.cast()));
                            _mm512_dpbf16_ps(*sum, left, right)
                        } else {
                            _mm512_fmadd_ps(_mm512_loadu_ps(left.cast()), _mm512_loadu_ps(right.cast()), *sum)
                        };
                    }
                    if whole < bytes {
                        let left = _mm512_maskz_loadu_epi16(rest, left.add(whole).cast());
                        let right = _mm512_maskz_loadu_epi16(rest, right.add(whole).cast());
                        *sum = if BF16 {
                            let left = transmute::<__m512i, __m512bh>(left);
                            _mm512_dpbf16_ps(*sum, left, transmute::<__m512i, __m512bh>(right))
                        } else {
                            let left = transmute::<__m512i, __m512>(left);
                            _mm512_fmadd_ps(left, transmute::<__m512i, __m512>(right), *sum)
                        };
                    }
                }
            }
            let mut vectors = [[_mm512_setzero_ps(); VECTORS]];
            // SAFETY: the caller's promise, and the width stays within the columns.
            unsafe {
                vectors[0][0] = totals(&mut sums);
                Tile { into, start, row, column: first_column, width }.store(&vectors);
            }
        }
    }
}

/// Like [`dots`], for f32 rows and int8 columns: `k` codes followed by their f32 scale.
///
/// # Safety
/// As for [`dots`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn int8_dots(
    into: Target,
    (rows, columns): (Lines, Lines),
    (m, n, k): (usize, usize, usize),
    start: Start,
) {
    let whole = k / LANES * LANES;
    let rest = mask_of(k - whole) as __mmask16;
    for first_column in (0..n).step_by(LANES) {
        let width = LANES.min(n - first_column);
        let mut scales = [0f32; LANES];
        for row in 0..m {
            let mut sums = [_mm512_setzero_ps(); LANES];
            for (column, sum) in sums.iter_mut().enumerate().take(width) {
                // SAFETY: within the rows and columns, as the mask stays within K; a prefetched address may be
                // anywhere.
                unsafe {
                    let left = rows.data.offset(row as isize * rows.stride).cast::<f32>();
                    let right = columns.data.offset((first_column + column) as isize * columns.stride);
                    scales[column] = right.add(k).cast::<f32>().read_unaligned();
                    for at in (0..whole).step_by(LANES) {
                        if at.is_multiple_of(VECTOR) {
                            _mm_prefetch::<_MM_HINT_T0>(right.wrapping_add(at + AHEAD_OF_CODES).cast());
                        }
                        let codes = _mm512_cvtepi8_epi32(_mm_loadu_si128(right.add(at).cast()));
                        *sum =
                            _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), _mm512_loadu_ps(left.add(at)), *sum);
                    }
                    if whole < k {
                        let codes = _mm_maskz_loadu_epi8(rest, right.add(whole).cast());
                        let numbers = _mm512_maskz_loadu_ps(rest, left.add(whole));
                        *sum =
                            _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)), numbers, *sum);
                    }
                }
            }
            let mut vectors = [[_mm512_setzero_ps(); VECTORS]];
            // SAFETY: the caller's promise, and the width stays within the columns; an array is 64 bytes.
            unsafe {
                vectors[0][0] = _mm512_mul_ps(totals(&mut sums), _mm512_loadu_ps(scales.as_ptr()));
                Tile { into, start, row, column: first_column, width }.store(&vectors);
            }
        }
    }
}

/// `into = start + a @ b` on this thread, `[m, n]`, from `m` rows of `k` elements and `k` rows of `n`, bf16 or f32.
/// Each row of the product is a linear combination of the rows of `b`.
///
/// # Safety
/// As for [`dots`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn mixtures<const BF16: bool>(
    into: Target,
    (a, b): (Lines, Lines),
    (m, n, k): (usize, usize, usize),
    start: Start,
) {
    const COLUMNS: usize = TILES * VECTORS * LANES;
    let bytes = if BF16 { 2 } else { 4 };
    for first_column in (0..n).step_by(COLUMNS) {
        let width = COLUMNS.min(n - first_column);
        let masks: [__mmask16; TILES * VECTORS] =
            std::array::from_fn(|vector| match width.saturating_sub(vector * LANES) {
                0 => 0,
                left => mask_of(left.min(LANES)) as __mmask16,
            });
        for row in 0..m {
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; TILES];
            for at in 0..k {
                // SAFETY: within the rows, as the masks stay within N; a prefetched address may be anywhere.
                unsafe {
                    let x = a.data.offset(row as isize * a.stride).add(at * bytes);
                    let x = if BF16 {
                        f32::from_bits(u32::from(x.cast::<u16>().read_unaligned()) << 16)
                    } else {
                        x.cast::<f32>().read_unaligned()
                    };
                    let x = _mm512_set1_ps(x);
                    let right = b.data.offset(at as isize * b.stride).add(first_column * bytes);
                    let ahead = right.wrapping_offset(ROWS_AHEAD as isize * b.stride);
                    for (vector, mask) in masks.into_iter().enumerate() {
                        let place = vector * LANES * bytes;
                        if place.is_multiple_of(VECTOR) {
                            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(place).cast());
                        }
                        let numbers = if BF16 {
                            let narrow = _mm256_maskz_loadu_epi16(mask, right.wrapping_add(place).cast());
                            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow)))
                        } else {
                            _mm512_maskz_loadu_ps(mask, right.wrapping_add(place).cast())
                        };
                        let sum = &mut sums[vector / VECTORS][vector % VECTORS];
                        *sum = _mm512_fmadd_ps(x, numbers, *sum);
                    }
                }
            }
            for (tile, sums) in sums.iter().enumerate() {
                let before = tile * VECTORS * LANES;
                if let Some(width @ 1..) = width.checked_sub(before) {
                    // SAFETY: the caller's promise, and the width stays within the columns.
                    unsafe {
                        Tile { into, start, row, column: first_column + before, width }.store(&[*sums])
                    };
                }
            }
        }
    }
}

/// The horizontal sum of each vector, computed by adding halves as in a transposition.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn totals(vectors: &mut [__m512; LANES]) -> __m512 {
    for (round, [upper, lower]) in TABLES.iter().enumerate().rev() {
        let size = 1 << round;
        // SAFETY: a table is 64 bytes.
        let (upper, lower) =
            unsafe { (_mm512_loadu_si512(upper.as_ptr().cast()), _mm512_loadu_si512(lower.as_ptr().cast())) };
        for i in 0..size {
            let (above, below) = (vectors[i], vectors[i + size]);
            let left = _mm512_permutex2var_ps(above, upper, below);
            vectors[i] = _mm512_add_ps(left, _mm512_permutex2var_ps(above, lower, below));
        }
    }
    vectors[0]
}
