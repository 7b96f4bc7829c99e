//! bf16 matrix products with AVX-512's `vdpbf16ps`, which multiplies adjacent pairs along K and adds them to an f32
//! sum.
//!
//! Blocking follows Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a panel of 64
//! columns of the right factor, packed as pairs along K, stays in cache while the rows of the left factor stream past
//! it, six at a time with their sums in registers.

use std::arch::x86_64::{
    __cpuid_count, __m256bh, __m256i, __m512, __m512bh, __m512i, __mmask16, __mmask32,
    _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16, _mm512_add_ps, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_loadu_si512,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_permutex2var_epi16,
    _mm512_permutex2var_epi32, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_store_si512,
};
use std::cell::RefCell;
use std::mem::transmute;
use std::sync::LazyLock;

use super::product::Start;

/// Lanes per vector: f32 sums, or pairs of bf16.
pub const LANES: usize = 16;

/// Vectors per row whose sums are in registers.
pub const VECTORS: usize = 4;

/// Columns per panel of the right factor.
const COLUMNS: usize = LANES * VECTORS;

/// Rows whose sums are in registers.
const ROWS: usize = 6;

/// Depth of a panel along K when partial sums can be stored in f32 memory; chosen so that it fits in the L1 cache.
const DEPTH: usize = 256;

/// Rows of the left factor that stay in the L2 cache while all columns stream past, in place or packed.
const ROWS_IN_PLACE: usize = 160 * ROWS;
const ROWS_PACKED: usize = 64 * ROWS;

/// Whether this processor has the instruction but no matrix unit (AMX), with which libtorch is faster.
pub fn is_best() -> bool {
    static BEST: LazyLock<bool> = LazyLock::new(|| {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16");
        let amx_bf16 = __cpuid_count(7, 0).edx >> 22 & 1 == 1;
        has && !amx_bf16
    });
    *BEST
}

/// A bf16 matrix in memory; strides are in elements.
#[derive(Clone, Copy)]
pub struct Factor {
    pub data: *const u16,
    pub row_stride: isize,
    pub column_stride: isize,
}

