//! Products of few rows with columns whose numbers are neighbours, as in decoding: each is read once, at the speed of the memory,
//! where packing them first would take longer than reading them for each row.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_loadu_epi16, _mm512_permutex2var_ps, _mm512_setzero_ps,
};
use std::mem::transmute;

use super::Start;
use super::bf16::{LANES, TABLES, Target, Tile, VECTORS, mask_of};

/// Rows of the left factor that are few.
pub const FEW: usize = 16;

/// Bytes that are fetched before they are read, more than which the processor would not do by itself.
const AHEAD: usize = 8192;

/// Bytes of a vector.
const VECTOR: usize = 64;

/// Rows of the left factor or columns of the right one, a number of bytes apart; elements along K are neighbours.
#[derive(Clone, Copy)]
pub struct Lines {
    pub data: *const u8,
    pub stride: isize,
}

/// `into = start + rows @ columns` on this thread, `[m, n]`, of `m` and `n` lines of `k` elements: bf16, or f32.
///
/// # Safety
/// The lines are there, `into` has this size and overlaps nothing that is read, and [`super::bf16::is_best`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn multiply<const BF16: bool>(
    into: Target,
    (rows, columns): (Lines, Lines),
    (m, n, k): (usize, usize, usize),
    start: Start,
) {
    let bytes = k * if BF16 { 2 } else { 4 };
    let whole = bytes / VECTOR * VECTOR;
    // Halves of elements, so that one mask does for both.
    let rest = mask_of((bytes - whole) / 2);
    for first_column in (0..n).step_by(LANES) {
        let width = LANES.min(n - first_column);
        for row in 0..m {
            let mut sums = [_mm512_setzero_ps(); LANES];
            for (column, sum) in sums.iter_mut().enumerate().take(width) {
                // SAFETY: inside of the lines, as the mask keeps to K; any 64 bytes are a vector of f32 or bf16; what is fetched
                // ahead may lie anywhere.
                unsafe {
                    let left = rows.data.offset(row as isize * rows.stride);
                    let right = columns.data.offset((first_column + column) as isize * columns.stride);
                    for at in (0..whole).step_by(VECTOR) {
                        _mm_prefetch::<_MM_HINT_T0>(right.wrapping_add(at + AHEAD).cast());
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
            // SAFETY: the caller's promise, and the width keeps to the columns.
            unsafe {
                vectors[0][0] = totals(&mut sums);
                Tile { into, start, row, column: first_column, width }.store(&vectors);
            }
        }
    }
}

/// The sum of each vector's lanes: halves onto each other, as in a transposition.
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
