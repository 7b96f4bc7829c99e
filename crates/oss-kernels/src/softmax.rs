//! Softmax of columns that arrive one tile of rows at a time (online softmax, arXiv:1805.02867).

use multiversion::multiversion;
use tch::Tensor;

use super::Scalar;
use super::exp::exp;
use super::partition::Rows;
use oss_torch::{Slices, parallel_each};

/// Running maximum and sum of exponentials of each column.
#[derive(Debug)]
pub struct OnlineSoftmax {
    max: Vec<f32>,
    /// Sum of the exponentials, relative to `max`.
    sum: Vec<f64>,
}

impl OnlineSoftmax {
    /// The state of `columns` columns before any rows.
    pub fn new(columns: usize) -> Self {
        Self { max: vec![f32::NEG_INFINITY; columns], sum: vec![0.0; columns] }
    }

    /// The running maximum of each column, to which the results of [`Self::exponentiate`] are relative.
    pub fn max(&self) -> &[f32] {
        &self.max
    }

    /// The sum of each column's exponentials, relative to [`Self::max`].
    pub fn sum(&self) -> &[f64] {
        &self.sum
    }

    /// The log-sum-exp of each column.
    pub fn log_sum(&self) -> impl Iterator<Item = f64> {
        self.max.iter().zip(&self.sum).map(|(&max, sum)| f64::from(max) + sum.ln())
    }

    /// Adds a tile of rows, `logits [rows, columns]` (f32): stores `exp(x - max)` in `exponentials` for each element
    /// `x`, where `max` is the column's maximum including these rows. The elements `left_out` (row and column) are
    /// stored as 0 but still count in the sums.
    ///
    /// Returns one factor per column, by which results of earlier tiles must be multiplied to be relative to the new
    /// maximum, and the logits left out.
    ///
    /// # Panics
    /// Panics if the two tensors share memory.
    pub fn exponentiate<T: Scalar>(
        &mut self,
        logits: &Tensor,
        exponentials: &mut Tensor,
        left_out: &[(usize, usize)],
    ) -> (Vec<f32>, Vec<f32>) {
        // SAFETY: nothing else accesses the tensors until the loops are over.
        let slices = unsafe { Slices::new() };
        let (logits, exponentials) = (slices.of::<f32>(logits), slices.of_mut::<T>(exponentials));
        let factors = self.add_rows(logits, exponentials);
        let places = left_out.iter().map(|(row, column)| row * self.max.len() + column);
        let logits = places.map(|place| {
            exponentials[place] = T::narrow(0.0);
            logits[place]
        });
        (factors, logits.collect())
    }

    fn add_rows<T: Scalar>(&mut self, logits: &[f32], exponentials: &mut [T]) -> Vec<f32> {
        let columns = self.max.len();
        let rows = Rows::new(logits.len() / columns, columns);
        let mut maxima = vec![self.max.clone(); rows.parts()];
        parallel_each(rows.cut(logits, columns).zip(&mut maxima).collect(), |(rows, max)| raise(rows, max));
        let max = maxima.into_iter().reduce(|mut all, more| {
            raise(&more, &mut all);
            all
        });
        let max = max.unwrap_or_else(|| self.max.clone());

        let mut sums = vec![vec![0.0; columns]; rows.parts()];
        let parts = rows.cut(logits, columns).zip(rows.cut_mut(exponentials, columns));
        parallel_each(parts.zip(&mut sums).collect(), |((rows, out), sum)| {
            exponentiate(rows, &max, sum, out)
        });

        let factors: Vec<f32> = self.max.iter().zip(&max).map(|(&old, &new)| factor(old, new)).collect();
        for (column, total) in self.sum.iter_mut().enumerate() {
            let added: f64 = sums.iter().map(|sum| f64::from(sum[column])).sum();
            *total = *total * f64::from(factors[column]) + added;
        }
        self.max = max;
        factors
    }
}

fn factor(old: f32, new: f32) -> f32 {
    // There are no earlier rows, or only infinities that already show in the sums.
    if old == new { 1.0 } else { (old - new).exp() }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn raise(rows: &[f32], max: &mut [f32]) {
    for row in rows.chunks_exact(max.len()) {
        for (max, &x) in max.iter_mut().zip(row) {
            *max = if x > *max { x } else { *max };
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn exponentiate<T: Scalar>(rows: &[f32], max: &[f32], sum: &mut [f32], out: &mut [T]) {
    for (row, out) in rows.chunks_exact(max.len()).zip(out.chunks_exact_mut(max.len())) {
        for (((x, max), sum), out) in row.iter().zip(max).zip(&mut *sum).zip(out) {
            let e = exp(x - max);
            *sum += e;
            *out = T::narrow(e);
        }
    }
}