impl Factor {
    pub fn transposed(self) -> Self {
        Self { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    /// # Safety
    /// The element is in the matrix, or one past its end.
    unsafe fn at(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's promise.
        let data = unsafe {
            self.data.offset(row as isize * self.row_stride + column as isize * self.column_stride)
        };
        Self { data, ..self }
    }
}

/// Destination of a product: rows of contiguous elements.
#[derive(Clone, Copy)]
pub enum Target {
    F32 { data: *mut f32, row_stride: isize },
    Bf16 { data: *mut u16, row_stride: isize },
}

/// Buffer for packed factors; its vectors are aligned to cache lines.
#[derive(Default)]
struct Scratch {
    columns: Vec<__m512i>,
    rows: Vec<__m512i>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// `into = start + a @ b` on this thread; the shapes are `[m, n]`, `[m, k]` and `[k, n]`.
///
/// # Safety
/// The matrices have these sizes, `into` overlaps nothing that is read, and [`is_best`] holds.
pub unsafe fn multiply(into: Target, a: Factor, b: Factor, (m, n, k): (usize, usize, usize), start: Start) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promise.
        unsafe { multiply_blocks(into, a, b, (m, n, k), start, scratch) }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn multiply_blocks(
    into: Target,
    a: Factor,
    b: Factor,
    (m, n, k): (usize, usize, usize),
    start: Start,
    scratch: &mut Scratch,
) {
    // With a bf16 result there is no place for partial sums.
    let depth = if matches!(into, Target::F32 { .. }) { DEPTH } else { k.max(1) };
    // Pairs of the left factor can be read in place if elements adjacent along K are adjacent in memory.
    let in_place = a.column_stride == 1 && k.is_multiple_of(2);
    let most_rows = if in_place { ROWS_IN_PLACE } else { ROWS_PACKED };
    let pairs = depth.min(k).div_ceil(2);
    let resize = |vectors: &mut Vec<__m512i>, len: usize| {
        if vectors.len() < len {
            vectors.resize(len, _mm512_setzero_si512());
        }
    };
    resize(&mut scratch.columns, pairs * VECTORS);
    if !in_place {
        resize(&mut scratch.rows, pairs * ROWS_PACKED / LANES);
    }
    let columns = scratch.columns.as_mut_ptr().cast::<u32>();
    let packed_rows = scratch.rows.as_mut_ptr().cast::<u32>();

    for first_k in (0..k.max(1)).step_by(depth) {
        let depth = depth.min(k - first_k);
        let pairs = depth.div_ceil(2);
        let start = if first_k == 0 { start } else { Start::Itself };
        for first_row in (0..m).step_by(most_rows) {
            let rows = most_rows.min(m - first_row);
            // SAFETY: within `a` and `b` by the loops' bounds; the scratch was made long enough above.
            unsafe {
                let left = a.at(first_row, first_k);
                let left = if in_place {
                    Pairs { data: left.data.cast(), row: 2 * left.row_stride, pair: 4 }
                } else {
                    pack(left.transposed(), depth, rows, ROWS_PACKED, packed_rows);
                    Pairs { data: packed_rows.cast(), row: 4, pair: 4 * ROWS_PACKED as isize }
                };
                for first_column in (0..n).step_by(COLUMNS) {
                    let width = COLUMNS.min(n - first_column);
                    pack(b.at(first_k, first_column), depth, width, COLUMNS, columns);
                    let mut row = 0;
                    while row < rows {
                        let count = ROWS.min(rows - row);
                        let left = Pairs { data: left.data.offset(row as isize * left.row), ..left };
                        let tile = Tile { into, start, row: first_row + row, column: first_column, width };
                        match count {
                            6 => tile.store(&sums::<6>(left, columns, pairs)),
                            5 => tile.store(&sums::<5>(left, columns, pairs)),
                            4 => tile.store(&sums::<4>(left, columns, pairs)),
                            3 => tile.store(&sums::<3>(left, columns, pairs)),
                            2 => tile.store(&sums::<2>(left, columns, pairs)),
                            _ => tile.store(&sums::<1>(left, columns, pairs)),
                        }
                        row += count;
                    }
                }
            }
        }
    }
}

/// Pairs along K of the left factor: byte strides between rows and between pairs.
#[derive(Clone, Copy)]
struct Pairs {
    data: *const u8,
    row: isize,
    pair: isize,
}

/// Multiplies `R` rows by a panel of columns.
///
/// # Safety
/// `left` has `R` rows of `pairs` pairs, and `columns` has as many lines of [`COLUMNS`].
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn sums<const R: usize>(left: Pairs, columns: *const u32, pairs: usize) -> [[__m512; VECTORS]; R] {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for pair in 0..pairs {
        // SAFETY: the caller's promise; any 64 bytes are a valid vector of bf16.
        unsafe {
            let columns = columns.add(pair * COLUMNS);
            let mut right: [__m512bh; VECTORS] =
                [transmute::<__m512i, __m512bh>(_mm512_setzero_si512()); VECTORS];
            for (vector, right) in right.iter_mut().enumerate() {
                *right =
                    transmute::<__m512i, __m512bh>(_mm512_load_si512(columns.add(vector * LANES).cast()));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let place = left.data.offset(row as isize * left.row + pair as isize * left.pair);
                let left = _mm512_set1_epi32(place.cast::<i32>().read_unaligned());
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm512_dpbf16_ps(*sum, transmute::<__m512i, __m512bh>(left), right);
                }
            }
        }
    }
    sums
}

/// A tile of the product, at most as wide as a panel.
pub struct Tile {
    pub into: Target,
    pub start: Start,
    pub row: usize,
    pub column: usize,
    pub width: usize,
}

impl Tile {
    /// # Safety
    /// The tile is within the product, and the addend has its size.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[inline]
    pub unsafe fn store<const R: usize>(&self, sums: &[[__m512; VECTORS]; R]) {
        for (row, sums) in sums.iter().enumerate() {
            let row = self.row + row;
            for (vector, &sum) in sums.iter().enumerate() {
                let Some(left @ 1..) = self.width.checked_sub(vector * LANES) else { continue };
                let mask = (u32::MAX >> (32 - left.min(LANES) as u32)) as __mmask16;
                let column = self.column + vector * LANES;
                // SAFETY: the caller's promise; the mask stays within the width.
                unsafe {
                    match self.into {
                        Target::F32 { data, row_stride } => {
                            let place = data.offset(row as isize * row_stride + column as isize);
                            let start = self.start(row, column, mask, || _mm512_maskz_loadu_ps(mask, place));
                            _mm512_mask_storeu_ps(place, mask, _mm512_add_ps(sum, start));
                        }
                        Target::Bf16 { data, row_stride } => {
                            let place =
                                data.offset(row as isize * row_stride + column as isize).cast::<i16>();
                            let there = || {
                                let narrow = _mm256_maskz_loadu_epi16(mask, place);
                                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow)))
                            };
                            let sum = _mm512_add_ps(sum, self.start(row, column, mask, there));
                            _mm256_mask_storeu_epi16(
                                place,
                                mask,
                                transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(sum)),
                            );
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`Self::store`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[inline]
    unsafe fn start(
        &self,
        row: usize,
        column: usize,
        mask: __mmask16,
        there: impl FnOnce() -> __m512,
    ) -> __m512 {
        match self.start {
            Start::Zero => _mm512_setzero_ps(),
            Start::Itself => there(),
            // SAFETY: the caller's promise.
            Start::Row(numbers) => unsafe { _mm512_maskz_loadu_ps(mask, numbers.add(column)) },
            // SAFETY: the caller's promise.
            Start::Column(numbers) => unsafe {
                _mm512_castsi512_ps(_mm512_set1_epi32(numbers.add(row).cast::<i32>().read_unaligned()))
            },
        }
    }
}

/// Packs `[depth, width]` of a matrix: for every two rows, their pairs in column order, zero-padded to a whole vector,
/// with a stride of `stride` pairs.
///
/// # Safety
/// The matrix has this size; `packed` has `stride` pairs for every two rows and is aligned to a cache line.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack(matrix: Factor, depth: usize, width: usize, stride: usize, packed: *mut u32) {
    // SAFETY: the caller's promise.
    unsafe {
        match matrix {
            Factor { column_stride: 1, .. } => pack_rows(matrix, depth, width, stride, packed),
            Factor { row_stride: 1, .. } => pack_columns(matrix, depth, width, stride, packed),
            _ => pack_any(matrix, depth, width, stride, packed),
        }
    }
}

/// [`pack`] for matrices whose rows are contiguous.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_rows(matrix: Factor, depth: usize, width: usize, stride: usize, packed: *mut u32) {
    const FIRST: [u16; 32] = interleaved(0);
    const SECOND: [u16; 32] = interleaved(16);
    // SAFETY: the tables are 64 bytes; masks stay within the matrix, and `packed` holds whole vectors.
    unsafe {
        let (first, second) =
            (_mm512_loadu_si512(FIRST.as_ptr().cast()), _mm512_loadu_si512(SECOND.as_ptr().cast()));
        for pair in 0..depth.div_ceil(2) {
            for column in (0..width).step_by(2 * LANES) {
                let mask = mask_of(width - column);
                let above = _mm512_maskz_loadu_epi16(mask, matrix.at(2 * pair, column).data.cast());
                let below = match 2 * pair + 1 < depth {
                    true => _mm512_maskz_loadu_epi16(mask, matrix.at(2 * pair + 1, column).data.cast()),
                    false => _mm512_setzero_si512(),
                };
                let place = packed.add(pair * stride + column);
                _mm512_store_si512(place.cast(), _mm512_permutex2var_epi16(above, first, below));
                _mm512_store_si512(place.add(LANES).cast(), _mm512_permutex2var_epi16(above, second, below));
            }
        }
    }
}

/// Indices that interleave 16 elements of two vectors, beginning with element `start`.
const fn interleaved(start: u16) -> [u16; 32] {
    let mut indices = [0; 32];
    let mut i = 0;
    while i < 16 {
        indices[2 * i as usize] = start + i;
        indices[2 * i as usize + 1] = 32 + start + i;
        i += 1;
    }
    indices
}

/// [`pack`] for matrices whose columns are contiguous: pairs are already adjacent, so 16 x 16 tiles of them are
/// transposed.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_columns(matrix: Factor, depth: usize, width: usize, stride: usize, packed: *mut u32) {
    for row in (0..depth).step_by(2 * LANES) {
        let mask = mask_of(depth - row);
        for column in (0..width.next_multiple_of(2 * LANES)).step_by(LANES) {
            // SAFETY: masks stay within the matrix, and columns after the last are not read; `packed` holds whole
            // vectors.
            unsafe {
                let mut block = [_mm512_setzero_si512(); LANES];
                for (i, vector) in block.iter_mut().enumerate().take(width.saturating_sub(column)) {
                    *vector = _mm512_maskz_loadu_epi16(mask, matrix.at(row, column + i).data.cast());
                }
                transpose(&mut block);
                for (i, vector) in block.iter().enumerate().take((depth - row).div_ceil(2)) {
                    _mm512_store_si512(packed.add((row / 2 + i) * stride + column).cast(), *vector);
                }
            }
        }
    }
}

/// Sizes of the blocks that are swapped: 1, 2, 4 and 8.
pub const TABLES: [[[u32; LANES]; 2]; 4] = [swaps(1), swaps(2), swaps(4), swaps(8)];

/// Transposes 16 x 16 elements of 32 bits in four rounds, which swap blocks of 1, 2, 4 and 8 across the diagonal.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transpose(block: &mut [__m512i; LANES]) {
    for (round, [upper, lower]) in TABLES.iter().enumerate() {
        let size = 1 << round;
        // SAFETY: a table is 64 bytes.
        let (upper, lower) =
            unsafe { (_mm512_loadu_si512(upper.as_ptr().cast()), _mm512_loadu_si512(lower.as_ptr().cast())) };
        for i in (0..LANES).filter(|i| i & size == 0) {
            let (above, below) = (block[i], block[i + size]);
            block[i] = _mm512_permutex2var_epi32(above, upper, below);
            block[i + size] = _mm512_permutex2var_epi32(above, lower, below);
        }
    }
}

