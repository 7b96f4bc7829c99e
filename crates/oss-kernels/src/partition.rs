//! Splits tensors of rows into one part per thread.

use std::ops::Range;

use oss_torch::shares;

/// Elements that justify another thread.
const MIN_ELEMENTS: usize = 1 << 14;

/// Number of parallel accumulators, which fixes the order of summation independently of the instruction set.
pub const LANES: usize = 16;

/// Rows split into one range per thread.
#[derive(Debug)]
pub struct Rows {
    shares: Vec<Range<usize>>,
}

impl Rows {
    /// Splits `rows` rows of `width` elements.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { shares: shares(rows, MIN_ELEMENTS.div_ceil(width.max(1))) }
    }

    /// Number of parts.
    pub fn parts(&self) -> usize {
        self.shares.len()
    }

    /// The rows of each part.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.shares.iter().cloned()
    }

    /// Splits a slice with `width` elements per row.
    pub fn cut<'a, T>(&self, slice: &'a [T], width: usize) -> impl Iterator<Item = &'a [T]> {
        self.shares.iter().map(move |share| &slice[share.start * width..share.end * width])
    }

    /// Splits a mutable slice with `width` elements per row.
    pub fn cut_mut<'a, T>(&self, slice: &'a mut [T], width: usize) -> impl Iterator<Item = &'a mut [T]> {
        let mut rest = slice;
        self.shares.iter().map(move |share| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(share.len() * width);
            rest = after;
            part
        })
    }
}

/// Sums `term` over the indices `0..len`.
#[inline(always)]
pub fn sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(start + lane);
        }
    }
    for index in whole..len {
        lanes[index - whole] += term(index);
    }
    total(lanes)
}

/// Sums the lanes pairwise by halves: added one by one, each addition would wait for the previous one.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut len = LANES / 2;
    while len > 0 {
        for lane in 0..len {
            lanes[lane] += lanes[lane + len];
        }
        len /= 2;
    }
    lanes[0]
}