/// Indices into two rows `size` apart that exchange the right-hand blocks of the upper one with the left-hand blocks of
/// the lower one.
const fn swaps(size: usize) -> [[u32; LANES]; 2] {
    let mut tables = [[0; LANES]; 2];
    let mut i = 0;
    while i < LANES {
        let is_right = i & size != 0;
        tables[0][i] = if is_right { LANES + i - size } else { i } as u32;
        tables[1][i] = if is_right { LANES + i } else { i + size } as u32;
        i += 1;
    }
    tables
}

/// [`pack`] for arbitrary strides.
unsafe fn pack_any(matrix: Factor, depth: usize, width: usize, stride: usize, packed: *mut u32) {
    for pair in 0..depth.div_ceil(2) {
        for column in 0..width.next_multiple_of(2 * LANES) {
            let at = |row: usize| match row < depth && column < width {
                // SAFETY: within the matrix.
                true => u32::from(unsafe { *matrix.at(row, column).data }),
                false => 0,
            };
            // SAFETY: `packed` holds whole vectors.
            unsafe { *packed.add(pair * stride + column) = at(2 * pair) | at(2 * pair + 1) << 16 };
        }
    }
}

/// A mask of the first `len` of 32 lanes.
pub fn mask_of(len: usize) -> __mmask32 {
    u32::MAX.checked_shr(32 - len.min(32) as u32).unwrap_or(0)
}
